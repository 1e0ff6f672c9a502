//! Events: what is published, and what the log holds.

use std::sync::Arc;

use super::{EventId, Json, SeriesMode, TaskId, TaskNumber};

/// The type of the event every transition appends.
pub const STATUS_EVENT_TYPE: &str = "taskcast:status";

/// Types that begin with this belong to the service.
const RESERVED_TYPE_PREFIX: &str = "taskcast:";

/// Tells whether only the service may publish events of this type.
pub fn is_reserved_type(event_type: &str) -> bool {
    event_type.starts_with(RESERVED_TYPE_PREFIX)
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

    /// Returns roughly how many bytes the event takes up.
    pub fn size_bytes(&self) -> usize {
        128 + self.draft.data.as_str().len() + self.draft.event_type.len()
    }
}
