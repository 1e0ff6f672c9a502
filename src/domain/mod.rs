//! The rules of the service, as pure types and functions.
//!
//! Nothing in here waits, writes, logs, or reads a clock: whatever a rule
//! depends on is an argument. Every storage adapter judges writes with these
//! functions, so that all of them accept and refuse the same.
//!
//! # Glossary
//!
//! - **task**: a unit of work with a status, and the owner of one event log.
//! - **event**: one immutable entry of a task's log, numbered by its *index*.
//! - **head**: where a task's log ends: status, next index, last timestamp.
//! - **series**: events of one task that belong together, folded by *mode*.
//! - **snapshot**: an `accumulate` series as one event carrying the whole text.
//! - **filter**: which events a reader wants, by type and level.
//! - **filtered index**: an event's position among those that pass a filter.
//! - **cursor**: where a reader wants to continue.
//! - **tally**: how many events of each kind a stretch of the log holds.

mod access;
mod append;
mod cursor;
mod event;
mod filter;
mod id;
pub mod json;
mod lifecycle;
mod series;
mod tally;
mod task;

pub use access::{Action, Decision, Principal, Scope, TaskGrant, decide};
pub use append::{Append, Change, Refusal, Refused, Sealed, TaskState, Transition, judge};
pub use cursor::{Anchor, Cursor, ResumeId};
pub use event::{Event, EventDraft, Level, STATUS_EVENT_TYPE, SeriesTag, is_reserved_type};
pub use filter::{Filter, InvalidPattern, TypePattern};
pub use id::{EventId, InvalidTaskId, TaskId, TaskNumber};
pub use json::Json;
pub use lifecycle::TaskStatus;
pub use series::{Contribution, SeriesConflict, SeriesMode, SeriesState, SeriesWrite, fold};
pub use tally::{BLOCK_LEN, BlockTally, FAN_OUT, Kind, MAX_HEIGHT, Node, Tally, cover};
pub use task::{ListQuery, NewTask, Task, TaskError, TaskPage};
