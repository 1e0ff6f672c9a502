//! One attempt: a request out, and what came back in a few words.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::http::Extensions;
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::connector::{ConnectError, Connector, Network, Reused};
use crate::domain::TargetPolicy;
use crate::store::clock::now_ms;
use crate::tls;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(15);

/// Idle connections kept for one receiver.
const IDLE_PER_RECEIVER: usize = 8;

/// What is read of an answer's body, so that its connection can be used again.
const BODY_BYTES: usize = 8 << 10;

/// How long that may take.
const BODY_PATIENCE: Duration = Duration::from_millis(500);

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The receiver answered.
    Status {
        /// With this status.
        code: u16,
        /// And asked to be left alone for so long, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// Nothing can be sent to this URL.
    Unusable,
    /// There was no answer within the time for it.
    Late,
    /// There was no answer, for this reason.
    Nothing(&'static str),
}

/// What is said of a name without an address and of one whose addresses are
/// out of bounds. They must look the same in every way: the difference would
/// tell which names the network of this server knows.
const UNREACHABLE_NAME: &str = "the host's name was not found, or leads where it is not allowed to";

type HttpClient = legacy::Client<HttpsConnector<Connector>, Full<Bytes>>;

/// Sends requests over connections that are kept, and over new ones.
struct Client {
    kept: HttpClient,
    /// Keeps none, so that every request has a new one.
    new: HttpClient,
}

/// Sends requests: those for hooks of tasks by one client, those for
/// endpoints of the configuration by another.
pub(super) struct Clients {
    strict: Client,
    trusted: Client,
}

impl Clients {
    pub(super) fn new(network: &Network, policy: Arc<TargetPolicy>) -> Self {
        let tls = tls::client_config()
            .expect("the provider has ciphers for the versions it was built with");
        let client = |policy| {
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_or_http()
                .enable_http1()
                .wrap_connector(Connector::new(network.clone(), policy));
            let build = |idle| {
                legacy::Client::builder(TokioExecutor::new())
                    .pool_timer(TokioTimer::new())
                    .pool_idle_timeout(IDLE)
                    .pool_max_idle_per_host(idle)
                    .build(connector.clone())
            };
            Client { kept: build(IDLE_PER_RECEIVER), new: build(0) }
        };
        Self { strict: client(Some(policy)), trusted: client(None) }
    }

    /// Sends a request and waits up to `patience` for an answer.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        is_trusted: bool,
        patience: Duration,
    ) -> Answer {
        let client = if is_trusted { &self.trusted } else { &self.strict };
        match timeout(patience, client.request(request)).await {
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                // What it says is nobody's business; only the end of it is.
                let _ = timeout(BODY_PATIENCE, skim(body)).await;
                let retry_after_ms = retry_after_ms(&head.headers);
                Answer::Status { code: head.status.as_u16(), retry_after_ms }
            }
            Ok(Err(error)) => judge(&error),
            Err(_) => Answer::Late,
        }
    }
}

impl Client {
    /// Sends a request, once more if the connection was one that the receiver
    /// gave up meanwhile.
    ///
    /// A receiver that closes idle connections does so while a request is on
    /// its way to it now and then, which says nothing of how it is.
    async fn request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        match self.kept.request(request.clone()).await {
            Ok(response) => {
                if let Some(reused) = response.extensions().get::<Reused>() {
                    reused.set();
                }
                Ok(response)
            }
            Err(error) if was_given_up(&error) => self.new.request(request).await,
            Err(error) => Err(error),
        }
    }
}

/// Tells whether a connection that was used before ended without an answer.
fn was_given_up(error: &legacy::Error) -> bool {
    let Some(connection) = error.connect_info() else { return false };
    let mut extensions = Extensions::new();
    connection.get_extras(&mut extensions);
    extensions.get::<Reused>().is_some_and(Reused::get) && is_loss(error)
}

/// Tells whether an error is the end of a connection, not an answer that makes
/// no sense.
fn is_loss(error: &legacy::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if found.downcast_ref::<io::Error>().is_some() {
            return true;
        }
        if let Some(error) = found.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        {
            return true;
        }
        cause = found.source();
    }
    false
}

/// Reads a body to its end, or until it is not worth it.
async fn skim(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > BODY_BYTES {
            return;
        }
    }
}

/// Finds out why there was no answer, in words that name no host.
fn judge(error: &legacy::Error) -> Answer {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(connect) = found.downcast_ref::<ConnectError>() {
            return match connect {
                ConnectError::Forbidden | ConnectError::Unresolved => {
                    Answer::Nothing(UNREACHABLE_NAME)
                }
                ConnectError::Refused => Answer::Nothing("the connection was refused"),
                ConnectError::Unreachable => Answer::Nothing("the connection failed"),
            };
        }
        cause = found.source();
    }
    // What is left of connecting is the handshake.
    let problem =
        if error.is_connect() { "the TLS handshake failed" } else { "the connection was lost" };
    Answer::Nothing(problem)
}

/// Returns the pause a receiver asks for: seconds or a date.
fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(u64::try_from(at.as_millis()).ok()?.saturating_sub(now_ms()))
}
