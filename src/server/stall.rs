//! Cutting off clients that accept nothing.
//!
//! A response body is not polled while its socket is full, so it cannot keep
//! time itself. The socket can: a write that waits starts a clock, any
//! progress stops it, and when it runs out the write fails.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::http::Stalled;

/// A socket that gives up on a client without progress.
pub(super) struct StallGuard {
    stream: TcpStream,
    timeout: Duration,
    /// Runs while a write waits.
    clock: Option<Pin<Box<Sleep>>>,
    /// Tells the streams of the connection why they end.
    stalled: Stalled,
}

impl StallGuard {
    pub(super) fn new(stream: TcpStream, timeout: Duration, stalled: Stalled) -> Self {
        Self { stream, timeout, clock: None, stalled }
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
        Pin::new(&mut self.stream).poll_read(context, buffer)
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
