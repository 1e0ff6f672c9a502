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
//! - **hook**: a URL that gets events of a task; a **delivery** is one event owed to one.
//! - **rule**: what goes of a finished task, and when.
//! - **tally**: how many events of each kind a stretch of the log holds.

mod access;
mod address;
mod append;
mod auth_config;
mod cleanup;
mod cursor;
mod event;
mod filter;
mod id;
mod idempotency;
pub mod json;
mod lifecycle;
mod retry;
mod series;
mod size;
mod tally;
mod target;
mod task;
mod webhook;
mod written;

pub use access::{
    Action, Decision, Guard, Principal, Scope, TaskGrant, decide, decide_by_rules, decide_scope,
};
pub use append::{
    Accumulated, Append, AppendRules, Change, Refusal, Refused, Sealed, TaskPolicy, TaskState,
    Transition, judge,
};
pub use auth_config::{AuthConfig, AuthMatch, AuthRequirement, AuthRule};
pub use cleanup::{
    CleanupFilter, CleanupMatch, CleanupRule, CleanupRules, CleanupTarget, CleanupTrigger, RuleKey,
};
pub use cursor::{Anchor, Cursor, ResumeId};
pub use event::{
    Event, EventDraft, InvalidEventType, Level, STATUS_EVENT_TYPE, SeriesTag, is_label,
    is_reserved_type, is_type,
};
pub use filter::{Filter, InvalidPattern, TypePattern};
pub use id::{EventId, InvalidTaskId, TaskId, TaskNumber};
pub use idempotency::{IDEMPOTENCY_LIFE_MS, IdempotencyKey};
pub use json::Json;
pub use lifecycle::TaskStatus;
pub use retry::RetryPolicy;
pub use series::{Contribution, SeriesConflict, SeriesMode, SeriesState, SeriesWrite, fold};
pub use size::TASK_BYTES;
pub use tally::{BLOCK_LEN, BlockTally, FAN_OUT, Kind, LogKind, MAX_HEIGHT, Node, Tally, cover};
pub use target::{AllowedTarget, TARGET_URL_BYTES, TargetError, TargetPolicy, parse_target};
pub use task::{ListQuery, NewTask, Task, TaskError, TaskPage};
pub use webhook::{
    Backoff, DeliveryId, ENDPOINT_RECEIVERS, EndpointHook, HookKey, Owed, RetryOverrides, Webhook,
    WebhookSecret, circuit_of, endpoint_receiver, owed, receiver_of,
};
pub use written::{write_envelope, write_event, write_snapshot};
