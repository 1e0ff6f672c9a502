//! Reading tasks into the head cache.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::super::columns::{to_head_status, to_i64, to_number, to_u64};
use super::super::rows::{LoadedRow, TaskRow};
use super::super::session::Session;
use super::connection::Statement;
use super::head_cache::{CachedHead, series_of};
use super::idempotency::{FindKeys, KnownKeys};
use super::request::AppendRequest;
use crate::domain::{BLOCK_LEN, TaskId, TaskState};
use crate::store::{HeadStatus, StoreError};

/// Tasks as they were read.
pub(super) type LoadedTasks = Result<Vec<(TaskId, CachedHead)>, StoreError>;

/// Reads the tasks of requests with the series they name, and then the keys of
/// the requests: whatever made a task reject a repeat of a request had stored
/// the request's key by then.
pub(super) struct Load<'a> {
    pub(super) requests: &'a [AppendRequest],
}

impl Statement for Load<'_> {
    type Output = (LoadedTasks, KnownKeys);

    async fn run(
        &mut self,
        session: &mut Session,
        is_repeat: bool,
    ) -> Result<(LoadedTasks, KnownKeys), sqlx::Error> {
        let tasks = load_tasks(session, self.requests).await?;
        let mut keys = FindKeys::of(self.requests.iter().filter_map(|request| request.key));
        Ok((tasks, keys.run(session, is_repeat).await?))
    }
}

async fn load_tasks(
    session: &mut Session,
    requests: &[AppendRequest],
) -> Result<LoadedTasks, sqlx::Error> {
    let (mut ids, mut series) = (Vec::new(), Vec::new());
    for request in requests {
        ids.push(request.task.as_str());
        series.push(None);
        for id in request.change().into_iter().flat_map(series_of) {
            ids.push(request.task.as_str());
            series.push(Some(&**id));
        }
    }
    let rows = sqlx::query_file_as!(
        LoadedRow,
        "sql/write/load.sql",
        &ids as &[&str],
        &series as &[Option<&str>],
        to_i64(BLOCK_LEN),
    )
    .fetch_all(session)
    .await?;
    Ok(build_tasks(requests, rows))
}

fn build_tasks(requests: &[AppendRequest], rows: Vec<LoadedRow>) -> LoadedTasks {
    let mut tasks: HashMap<String, CachedHead> = HashMap::new();
    for row in rows {
        let HeadStatus::Is(status) = to_head_status(row.status)? else { continue };
        let number = to_number(row.number)?;
        let task = match tasks.entry(row.id.clone()) {
            Entry::Occupied(task) => task.into_mut(),
            Entry::Vacant(vacant) => {
                let state = TaskState {
                    policy: Arc::new(row.policy()?),
                    status,
                    next_index: to_u64(row.next_index),
                    series: HashMap::new(),
                };
                vacant.insert(CachedHead::new(number, state, to_u64(row.last_at), false))
            }
        };
        if let Some((id, state)) = row.series()? {
            task.state.series.insert(id, state);
        }
    }
    let mut loaded: Vec<(TaskId, CachedHead)> = Vec::with_capacity(tasks.len());
    for request in requests {
        if let Some(task) = tasks.remove(request.task.as_str()) {
            loaded.push((request.task.clone(), task));
        }
    }
    note_missing_series(requests, &mut loaded);
    Ok(loaded)
}

/// Notes which of the named series were looked for and not found.
fn note_missing_series(requests: &[AppendRequest], loaded: &mut [(TaskId, CachedHead)]) {
    let positions: HashMap<TaskId, usize> =
        loaded.iter().enumerate().map(|(at, (id, _))| (id.clone(), at)).collect();
    for request in requests {
        let Some(at) = positions.get(&request.task) else { continue };
        let task = &mut loaded[*at].1;
        for id in request.change().into_iter().flat_map(series_of) {
            if !task.state.series.contains_key(id) {
                task.missing_series.insert(Arc::clone(id));
            }
        }
    }
}

/// Reads tasks by their numbers.
pub(super) struct FindTasks {
    pub(super) numbers: Vec<i64>,
}

impl Statement for FindTasks {
    type Output = Vec<TaskRow>;

    async fn run(&mut self, session: &mut Session, _: bool) -> Result<Vec<TaskRow>, sqlx::Error> {
        sqlx::query_file_as!(TaskRow, "sql/write/documents.sql", &self.numbers)
            .fetch_all(session)
            .await
    }
}
