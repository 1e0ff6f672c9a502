//! Requests for tasks whose heads another session has locked.
//!
//! A writer locks a head for as long as a commit takes. A person with an open
//! transaction may lock one for minutes, and must stall nobody but those who
//! write to that task. The lane waits once, up to the `lock_timeout` of its
//! session; then it asks which heads are locked, continues with the rest of
//! the batch and defers the requests for these tasks, in the order they came.
//! While some are deferred, and a little longer, it asks before every batch
//! and so waits no second time. Deferred requests are retried, with rising
//! pauses, until their callers give up.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::session::Session;
use super::connection::Statement;
use super::lane::Lane;
use super::plan::TaskPlan;
use super::request::{AppendRequest, fail_all};
use crate::domain::TaskId;
use crate::store::StoreError;

/// Pause before deferred requests are retried; doubles up to 16 times.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long locks are probed before each batch, after one was met.
const PROBE_FOR: Duration = Duration::from_secs(2);

/// Bytes of requests that are kept; more are refused.
const MAX_BYTES: usize = 4 << 20;

/// The requests of one lane that wait for locks to be released.
#[derive(Default)]
pub(super) struct Deferred {
    tasks: HashMap<TaskId, Vec<AppendRequest>>,
    bytes: usize,
    pause: Duration,
    next_try: Option<Instant>,
    probe_until: Option<Instant>,
}

impl Deferred {
    /// Returns when to try again, while there is anything to try.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.next_try.filter(|_| !self.tasks.is_empty())
    }

    /// Tells whether locks should be probed before heads are written.
    pub(super) fn probe_locks(&self) -> bool {
        self.probe_until.is_some_and(|until| Instant::now() < until)
    }

    /// Keeps a request, behind those for its task; gives it back when there is
    /// no room.
    fn push(&mut self, request: AppendRequest) -> Option<AppendRequest> {
        if self.bytes + request.ticket.bytes > MAX_BYTES {
            return Some(request);
        }
        let now = Instant::now();
        if !self.probe_locks() {
            self.pause = RETRY_PAUSE;
        }
        self.probe_until = Some(now + PROBE_FOR);
        self.next_try.get_or_insert(now + self.pause);
        self.bytes += request.ticket.bytes;
        self.tasks.entry(request.task.clone()).or_default().push(request);
        None
    }

    /// Takes everything out, when it is time to try again.
    fn take_due(&mut self) -> Vec<AppendRequest> {
        if self.next_try().is_none_or(|due| Instant::now() < due) {
            return Vec::new();
        }
        self.pause = (self.pause * 2).min(RETRY_PAUSE * 16);
        self.take_all()
    }

    fn take_all(&mut self) -> Vec<AppendRequest> {
        (self.bytes, self.next_try) = (0, None);
        std::mem::take(&mut self.tasks).into_values().flatten().collect()
    }
}

/// Asks which of these tasks have locked heads.
struct ProbeLocks {
    ids: Vec<String>,
}

impl Statement for ProbeLocks {
    type Output = HashSet<String>;

    async fn run(
        &mut self,
        session: &mut Session,
        _: bool,
    ) -> Result<HashSet<String>, sqlx::Error> {
        let locked = sqlx::query_file_scalar!("sql/write/locked_heads.sql", &self.ids)
            .fetch_all(session)
            .await?;
        Ok(locked.into_iter().collect())
    }
}

impl Lane {
    /// Puts deferred requests that are due before those that came.
    pub(super) fn rejoin_deferred(&mut self, came: Vec<AppendRequest>) -> Vec<AppendRequest> {
        let now = Instant::now();
        let (mut requests, late): (Vec<_>, Vec<_>) =
            self.deferred.take_due().into_iter().partition(|request| now < request.ticket.deadline);
        if !late.is_empty() {
            let error = StoreError::Unavailable("another session holds the task".into());
            self.post_commit.failed(&error);
            fail_all(late, &error);
        }
        requests.extend(came);
        requests
    }

    /// Answers everything that is still deferred.
    pub(super) fn fail_deferred(&mut self) {
        let error = StoreError::Unavailable("shutting down".into());
        fail_all(self.deferred.take_all(), &error);
    }

    pub(super) fn defer(&mut self, requests: impl IntoIterator<Item = AppendRequest>) {
        for request in requests {
            if let Some(refused) = self.deferred.push(request) {
                self.post_commit.failed(&StoreError::Overloaded);
                refused.ticket.answer(Err(StoreError::Overloaded));
            }
        }
    }

    /// Defers requests whose tasks are deferred or locked, and returns the others.
    pub(super) async fn defer_locked(
        &mut self,
        requests: Vec<AppendRequest>,
        until: Instant,
    ) -> Vec<AppendRequest> {
        let deferred = &self.deferred.tasks;
        let (behind, requests): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| deferred.contains_key(&request.task));
        self.defer(behind);
        let tasks: HashSet<&TaskId> = requests.iter().map(|request| &request.task).collect();
        let locked = self.locked(tasks.into_iter().map(TaskId::to_string), until).await;
        let (locked, free): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| locked.contains(request.task.as_str()));
        self.defer(locked);
        free
    }

    /// After a lock timeout: defers the requests of plans whose heads are
    /// locked, and returns the others in groups to be tried again.
    pub(super) async fn defer_locked_plans(
        &mut self,
        plans: Vec<TaskPlan>,
        until: Instant,
    ) -> Vec<Vec<TaskPlan>> {
        let locked = self.locked(plans.iter().map(|plan| plan.id.to_string()), until).await;
        let count = plans.len();
        let (locked, mut free): (Vec<_>, Vec<_>) =
            plans.into_iter().partition(|plan| locked.contains(plan.id.as_str()));
        self.defer(locked.into_iter().flat_map(TaskPlan::into_requests));
        if free.len() < count {
            return vec![free];
        }
        // Somebody inserted into a log without locking the head: halving finds it.
        if free.len() > 1 {
            let second = free.split_off(free.len() / 2);
            return vec![second, free];
        }
        self.defer(free.into_iter().flat_map(TaskPlan::into_requests));
        Vec::new()
    }

    /// Returns those tasks whose heads could only be waited for.
    async fn locked(
        &mut self,
        ids: impl Iterator<Item = String>,
        until: Instant,
    ) -> HashSet<String> {
        let mut probe = ProbeLocks { ids: ids.collect() };
        if probe.ids.is_empty() {
            return HashSet::new();
        }
        // Whatever is wrong with the database, the batch will find out.
        self.connection.run(until, &mut probe).await.unwrap_or_default()
    }
}
