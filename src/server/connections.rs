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
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::stall::StallGuard;

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

/// Serves until `stop_by` resolves, then lets connections end until the
/// instant it resolved to.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    options: ConnectionOptions,
    stop_by: impl Future<Output = Instant>,
) {
    let connections = TaskTracker::new();
    let ending = CancellationToken::new();
    let aborting = CancellationToken::new();
    tokio::pin!(stop_by);
    let deadline = loop {
        tokio::select! {
            deadline = &mut stop_by => break deadline,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = serve_connection(
                        stream, router.clone(), options, ending.clone(),
                    );
                    let aborting = aborting.clone();
                    connections.spawn(async move {
                        tokio::select! {
                            () = connection => {}
                            () = aborting.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    };
    drop(listener);
    ending.cancel();
    connections.close();
    if timeout_at(deadline, connections.wait()).await.is_err() {
        tracing::warn!(connections.open = connections.len(), "cutting connections still open");
        aborting.cancel();
        connections.wait().await;
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    options: ConnectionOptions,
    ending: CancellationToken,
) {
    // Small frames must not wait for each other; without it they only do.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(StallGuard::new(stream, options.stall_timeout));
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            match router.oneshot(request).await {
                Ok(response) => Ok::<_, Infallible>(response),
                Err(never) => match never {},
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        // Clients come and go; that is not news.
        tracing::trace!(%error, "connection ended");
    }
}
