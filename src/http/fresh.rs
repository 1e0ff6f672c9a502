//! Identifiers made here, of the time and randomness, and the system's clock.
//!
//! The time only makes ids sort by age, and tells how long the credentials of
//! a stream hold, which no store knows. Other times that mean something are
//! the store's.

use std::time::{SystemTime, UNIX_EPOCH};

use ulid::Ulid;

pub(super) use crate::engine::fresh_task_id as task_id;

/// Makes an id for a request that came without one.
pub(super) fn request_id() -> String {
    Ulid::from_parts(now_ms(), rand::random()).to_string()
}

/// Returns what the system's clock says, in Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or_default()
}
