//! The clock of stores that have none of their own.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the wall-clock time in Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
