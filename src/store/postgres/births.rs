//! Creating and deleting tasks through a lane.
//!
//! Both ride in the lane's batches, so that they commit in groups as well and
//! so that a deletion cannot cross an append of the same instance.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::codes::{of_number, to_i64, to_number, to_u64};
use super::error::{Failure, classify, to_store_error};
use super::keys::{self, KnownKeys, repeat_create};
use super::known::KnownTask;
use super::lane::Lane;
use super::queue::Reply;
use super::session::Session;
use super::write::BatchId;
use crate::domain::{IdempotencyKey, Json, NewTask, Task, TaskPolicy, TaskState, TaskStatus};
use crate::store::{BatchKind, BatchReport, Commit, Created, Report, StoreError, TaskRef};

/// A task to create.
pub(super) struct Birth {
    /// What.
    pub(super) spec: NewTask,
    /// Makes a repeat of the request take effect once.
    pub(super) key: Option<IdempotencyKey>,
    /// The creator's mark on it.
    pub(super) nonce: i64,
    /// Whom to tell.
    pub(super) reply: Reply<Created>,
}

impl Birth {
    /// Returns roughly how many bytes of payload the task brings.
    pub(super) fn size_bytes(&self) -> usize {
        let text = |json: &Option<Json>| json.as_ref().map_or(0, |json| json.as_str().len());
        text(&self.spec.params) + text(&self.spec.metadata)
    }

    fn policy_of(spec: &NewTask) -> Arc<TaskPolicy> {
        Arc::new(TaskPolicy {
            task_type: spec.task_type.clone(),
            auth_config: spec.auth_config.clone(),
            webhooks: spec.webhooks.clone().unwrap_or_default(),
        })
    }
}

/// A row that was created: number, nonce, time.
type Born = (i64, i64, i64);

impl Lane {
    pub(super) async fn create(&mut self, mut births: Vec<Birth>, until: Instant) {
        births.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
        let began = Instant::now();
        match self.create_once(&births, until).await {
            Ok(outcome) => self.announce_births(births, outcome, began),
            Err(error) if births.len() > 1 && matches!(error, StoreError::Unexpected(_)) => {
                // One of them cannot be stored: each for itself.
                for birth in births {
                    let (single, began) = (vec![birth], Instant::now());
                    match self.create_once(&single, until).await {
                        Ok(outcome) => self.announce_births(single, outcome, began),
                        Err(error) => self.fail_births(single, &error),
                    }
                }
            }
            Err(error) => self.fail_births(births, &error),
        }
    }

    async fn create_once(
        &mut self,
        births: &[Birth],
        until: Instant,
    ) -> Result<(Vec<Born>, KnownKeys), StoreError> {
        let mut may_have_happened = false;
        loop {
            let connection = self.connect_to_send(until, may_have_happened).await?;
            let outcome = insert(connection, births, may_have_happened).await;
            let error = match outcome {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            match classify(&error) {
                Failure::Transient => {}
                // Another instance stored the key meanwhile: it is found now.
                Failure::OfARow if is_key_taken(&error) && Instant::now() < until => {}
                // Perhaps an earlier copy that still runs.
                Failure::Held if may_have_happened => {}
                // Somebody else is creating one of them: each for itself.
                Failure::Held if births.len() > 1 => {
                    return Err(StoreError::Unexpected(error.to_string()));
                }
                Failure::Lost => {
                    may_have_happened = true;
                    self.disconnect();
                }
                Failure::Held | Failure::OfARow | Failure::Refused => {
                    return Err(to_store_error(&error));
                }
            }
        }
    }

    fn fail_births(&self, births: Vec<Birth>, error: &StoreError) {
        self.after.failed(error);
        for birth in births {
            drop(birth.reply.send(Err(error.clone())));
        }
    }

    fn report(&self, kind: BatchKind, tasks: usize, began: Instant) {
        let took = began.elapsed();
        let batch = BatchReport { kind, requests: tasks, events: 0, tasks, took };
        self.after.report(&Report::Committed(batch));
    }

    fn announce_births(
        &mut self,
        births: Vec<Birth>,
        (born, keys): (Vec<Born>, KnownKeys),
        began: Instant,
    ) {
        self.report(BatchKind::Create, born.len(), began);
        let mut born: HashMap<i64, (i64, i64)> =
            born.into_iter().map(|(number, nonce, at)| (nonce, (number, at))).collect();
        for Birth { spec, key, nonce, reply } in births {
            let Some((number, at)) = born.remove(&nonce) else {
                drop(reply.send(repeat_create(spec, key, &keys)));
                continue;
            };
            let number = match to_number(number) {
                Ok(number) => number,
                Err(error) => {
                    drop(reply.send(Err(error)));
                    continue;
                }
            };
            let state = TaskState {
                policy: Birth::policy_of(&spec),
                status: TaskStatus::Pending,
                next_index: 0,
                series: HashMap::new(),
            };
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
            self.after.created(&task);
            drop(reply.send(Ok(Created::New(Box::new(task)))));
        }
    }

    pub(super) async fn delete(&mut self, deaths: Vec<(TaskRef, Reply<bool>)>, until: Instant) {
        let began = Instant::now();
        let outcome = self.delete_once(&deaths, until).await;
        let gone = match outcome {
            Ok(gone) => gone,
            Err(error) => {
                self.after.failed(&error);
                for (_, reply) in deaths {
                    drop(reply.send(Err(error.clone())));
                }
                return;
            }
        };
        self.report(BatchKind::Delete, gone.len(), began);
        let mut commits = Vec::with_capacity(gone.len());
        let mut gone: HashSet<i64> = gone.into_iter().collect();
        for (task, reply) in deaths {
            drop(self.known().take(&task.id));
            // Of several who delete one task, one did it.
            let is_ours = gone.remove(&of_number(task.number));
            if is_ours {
                commits.push(Commit::of_deletion(task));
            }
            drop(reply.send(Ok(is_ours)));
        }
        self.after.committed(&commits);
    }

    /// Deletes tasks and returns the numbers of those that were there.
    async fn delete_once(
        &mut self,
        deaths: &[(TaskRef, Reply<bool>)],
        until: Instant,
    ) -> Result<Vec<i64>, StoreError> {
        let numbers: Vec<i64> = deaths.iter().map(|(task, _)| of_number(task.number)).collect();
        let id = self.batch_id(until).await?;
        let mut may_have_happened = false;
        loop {
            let connection = match self.connect_to_send(until, may_have_happened).await {
                Ok(connection) => connection,
                Err(error) => {
                    if may_have_happened {
                        self.abandon_batch();
                    }
                    return Err(error);
                }
            };
            let error = match remove(connection, id, &numbers).await {
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
                Failure::Held if may_have_happened => {}
                Failure::Held | Failure::OfARow | Failure::Refused => {
                    return Err(to_store_error(&error));
                }
            }
        }
    }
}

async fn remove(
    connection: &mut Session,
    id: BatchId,
    numbers: &[i64],
) -> Result<Vec<i64>, sqlx::Error> {
    let rows = sqlx::query_file!("sql/lanes/delete.sql", id.lane, id.batch, numbers)
        .fetch_all(&mut *connection)
        .await?;
    if rows.is_empty() {
        // The receipt was there before: an earlier copy did it.
        let rows = sqlx::query_file!("sql/lanes/deleted.sql", id.lane, id.batch)
            .fetch_all(connection)
            .await?;
        return Ok(rows.into_iter().map(|row| row.number).collect());
    }
    Ok(rows.into_iter().filter_map(|row| row.number).collect())
}

async fn insert(
    connection: &mut Session,
    births: &[Birth],
    may_have_happened: bool,
) -> Result<(Vec<Born>, KnownKeys), sqlx::Error> {
    let specs = || births.iter().map(|birth| &birth.spec);
    let ids: Vec<&str> = specs().map(|spec| spec.id.as_str()).collect();
    let nonces: Vec<i64> = births.iter().map(|birth| birth.nonce).collect();
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
    let stored = Stored::of(births)?;
    let digest = |part: fn(&IdempotencyKey) -> &[u8; 32]| -> Vec<Option<Vec<u8>>> {
        births.iter().map(|birth| birth.key.as_ref().map(|key| part(key).to_vec())).collect()
    };
    let rows = sqlx::query_file!(
        "sql/lanes/create.sql",
        &ids as &[&str],
        &nonces,
        &types as &[Option<&str>],
        &tags as &[Option<String>],
        &params as &[Option<&str>],
        &metadata as &[Option<&str>],
        &ttls as &[Option<i64>],
        &stored.auth_config as &[Option<String>],
        &stored.webhooks as &[Option<String>],
        &stored.cleanup as &[Option<String>],
        &digest(|key| &key.key) as &[Option<Vec<u8>>],
        &digest(|key| &key.request) as &[Option<Vec<u8>>],
    )
    .fetch_all(&mut *connection)
    .await?;
    born.extend(rows.into_iter().map(|row| (row.number, row.nonce, row.created_at)));
    let left = births.iter().filter(|birth| born.iter().all(|(_, nonce, _)| *nonce != birth.nonce));
    let keys = keys::find(connection, left.filter_map(|birth| birth.key)).await?;
    Ok((born, keys))
}

/// What is stored as JSON in the form of the wire, as columns.
#[derive(Default)]
struct Stored {
    auth_config: Vec<Option<String>>,
    webhooks: Vec<Option<String>>,
    cleanup: Vec<Option<String>>,
}

impl Stored {
    fn of(births: &[Birth]) -> Result<Self, sqlx::Error> {
        fn column<T: Serialize>(value: Option<&T>) -> Result<Option<String>, sqlx::Error> {
            value.map(serde_json::to_string).transpose().map_err(|e| sqlx::Error::Encode(e.into()))
        }
        let mut columns = Self::default();
        for Birth { spec, .. } in births {
            columns.auth_config.push(column(spec.auth_config.as_ref())?);
            columns.webhooks.push(column(spec.webhooks.as_ref())?);
            columns.cleanup.push(column(spec.cleanup.as_ref())?);
        }
        Ok(columns)
    }
}

/// Tells whether a creation broke because its key was stored meanwhile.
fn is_key_taken(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(sqlx::error::DatabaseError::constraint);
    constraint == Some("idempotency_pkey")
}

fn text(json: Option<&Json>) -> Option<&str> {
    json.map(Json::as_str)
}
