//! A database that is far away: a proxy whose replies arrive later.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::channel;
use tokio::time::{Instant, sleep_until};
use url::Url;

/// Pieces of replies that are under way on one connection.
const PIECES: usize = 1024;

/// The proxy; it ends with the process.
pub(crate) struct Delay {
    url: String,
}

impl Delay {
    /// Starts a proxy in front of the database at `url`.
    pub(crate) async fn start(url: &str, delay: Duration) -> anyhow::Result<Self> {
        let mut url = Url::parse(url)?;
        let host = url.host_str().context("the URL names a host")?.to_owned();
        let target = (host, url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        url.set_port(Some(port)).ok().context("the URL takes a port")?;
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = target.clone();
                tokio::spawn(async move {
                    let server = TcpStream::connect(target).await?;
                    forward(client, server, delay).await
                });
            }
        });
        Ok(Self { url: url.into() })
    }

    /// Returns the URL that leads through the proxy.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

async fn forward(client: TcpStream, server: TcpStream, delay: Duration) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let (sender, mut pieces) = channel::<(Instant, Vec<u8>)>(PIECES);
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if sender.send((Instant::now() + delay, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    });
    while let Some((due, piece)) = pieces.recv().await {
        sleep_until(due).await;
        to_client.write_all(&piece).await?;
    }
    Ok(())
}
