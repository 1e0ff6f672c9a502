//! How each use case can end, success apart.

use crate::domain::{Decision, SeriesConflict, TaskId, TaskStatus};
use crate::store::StoreError;

/// A task was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateTaskError {
    /// Another task has the id.
    #[error("task {0} exists")]
    Exists(TaskId),
    /// Its text is longer than this many bytes.
    #[error("the text of a task is limited to {0} bytes")]
    TooLarge(usize),
    /// Another request was sent with the same idempotency key.
    #[error("the idempotency key was used for another request")]
    KeyConflict,
    /// An earlier request with the key created a task that is gone.
    #[error("the task of the repeated request is gone")]
    Gone,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Events were not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no such task.
    #[error("no such task")]
    NoSuchTask,
    /// The task is finished.
    #[error("task is {0}")]
    Closed(TaskStatus),
    /// The task's own rules do not let the caller.
    #[error("refused by the task's rules")]
    Denied(Decision),
    /// Another request was sent with the same idempotency key.
    #[error("the idempotency key was used for another request")]
    KeyConflict,
    /// An event does not fit its series.
    #[error("event {position}: {conflict}")]
    Series {
        /// Position of the event in the request.
        position: usize,
        /// What does not fit.
        conflict: SeriesConflict,
    },
    /// A series would grow past the longest text allowed.
    #[error("event {position}: series text longer than {limit_bytes} bytes")]
    SeriesTooLong {
        /// Position of the event in the request.
        position: usize,
        /// Longest text allowed, in bytes.
        limit_bytes: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A task was not moved to another state.
#[derive(Debug, thiserror::Error)]
pub enum TransitionError {
    /// There is no such task.
    #[error("no such task")]
    NoSuchTask,
    /// The table of transitions has no such entry.
    #[error("{from} does not become {to}")]
    Illegal {
        /// State the task is in.
        from: TaskStatus,
        /// State that was asked for.
        to: TaskStatus,
    },
    /// The task's own rules do not let the caller.
    #[error("refused by the task's rules")]
    Denied(Decision),
    /// Another request was sent with the same idempotency key.
    #[error("the idempotency key was used for another request")]
    KeyConflict,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
