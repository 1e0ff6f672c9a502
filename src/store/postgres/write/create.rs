//! Creating tasks through a lane: in its batches, so that creations commit in
//! groups as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::super::columns::{to_i64, to_number, to_u64};
use super::super::error::{Table, is_conflict};
use super::super::session::Session;
use super::connection::{Statement, WriteError};
use super::head_cache::CachedHead;
use super::idempotency::{FindKeys, KnownKeys, repeat_create};
use super::lane::Lane;
use super::request::CreateRequest;
use crate::domain::{IdempotencyKey, Json, NewTask, Task, TaskPolicy, TaskState, TaskStatus};
use crate::store::{BatchKind, BatchReport, Created, Report, StoreError};

/// A row that was created: number, nonce, time.
type CreatedRow = (i64, i64, i64);

/// Creates tasks.
struct CreateBatch<'a> {
    requests: &'a [CreateRequest],
    until: Instant,
}

impl Statement for CreateBatch<'_> {
    type Output = (Vec<CreatedRow>, KnownKeys);

    async fn run(
        &mut self,
        session: &mut Session,
        is_repeat: bool,
    ) -> Result<(Vec<CreatedRow>, KnownKeys), sqlx::Error> {
        loop {
            match insert(session, self.requests, is_repeat).await {
                // Another instance stored the key meanwhile: it is found now.
                Err(error)
                    if is_conflict(&error, Table::Idempotency) && Instant::now() < self.until => {}
                outcome => return outcome,
            }
        }
    }
}

fn policy_of(spec: &NewTask) -> Arc<TaskPolicy> {
    Arc::new(TaskPolicy {
        task_type: spec.task_type.clone(),
        auth_config: spec.auth_config.clone(),
        webhooks: spec.webhooks.clone().unwrap_or_default(),
    })
}

impl Lane {
    pub(super) async fn create(&mut self, mut requests: Vec<CreateRequest>, until: Instant) {
        // Two creators who share some ids wait for each other instead of deadlocking.
        requests.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
        let began = Instant::now();
        match self.create_batch(&requests, until).await {
            Ok(outcome) => self.answer_created(requests, outcome, began),
            // One of them cannot be stored, or another session creates it: each
            // for itself.
            Err(WriteError::Data(_) | WriteError::LockTimeout(_) | WriteError::Conflict(..))
                if requests.len() > 1 =>
            {
                for request in requests {
                    let (single, began) = (vec![request], Instant::now());
                    match self.create_batch(&single, until).await {
                        Ok(outcome) => self.answer_created(single, outcome, began),
                        Err(error) => self.fail_created(single, &error.into_store_error()),
                    }
                }
            }
            Err(error) => self.fail_created(requests, &error.into_store_error()),
        }
    }

    async fn create_batch(
        &mut self,
        requests: &[CreateRequest],
        until: Instant,
    ) -> Result<(Vec<CreatedRow>, KnownKeys), WriteError> {
        self.connection.run(until, &mut CreateBatch { requests, until }).await
    }

    fn fail_created(&self, requests: Vec<CreateRequest>, error: &StoreError) {
        self.post_commit.failed(error);
        for request in requests {
            request.ticket.answer(Err(error.clone()));
        }
    }

    /// Reports a batch that wrote tasks and no events.
    pub(super) fn report_tasks(&self, kind: BatchKind, tasks: usize, began: Instant) {
        let took = began.elapsed();
        let batch = BatchReport { kind, requests: tasks, events: 0, tasks, took };
        self.post_commit.report(&Report::Committed(batch));
    }

    fn answer_created(
        &mut self,
        requests: Vec<CreateRequest>,
        (created, keys): (Vec<CreatedRow>, KnownKeys),
        began: Instant,
    ) {
        self.report_tasks(BatchKind::Create, created.len(), began);
        let mut created: HashMap<i64, (i64, i64)> =
            created.into_iter().map(|(number, nonce, at)| (nonce, (number, at))).collect();
        for CreateRequest { spec, key, nonce, ticket } in requests {
            let Some((number, at)) = created.remove(&nonce) else {
                ticket.answer(repeat_create(spec, key, &keys));
                continue;
            };
            let number = match to_number(number) {
                Ok(number) => number,
                Err(error) => {
                    ticket.answer(Err(error));
                    continue;
                }
            };
            let state = TaskState {
                policy: policy_of(&spec),
                status: TaskStatus::Pending,
                next_index: 0,
                series: HashMap::new(),
            };
            self.cache.put(spec.id.clone(), CachedHead::new(number, state, 0, true));
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
            self.post_commit.created(&task);
            ticket.answer(Ok(Created::New(Box::new(task))));
        }
    }
}

async fn insert(
    session: &mut Session,
    requests: &[CreateRequest],
    is_repeat: bool,
) -> Result<(Vec<CreatedRow>, KnownKeys), sqlx::Error> {
    let specs = || requests.iter().map(|request| &request.spec);
    let ids: Vec<&str> = specs().map(|spec| spec.id.as_str()).collect();
    let nonces: Vec<i64> = requests.iter().map(|request| request.nonce).collect();
    let mut created = Vec::new();
    if is_repeat {
        let rows = sqlx::query_file!("sql/write/created.sql", &ids as &[&str], &nonces)
            .fetch_all(&mut *session)
            .await?;
        created.extend(rows.into_iter().map(|row| (row.number, row.nonce, row.created_at)));
    }
    let types: Vec<Option<&str>> = specs().map(|spec| spec.task_type.as_deref()).collect();
    // Tags hold no control character, so a line break can part them.
    let tags: Vec<Option<String>> =
        specs().map(|spec| spec.tags.as_ref().map(|tags| tags.join("\n"))).collect();
    let params: Vec<Option<&str>> = specs().map(|spec| text(spec.params.as_ref())).collect();
    let metadata: Vec<Option<&str>> = specs().map(|spec| text(spec.metadata.as_ref())).collect();
    let ttls: Vec<Option<i64>> = specs().map(|spec| spec.ttl_seconds.map(to_i64)).collect();
    let stored = Stored::of(requests)?;
    let digest = |part: fn(&IdempotencyKey) -> &[u8; 32]| -> Vec<Option<Vec<u8>>> {
        requests.iter().map(|request| request.key.as_ref().map(|key| part(key).to_vec())).collect()
    };
    let rows = sqlx::query_file!(
        "sql/write/create.sql",
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
    .fetch_all(&mut *session)
    .await?;
    created.extend(rows.into_iter().map(|row| (row.number, row.nonce, row.created_at)));
    let left = requests
        .iter()
        .filter(|request| created.iter().all(|(_, nonce, _)| *nonce != request.nonce));
    let keys = FindKeys::of(left.filter_map(|request| request.key)).run(session, is_repeat).await?;
    Ok((created, keys))
}

/// What is stored as JSON in the form of the wire, as columns.
#[derive(Default)]
struct Stored {
    auth_config: Vec<Option<String>>,
    webhooks: Vec<Option<String>>,
    cleanup: Vec<Option<String>>,
}

impl Stored {
    fn of(requests: &[CreateRequest]) -> Result<Self, sqlx::Error> {
        fn column<T: Serialize>(value: Option<&T>) -> Result<Option<String>, sqlx::Error> {
            value.map(serde_json::to_string).transpose().map_err(|e| sqlx::Error::Encode(e.into()))
        }
        let mut columns = Self::default();
        for CreateRequest { spec, .. } in requests {
            columns.auth_config.push(column(spec.auth_config.as_ref())?);
            columns.webhooks.push(column(spec.webhooks.as_ref())?);
            columns.cleanup.push(column(spec.cleanup.as_ref())?);
        }
        Ok(columns)
    }
}

fn text(json: Option<&Json>) -> Option<&str> {
    json.map(Json::as_str)
}
