//! Connections for requests: one request at a time, prepared bytes out, an
//! answer parsed where it lies.
//!
//! A client library would do all of this and more for several times the
//! processor time; a measurement shares its processors with what it measures.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::chunked::{Dechunker, Framing, Malformed};
use super::endpoint::Endpoint;
use super::report::FaultKind;

/// What the buffer for answers holds at first; it grows as answers ask for it.
const BUFFER_BYTES: usize = 16 << 10;

/// Most headers an answer may have.
const HEADERS: usize = 64;

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoReply {
    /// Nothing came in time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The connection could not be opened or broke.
    #[error("the connection failed: {0}")]
    Broken(#[from] io::Error),
    /// What came is no answer.
    #[error("an answer cannot be read: {0}")]
    Malformed(#[from] Malformed),
}

impl NoReply {
    /// Returns what kind of fault it is.
    pub(super) fn kind(&self) -> FaultKind {
        match self {
            Self::TimedOut(_) | Self::Broken(_) => FaultKind::Unanswered,
            Self::Malformed(_) => FaultKind::Malformed,
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

impl Reply<'_> {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the beginning of the body as text.
    pub(super) fn excerpt(&self) -> String {
        excerpt(self.body)
    }
}

/// Returns the beginning of a body as text.
pub(super) fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned()
}

/// The head of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) framing: Framing,
    /// Where the body begins.
    pub(super) length: usize,
    /// Whether the connection ends with the answer.
    is_last: bool,
}

impl Head {
    /// Reads the head that `input` begins with, if it is all there.
    pub(super) fn parse(input: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(input).map_err(|_| Malformed("this is not HTTP/1.1"))?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        let status = response.code.unwrap_or_default();
        let is_last = response.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("connection")
                && header.value.eq_ignore_ascii_case(b"close")
        });
        let framing = Framing::of(status, response.headers)?;
        Ok(Some(Self { status, framing, length, is_last: is_last || framing == Framing::Close }))
    }
}

/// A connection to a server, reopened when the server closed it.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    stream: Option<TcpStream>,
    input: Vec<u8>,
    filled: usize,
    timeout: Duration,
    began: Instant,
    /// Moved on only when it rings, since a timer costs as much as a request's
    /// other bookkeeping together.
    alarm: Pin<Box<Sleep>>,
}

impl Connection {
    /// Opens a connection whose requests are to be answered within `timeout`.
    pub(super) async fn open(endpoint: &Endpoint, timeout: Duration) -> io::Result<Self> {
        Ok(Self {
            stream: Some(endpoint.dial().await?),
            endpoint: endpoint.clone(),
            input: vec![0; BUFFER_BYTES],
            filled: 0,
            timeout,
            began: Instant::now(),
            alarm: Box::pin(sleep(timeout)),
        })
    }

    /// Sends a request and waits for its answer.
    ///
    /// After an error the connection is gone, and the next request opens another.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<Reply<'_>, NoReply> {
        if self.stream.is_none() {
            self.stream = Some(self.endpoint.dial().await?);
        }
        self.began = Instant::now();
        self.filled = 0;
        let outcome = match self.send(request).await {
            Ok(()) => self.receive().await,
            Err(error) => Err(error),
        };
        let is_last = outcome.as_ref().map_or(true, |(head, _)| head.is_last);
        if is_last {
            self.stream = None;
        }
        let (head, body) = outcome?;
        Ok(Reply { status: head.status, body: &self.input[body] })
    }

    async fn send(&mut self, mut request: &[u8]) -> Result<(), NoReply> {
        while !request.is_empty() {
            let sent = poll_fn(|context| {
                let Some(stream) = &mut self.stream else { return Poll::Ready(Err(gone())) };
                match Pin::new(stream).poll_write(context, request) {
                    Poll::Ready(sent) => Poll::Ready(sent.map_err(NoReply::from)),
                    Poll::Pending => self.poll_alarm(context).map(Err),
                }
            });
            request = &request[sent.await?..];
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<(Head, std::ops::Range<usize>), NoReply> {
        let head = loop {
            if self.fill().await? == 0 {
                return Err(gone());
            }
            match Head::parse(&self.input[..self.filled])? {
                // An interim answer; the one that counts follows.
                Some(head) if head.status < 200 => {
                    self.input.copy_within(head.length..self.filled, 0);
                    self.filled -= head.length;
                    if let Some(head) = Head::parse(&self.input[..self.filled])? {
                        break head;
                    }
                }
                Some(head) => break head,
                None => {}
            }
        };
        let body = match head.framing {
            Framing::Length(length) => {
                let end = head.length + length;
                while self.filled < end {
                    if self.fill().await? == 0 {
                        return Err(gone());
                    }
                }
                head.length..end
            }
            Framing::Chunked => self.receive_chunks(head.length).await?,
            Framing::Close => {
                while self.fill().await? > 0 {}
                head.length..self.filled
            }
        };
        Ok((head, body))
    }

    /// Receives a body in chunks, and leaves it at the beginning of the input.
    async fn receive_chunks(&mut self, begin: usize) -> Result<std::ops::Range<usize>, NoReply> {
        let (mut dechunker, mut body) = (Dechunker::default(), Vec::new());
        dechunker.feed(&self.input[begin..self.filled], &mut body)?;
        while !dechunker.is_over() {
            self.filled = 0;
            if self.fill().await? == 0 {
                return Err(gone());
            }
            dechunker.feed(&self.input[..self.filled], &mut body)?;
        }
        let length = body.len();
        if self.input.len() < length {
            self.input.resize(length, 0);
        }
        self.input[..length].copy_from_slice(&body);
        Ok(0..length)
    }

    /// Reads once; 0 is the end of the connection.
    async fn fill(&mut self) -> Result<usize, NoReply> {
        if self.filled == self.input.len() {
            self.input.resize(self.filled * 2, 0);
        }
        poll_fn(|context| {
            let Some(stream) = &mut self.stream else { return Poll::Ready(Err(gone())) };
            let mut input = ReadBuf::new(&mut self.input[self.filled..]);
            match Pin::new(stream).poll_read(context, &mut input) {
                Poll::Ready(Ok(())) => {
                    let read = input.filled().len();
                    self.filled += read;
                    Poll::Ready(Ok(read))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                Poll::Pending => self.poll_alarm(context).map(Err),
            }
        })
        .await
    }

    /// Becomes ready when the request has taken too long.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<NoReply> {
        while self.alarm.as_mut().poll(context).is_ready() {
            let deadline = self.began + self.timeout;
            if Instant::now() >= deadline {
                return Poll::Ready(NoReply::TimedOut(self.timeout));
            }
            self.alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

fn gone() -> NoReply {
    NoReply::Broken(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it"))
}

/// Returns where `needle` ends in `text`.
pub(super) fn behind(text: &[u8], needle: &[u8]) -> Option<usize> {
    Some(memmem::find(text, needle)? + needle.len())
}
