//! Streams: opening one, and reading its frames where they lie.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Poll, ready};
use std::time::Duration;

use memchr::memmem::Finder;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::chunked::{Dechunker, Framing, Malformed};
use super::connection::{Head, NoReply, excerpt};
use super::endpoint::Endpoint;
use super::events::{Frame, read_frame};

/// What is read at once.
const READ_BYTES: usize = 256 << 10;

/// What the head of an answer may take up.
const HEAD_BYTES: usize = 16 << 10;

/// Finds the empty line at the end of a frame. Made once: making it costs more
/// than using it.
static FIND_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\n"));

thread_local! {
    /// What a read puts its bytes into, and those bytes without their framing.
    /// One pair serves all streams of a thread, so that thousands of streams
    /// that are read in turn stay within the processor's cache.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> =
        RefCell::new((vec![0; READ_BYTES], Vec::with_capacity(READ_BYTES)));
}

/// A stream that was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The server answered with another status than 200.
    #[error("the stream was answered {status}: {body}")]
    Refused {
        /// The status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// There was no answer.
    #[error(transparent)]
    NoReply(#[from] NoReply),
}

#[derive(Debug)]
enum Body {
    Chunked(Dechunker),
    Plain,
}

impl Body {
    fn feed(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Malformed> {
        match self {
            Self::Chunked(dechunker) => dechunker.feed(input, output),
            Self::Plain => {
                output.extend_from_slice(input);
                Ok(())
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self, Self::Chunked(dechunker) if dechunker.is_over())
    }
}

/// An open stream.
#[derive(Debug)]
pub(super) struct EventStream {
    stream: TcpStream,
    body: Body,
    /// The beginning of a frame whose rest has not arrived.
    carry: Vec<u8>,
    /// Whether frames arrived with the answer's head.
    is_filled: bool,
}

impl EventStream {
    /// Opens a stream and waits for the head of the answer.
    pub(super) async fn open(
        endpoint: &Endpoint,
        path: &str,
        patience: Duration,
    ) -> Result<Self, OpenError> {
        let opening = Self::open_now(endpoint, path);
        let late = |_| OpenError::NoReply(NoReply::TimedOut(patience));
        timeout(patience, opening).await.map_err(late)?
    }

    async fn open_now(endpoint: &Endpoint, path: &str) -> Result<Self, OpenError> {
        let broken = |error| OpenError::NoReply(NoReply::Broken(error));
        let malformed = |error| OpenError::NoReply(NoReply::Malformed(error));
        let mut stream = endpoint.dial().await.map_err(broken)?;
        let request = endpoint.request("GET", path, None);
        stream.write_all(&request).await.map_err(broken)?;
        let mut input = Vec::with_capacity(1_024);
        let head = loop {
            if stream.read_buf(&mut input).await.map_err(broken)? == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            match Head::parse(&input).map_err(malformed)? {
                Some(head) => break head,
                None if input.len() > HEAD_BYTES => {
                    return Err(malformed(Malformed("the head of an answer has no end")));
                }
                None => {}
            }
        };
        if head.status != 200 {
            let body = excerpt(&input[head.length..]);
            return Err(OpenError::Refused { status: head.status, body });
        }
        let mut body = match head.framing {
            Framing::Chunked => Body::Chunked(Dechunker::default()),
            Framing::Length(_) | Framing::Close => Body::Plain,
        };
        let mut carry = Vec::new();
        body.feed(&input[head.length..], &mut carry).map_err(malformed)?;
        let is_filled = !carry.is_empty();
        Ok(Self { stream, body, carry, is_filled })
    }

    /// Waits for bytes and shows `visit` the frames that are whole. Returns
    /// whether more may follow.
    pub(super) async fn read(
        &mut self,
        mut visit: impl FnMut(&mut Frames<'_>),
    ) -> io::Result<bool> {
        if std::mem::take(&mut self.is_filled) {
            let mut frames = Frames::of(&self.carry);
            visit(&mut frames);
            let seen = frames.seen();
            self.carry.drain(..seen);
            return Ok(!self.body.is_over());
        }
        poll_fn(|context| {
            SCRATCH.with_borrow_mut(|(input, text)| {
                let mut input = ReadBuf::new(input);
                ready!(Pin::new(&mut self.stream).poll_read(context, &mut input))?;
                if input.filled().is_empty() {
                    return Poll::Ready(Ok(false));
                }
                text.clear();
                text.append(&mut self.carry);
                self.body.feed(input.filled(), text).map_err(io::Error::other)?;
                let mut frames = Frames::of(text);
                visit(&mut frames);
                let seen = frames.seen();
                self.carry.extend_from_slice(&text[seen..]);
                Poll::Ready(Ok(!self.body.is_over()))
            })
        })
        .await
    }
}

/// The whole frames of a text, one after the other.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    fn of(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Returns where the frames that were not read begin, when the visitor took
    /// all that are whole.
    fn seen(mut self) -> usize {
        // A visitor that has enough leaves the rest.
        while self.next().is_some() {}
        self.at
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.text[self.at..];
        let end = FIND_END.find(rest)?;
        self.at += end + 2;
        Some(read_frame(&rest[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_frames_are_shown() {
        let text = b": one\n\nevent: taskcast.done\ndata: {}\n\n: thr";
        let mut frames = Frames::of(text);
        assert_eq!(frames.next(), Some(Ok(Frame::Silence)));
        assert_eq!(frames.next(), Some(Ok(Frame::Done(b"{}"))));
        assert_eq!(frames.next(), None);
        assert_eq!(frames.seen(), text.len() - 5);
        assert_eq!(Frames::of(text).seen(), text.len() - 5);
    }
}
