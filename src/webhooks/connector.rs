//! Connections to receivers, by addresses that were looked at first.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::resolver::SystemResolver;
use crate::domain::TargetPolicy;

/// Finds the addresses of a name.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// Returns the addresses of a host.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// Opens connections.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Connects to an address.
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// How names are resolved and addresses dialled.
#[derive(Clone)]
pub struct Network {
    /// Resolves names.
    pub resolver: Arc<dyn Resolve>,
    /// Dials addresses.
    pub dialler: Arc<dyn Dial>,
}

impl Default for Network {
    /// Returns the system's own.
    fn default() -> Self {
        Self { resolver: Arc::new(SystemResolver::new()), dialler: Arc::new(System) }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

/// Dials as the system does.
struct System;

#[async_trait]
impl Dial for System {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        // A request goes out in one piece; waiting for more only delays it.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Tells whether a connection has carried an answer before.
#[derive(Debug, Clone, Default)]
pub(super) struct Reused(Arc<AtomicBool>);

impl Reused {
    /// Notes that the connection carried an answer.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that knows whether it is used again.
pub(super) struct Stream {
    io: TokioIo<TcpStream>,
    reused: Reused,
}

impl Stream {
    fn new(stream: TcpStream) -> Self {
        Self { io: TokioIo::new(stream), reused: Reused::default() }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.inner().connected().extra(self.reused.clone())
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The name has no address.
    #[error("the host's name could not be resolved")]
    Unresolved,
    /// An address is out of bounds.
    #[error("the target is not allowed")]
    Forbidden,
    /// The receiver does not take connections.
    #[error("the connection was refused")]
    Refused,
    /// Nothing answered.
    #[error("the connection failed")]
    Unreachable,
}

/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;

/// How long an address may take when there is another one to try.
const DIAL_PATIENCE: Duration = Duration::from_secs(2);

/// Connects to the host of a URL.
#[derive(Clone)]
pub(super) struct Connector {
    network: Network,
    /// Judges addresses; `None` lets every one through.
    policy: Option<Arc<TargetPolicy>>,
}

impl Connector {
    pub(super) fn new(network: Network, policy: Option<Arc<TargetPolicy>>) -> Self {
        Self { network, policy }
    }

    async fn connect(self, uri: Uri) -> Result<Stream, ConnectError> {
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = uri.host().ok_or(ConnectError::Unresolved)?;
        let addresses = self.addresses(host).await?;
        let mut failure = ConnectError::Unresolved;
        let last = addresses.len().saturating_sub(1);
        for (position, address) in addresses.into_iter().enumerate() {
            let dial = self.network.dialler.dial(SocketAddr::new(address, port));
            // The attempt as a whole has a limit already.
            let patience = if position == last { Duration::MAX } else { DIAL_PATIENCE };
            match timeout(patience, dial).await {
                Ok(Ok(stream)) => return Ok(Stream::new(stream)),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    failure = ConnectError::Refused;
                }
                Ok(Err(_)) | Err(_) => failure = ConnectError::Unreachable,
            }
        }
        Err(failure)
    }

    /// Returns the addresses of a host, each of them let through.
    ///
    /// One that is out of bounds rules out all: whoever mixes them is up to
    /// something, or will move there next.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ConnectError> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let found = if let Ok(address) = literal.parse::<IpAddr>() {
            vec![address]
        } else {
            let resolved = self.network.resolver.resolve(host).await;
            resolved.map_err(|_| ConnectError::Unresolved)?
        };
        if let Some(policy) = &self.policy
            && !found.iter().all(|address| policy.admits(host, *address))
        {
            return Err(ConnectError::Forbidden);
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.into_iter().map(|address| address.to_canonical()) {
            if addresses.len() < MOST_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}
