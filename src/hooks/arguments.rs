//! What hooks are told. Later versions may tell more, so members are read by
//! name; the constructors are there for tests of one's own hooks.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{DeliveryId, TaskId, TaskStatus};

/// A task was created.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskCreated {
    /// The task.
    pub task: TaskId,
    /// What kind of task it is, in the backend's words.
    pub task_type: Option<Arc<str>>,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

impl TaskCreated {
    /// Describes a task that was created at `at_ms`.
    pub fn new(task: TaskId, task_type: Option<Arc<str>>, at_ms: u64) -> Self {
        Self { task, task_type, at_ms }
    }
}

/// A task entered another state.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskTransitioned {
    /// The task.
    pub task: TaskId,
    /// What kind of task it is; `None` also where a store does not say.
    pub task_type: Option<Arc<str>>,
    /// The state it left; `None` where a store does not say.
    pub from: Option<TaskStatus>,
    /// The state it entered.
    pub to: TaskStatus,
    /// When, in Unix milliseconds: the timestamp of the status event.
    pub at_ms: u64,
}

impl TaskTransitioned {
    /// Describes a transition at `at_ms`.
    pub fn new(
        task: TaskId,
        task_type: Option<Arc<str>>,
        from: Option<TaskStatus>,
        to: TaskStatus,
        at_ms: u64,
    ) -> Self {
        Self { task, task_type, from, to, at_ms }
    }
}

/// A task failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskFailed {
    /// The task.
    pub task: TaskId,
    /// What kind of task it is; `None` also where a store does not say.
    pub task_type: Option<Arc<str>>,
    /// The backend's code for programs, if it gave an error with one.
    pub code: Option<Arc<str>>,
    /// The backend's sentence for people, if it gave an error.
    pub message: Option<Arc<str>>,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

impl TaskFailed {
    /// Describes the failure a transition was.
    pub fn new(
        transitioned: &TaskTransitioned,
        code: Option<Arc<str>>,
        message: Option<Arc<str>>,
    ) -> Self {
        let TaskTransitioned { task, task_type, at_ms, .. } = transitioned.clone();
        Self { task, task_type, code, message, at_ms }
    }
}

/// A task timed out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskTimedOut {
    /// The task.
    pub task: TaskId,
    /// What kind of task it is; `None` also where a store does not say.
    pub task_type: Option<Arc<str>>,
    /// The state it was in; `None` where a store does not say.
    pub from: Option<TaskStatus>,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

impl TaskTimedOut {
    /// Describes the timeout a transition was.
    pub fn new(transitioned: &TaskTransitioned) -> Self {
        let TaskTransitioned { task, task_type, from, at_ms, .. } = transitioned.clone();
        Self { task, task_type, from, at_ms }
    }
}

/// Why events were given up, or a reader was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The memory store was full and let a finished task go with its log.
    Evicted,
    /// A reader of all tasks fell further behind than is kept.
    Lagged,
    /// A reader took nothing for too long, so its connection was cut. It may
    /// come back and resume.
    Stalled,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Evicted, Self::Lagged, Self::Stalled];

    /// Returns its name in reports and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Lagged => "lagged",
            Self::Stalled => "stalled",
        }
    }
}

/// Events were given up, or a reader was cut off before it had them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EventDropped {
    /// Why.
    pub reason: DropReason,
    /// The task; `None` on the stream of all tasks.
    pub task: Option<TaskId>,
    /// How many events went, where that is known.
    pub events: Option<u64>,
}

impl EventDropped {
    /// Describes what was dropped.
    pub fn new(reason: DropReason, task: Option<TaskId>, events: Option<u64>) -> Self {
        Self { reason, task, events }
    }
}

/// A webhook delivery was given up: refused for good, or out of attempts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WebhookFailure {
    /// The task whose event it was.
    pub task: TaskId,
    /// The delivery; its event and its hook stand in it.
    pub delivery: DeliveryId,
    /// Attempts made.
    pub attempts: u32,
    /// Status the receiver answered the last one with, if it answered.
    pub last_status: Option<u16>,
    /// Why there was no answer that counts, in a few words of the service.
    pub problem: Option<Arc<str>>,
}

impl WebhookFailure {
    /// Describes a delivery that was given up after `attempts`.
    pub fn new(
        task: TaskId,
        delivery: DeliveryId,
        attempts: u32,
        last_status: Option<u16>,
        problem: Option<Arc<str>>,
    ) -> Self {
        Self { task, delivery, attempts, last_status, problem }
    }
}

/// What a stream follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SseStream {
    /// One task.
    Task(TaskId),
    /// Every task.
    AllTasks,
}

impl SseStream {
    /// Returns the task, of a stream that follows one.
    pub fn task(&self) -> Option<&TaskId> {
        match self {
            Self::Task(task) => Some(task),
            Self::AllTasks => None,
        }
    }
}

/// A stream was opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SseConnected {
    /// What it follows.
    pub stream: SseStream,
    /// Streams of the same kind (of this task, or of all tasks) that are open
    /// on this instance now, this one included.
    pub subscribers: usize,
}

impl SseConnected {
    /// Describes a stream that was opened.
    pub fn new(stream: SseStream, subscribers: usize) -> Self {
        Self { stream, subscribers }
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SseEnd {
    /// The task finished and the reader got everything.
    Done,
    /// The task was deleted.
    Deleted,
    /// The reader went away.
    Left,
    /// The reader took nothing for too long.
    Stalled,
    /// The reader of all tasks fell too far behind.
    Lagged,
    /// The service is stopping.
    Drained,
    /// The store failed.
    StoreFailed,
    /// The reader's credentials ran out.
    Expired,
}

impl SseEnd {
    /// Every way a stream ends.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Deleted,
        Self::Left,
        Self::Stalled,
        Self::Lagged,
        Self::Drained,
        Self::StoreFailed,
        Self::Expired,
    ];

    /// Returns its name in reports and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Deleted => "deleted",
            Self::Left => "left",
            Self::Stalled => "stalled",
            Self::Lagged => "lagged",
            Self::Drained => "drained",
            Self::StoreFailed => "store_failed",
            Self::Expired => "expired",
        }
    }
}

/// A stream ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SseDisconnected {
    /// What it followed.
    pub stream: SseStream,
    /// Streams of the same kind that are left on this instance.
    pub subscribers: usize,
    /// How long it was open.
    pub duration: Duration,
    /// How it ended.
    pub reason: SseEnd,
}

impl SseDisconnected {
    /// Describes a stream that ended.
    pub fn new(stream: SseStream, subscribers: usize, duration: Duration, reason: SseEnd) -> Self {
        Self { stream, subscribers, duration, reason }
    }
}

/// Where something failed that nobody foresaw.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorPlace {
    /// While a request was served, which got 500 for an answer.
    Request {
        /// Its method.
        method: Arc<str>,
        /// The template of its route; `none` when no route matched.
        route: Arc<str>,
        /// Its id: the log line that has it tells the whole story.
        request_id: Arc<str>,
    },
    /// In a background loop of this name, which is started anew.
    Loop(&'static str),
}

/// Something failed that nobody foresaw.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UnhandledError {
    /// Where.
    pub place: ErrorPlace,
    /// Whether it was a panic.
    pub is_panic: bool,
    /// What the code says about it, if it says it in fixed words: never made
    /// from a value.
    pub summary: Option<&'static str>,
    /// Everything that is known. It may quote values, of a database error for
    /// instance, so it belongs in a log of one's own and nowhere else.
    pub detail: Arc<str>,
}

impl UnhandledError {
    /// Describes a panic by what it was raised with.
    pub(crate) fn of_panic(place: ErrorPlace, panic: &(dyn Any + Send)) -> Self {
        let (summary, detail) = words_of(panic);
        Self { place, is_panic: true, summary, detail }
    }

    /// Describes an error.
    pub fn new(
        place: ErrorPlace,
        is_panic: bool,
        summary: Option<&'static str>,
        detail: Arc<str>,
    ) -> Self {
        Self { place, is_panic, summary, detail }
    }
}

/// Returns the words of a panic, once more if they are fixed: only a message
/// without values in it stays a literal on its way.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> (Option<&'static str>, Arc<str>) {
    if let Some(literal) = panic.downcast_ref::<&'static str>() {
        return (Some(literal), Arc::from(*literal));
    }
    let formatted = panic.downcast_ref::<String>().map(String::as_str);
    (None, Arc::from(formatted.unwrap_or("a panic without a message")))
}

/// What is wrong with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageProblem {
    /// It cannot be reached or does not answer; nothing was changed.
    Unavailable,
    /// Too many writes are waiting; nothing was changed.
    Overloaded,
    /// It has no room left; nothing was changed.
    Full,
    /// It could not be found out whether a write happened.
    OutcomeUnknown,
    /// Something stored cannot be read.
    Corrupt,
    /// It refused a statement it should have accepted.
    Unexpected,
}

impl StorageProblem {
    /// Every problem.
    pub const ALL: [Self; 6] = [
        Self::Unavailable,
        Self::Overloaded,
        Self::Full,
        Self::OutcomeUnknown,
        Self::Corrupt,
        Self::Unexpected,
    ];

    /// Returns its name in reports and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Full => "full",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Corrupt => "corrupt",
            Self::Unexpected => "unexpected",
        }
    }
}

/// Which part of a store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoragePart {
    /// What writes.
    Writer,
    /// What reads.
    Reader,
}

impl StoragePart {
    /// Every part.
    pub const ALL: [Self; 2] = [Self::Writer, Self::Reader];

    /// Returns its name in reports and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Reader => "reader",
        }
    }
}

/// The store failed or refused for want of room.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StorageError {
    /// Which part of it.
    pub part: StoragePart,
    /// What is wrong.
    pub problem: StorageProblem,
    /// In the words of the driver. They may quote values, so they belong in a
    /// log of one's own and nowhere else.
    pub detail: Arc<str>,
}

impl StorageError {
    /// Describes a failure of the store.
    pub fn new(part: StoragePart, problem: StorageProblem, detail: impl Into<Arc<str>>) -> Self {
        Self { part, problem, detail: detail.into() }
    }
}

/// What is wrong with the wakes between instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BroadcastProblem {
    /// The listener worked and was lost.
    ListenerLost,
    /// Listening cannot begin; told once until it does.
    NotListening,
    /// Wakes cannot be sent; told once until they can.
    NotSending,
}

impl BroadcastProblem {
    /// Every problem.
    pub const ALL: [Self; 3] = [Self::ListenerLost, Self::NotListening, Self::NotSending];

    /// Returns its name in reports and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ListenerLost => "listener_lost",
            Self::NotListening => "not_listening",
            Self::NotSending => "not_sending",
        }
    }
}

/// Wakes between instances could not be sent or heard.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BroadcastError {
    /// What is wrong.
    pub problem: BroadcastProblem,
    /// In the words of the driver; for a log of one's own and nowhere else.
    pub detail: Arc<str>,
}

impl BroadcastError {
    /// Describes a failure of the bus.
    pub fn new(problem: BroadcastProblem, detail: impl Into<Arc<str>>) -> Self {
        Self { problem, detail: detail.into() }
    }
}
