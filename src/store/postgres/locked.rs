//! Writing under the lock, for tasks that several instances write to.
//!
//! When memory lost against another writer, the heads are locked first, read,
//! judged, and written by the same append statement, all in one transaction.
//! Under the lock nobody can get in between, so this always makes progress.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use super::error::{Failure, classify, to_store_error};
use super::keys::{self, KnownKeys, answer_repeats};
use super::known::{KnownTask, series_of};
use super::lane::{Lane, fail_requests};
use super::plan::{Request, TaskPlan};
use super::rows;
use super::session::Session;
use super::write::{BatchId, Sent, look_up, send};
use crate::domain::{TaskId, TaskState};
use crate::store::{BatchKind, HeadStatus, StoreError};

impl Lane {
    /// Reads the tasks of these requests, with the series they name, and
    /// answers those requests that were carried out before.
    pub(super) async fn load(
        &mut self,
        requests: &mut Vec<Request>,
        until: Instant,
    ) -> Result<(), StoreError> {
        loop {
            let connection = self.connect(until).await?;
            match load_all(connection, requests).await {
                Ok((tasks, keys)) => {
                    for (id, task) in tasks? {
                        self.known().put_fresh(id, task);
                    }
                    answer_repeats(requests, &keys);
                    return Ok(());
                }
                Err(error) if classify(&error) == Failure::Lost => self.disconnect(),
                Err(error) => return Err(to_store_error(&error)),
            }
        }
    }

    /// Judges and writes requests while holding the heads of their tasks.
    pub(super) async fn write_locked(&mut self, mut requests: Vec<Request>, until: Instant) {
        let mut unsettled: Option<Vec<TaskPlan>> = None;
        loop {
            let attempt = self.try_locked(&mut requests, &mut unsettled, until).await;
            let error = match attempt {
                Ok(()) => return,
                Err(error) => error,
            };
            let failure = classify(&error);
            if failure == Failure::Lost {
                self.disconnect();
            } else if let Some(plans) = unsettled.take() {
                // It did not happen: judge it anew.
                requests.extend(plans.into_iter().flat_map(TaskPlan::into_requests));
            }
            if failure == Failure::Held && Instant::now() < until {
                requests = self.park_held(requests, until).await;
                if requests.is_empty() {
                    return;
                }
                continue;
            }
            let give_up = matches!(failure, Failure::OfARow | Failure::Refused);
            if !give_up && Instant::now() < until {
                continue;
            }
            let mut answer = to_store_error(&error);
            if let Some(plans) = unsettled.take() {
                self.abandon_batch();
                answer = StoreError::OutcomeUnknown(error.to_string());
                requests.extend(plans.into_iter().flat_map(TaskPlan::into_requests));
            }
            self.after.failed(&answer);
            fail_requests(requests, &answer);
            return;
        }
    }

    /// One attempt. What was sent but not confirmed is left in `unsettled`.
    async fn try_locked(
        &mut self,
        requests: &mut Vec<Request>,
        unsettled: &mut Option<Vec<TaskPlan>>,
        until: Instant,
    ) -> Result<(), sqlx::Error> {
        let id = match self.batch_id(until).await {
            Ok(id) => id,
            Err(error) => return Err(sqlx::Error::Io(std::io::Error::other(error.to_string()))),
        };
        let mut connection = match self.take_connection(until).await {
            Ok(connection) => connection,
            Err(error) => return Err(sqlx::Error::Io(std::io::Error::other(error.to_string()))),
        };
        let began = Instant::now();
        let outcome = locked_transaction(&mut connection, id, requests, unsettled, self).await;
        if outcome.is_ok() || connection.rollback().await.is_ok() {
            self.put_connection(connection);
        }
        let Some(moved) = outcome? else { return Ok(()) };
        let plans = unsettled.take().unwrap_or_default();
        self.finish_batch();
        self.report_batch(BatchKind::Locked, &plans, &moved, began);
        let left = self.settle(plans, moved);
        debug_assert!(left.is_empty(), "a task moved while its head was locked");
        for plan in left {
            plan.fail(&StoreError::Unexpected("a locked head moved".into()));
        }
        Ok(())
    }
}

/// Locks, reads, judges, writes, commits; returns what moved, if anything was sent.
async fn locked_transaction(
    connection: &mut Session,
    id: BatchId,
    requests: &mut Vec<Request>,
    unsettled: &mut Option<Vec<TaskPlan>>,
    lane: &mut Lane,
) -> Result<Option<Vec<(i64, i64)>>, sqlx::Error> {
    connection.begin().await?;
    let sent_before = unsettled.iter().flatten().map(|plan| plan.id.to_string());
    let asked = requests.iter().map(|request| request.append.task.to_string());
    let ids: Vec<String> = sent_before.chain(asked).collect();
    // Breaks the order in which all writers lock heads: two may wait for each other.
    failpoint!("unsorted-locks", |_| for id in shuffled(&ids) {
        sqlx::query_file!("sql/lanes/lock.sql", &[id]).fetch_all(&mut *connection).await?;
    });
    let locked = sqlx::query_file!("sql/lanes/lock.sql", &ids).fetch_all(&mut *connection).await;
    if let Err(error) = locked {
        // An earlier copy may still run and hold what this waits for.
        let is_open = unsettled.is_some();
        return Err(if is_open { sqlx::Error::Io(std::io::Error::other(error)) } else { error });
    }
    // An earlier copy that still ran has ended: it held these locks.
    if unsettled.is_some() {
        if let Some(moved) = look_up(connection, id).await? {
            connection.rollback().await?;
            return Ok(Some(moved));
        }
        let plans = unsettled.take().unwrap_or_default();
        requests.extend(plans.into_iter().flat_map(TaskPlan::into_requests));
    }
    let (tasks, keys) = load_all(connection, requests).await?;
    answer_repeats(requests, &keys);
    let tasks = tasks.map_err(|error| sqlx::Error::Decode(error.to_string().into()))?;
    for (task_id, task) in tasks {
        lane.known().put_fresh(task_id, task);
    }
    let mut plans = lane.judge_loaded(std::mem::take(requests));
    for plan in &mut plans {
        plan.answer_refused();
    }
    plans.retain(TaskPlan::moves_head);
    plans.sort_unstable_by_key(|plan| plan.task.number);
    if plans.is_empty() {
        connection.rollback().await?;
        return Ok(None);
    }
    // From here on an error leaves the outcome open.
    let plans = unsettled.insert(plans);
    let moved = match send(connection, id, plans).await? {
        Sent::Moved(moved) => moved,
        Sent::Again => look_up(connection, id).await?.unwrap_or_default(),
    };
    connection.commit().await?;
    Ok(Some(moved))
}

#[cfg(feature = "failpoints")]
fn shuffled(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    rand::seq::SliceRandom::shuffle(&mut ids[..], &mut rand::rng());
    ids
}

type LoadedTasks = Result<Vec<(TaskId, KnownTask)>, StoreError>;

/// Reads tasks, and then the keys of requests: whatever made a task refuse a
/// repeat of a request had stored the request's key by then.
async fn load_all(
    connection: &mut Session,
    requests: &[Request],
) -> Result<(LoadedTasks, KnownKeys), sqlx::Error> {
    let tasks = load_tasks(connection, requests).await?;
    let keys = requests.iter().filter_map(|request| request.append.key);
    Ok((tasks, keys::find(connection, keys).await?))
}

/// Reads heads and named series at one moment.
async fn load_tasks(
    connection: &mut Session,
    requests: &[Request],
) -> Result<LoadedTasks, sqlx::Error> {
    let (mut ids, mut series) = (Vec::new(), Vec::new());
    for request in requests {
        ids.push(request.append.task.as_str());
        series.push(None);
        for id in series_of(&request.append.change) {
            ids.push(request.append.task.as_str());
            series.push(Some(&**id));
        }
    }
    let rows = sqlx::query_file_as!(
        rows::LoadedRow,
        "sql/lanes/load.sql",
        &ids as &[&str],
        &series as &[Option<&str>]
    )
    .fetch_all(connection)
    .await?;
    Ok(build_tasks(requests, rows))
}

fn build_tasks(requests: &[Request], rows: Vec<rows::LoadedRow>) -> LoadedTasks {
    let mut tasks: HashMap<String, KnownTask> = HashMap::new();
    for row in rows {
        let HeadStatus::Is(status) = super::codes::to_head_status(row.status)? else { continue };
        let number = super::codes::to_number(row.number)?;
        let task = match tasks.entry(row.id.clone()) {
            Entry::Occupied(task) => task.into_mut(),
            Entry::Vacant(vacant) => {
                let state = TaskState {
                    policy: Arc::new(row.policy()?),
                    status,
                    next_index: super::codes::to_u64(row.next_index),
                    series: HashMap::new(),
                };
                vacant.insert(KnownTask::new(number, state, false))
            }
        };
        if let Some((id, state)) = row.series()? {
            task.state.series.insert(id, state);
        }
    }
    let mut loaded: Vec<(TaskId, KnownTask)> = Vec::with_capacity(tasks.len());
    for request in requests {
        let id = &request.append.task;
        if let Some(task) = tasks.remove(id.as_str()) {
            loaded.push((id.clone(), task));
        }
    }
    mark_absent(requests, &mut loaded);
    Ok(loaded)
}

/// Notes which of the named series were looked for and not found.
fn mark_absent(requests: &[Request], loaded: &mut [(TaskId, KnownTask)]) {
    let positions: HashMap<TaskId, usize> =
        loaded.iter().enumerate().map(|(at, (id, _))| (id.clone(), at)).collect();
    for request in requests {
        let Some(at) = positions.get(&request.append.task) else { continue };
        let task = &mut loaded[*at].1;
        for id in series_of(&request.append.change) {
            if !task.state.series.contains_key(id) {
                task.absent.insert(Arc::clone(id));
            }
        }
    }
}
