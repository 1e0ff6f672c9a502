//! Events: what is published, and what the log holds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{EventId, Json, SeriesMode, TaskId, TaskNumber};

/// The type of the event every transition appends.
pub const STATUS_EVENT_TYPE: &str = "taskcast:status";

/// Types that begin with this belong to the service.
const RESERVED_TYPE_PREFIX: &str = "taskcast:";

/// Tells whether only the service may publish events of this type.
pub fn is_reserved_type(event_type: &str) -> bool {
    event_type.starts_with(RESERVED_TYPE_PREFIX)
}

/// Longest type of a task or an event, and longest name of a series, in bytes.
const MAX_LABEL_BYTES: usize = 255;

/// Tells whether `text` may name a series or tag a task: 1 to 255 bytes
/// without control characters.
pub fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Tells whether `text` may be the type of a task or an event: a label without
/// the characters that mean something in a list of types.
pub fn is_type(text: &str) -> bool {
    is_label(text) && !text.contains([',', '*'])
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For those who build the thing.
    Debug,
    /// The usual.
    Info,
    /// Something to look at.
    Warn,
    /// Something went wrong.
    Error,
}

impl Level {
    /// Every level, least first.
    pub const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// Returns the level's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Parses a level's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

/// The series an event says it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesTag {
    /// Name of the series within its task.
    pub id: Arc<str>,
    /// How the series folds; without one the event is plain.
    pub mode: Option<SeriesMode>,
    /// The member of `data` whose text accumulates, as the publisher named it.
    pub field: Option<Arc<str>>,
}

/// An event as published, before the log gives it a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventDraft {
    /// What kind of event it is, in the publisher's words.
    pub event_type: Arc<str>,
    /// How much it matters.
    pub level: Level,
    /// The payload.
    pub data: Json,
    /// The series it belongs to, if any.
    pub series: Option<SeriesTag>,
}

/// A type that no event may be published with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the type of an event is 1 to 255 bytes without control characters, commas and asterisks, \
     and does not begin with taskcast:"
)]
pub struct InvalidEventType;

impl EventDraft {
    /// Makes an event of level `info` outside of every series.
    ///
    /// # Errors
    ///
    /// Fails when the type is none, or one that only the service publishes.
    pub fn new(event_type: &str, data: Json) -> Result<Self, InvalidEventType> {
        if !is_type(event_type) || is_reserved_type(event_type) {
            return Err(InvalidEventType);
        }
        Ok(Self { event_type: event_type.into(), level: Level::Info, data, series: None })
    }

    /// Returns the event at another level.
    #[must_use]
    pub fn at_level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Returns the event as part of a series.
    #[must_use]
    pub fn in_series(mut self, id: &str, mode: SeriesMode) -> Self {
        self.series = Some(SeriesTag { id: id.into(), mode: Some(mode), field: None });
        self
    }
}

/// An entry of a task's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The task's id.
    pub task: TaskId,
    /// The task's number.
    pub number: TaskNumber,
    /// Position in the log, from 0, without gaps, in commit order.
    pub index: u64,
    /// Unix milliseconds; never falls within a task.
    pub timestamp_ms: u64,
    /// What was published.
    pub draft: EventDraft,
}

impl Event {
    /// Returns the event's id.
    pub fn id(&self) -> EventId {
        EventId::new(self.timestamp_ms, self.number, self.index)
    }

    /// Returns the event's series when it folds: its tag and its mode.
    pub fn folding_series(&self) -> Option<(&SeriesTag, SeriesMode)> {
        let tag = self.draft.series.as_ref()?;
        match tag.mode? {
            SeriesMode::KeepAll => None,
            mode @ (SeriesMode::Accumulate | SeriesMode::Latest) => Some((tag, mode)),
        }
    }

    /// Tells whether the event is a delta of an `accumulate` series.
    pub fn is_delta(&self) -> bool {
        matches!(self.folding_series(), Some((_, SeriesMode::Accumulate)))
    }

    /// Tells whether a later event of its series replaces it for late readers.
    pub fn is_replaceable(&self) -> bool {
        matches!(self.folding_series(), Some((_, SeriesMode::Latest)))
    }
}
