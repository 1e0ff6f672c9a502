//! How closed sets are spelled in columns.
//!
//! The numbers are part of the schema: never reuse one.

use crate::domain::{Level, SeriesMode, TaskStatus};
use crate::store::{HeadStatus, StoreError};

/// `head.status` of a deleted task.
const DELETED: i16 = 9;

pub(super) const fn of_status(status: TaskStatus) -> i16 {
    match status {
        TaskStatus::Pending => 0,
        TaskStatus::Running => 1,
        // The append statement counts on terminal states being 2 and up.
        TaskStatus::Completed => 2,
        TaskStatus::Failed => 3,
        TaskStatus::Timeout => 4,
        TaskStatus::Cancelled => 5,
    }
}

pub(super) fn to_head_status(code: i16) -> Result<HeadStatus, StoreError> {
    if code == DELETED {
        return Ok(HeadStatus::Deleted);
    }
    to_status(code).map(HeadStatus::Is)
}

pub(super) fn to_status(code: i16) -> Result<TaskStatus, StoreError> {
    TaskStatus::ALL
        .into_iter()
        .find(|status| of_status(*status) == code)
        .ok_or_else(|| StoreError::Corrupt(format!("head.status {code}")))
}

pub(super) const fn of_level(level: Level) -> i16 {
    match level {
        Level::Debug => 0,
        Level::Info => 1,
        Level::Warn => 2,
        Level::Error => 3,
    }
}

pub(super) fn to_level(code: i16) -> Result<Level, StoreError> {
    Level::ALL
        .into_iter()
        .find(|level| of_level(*level) == code)
        .ok_or_else(|| StoreError::Corrupt(format!("level {code}")))
}

pub(super) const fn of_mode(mode: SeriesMode) -> i16 {
    match mode {
        SeriesMode::KeepAll => 0,
        SeriesMode::Accumulate => 1,
        SeriesMode::Latest => 2,
    }
}

pub(super) fn to_mode(code: i16) -> Result<SeriesMode, StoreError> {
    SeriesMode::ALL
        .into_iter()
        .find(|mode| of_mode(*mode) == code)
        .ok_or_else(|| StoreError::Corrupt(format!("series mode {code}")))
}

/// Writes an index, a time or a count as a `bigint`.
pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads a `bigint` that is never negative.
pub(super) fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Reads a task number.
pub(super) fn to_number(number: i64) -> Result<crate::domain::TaskNumber, StoreError> {
    u64::try_from(number)
        .ok()
        .and_then(crate::domain::TaskNumber::new)
        .ok_or_else(|| StoreError::Corrupt(format!("task number {number}")))
}

/// Writes a task number.
pub(super) fn of_number(number: crate::domain::TaskNumber) -> i64 {
    to_i64(number.get())
}
