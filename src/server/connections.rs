//! Accepting connections and letting them go.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::idle::IdleConnections;
use super::stall::{HEAD_TIMEOUT, RequestCount, StallGuard};
use crate::http::Stalled;

/// Most bytes buffered for one connection in each direction: a reader that
/// does not keep up shall not pile up memory.
const BUFFER_BYTES: usize = 64 << 10;

/// Pause after the system refused a connection, for instance out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Shortest time between two log lines that say so.
const ACCEPT_WARNING_EVERY: Duration = Duration::from_secs(1);

/// How much longer than the stall timeout a peer may acknowledge nothing.
const VANISHED_AFTER_STALL: Duration = Duration::from_secs(10);

/// How long a kept connection idles until a draining server closes it: who
/// still uses it has sent the next request by then.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// How long the last connections have for their answers.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How long a connection near the limit waits for an idle one to go.
const ROOM_PAUSE: Duration = Duration::from_millis(20);

/// How connections are treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionOptions {
    /// How long a client may accept nothing while there is something to send.
    pub(super) stall_timeout: Duration,
    /// How long a connection is kept between two requests.
    pub(super) keep_alive: Duration,
    /// Most connections at a time.
    pub(super) max_connections: usize,
}

/// Has the kernel give up on a peer that acknowledges nothing for so long.
#[cfg(target_os = "linux")]
fn set_user_timeout(stream: &TcpStream, timeout_ms: u32) -> rustix::io::Result<()> {
    rustix::net::sockopt::set_tcp_user_timeout(stream, timeout_ms)
}

/// Other systems have no such option; the stall timeout is what counts there.
#[cfg(not(target_os = "linux"))]
fn set_user_timeout(_stream: &TcpStream, _timeout_ms: u32) -> std::io::Result<()> {
    Ok(())
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
    idle: IdleConnections,
}

/// Serves until `stop_by` resolves, then lets connections end until the
/// instant it resolved to.
///
/// A kept connection that idles stays open: whoever kept it may be sending
/// the next request, which is answered with `Connection: close`.
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
        idle: IdleConnections::default(),
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
        never = connections.close_idle() => match never {},
    };
    connections.close(listener);
    if ended {
        // One of the last that sends nothing keeps nobody waiting.
        let last = deadline.min(Instant::now() + LAST_ANSWERS);
        let _ = timeout_at(last, connections.open.wait()).await;
        connections.aborting.cancel();
    }
    if !ended {
        let open = connections.open.len();
        tracing::warn!(connections.open = open, "cutting connections still open");
        connections.aborting.cancel();
    }
    connections.open.wait().await;
}

impl Connections {
    /// Closes, while the server drains, connections that idle: those that are
    /// still used get one more answer, with `Connection: close`, first.
    async fn close_idle(&self) -> Infallible {
        loop {
            sleep(DRAIN_IDLE / 4).await;
            self.idle.close_those_idle_for(DRAIN_IDLE);
        }
    }

    /// Closes the socket, after taking every connection that the system has
    /// accepted meanwhile: it would reset them, and a proxy that has sent its
    /// request already does not know whether that was carried out.
    fn close(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, _)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.spawn(stream);
            }
        }
    }

    fn spawn(&self, stream: TcpStream) {
        let connections = self.clone();
        self.open.spawn(async move {
            tokio::select! {
                () = connections.serve(stream) => {}
                () = connections.aborting.cancelled() => {}
            }
        });
    }

    /// Accepts connections, for ever.
    async fn accept(&self, listener: &TcpListener) {
        let mut warned: Option<Instant> = None;
        let mut warn = |error: &dyn std::fmt::Display| {
            let now = Instant::now();
            if warned.is_none_or(|warned| now >= warned + ACCEPT_WARNING_EVERY) {
                warned = Some(now);
                tracing::warn!(%error, "could not accept a connection");
            }
        };
        loop {
            // Some descriptors are left for the database and for webhooks.
            while self.open.len() >= self.options.max_connections {
                warn(&"as many are open as the limit on open files allows");
                self.idle.close_longest();
                sleep(ROOM_PAUSE).await;
            }
            match listener.accept().await {
                Ok((stream, _)) => self.spawn(stream),
                Err(error) => {
                    warn(&error);
                    self.idle.close_longest();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        // Small frames must not wait for each other; without it they only do.
        let _ = stream.set_nodelay(true);
        // A peer that vanished acknowledges nothing: its connection ends. One
        // that is there and takes nothing is the guard's, which comes first.
        let timeout = self.options.stall_timeout + VANISHED_AFTER_STALL;
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let _ = set_user_timeout(&stream, timeout_ms);
        let (stalled, requests) = (Stalled::default(), RequestCount::default());
        let place = self.idle.enter(requests.clone(), stalled.clone());
        let stall_timeout = self.options.stall_timeout;
        let guard = StallGuard::new(stream, stall_timeout, requests.clone(), stalled.clone());
        let io = TokioIo::new(guard);
        let service = service_fn(|mut request: Request<Incoming>| {
            let router = self.router.clone();
            request.extensions_mut().insert(stalled.clone());
            requests.begin();
            place.touch();
            let (requests, ending) = (&requests, &self.ending);
            async move {
                let mut response = match router.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                requests.answer();
                if ending.is_cancelled() {
                    // Said before it is done, so that no request is on its way
                    // to a connection that is gone.
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let is_late = self.ending.is_cancelled();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // It runs while a connection idles, too: the head has a clock of
            // its own in the guard.
            .header_read_timeout(self.options.keep_alive + HEAD_TIMEOUT)
            .max_buf_size(BUFFER_BYTES)
            .keep_alive(!is_late)
            .serve_connection(io, service);
        tokio::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = place.told_to_close() => {
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
