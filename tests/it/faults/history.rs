//! What producers and subscribers saw of a run, and what the log holds in the
//! end.
//!
//! A history is written by those who take part, each line when it happens, and
//! judged afterwards by [`super::checker`]. Nothing in it is derived from what
//! the store says.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::client::{number_of, text_of};

/// The statuses that end a task.
const ENDS: [&str; 4] = ["completed", "failed", "timeout", "cancelled"];

/// What tells one event a producer made from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Who made it.
    pub producer: u32,
    /// Its place in what that producer made, from 0.
    pub number: u64,
}

/// Where an answer, a frame or the log says that an event stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its index in the task.
    pub index: u64,
    /// Its id.
    pub id: String,
    /// Digest of type and data.
    pub content: u64,
}

/// How a request ended for the one who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered with success.
    Acknowledged,
    /// The answer says that nothing was done: its status and code.
    Refused(u16, String),
    /// There was no answer, or one that says that nobody knows.
    Unknown,
}

/// A publication, all attempts of a repeated one together.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Position of the task in the run.
    pub task: usize,
    /// The events, in order.
    pub labels: Vec<Label>,
    /// Where they stand, when it was acknowledged.
    pub places: Vec<Place>,
    /// When it was first sent.
    pub asked: Instant,
    /// When its last attempt was sent.
    pub asked_last: Instant,
    /// When its outcome was clear, or given up on.
    pub answered: Instant,
    /// How it ended.
    pub outcome: Outcome,
}

/// An attempt to end a task.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Position of the task in the run.
    pub task: usize,
    /// The status it was to get.
    pub status: &'static str,
    /// How it ended.
    pub outcome: Outcome,
}

/// A frame that arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What it shows.
    pub place: Place,
    /// When it was read.
    pub at: Instant,
}

/// One connection of a subscriber.
#[derive(Debug, Clone)]
pub struct Connection {
    /// When its first bytes came.
    pub opened: Instant,
    /// What arrived, in order.
    pub seen: Vec<Seen>,
}

/// One subscriber, over all its connections.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    /// Position of the task in the run.
    pub task: usize,
    /// Its connections, in order; each goes on by the id the one before ended with.
    pub connections: Vec<Connection>,
    /// Whether the server told it that the stream is over.
    pub is_done: bool,
    /// Answers it should never get.
    pub surprises: Vec<String>,
}

impl Reader {
    /// Returns the newest index it saw.
    pub fn newest(&self) -> Option<u64> {
        let seen = self.connections.iter().flat_map(|connection| &connection.seen);
        seen.map(|seen| seen.place.index).max()
    }
}

/// Everything those who took part saw.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Of producers.
    pub publications: Vec<Publication>,
    /// Of those who ended tasks.
    pub endings: Vec<Ending>,
    /// Of subscribers.
    pub readers: Vec<Reader>,
}

/// An event of the log, read back when everything was over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where it stands and what it says.
    pub place: Place,
    /// Who made it, unless the server did.
    pub label: Option<Label>,
    /// The status it ended the task with, if it did.
    pub end: Option<String>,
}

/// The log of each task, in the order it is told.
pub type Truth = Vec<Vec<Stored>>;

/// Makes an event to publish.
pub fn event(label: Label, filling: &str) -> Value {
    let data = json!({"producer": label.producer, "number": label.number, "text": filling});
    json!({"type": "load", "data": data})
}

fn content(kind: &Value, data: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    (kind.to_string(), data.to_string()).hash(&mut hasher);
    hasher.finish()
}

impl Place {
    /// Reads an event as it is published and as histories show it.
    pub fn of_event(event: &Value) -> Self {
        let content = content(&event["type"], &event["data"]);
        Self { index: number_of(&event["index"]), id: text_of(&event["id"]), content }
    }

    /// Reads the data of a frame.
    pub fn of_frame(data: &Value) -> Self {
        let content = content(&data["type"], &data["data"]);
        Self { index: number_of(&data["rawIndex"]), id: text_of(&data["eventId"]), content }
    }
}

impl Stored {
    /// Reads an event of a history.
    pub fn of_event(event: &Value) -> Self {
        let data = &event["data"];
        let label = match (data["producer"].as_u64(), data["number"].as_u64()) {
            (Some(producer), Some(number)) => Some(Label { producer: producer as u32, number }),
            _ => None,
        };
        let status = data["status"].as_str().filter(|_| event["type"] == "taskcast:status");
        let end = status.filter(|status| ENDS.contains(status)).map(str::to_owned);
        Self { place: Place::of_event(event), label, end }
    }
}
