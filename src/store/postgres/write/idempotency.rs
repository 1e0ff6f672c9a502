//! Idempotency keys, as lanes see them.
//!
//! Keys are looked up before a batch that has some, so that repeats do not
//! break the batches of others, and after the tasks were read: a retry must
//! not be rejected because its first attempt succeeded. If the first attempt
//! changed the task, its key is visible by then, and the stored answer wins.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::columns::{to_number, to_u64};
use super::super::rows::to_task_id;
use super::super::session::Session;
use super::connection::Statement;
use super::request::AppendRequest;
use crate::domain::{Event, IdempotencyKey, NewTask, Task, TaskStatus};
use crate::store::{Appended, Created, StoreError};

/// What a request with a key did.
#[derive(Debug)]
pub(super) struct KeyRow {
    key: Vec<u8>,
    request: Vec<u8>,
    task: i64,
    task_id: Option<String>,
    first_index: i64,
    at: i64,
}

/// What earlier requests did, by key.
pub(super) type KnownKeys = HashMap<Vec<u8>, KeyRow>;

/// Looks keys up.
pub(super) struct FindKeys {
    keys: Vec<Vec<u8>>,
}

impl FindKeys {
    pub(super) fn of(keys: impl Iterator<Item = IdempotencyKey>) -> Self {
        Self { keys: keys.map(|key| key.key.to_vec()).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Statement for FindKeys {
    type Output = KnownKeys;

    async fn run(&mut self, session: &mut Session, _: bool) -> Result<KnownKeys, sqlx::Error> {
        if self.keys.is_empty() {
            return Ok(KnownKeys::new());
        }
        let rows = sqlx::query_file_as!(KeyRow, "sql/keys/find.sql", &self.keys)
            .fetch_all(session)
            .await?;
        Ok(rows.into_iter().map(|row| (row.key.clone(), row)).collect())
    }
}

/// Answers those of `requests` that were carried out before.
pub(super) fn answer_repeats(requests: &mut Vec<AppendRequest>, known: &KnownKeys) {
    if known.is_empty() {
        return;
    }
    let mut left = Vec::with_capacity(requests.len());
    for request in requests.drain(..) {
        let stored =
            request.key.and_then(|key| known.get(key.key.as_slice()).map(|row| (key, row)));
        match stored {
            Some((key, row)) => answer_repeat(request, key, row),
            None => left.push(request),
        }
    }
    *requests = left;
}

fn answer_repeat(request: AppendRequest, key: IdempotencyKey, row: &KeyRow) {
    let task = request.task.clone();
    let Some((change, ticket)) = request.into_change() else { return };
    if row.request != key.request {
        return ticket.answer(Ok(Appended::KeyConflict));
    }
    let (number, timestamp_ms) = match to_number(row.task) {
        Ok(number) => (number, to_u64(row.at)),
        Err(error) => return ticket.answer(Err(error)),
    };
    // The same body makes the same drafts; only their place has to be known.
    let event =
        |(index, draft)| Arc::new(Event { task: task.clone(), number, index, timestamp_ms, draft });
    let events = (to_u64(row.first_index)..).zip(change.into_drafts()).map(event).collect();
    ticket.answer(Ok(Appended::Replayed(events)));
}

/// Answers a creation that was not carried out now.
pub(super) fn repeat_create(
    spec: NewTask,
    key: Option<IdempotencyKey>,
    known: &KnownKeys,
) -> Result<Created, StoreError> {
    let before = key.and_then(|key| known.get(key.key.as_slice()).map(|row| (key, row)));
    let Some((key, row)) = before else { return Ok(Created::Exists) };
    let (true, Some(id)) = (row.request == key.request, &row.task_id) else {
        return Ok(Created::KeyConflict);
    };
    Ok(Created::Replayed(Box::new(Task {
        spec: NewTask { id: to_task_id(id)?, ..spec },
        number: to_number(row.task)?,
        status: TaskStatus::Pending,
        result: None,
        error: None,
        created_at_ms: to_u64(row.at),
        updated_at_ms: to_u64(row.at),
        completed_at_ms: None,
    })))
}
