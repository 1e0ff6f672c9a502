//! Cutting off clients that accept nothing, or that begin a request and do
//! not finish its head.
//!
//! A response body is not polled while its socket is full, so it cannot keep
//! time itself. The socket can: a write that waits starts a clock, any
//! progress stops it, and when it runs out the write fails. In the same way
//! the first byte of a request starts the clock of its head: a connection that
//! idles between two requests has sent none, and may idle for longer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::http::Stalled;

/// How long a client may take to send the head of a request, from its first
/// byte.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The requests of a connection, as far as its socket has to know them.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestCount(Arc<Requests>);

#[derive(Debug, Default)]
struct Requests {
    /// Heads that came in whole.
    begun: AtomicU64,
    /// Those that were answered, or whose answer began.
    answered: AtomicU64,
}

impl RequestCount {
    /// Notes that the head of a request is complete.
    pub(super) fn begin(&self) {
        self.0.begun.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that its answer begins.
    pub(super) fn answer(&self) {
        self.0.answered.fetch_add(1, Ordering::AcqRel);
    }

    fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Says whether every request so far got its answer.
    pub(super) fn is_between(&self) -> bool {
        self.0.answered.load(Ordering::Acquire) == self.begun()
    }
}

/// Runs from the first byte of a head until the head is complete.
struct HeadClock {
    sleep: Pin<Box<Sleep>>,
    /// Heads that were complete when it was started.
    begun: u64,
}

/// A socket that gives up on a client without progress.
pub(super) struct StallGuard {
    stream: TcpStream,
    timeout: Duration,
    requests: RequestCount,
    head: Option<HeadClock>,
    /// Runs while a write waits.
    clock: Option<Pin<Box<Sleep>>>,
    /// Tells the streams of the connection why they end.
    stalled: Stalled,
}

impl StallGuard {
    pub(super) fn new(
        stream: TcpStream,
        timeout: Duration,
        requests: RequestCount,
        stalled: Stalled,
    ) -> Self {
        Self { stream, timeout, requests, head: None, clock: None, stalled }
    }

    /// Keeps the clock of the head by what a read came to.
    fn watch_head(&mut self, is_waiting: bool, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let begun = self.requests.begun();
        if self.head.as_ref().is_some_and(|head| head.begun != begun) {
            self.head = None;
        }
        if is_waiting {
            let Some(head) = &mut self.head else { return Poll::Pending };
            return head.sleep.as_mut().poll(context).map(|()| {
                let late = "the head of a request took too long";
                Err(io::Error::new(io::ErrorKind::TimedOut, late))
            });
        }
        // What comes while a stream is open is read only after it.
        let is_head = self.requests.is_between() && !self.stalled.is_streaming();
        if self.head.is_none() && is_head {
            self.head = Some(HeadClock { sleep: Box::pin(sleep(HEAD_TIMEOUT)), begun });
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps the clock by what a write came to.
    fn watch<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.clock = None;
            return outcome;
        }
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(self.timeout)));
        clock.as_mut().poll(context).map(|()| {
            self.stalled.set();
            let stalled = "the client accepted nothing for too long";
            Err(io::Error::new(io::ErrorKind::TimedOut, stalled))
        })
    }
}

impl AsyncRead for StallGuard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => self.watch_head(false, context),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.watch_head(true, context),
        }
    }
}

impl AsyncWrite for StallGuard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    async fn pair() -> (TcpStream, StallGuard, RequestCount) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = listener.accept().await.unwrap().0;
        let requests = RequestCount::default();
        let wait = Duration::from_mins(1);
        let guard = StallGuard::new(server, wait, requests.clone(), Stalled::default());
        (client, guard, requests)
    }

    #[tokio::test]
    async fn a_head_has_30_seconds_from_its_first_byte_and_an_idle_connection_more() {
        let (mut client, mut guard, requests) = pair().await;
        let mut byte = [0; 1];
        tokio::time::pause();
        assert!(timeout(Duration::from_mins(10), guard.read(&mut byte)).await.is_err());
        client.write_all(b"G").await.unwrap();
        guard.read_exact(&mut byte).await.unwrap();
        let late = timeout(Duration::from_secs(31), guard.read(&mut byte)).await.unwrap();
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // One whose head was complete idles again.
        let (mut client, mut guard, requests_of_second) = pair().await;
        client.write_all(b"G").await.unwrap();
        guard.read_exact(&mut byte).await.unwrap();
        requests_of_second.begin();
        requests_of_second.answer();
        assert!(timeout(Duration::from_mins(10), guard.read(&mut byte)).await.is_err());
        assert!(requests.is_between());
    }
}
