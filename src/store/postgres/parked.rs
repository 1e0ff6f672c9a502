//! Requests for tasks whose heads somebody else holds.
//!
//! A writer holds a head for as long as a commit takes. A person with an open
//! transaction may hold one for minutes, and must stall nobody but those who
//! write to that task. The lane waits for such a head once, up to the lock
//! timeout of its session. Then it asks which heads it would have to wait for,
//! goes on without them, and keeps their requests here in the order they came.
//! While some are here, and a little longer, it asks before every batch and so
//! waits no second time. What is here is tried again, with rising pauses,
//! until its callers give up.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::error::{Failure, classify, to_store_error};
use super::lane::{Lane, fail_requests};
use super::plan::{Request, TaskPlan};
use crate::domain::TaskId;
use crate::store::StoreError;

/// Pause before parked requests are tried again; doubles up to 16 times.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long heads are asked for before each batch, after one was held.
const WARY: Duration = Duration::from_secs(2);

/// Bytes of requests that are kept; more are refused.
const MAX_BYTES: usize = 4 << 20;

/// The requests of one lane that wait for heads to be let go.
#[derive(Default)]
pub(super) struct Parked {
    tasks: HashMap<TaskId, Vec<Request>>,
    bytes: usize,
    pause: Duration,
    next_try: Option<Instant>,
    wary_until: Option<Instant>,
}

impl Parked {
    /// Returns when to try again, while there is anything to try.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.next_try.filter(|_| !self.tasks.is_empty())
    }

    /// Tells whether heads should be asked for before they are locked.
    pub(super) fn is_wary(&self) -> bool {
        self.wary_until.is_some_and(|until| Instant::now() < until)
    }

    /// Keeps a request, behind those for its task; gives it back when there is
    /// no room.
    fn park(&mut self, request: Request) -> Option<Request> {
        if self.bytes + request.bytes > MAX_BYTES {
            return Some(request);
        }
        let now = Instant::now();
        if !self.is_wary() {
            self.pause = RETRY_PAUSE;
        }
        self.wary_until = Some(now + WARY);
        self.next_try.get_or_insert(now + self.pause);
        self.bytes += request.bytes;
        self.tasks.entry(request.append.task.clone()).or_default().push(request);
        None
    }

    /// Takes everything out, when it is time to try again.
    fn take_due(&mut self) -> Vec<Request> {
        if self.next_try().is_none_or(|due| Instant::now() < due) {
            return Vec::new();
        }
        self.pause = (self.pause * 2).min(RETRY_PAUSE * 16);
        self.take_all()
    }

    fn take_all(&mut self) -> Vec<Request> {
        (self.bytes, self.next_try) = (0, None);
        std::mem::take(&mut self.tasks).into_values().flatten().collect()
    }
}

impl Lane {
    /// Puts parked requests that shall be tried again before those that came.
    pub(super) fn rejoin_parked(&mut self, came: Vec<Request>) -> Vec<Request> {
        let now = Instant::now();
        let (mut requests, late): (Vec<_>, Vec<_>) =
            self.parked().take_due().into_iter().partition(|request| now < request.deadline);
        if !late.is_empty() {
            let error = StoreError::Unavailable("another session holds the task".into());
            self.after.failed(&error);
            fail_requests(late, &error);
        }
        requests.extend(came);
        requests
    }

    /// Answers everything that is still parked.
    pub(super) fn fail_parked(&mut self) {
        let error = StoreError::Unavailable("shutting down".into());
        fail_requests(self.parked().take_all(), &error);
    }

    fn park(&mut self, requests: impl IntoIterator<Item = Request>) {
        for request in requests {
            if let Some(refused) = self.parked().park(request) {
                self.after.failed(&StoreError::Overloaded);
                fail_requests(vec![refused], &StoreError::Overloaded);
            }
        }
    }

    /// Parks requests whose tasks are parked or held, and returns the others.
    pub(super) async fn park_held(
        &mut self,
        requests: Vec<Request>,
        until: Instant,
    ) -> Vec<Request> {
        let parked = &self.parked().tasks;
        let (behind, requests): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| parked.contains_key(&request.append.task));
        self.park(behind);
        let tasks: HashSet<&TaskId> = requests.iter().map(|request| &request.append.task).collect();
        let ids = tasks.into_iter().map(TaskId::to_string).collect();
        // Whatever is wrong with the database, the batch will find out.
        let held = self.held(ids, until).await.unwrap_or_default();
        let (held, free): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| held.contains(request.append.task.as_str()));
        self.park(held);
        free
    }

    /// Parks the requests of plans whose heads are held, and returns the others.
    pub(super) async fn park_held_plans(
        &mut self,
        plans: Vec<TaskPlan>,
        until: Instant,
    ) -> Vec<TaskPlan> {
        let ids = plans.iter().map(|plan| plan.id.to_string()).collect();
        let held = self.held(ids, until).await.unwrap_or_default();
        let (held, free): (Vec<_>, Vec<_>) =
            plans.into_iter().partition(|plan| held.contains(plan.id.as_str()));
        self.park(held.into_iter().flat_map(TaskPlan::into_requests));
        free
    }

    /// Returns those tasks whose heads could only be waited for.
    async fn held(
        &mut self,
        ids: Vec<String>,
        until: Instant,
    ) -> Result<HashSet<String>, StoreError> {
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        loop {
            let connection = self.connect(until).await?;
            let held = sqlx::query_file_scalar!("sql/lanes/held.sql", &ids);
            match held.fetch_all(connection).await {
                Ok(held) => return Ok(held.into_iter().collect()),
                Err(error) if classify(&error) == Failure::Lost => self.disconnect(),
                Err(error) => return Err(to_store_error(&error)),
            }
        }
    }
}
