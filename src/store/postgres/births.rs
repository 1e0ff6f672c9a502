//! Creating and deleting tasks through a lane.
//!
//! Both ride in the lane's batches, so that they commit in groups as well and
//! so that a deletion cannot cross an append of the same instance.

use std::collections::HashMap;
use std::time::Instant;

use super::codes::{to_i64, to_number, to_u64};
use super::error::{Failure, classify, to_store_error};
use super::known::KnownTask;
use super::lane::Lane;
use super::queue::Reply;
use super::session::Session;
use super::write::BatchId;
use crate::domain::{Json, NewTask, Task, TaskId, TaskState, TaskStatus};
use crate::store::{Commit, Created, StoreError, TaskRef};

/// A task to create: what, the creator's mark on it, and whom to tell.
pub(super) type Birth = (NewTask, i64, Reply<Created>);

/// A row that was created: number, nonce, time.
type Born = (i64, i64, i64);

impl Lane {
    pub(super) async fn create(&mut self, mut births: Vec<Birth>, until: Instant) {
        births.sort_by(|(a, _, _), (b, _, _)| a.id.cmp(&b.id));
        match self.create_once(&births, until).await {
            Ok(born) => self.announce_births(births, born),
            Err(error) if births.len() > 1 && matches!(error, StoreError::Unexpected(_)) => {
                // One of them cannot be stored: each for itself.
                for birth in births {
                    let single = vec![birth];
                    match self.create_once(&single, until).await {
                        Ok(born) => self.announce_births(single, born),
                        Err(error) => fail_births(single, &error),
                    }
                }
            }
            Err(error) => fail_births(births, &error),
        }
    }

    async fn create_once(
        &mut self,
        births: &[Birth],
        until: Instant,
    ) -> Result<Vec<Born>, StoreError> {
        let mut may_have_happened = false;
        loop {
            let connection = match self.connect(until).await {
                Ok(connection) => connection,
                Err(StoreError::Unavailable(why)) if may_have_happened => {
                    return Err(StoreError::OutcomeUnknown(why));
                }
                Err(error) => return Err(error),
            };
            let outcome = insert(connection, births, may_have_happened).await;
            let error = match outcome {
                Ok(born) => return Ok(born),
                Err(error) => error,
            };
            match classify(&error) {
                Failure::Transient => {}
                Failure::Lost => {
                    may_have_happened = true;
                    self.disconnect();
                }
                Failure::OfARow | Failure::Refused => return Err(to_store_error(&error)),
            }
        }
    }

    fn announce_births(&mut self, births: Vec<Birth>, born: Vec<Born>) {
        let mut born: HashMap<i64, (i64, i64)> =
            born.into_iter().map(|(number, nonce, at)| (nonce, (number, at))).collect();
        for (spec, nonce, reply) in births {
            let Some((number, at)) = born.remove(&nonce) else {
                drop(reply.send(Ok(Created::Exists)));
                continue;
            };
            let number = match to_number(number) {
                Ok(number) => number,
                Err(error) => {
                    drop(reply.send(Err(error)));
                    continue;
                }
            };
            let state =
                TaskState { status: TaskStatus::Pending, next_index: 0, series: HashMap::new() };
            self.known().put(spec.id.clone(), KnownTask::new(number, state, true));
            let task = Task {
                spec,
                number,
                status: TaskStatus::Pending,
                result: None,
                error: None,
                created_at_ms: to_u64(at),
                updated_at_ms: to_u64(at),
                completed_at_ms: None,
            };
            drop(reply.send(Ok(Created::New(Box::new(task)))));
        }
    }

    pub(super) async fn delete(&mut self, deaths: Vec<(TaskId, Reply<bool>)>, until: Instant) {
        let outcome = self.delete_once(&deaths, until).await;
        let gone = match outcome {
            Ok(gone) => gone,
            Err(error) => {
                for (_, reply) in deaths {
                    drop(reply.send(Err(error.clone())));
                }
                return;
            }
        };
        let mut commits = Vec::with_capacity(gone.len());
        let mut by_id: HashMap<String, i64> = gone.into_iter().collect();
        for (id, reply) in deaths {
            drop(self.known().take(&id));
            // Of several who delete one task, one did it.
            let number = by_id.remove(id.as_str()).map(to_number).transpose();
            if let Ok(Some(number)) = &number {
                let task = TaskRef { id, number: *number };
                commits.push(Commit { task, events: Vec::new(), deleted: true });
            }
            drop(reply.send(number.map(|number| number.is_some())));
        }
        self.after.committed(&commits);
    }

    /// Deletes tasks and returns the id and number of those that were there.
    async fn delete_once(
        &mut self,
        deaths: &[(TaskId, Reply<bool>)],
        until: Instant,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let ids: Vec<String> = deaths.iter().map(|(id, _)| id.to_string()).collect();
        let id = self.batch_id(until).await?;
        let mut may_have_happened = false;
        loop {
            let connection = match self.connect(until).await {
                Ok(connection) => connection,
                Err(StoreError::Unavailable(why)) if may_have_happened => {
                    self.abandon_batch();
                    return Err(StoreError::OutcomeUnknown(why));
                }
                Err(error) => return Err(error),
            };
            let error = match remove(connection, id, &ids).await {
                Ok(gone) => {
                    self.finish_batch();
                    return Ok(gone);
                }
                Err(error) => error,
            };
            match classify(&error) {
                Failure::Transient => {}
                Failure::Lost => {
                    may_have_happened = true;
                    self.disconnect();
                }
                Failure::OfARow | Failure::Refused => return Err(to_store_error(&error)),
            }
        }
    }
}

async fn remove(
    connection: &mut Session,
    id: BatchId,
    ids: &[String],
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let rows = sqlx::query_file!("sql/lanes/delete.sql", id.lane, id.batch, ids)
        .fetch_all(&mut *connection)
        .await?;
    if rows.is_empty() {
        // The receipt was there before: an earlier copy did it.
        let rows = sqlx::query_file!("sql/lanes/deleted.sql", id.lane, id.batch)
            .fetch_all(connection)
            .await?;
        return Ok(rows.into_iter().map(|row| (row.id, row.number)).collect());
    }
    Ok(rows.into_iter().filter_map(|row| Some((row.id?, row.number?))).collect())
}

async fn insert(
    connection: &mut Session,
    births: &[Birth],
    may_have_happened: bool,
) -> Result<Vec<Born>, sqlx::Error> {
    let specs = || births.iter().map(|(spec, _, _)| spec);
    let ids: Vec<&str> = specs().map(|spec| spec.id.as_str()).collect();
    let nonces: Vec<i64> = births.iter().map(|(_, nonce, _)| *nonce).collect();
    let mut born = Vec::new();
    if may_have_happened {
        let rows = sqlx::query_file!("sql/lanes/created.sql", &ids as &[&str], &nonces)
            .fetch_all(&mut *connection)
            .await?;
        born.extend(rows.into_iter().map(|row| (row.number, row.nonce, row.created_at)));
    }
    let types: Vec<Option<&str>> = specs().map(|spec| spec.task_type.as_deref()).collect();
    // Tags hold no control character, so a line break can part them.
    let tags: Vec<Option<String>> =
        specs().map(|spec| spec.tags.as_ref().map(|tags| tags.join("\n"))).collect();
    let params: Vec<Option<&str>> = specs().map(|spec| text(spec.params.as_ref())).collect();
    let metadata: Vec<Option<&str>> = specs().map(|spec| text(spec.metadata.as_ref())).collect();
    let ttls: Vec<Option<i64>> = specs().map(|spec| spec.ttl_seconds.map(to_i64)).collect();
    let rows = sqlx::query_file!(
        "sql/lanes/create.sql",
        &ids as &[&str],
        &nonces,
        &types as &[Option<&str>],
        &tags as &[Option<String>],
        &params as &[Option<&str>],
        &metadata as &[Option<&str>],
        &ttls as &[Option<i64>],
    )
    .fetch_all(connection)
    .await?;
    born.extend(rows.into_iter().map(|row| (row.number, row.nonce, row.created_at)));
    Ok(born)
}

fn text(json: Option<&Json>) -> Option<&str> {
    json.map(Json::as_str)
}

fn fail_births(births: Vec<Birth>, error: &StoreError) {
    for (_, _, reply) in births {
        drop(reply.send(Err(error.clone())));
    }
}
