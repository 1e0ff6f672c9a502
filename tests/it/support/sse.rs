//! A reader of server-sent events that hides nothing of what came.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::within;

/// An open stream.
pub struct Stream {
    /// Headers of the answer.
    pub headers: HeaderMap,
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    buffer: Vec<u8>,
    /// How much of the buffer is known to hold no end of a block.
    searched: usize,
    /// Comments seen so far, without the one at the beginning.
    pub comments: Vec<String>,
    /// The newest `retry:` field.
    pub retry: Option<String>,
    /// The newest `id:` field, as a browser keeps it.
    pub last_event_id: Option<String>,
}

/// What stood between two empty lines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame {
    /// Name of the event.
    pub event: String,
    /// The data as sent.
    pub text: String,
    /// The id, when the frame has one.
    pub id: Option<String>,
    /// Everything as it came, the empty line apart.
    pub raw: String,
}

impl Frame {
    /// Returns the data as JSON.
    #[track_caller]
    pub fn data(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {:?}", self.raw))
    }

    /// Returns a member of the data.
    #[track_caller]
    pub fn get(&self, member: &str) -> Value {
        self.data()[member].clone()
    }

    /// Tells whether this shows the task in a terminal status.
    #[track_caller]
    pub fn ends_task(&self) -> bool {
        let ends = ["completed", "failed", "timeout", "cancelled"];
        let data = self.data();
        data["type"] == "taskcast:status" && ends.iter().any(|end| data["data"]["status"] == *end)
    }

    /// Tells whether this is the end of the task's stream.
    pub fn is_done(&self) -> bool {
        self.event == "taskcast.done"
    }
}

impl Stream {
    /// Reads the body of an answer.
    pub fn new(response: reqwest::Response) -> Self {
        Self {
            headers: response.headers().clone(),
            body: response.bytes_stream().boxed(),
            buffer: Vec::new(),
            searched: 0,
            comments: Vec::new(),
            retry: None,
            last_event_id: None,
        }
    }

    /// Returns the next frame with data, or `None` when the stream ended or
    /// was cut.
    pub async fn next(&mut self) -> Option<Frame> {
        // Comments that keep the stream alive do not count as going on.
        within("the stream goes on", self.next_however_late()).await
    }

    /// Returns the next frame with data, waiting for it for ever.
    pub async fn next_however_late(&mut self) -> Option<Frame> {
        loop {
            let block = self.block().await?;
            if let Some(frame) = self.take_in(&block) {
                return Some(frame);
            }
        }
    }

    /// Waits until a comment came that `wanted` accepts.
    pub async fn comment(&mut self, wanted: impl Fn(&str) -> bool) {
        while !self.comments.iter().any(|comment| wanted(comment)) {
            let block = within("a comment comes", self.block()).await;
            let block = block.expect("the stream ended before the comment");
            let frame = self.take_in(&block);
            assert!(frame.is_none(), "a frame instead of the comment: {frame:?}");
        }
    }

    /// Returns the next frame of a stream that must not end yet.
    pub async fn one(&mut self) -> Frame {
        self.next().await.expect("the stream ended too early")
    }

    /// Returns the next `count` frames.
    pub async fn take(&mut self, count: usize) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(count);
        while frames.len() < count {
            frames.push(self.one().await);
        }
        frames
    }

    /// Returns every frame until the stream ends.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    /// Returns the frames up to and with the first that `last` accepts.
    pub async fn up_to(&mut self, last: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            frames.push(self.one().await);
            if frames.last().is_some_and(&last) {
                return frames;
            }
        }
    }

    /// Tells whether text has arrived that was not read yet.
    pub fn holds(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.buffer).contains(text)
    }

    /// Returns the next block of lines.
    async fn block(&mut self) -> Option<String> {
        loop {
            let unseen = &self.buffer[self.searched..];
            if let Some(found) = unseen.windows(2).position(|pair| pair == b"\n\n") {
                let end = self.searched + found;
                let rest = self.buffer.split_off(end + 2);
                let mut block = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                block.truncate(end);
                return Some(String::from_utf8(block).expect("a stream is UTF-8"));
            }
            self.searched = self.buffer.len().saturating_sub(1);
            // A connection that breaks reads as an end: a cut is no failure here.
            let chunk = self.body.next().await?.ok()?;
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// Reads the fields of a block; a block without data is no frame.
    fn take_in(&mut self, block: &str) -> Option<Frame> {
        assert!(!block.contains('\r'), "lines end in LF alone: {block:?}");
        let mut frame = Frame { raw: block.to_owned(), ..Frame::default() };
        let mut has_data = false;
        for line in block.split('\n') {
            let (name, value) =
                line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}"));
            let value = value
                .strip_prefix(' ')
                .unwrap_or_else(|| panic!("no space in {line:?}"))
                .to_owned();
            match name {
                // Every stream begins with it, and a test of its own sees that.
                "" if value == "open" => {}
                "" => self.comments.push(value),
                "event" => frame.event = value,
                "data" => {
                    assert!(!has_data, "two data lines in {block:?}");
                    has_data = true;
                    frame.text = value;
                }
                "id" => {
                    self.last_event_id = Some(value.clone());
                    frame.id = Some(value);
                }
                "retry" => self.retry = Some(value),
                _ => panic!("an unknown field in {block:?}"),
            }
        }
        has_data.then_some(frame)
    }
}

/// Returns one member of the data of every frame, in order.
pub fn members(frames: &[Frame], name: &str) -> Vec<Value> {
    frames.iter().map(|frame| frame.get(name)).collect()
}
