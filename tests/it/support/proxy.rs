//! A proxy in front of Postgres that loses replies on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Forwards connections and, when told to, swallows the next reply on those
/// of one application and cuts them: the statement has happened, nobody heard.
#[derive(Debug, Clone)]
pub struct ReplyThief {
    port: u16,
    to_steal: Arc<AtomicU64>,
    stolen: Arc<AtomicU64>,
}

impl ReplyThief {
    /// Starts a proxy to a port of loopback for sessions of `application`.
    pub async fn start(target_port: u16, application: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let thief = Self { port, to_steal: Arc::default(), stolen: Arc::default() };
        let shared = thief.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let thief = shared.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", target_port)).await {
                        thief.forward(client, server, application).await;
                    }
                });
            }
        });
        thief
    }

    /// Returns the port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Swallows the next reply.
    pub fn steal_one(&self) {
        self.to_steal.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns how many replies were swallowed.
    pub fn stolen(&self) -> u64 {
        self.stolen.load(Ordering::SeqCst)
    }

    async fn forward(&self, mut client: TcpStream, mut server: TcpStream, application: &str) {
        let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut is_victim = false;
        loop {
            tokio::select! {
                read = client.read(&mut asked) => {
                    let Ok(length @ 1..) = read else { return };
                    let said = &asked[..length];
                    is_victim |= said.windows(application.len()).any(|part| part == application.as_bytes());
                    if server.write_all(said).await.is_err() {
                        return;
                    }
                }
                read = server.read(&mut answered) => {
                    let Ok(length @ 1..) = read else { return };
                    let take = |left: u64| left.checked_sub(1);
                    if is_victim && self.to_steal.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
                        self.stolen.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    if client.write_all(&answered[..length]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
