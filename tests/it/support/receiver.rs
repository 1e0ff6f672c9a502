//! A receiver of webhooks that keeps what it got and behaves as it is told.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::until;

/// What a receiver does with a request it has read.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answers with this status.
    Status(u16),
    /// Answers with this status and header.
    With(u16, &'static str, String),
    /// Answers never.
    Hang,
    /// Cuts the connection.
    Reset,
}

/// A request a receiver read.
#[derive(Debug, Clone)]
pub struct Received {
    /// Method and path with query.
    pub line: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// When it came.
    pub at: Instant,
    /// Status it was answered with, 0 when it was not.
    pub answered: u16,
}

impl Received {
    /// Returns a header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Behaviour = dyn Fn(&Received) -> Reply + Send + Sync;

/// A running receiver; it goes with this value.
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Receiver {
    /// Starts a receiver that answers everything with 200.
    pub async fn start() -> Self {
        Self::behaving(|_| Reply::Status(200)).await
    }

    /// Starts a receiver that does what `behaviour` says for each request.
    pub async fn behaving(behaviour: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let kept = received.clone();
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, kept.clone(), behaviour.clone()));
            }
        });
        Self { address, received, accepting }
    }

    /// Returns a URL of the receiver.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what came so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until at least `count` requests came, and returns them.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        until(&format!("{count} requests reach the receiver"), || async {
            Some(self.received()).filter(|received| received.len() >= count)
        })
        .await
    }
}

async fn serve(stream: TcpStream, kept: Arc<Mutex<Vec<Received>>>, behaviour: Arc<Behaviour>) {
    // A second handle, through which the connection can be reset.
    let stream = stream.into_std().unwrap();
    let twin = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
    let stream = TcpStream::from_std(stream).unwrap();
    let service = service_fn(|request: Request<Incoming>| {
        let (kept, behaviour, twin) = (&kept, &behaviour, &twin);
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
            let at = Instant::now();
            let mut received = Received { line, headers: head.headers, body, at, answered: 0 };
            let reply = behaviour(&received);
            if let Reply::Status(status) | Reply::With(status, ..) = &reply {
                received.answered = *status;
            }
            kept.lock().unwrap().push(received);
            let mut response = Response::new(Full::new(Bytes::from_static(b"thanks")));
            match reply {
                Reply::Status(status) => *response.status_mut() = status.try_into().unwrap(),
                Reply::With(status, name, value) => {
                    *response.status_mut() = status.try_into().unwrap();
                    response.headers_mut().insert(name, value.parse().unwrap());
                }
                Reply::Hang => pending().await,
                Reply::Reset => {
                    twin.set_zero_linger().unwrap();
                    return Err(Cut);
                }
            }
            Ok(response)
        }
    });
    // Clients come and go, and the service fails where it shall cut.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Makes hyper end a connection.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;
