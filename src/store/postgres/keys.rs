//! Idempotency keys, as lanes see them.
//!
//! The append statement passes over a task one of whose keys is there already,
//! so a write never happens twice; what the first request did is looked up
//! here, after the heads were read: a request that is refused because of what
//! its first copy did would find the key as well.

use std::collections::HashMap;
use std::sync::Arc;

use super::codes::{to_number, to_u64};
use super::plan::Request;
use super::rows::to_task_id;
use super::session::Session;
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
pub(super) async fn find(
    connection: &mut Session,
    keys: impl Iterator<Item = IdempotencyKey>,
) -> Result<KnownKeys, sqlx::Error> {
    let keys: Vec<Vec<u8>> = keys.map(|key| key.key.to_vec()).collect();
    if keys.is_empty() {
        return Ok(KnownKeys::new());
    }
    let rows =
        sqlx::query_file_as!(KeyRow, "sql/keys/find.sql", &keys).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.key.clone(), row)).collect())
}

/// Answers those of `requests` that were carried out before.
pub(super) fn answer_repeats(requests: &mut Vec<Request>, known: &KnownKeys) {
    if known.is_empty() {
        return;
    }
    let mut left = Vec::with_capacity(requests.len());
    for request in requests.drain(..) {
        match request.append.key.and_then(|key| known.get(key.key.as_slice()).map(|row| (key, row)))
        {
            Some((key, row)) => {
                let answer = repeat_append(request.append, key, row);
                drop(request.reply.send(answer));
            }
            None => left.push(request),
        }
    }
    *requests = left;
}

fn repeat_append(
    append: crate::domain::Append,
    key: IdempotencyKey,
    row: &KeyRow,
) -> Result<Appended, StoreError> {
    if row.request != key.request {
        return Ok(Appended::KeyConflict);
    }
    let (number, timestamp_ms) = (to_number(row.task)?, to_u64(row.at));
    // The same body makes the same drafts; only their place has to be known.
    let drafts = append.change.into_drafts();
    let event = |(index, draft)| {
        let task = append.task.clone();
        Arc::new(Event { task, number, index, timestamp_ms, draft })
    };
    Ok(Appended::Replayed((to_u64(row.first_index)..).zip(drafts).map(event).collect()))
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
