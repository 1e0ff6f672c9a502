//! Accepting connections and letting them go.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::stall::StallGuard;
use crate::http::Stalled;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Most bytes buffered for one connection in each direction: a reader that
/// does not keep up shall not pile up memory.
const BUFFER_BYTES: usize = 64 << 10;

/// Pause after the system refused a connection, for instance out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How connections are treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionOptions {
    /// How long a client may accept nothing while there is something to send.
    pub(super) stall_timeout: Duration,
}

/// The connections of a server.
#[derive(Clone)]
struct Connections {
    router: Router,
    options: ConnectionOptions,
    open: TaskTracker,
    /// Cancelled when connections shall end after what they are at.
    ending: CancellationToken,
    /// Cancelled when they shall end now.
    aborting: CancellationToken,
}

/// Serves until `stop_by` resolves, then lets connections end until the
/// instant it resolved to.
///
/// Meanwhile new connections get one answer each, so that those who ask
/// whether the server is ready hear that it is not.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    options: ConnectionOptions,
    stop_by: impl Future<Output = Instant>,
) {
    let connections = Connections {
        router,
        options,
        open: TaskTracker::new(),
        ending: CancellationToken::new(),
        aborting: CancellationToken::new(),
    };
    let deadline = tokio::select! {
        deadline = stop_by => deadline,
        () = connections.accept(&listener) => return,
    };
    connections.ending.cancel();
    connections.open.close();
    let ended = tokio::select! {
        () = connections.open.wait() => true,
        () = sleep_until(deadline) => false,
        () = connections.accept(&listener) => return,
    };
    drop(listener);
    if !ended {
        let open = connections.open.len();
        tracing::warn!(connections.open = open, "cutting connections still open");
        connections.aborting.cancel();
    }
    connections.open.wait().await;
}

impl Connections {
    /// Accepts connections, for ever.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connections = self.clone();
                    self.open.spawn(async move {
                        tokio::select! {
                            () = connections.serve(stream) => {}
                            () = connections.aborting.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        // Small frames must not wait for each other; without it they only do.
        let _ = stream.set_nodelay(true);
        let stalled = Stalled::default();
        let guard = StallGuard::new(stream, self.options.stall_timeout, stalled.clone());
        let io = TokioIo::new(guard);
        let service = service_fn(|mut request: Request<Incoming>| {
            let router = self.router.clone();
            request.extensions_mut().insert(stalled.clone());
            async move {
                match router.oneshot(request).await {
                    Ok(response) => Ok::<_, Infallible>(response),
                    Err(never) => match never {},
                }
            }
        });
        let is_late = self.ending.is_cancelled();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(BUFFER_BYTES)
            .keep_alive(!is_late)
            .serve_connection(io, service);
        tokio::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.ending.cancelled(), if !is_late => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            // Clients come and go; that is not news.
            tracing::trace!(%error, "connection ended");
        }
    }
}
