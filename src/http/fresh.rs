//! Identifiers made here, of the time and randomness.
//!
//! The time only makes them sort by age. Nothing depends on it, which is why
//! this may ask the system's clock; times that mean something are the store's.

use std::time::{SystemTime, UNIX_EPOCH};

use ulid::Ulid;

use crate::domain::TaskId;

/// Makes an id for a task whose creator gave none.
pub(super) fn task_id() -> TaskId {
    TaskId::from_parts(now_ms(), rand::random())
}

/// Makes an id for a request that came without one.
pub(super) fn request_id() -> String {
    Ulid::from_parts(now_ms(), rand::random()).to_string()
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or_default()
}
