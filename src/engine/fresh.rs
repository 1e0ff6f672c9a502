//! Ids for tasks whose creator gives none.

use crate::domain::TaskId;
use crate::store::clock::now_ms;

/// Makes an id for a task: a ULID of this moment and randomness.
///
/// The time only makes ids sort by age, so the clock of this machine will do.
pub fn fresh_task_id() -> TaskId {
    TaskId::from_parts(now_ms(), rand::random())
}
