//! The port of event logs.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::StoreError;
use crate::domain::{
    Append, AuthConfig, Event, EventId, Filter, Kind, Refusal, Task, TaskId, TaskNumber, TaskStatus,
};

/// A task's id together with its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskRef {
    /// Its id.
    pub id: TaskId,
    /// Its number.
    pub number: TaskNumber,
}

impl From<&Task> for TaskRef {
    fn from(task: &Task) -> Self {
        Self { id: task.spec.id.clone(), number: task.number }
    }
}

/// Whether a task is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadStatus {
    /// It is, in this state.
    Is(TaskStatus),
    /// It was deleted.
    Deleted,
}

/// Where a task's log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The task.
    pub task: TaskRef,
    /// State of the task.
    pub status: HeadStatus,
    /// Index the next event gets.
    pub next_index: u64,
    /// Timestamp of the newest event, Unix milliseconds; 0 without events.
    pub last_timestamp_ms: u64,
    /// The task's own rules about who may touch it.
    pub auth_config: Option<Arc<AuthConfig>>,
}

impl Head {
    /// Tells whether the task is in a terminal state.
    pub fn terminal(&self) -> Option<TaskStatus> {
        match self.status {
            HeadStatus::Is(status) if status.is_terminal() => Some(status),
            HeadStatus::Is(_) | HeadStatus::Deleted => None,
        }
    }

    /// Returns the id of the newest event; meaningless while there is none.
    pub fn newest_event_id(&self) -> EventId {
        let newest = self.next_index.saturating_sub(1);
        EventId::new(self.last_timestamp_ms, self.task.number, newest)
    }
}

/// What an append came to.
#[derive(Debug, Clone)]
pub enum Appended {
    /// It is durable; these are the events that were published.
    Events(Vec<Arc<Event>>),
    /// It is durable; the status event, and the task as that step left it.
    Transitioned(Arc<Event>, Box<Task>),
    /// A request with the same key and body was carried out before; these are
    /// its events.
    Replayed(Vec<Arc<Event>>),
    /// Another request was sent with the same key.
    KeyConflict,
    /// There is no such task.
    NoSuchTask,
    /// It was refused and left no trace.
    Refused(Refusal),
}

impl Appended {
    /// Tells whether the write happened now.
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Events(_) | Self::Transitioned(..))
    }

    /// Returns the events that were stored now; `None` when there were none to
    /// be stored.
    pub fn into_stored(self) -> Option<Vec<Arc<Event>>> {
        match self {
            Self::Events(events) => Some(events),
            Self::Transitioned(event, _) => Some(vec![event]),
            _ => None,
        }
    }
}

/// Which entries of a stretch of the log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// Every event that is left, one by one.
    Single,
    /// Every event that is left except deltas of `accumulate` series.
    WithoutDeltas,
    /// Every event, superseded ones too as far as they are still there: for
    /// readers who were present when they were published.
    Live,
}

/// A stretch of one task's log.
#[derive(Debug, Clone)]
pub struct ReadRange {
    /// The task.
    pub task: TaskRef,
    /// First index wanted.
    pub from: u64,
    /// First index not wanted.
    pub to: u64,
    /// Which entries.
    pub view: View,
    /// Most events to return.
    pub max_events: usize,
    /// Payload bytes after which to stop; one event always fits.
    pub max_bytes: usize,
}

/// What a read found.
///
/// An index in `from..covers_to` that is missing will never be found: it was
/// superseded, or the view leaves it out.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The events, in order.
    pub events: Vec<Arc<Event>>,
    /// First index the page says nothing about.
    pub covers_to: u64,
}

/// An `accumulate` series as it stood at some point of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesSpan {
    /// Name of the series.
    pub id: Arc<str>,
    /// Type and level of its events.
    pub kind: Kind,
    /// Field its text accumulates in, if an event had one.
    pub field: Option<Arc<str>>,
    /// Index of its first event.
    pub first_index: u64,
    /// Index of its newest event at that point.
    pub last_index: u64,
}

/// How far a reader of the journal has read, per source, and when that was by
/// the store's clock, in Unix milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalMark(pub HashMap<u64, u64>, pub u64);

impl JournalMark {
    /// Tells whether `entry` lies at or before the mark.
    pub fn covers(&self, entry: &JournalEntry) -> bool {
        self.0.get(&entry.source).is_some_and(|sequence| entry.sequence <= *sequence)
    }
}

/// One task's part of one committed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalEntry {
    /// Who wrote the batch.
    pub source: u64,
    /// Number of the batch at its source; rises.
    pub sequence: u64,
    /// The task that moved.
    pub number: TaskNumber,
    /// Index of its first new event.
    pub from: u64,
    /// Index its next event gets.
    pub next_index: u64,
}

/// What happened since a mark, everywhere.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// Batches, so that entries of one task follow each other in log order.
    pub entries: Vec<JournalEntry>,
    /// Mark to read on from.
    pub mark: JournalMark,
    /// Whether entries between the marks are gone already.
    pub has_gap: bool,
}

/// The event logs of all tasks.
#[async_trait]
pub trait Events: Send + Sync {
    /// Judges a change and carries it out: all of it, or nothing.
    ///
    /// Indexes are per task, without gaps, in commit order; who sees an event
    /// sees every one before it. When this returns events they are durable as
    /// the adapter defines it. Timestamps are the larger of the store's clock
    /// and the previous event's. Dropping the future does not undo the write.
    async fn append(&self, append: Append) -> Result<Appended, StoreError>;

    /// Returns where a task's log ends, or `None` when there is no such task.
    async fn head(&self, id: &TaskId) -> Result<Option<Head>, StoreError>;

    /// Returns the heads of those tasks that are not yet purged.
    async fn heads(&self, numbers: &[TaskNumber]) -> Result<Vec<Head>, StoreError>;

    /// Reads one page for each range, in the order of `ranges`.
    ///
    /// Superseded events of `latest` series are left out, [`View::Live`] apart.
    /// A deleted or purged task gives an empty page.
    async fn read(&self, ranges: &[ReadRange]) -> Result<Vec<Page>, StoreError>;

    /// Returns the `accumulate` series among the events before `to`.
    async fn series_spans(&self, task: TaskNumber, to: u64) -> Result<Vec<SeriesSpan>, StoreError>;

    /// Returns the newest event of a span with the whole text folded in.
    ///
    /// `None` when the task was purged meanwhile.
    async fn snapshot(
        &self,
        task: &TaskRef,
        span: &SeriesSpan,
    ) -> Result<Option<Event>, StoreError>;

    /// Counts, for each position, the events before it that pass `filter`.
    ///
    /// Superseded and removed events count too.
    async fn count(
        &self,
        task: TaskNumber,
        positions: &[u64],
        filter: &Filter,
    ) -> Result<Vec<u64>, StoreError>;

    /// Returns the index of the event `filter` passes as number `nth`, from 0.
    ///
    /// `None` when fewer pass so far.
    async fn position_of(
        &self,
        task: TaskNumber,
        filter: &Filter,
        nth: u64,
    ) -> Result<Option<u64>, StoreError>;

    /// Returns the first index from which on every event left is later than
    /// `timestamp_ms`.
    async fn position_after(&self, task: TaskNumber, timestamp_ms: u64) -> Result<u64, StoreError>;

    /// Returns what was committed since `mark`, on every instance.
    ///
    /// Without a mark: nothing, and the mark of this moment.
    async fn journal(&self, mark: Option<&JournalMark>) -> Result<Journal, StoreError>;
}
