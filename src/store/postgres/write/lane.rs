//! A writer lane: group commit for a share of the tasks.
//!
//! A lane keeps one batch in flight and takes whatever queued up meanwhile:
//! no timer, the latency of one statement when idle, group commit under load.
//! All writes to a task go through one lane of an instance, so the lane can
//! decide them by its [`super::head_cache`] and let Postgres check that the
//! cache is right.
//!
//! # Contention
//!
//! - As a rule a batch is one insert-only statement, all of it or nothing. If
//!   another instance took an index first, the batch did not happen: its tasks
//!   are read again and decided anew.
//! - A task that lost counts as contended for two seconds. Its events go into
//!   a statement that claims the next index of each task, so that a task that
//!   loses again holds up no other.
//! - After two losses, and for a transition of a contended task, the lane
//!   reserves the next index first (see [`super::reserve`]).
//!
//! # Failures
//!
//! - A lost reply leaves an unknown outcome. The same batch number is sent
//!   again: its receipt lets it take effect once. Past the patience of its
//!   callers they hear that the outcome is unknown, and the lane goes on under
//!   a new id.
//! - A row that breaks a batch is found by halving; a head that another session
//!   has locked is found by probing (see [`super::deferred`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;

use super::append::{AppendBatch, BatchId, ClaimBatch, Outcome, Stale, Written};
use super::connection::{Connection, WriteError};
use super::deferred::Deferred;
use super::head_cache::HeadCache;
use super::idempotency::{FindKeys, answer_repeats};
use super::linger::LingerPolicy;
use super::load::{FindTasks, Load};
use super::plan::{Decided, TaskPlan, decide_batch};
use super::post_commit::PostCommit;
use super::queue::LaneQueue;
use super::receipt::Prune;
use super::registration::Register;
use super::request::{AppendRequest, CreateRequest, Request, fail_all};
use super::reserve::{Reserved, ReservedWrite};
use crate::domain::{IdempotencyKey, TaskId};
use crate::store::postgres::columns::{of_number, to_u64};
use crate::store::postgres::primary::Primary;
use crate::store::postgres::rows::TaskRow;
use crate::store::postgres::session::Route;
use crate::store::{Appended, BatchKind, BatchReport, Commit, Report, StoreError};

/// Batches between two prunings of old receipts.
const PRUNE_EVERY: i64 = 256;

/// Most receipts that are pruned at once: more than are written meanwhile.
const PRUNE_BATCHES: i64 = 1024;

/// Losses against another writer before the next index is reserved.
const MAX_LOSSES: u32 = 2;

/// Rounds after which a request is given up; a reservation needs one.
const MAX_ROUNDS: u32 = 16;

/// One writer lane.
pub(in super::super) struct Lane {
    queue: Arc<LaneQueue>,
    pub(super) post_commit: Arc<PostCommit>,
    write_timeout: Duration,
    pub(super) connection: Connection,
    pub(super) id: Option<BatchId>,
    /// Batches up to this one have no receipt any more.
    pruned: i64,
    pub(super) cache: HeadCache,
    /// Tasks of a batch that did not happen, by the index it began at: whoever
    /// has another end when it is read again lost against another writer.
    suspects: HashMap<TaskId, u64>,
    pub(super) deferred: Deferred,
    linger: LingerPolicy,
}

impl Lane {
    pub(in super::super) fn new(
        queue: Arc<LaneQueue>,
        options: PgConnectOptions,
        post_commit: Arc<PostCommit>,
        write_timeout: Duration,
        route: Route,
        primary: Arc<Primary>,
    ) -> Self {
        Self {
            queue,
            post_commit,
            write_timeout,
            connection: Connection::new(options, route, write_timeout, primary),
            id: None,
            pruned: 0,
            cache: HeadCache::default(),
            suspects: HashMap::new(),
            deferred: Deferred::default(),
            linger: LingerPolicy::default(),
        }
    }

    /// Serves batches until the queue is closed.
    pub(in super::super) async fn run(mut self) {
        let mut answered = 0;
        loop {
            let requests = match self.deferred.next_try() {
                None => self.take_batch(answered).await,
                Some(due) => tokio::select! {
                    requests = self.queue.take() => requests,
                    () = tokio::time::sleep_until(due.into()) => {
                        self.serve(Vec::new()).await;
                        continue;
                    }
                },
            };
            if requests.is_empty() {
                break;
            }
            answered = requests.len();
            self.serve(requests).await;
        }
        self.fail_deferred();
    }

    /// Takes the next batch, lingering for producers that publish in lockstep.
    async fn take_batch(&mut self, answered: usize) -> Vec<Request> {
        if let Some(count) = self.linger.expected(answered, self.queue.len()) {
            let came = self.queue.linger(count).await;
            self.linger.note(came);
        }
        self.queue.take().await
    }

    async fn serve(&mut self, requests: Vec<Request>) {
        let now = Instant::now();
        if let Some(oldest) = requests.first() {
            let waited = now.saturating_duration_since(oldest.queued_at());
            self.post_commit.report(&Report::Waited(waited));
        }
        let (late, in_time): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| request.deadline() <= now);
        if !late.is_empty() {
            let error = StoreError::Unavailable("the database did not answer in time".into());
            self.post_commit.failed(&error);
            for request in late {
                request.fail(error.clone());
            }
        }
        // Whoever has waited longest is answered in time, and the others with it.
        let until = in_time.iter().map(Request::deadline).min();
        let until = until.unwrap_or(now + self.write_timeout);
        let (mut creates, mut appends, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
        for request in in_time {
            match request {
                Request::Create(create) => creates.push(*create),
                Request::Append(append) => appends.push(*append),
                Request::Delete(delete) => deletes.push(delete),
            }
        }
        self.create_in_rounds(creates, until).await;
        self.append_in_rounds(appends, until).await;
        if !deletes.is_empty() {
            self.delete(deletes, until).await;
        }
        self.prune(until).await;
    }

    /// A key stands once in a batch; a repeat finds what the first one did.
    async fn create_in_rounds(&mut self, mut requests: Vec<CreateRequest>, until: Instant) {
        while !requests.is_empty() {
            let repeats = set_repeats_aside(&mut requests, |request| request.key);
            self.create(requests, until).await;
            requests = repeats;
        }
    }

    async fn append_in_rounds(&mut self, came: Vec<AppendRequest>, until: Instant) {
        let mut requests = self.rejoin_deferred(came);
        while !requests.is_empty() {
            let repeats = set_repeats_aside(&mut requests, |request| request.key);
            // What one round read, with its keys, says nothing of another's.
            self.cache.begin_batch();
            self.append(requests, until).await;
            requests = repeats;
        }
    }

    /// Returns the number of the next batch, of a lane that readers know.
    pub(super) async fn batch_id(&mut self, until: Instant) -> Result<BatchId, StoreError> {
        match self.id {
            Some(id) if self.post_commit.has_lane(id.lane) => return Ok(id),
            // A heartbeat found that it was retired.
            Some(_) => self.abandon_lane(),
            None => {}
        }
        let lane = (rand::random::<u64>() >> 1).cast_signed();
        let registered = self.connection.run(until, &mut Register { lane }).await;
        let server = registered.map_err(WriteError::of_read)?;
        self.post_commit.add_lane(lane);
        let id = BatchId { lane, batch: 1, server };
        (self.id, self.pruned) = (Some(id), 0);
        // What was known before may be of another server.
        self.cache.clear();
        Ok(id)
    }

    /// Moves on to the next number, after a batch is known to be carried out.
    pub(super) fn finish_batch(&mut self) {
        if let Some(id) = &mut self.id {
            id.batch += 1;
        }
    }

    /// Gives the lane's id up: its number may be used by a batch whose outcome
    /// is unknown, or it is registered no more.
    pub(super) fn abandon_lane(&mut self) {
        if let Some(id) = self.id.take() {
            self.post_commit.remove_lane(id.lane);
        }
        self.cache.clear();
    }

    async fn append(&mut self, mut requests: Vec<AppendRequest>, until: Instant) {
        if self.deferred.probe_locks() {
            requests = self.defer_locked(requests, until).await;
        }
        requests = self.answer_known_repeats(requests, until).await;
        for losses in 0..MAX_ROUNDS {
            if requests.is_empty() {
                return;
            }
            let plans = self.decide(requests, until).await;
            requests = self.write_plans(plans, losses, until).await;
        }
        let error = StoreError::Unavailable("other writers of the task were always first".into());
        self.post_commit.failed(&error);
        fail_all(requests, &error);
    }

    /// Looks up the keys of requests that will be decided by the cache.
    async fn answer_known_repeats(
        &mut self,
        mut requests: Vec<AppendRequest>,
        until: Instant,
    ) -> Vec<AppendRequest> {
        let cached = requests.iter().filter(|request| self.cache.get(&request.task).is_some());
        let mut find = FindKeys::of(cached.filter_map(|request| request.key));
        if find.is_empty() {
            return requests;
        }
        match self.connection.run(until, &mut find).await {
            Ok(keys) => answer_repeats(&mut requests, &keys),
            Err(error) => {
                let error = error.of_read();
                self.post_commit.failed(&error);
                fail_all(std::mem::take(&mut requests), &error);
            }
        }
        requests
    }

    /// Decides requests, reading what is not cached.
    async fn decide(&mut self, requests: Vec<AppendRequest>, until: Instant) -> Vec<TaskPlan> {
        let Decided { mut plans, mut unread } = decide_batch(&mut self.cache, requests);
        if unread.is_empty() {
            return plans;
        }
        match self.load(&mut unread, until).await {
            Ok(()) => {
                let decided = decide_batch(&mut self.cache, unread);
                for request in decided.unread {
                    request.ticket.answer(Ok(Appended::NoSuchTask));
                }
                plans.extend(decided.plans);
            }
            Err(error) => {
                self.post_commit.failed(&error);
                fail_all(unread, &error);
            }
        }
        plans
    }

    /// Reads the tasks of these requests, and answers repeats among them.
    async fn load(
        &mut self,
        requests: &mut Vec<AppendRequest>,
        until: Instant,
    ) -> Result<(), StoreError> {
        let loaded = self.connection.run(until, &mut Load { requests: &*requests }).await;
        let (tasks, keys) = loaded.map_err(WriteError::of_read)?;
        for (id, task) in tasks? {
            let seen = self.suspects.remove(&id);
            if seen.is_some_and(|seen| seen != task.state.next_index) {
                self.cache.mark_contended(&id);
            }
            self.cache.put_fresh(id, task);
        }
        self.suspects.clear();
        answer_repeats(requests, &keys);
        Ok(())
    }

    /// Writes plans; returns the requests that have to be decided anew.
    async fn write_plans(
        &mut self,
        plans: Vec<TaskPlan>,
        losses: u32,
        until: Instant,
    ) -> Vec<AppendRequest> {
        let (mut fast, mut claims, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
        for mut plan in plans {
            plan.answer_rejected();
            if !plan.writes() {
                // Nothing to store, for instance an empty list of events.
                drop(plan.settle(0, None, &mut self.cache));
            } else if !self.cache.is_contended(&plan.id) {
                fast.push(plan);
            } else if plan.has_transition() || losses >= MAX_LOSSES {
                reserved.extend(plan.into_requests());
            } else {
                claims.push(plan);
            }
        }
        let mut left = Vec::new();
        if !fast.is_empty() {
            self.write_groups(BatchKind::Append, fast, until, &mut left).await;
        }
        if !claims.is_empty() {
            self.write_groups(BatchKind::Claim, claims, until, &mut left).await;
        }
        if !reserved.is_empty() {
            self.write_reserved(reserved, until, &mut left).await;
        }
        left
    }

    /// Writes plans, in as few statements as their rows and the locks of others
    /// allow. What has to be decided anew is added to `left`.
    async fn write_groups(
        &mut self,
        kind: BatchKind,
        mut plans: Vec<TaskPlan>,
        until: Instant,
        left: &mut Vec<AppendRequest>,
    ) {
        plans.sort_unstable_by_key(|plan| plan.task.number);
        // Breaks the order in which all writers insert: two may wait for each other.
        failpoint!("unsorted-inserts", |_| {
            rand::seq::SliceRandom::shuffle(&mut plans[..], &mut rand::rng());
        });
        let mut groups = vec![plans];
        while let Some(mut plans) = groups.pop() {
            self.break_invariant_4(&mut plans).await;
            let began = Instant::now();
            match self.write_group(kind, &plans, until).await {
                Ok(Outcome::Written(written)) => {
                    let lost = self.settle(kind, plans, written, until, began).await;
                    for plan in &lost {
                        self.cache.mark_contended(&plan.id);
                    }
                    left.extend(lost.into_iter().flat_map(TaskPlan::into_requests));
                }
                Ok(Outcome::Stale { .. }) | Err(WriteError::Conflict(..)) => {
                    self.suspect(&plans);
                    left.extend(plans.into_iter().flat_map(TaskPlan::into_requests));
                }
                Err(WriteError::Data(_)) if plans.len() > 1 => {
                    let second = plans.split_off(plans.len() / 2);
                    groups.push(second);
                    groups.push(plans);
                }
                Err(WriteError::LockTimeout(_)) if Instant::now() < until => {
                    let free = self.defer_locked_plans(plans, until).await;
                    groups.extend(free.into_iter().filter(|group| !group.is_empty()));
                }
                Err(error) => {
                    let error = error.into_store_error();
                    self.post_commit.failed(&error);
                    for plan in plans {
                        plan.fail(&error);
                    }
                }
            }
        }
    }

    /// Notes what plans were based on whose batch did not happen.
    fn suspect(&mut self, plans: &[TaskPlan]) {
        if let [plan] = plans {
            // No need to read it to know.
            self.cache.mark_contended(&plan.id);
        }
        self.suspects.extend(plans.iter().map(|plan| (plan.id.clone(), plan.seen_index)));
    }

    /// Sends one batch until its outcome is known.
    async fn write_group(
        &mut self,
        kind: BatchKind,
        plans: &[TaskPlan],
        until: Instant,
    ) -> Result<Outcome, WriteError> {
        let id = self.batch_id(until).await.map_err(WriteError::Failed)?;
        let outcome = if kind == BatchKind::Claim {
            self.connection.run(until, &mut ClaimBatch::new(id, plans)).await
        } else {
            self.connection.run(until, &mut AppendBatch::new(id, plans)).await
        };
        match &outcome {
            Ok(Outcome::Written(_) | Outcome::Stale { is_spent: true, .. }) => {
                self.finish_batch();
            }
            Err(WriteError::Unknown(_)) => self.abandon_lane(),
            Ok(Outcome::Stale { .. }) | Err(_) => {}
        }
        if let Ok(Outcome::Stale { what, .. }) = &outcome {
            self.note_stale(*what);
        }
        outcome
    }

    /// Forgets what turned out to be outdated; tasks are read again anyway.
    fn note_stale(&mut self, what: Stale) {
        match what {
            Stale::Head => {}
            Stale::Server | Stale::Lane => self.abandon_lane(),
        }
    }

    /// Decides and writes requests behind a reservation.
    async fn write_reserved(
        &mut self,
        requests: Vec<AppendRequest>,
        until: Instant,
        left: &mut Vec<AppendRequest>,
    ) {
        let mut id = match self.batch_id(until).await {
            Ok(id) => id,
            Err(error) => {
                self.post_commit.failed(&error);
                return fail_all(requests, &error);
            }
        };
        let began = Instant::now();
        let mut write =
            ReservedWrite { id: &mut id, cache: &mut self.cache, requests, unsettled: None };
        let outcome = self.connection.run(until, &mut write).await;
        let requests = write.into_requests();
        self.id = Some(id);
        match outcome {
            Ok(Reserved::Nothing) => {}
            Ok(Reserved::Written(plans, written)) => {
                self.finish_batch();
                self.settle(BatchKind::Reserve, plans, written, until, began).await;
            }
            Ok(Reserved::Stale(what)) => {
                self.note_stale(what);
                left.extend(requests);
            }
            // The transaction was rolled back, so nothing of it happened.
            Err(WriteError::Conflict(..)) => left.extend(requests),
            Err(WriteError::LockTimeout(_)) if Instant::now() < until => {
                let (count, free) = (requests.len(), self.defer_locked(requests, until).await);
                if free.len() < count {
                    left.extend(free);
                } else {
                    self.defer(free);
                }
            }
            Err(error) => {
                if matches!(error, WriteError::Unknown(_)) {
                    self.abandon_lane();
                }
                let error = error.into_store_error();
                self.post_commit.failed(&error);
                fail_all(requests, &error);
            }
        }
    }

    /// Answers those who were written and returns the others.
    async fn settle(
        &mut self,
        kind: BatchKind,
        plans: Vec<TaskPlan>,
        written: Written,
        until: Instant,
        began: Instant,
    ) -> Vec<TaskPlan> {
        let Written { at, tasks, documents } = written;
        let tasks: Option<HashSet<i64>> = tasks.map(|tasks| tasks.into_iter().collect());
        let is_written = |plan: &TaskPlan| {
            tasks.as_ref().is_none_or(|tasks| tasks.contains(&of_number(plan.task.number)))
        };
        let (written, lost): (Vec<TaskPlan>, Vec<TaskPlan>) =
            plans.into_iter().partition(is_written);
        self.report_batch(kind, &written, began);
        let mut documents = self.documents(&written, documents, until).await;
        let mut commits: Vec<Commit> = Vec::with_capacity(written.len());
        for plan in written {
            let document = documents.remove(&of_number(plan.task.number));
            commits.extend(plan.settle(to_u64(at), document, &mut self.cache));
        }
        self.post_commit.committed(&commits);
        lost
    }

    /// Returns the tasks that changed their state, to answer with: a receipt
    /// does not tell of them, so after a lost reply they are read.
    async fn documents(
        &mut self,
        written: &[TaskPlan],
        rows: Vec<TaskRow>,
        until: Instant,
    ) -> HashMap<i64, TaskRow> {
        let mut documents: HashMap<i64, TaskRow> =
            rows.into_iter().map(|row| (row.number, row)).collect();
        let moved = written.iter().filter(|plan| plan.has_transition());
        let numbers: Vec<i64> = moved
            .map(|plan| of_number(plan.task.number))
            .filter(|number| !documents.contains_key(number))
            .collect();
        if !numbers.is_empty() {
            let until = until.max(Instant::now() + self.write_timeout / 2);
            let read = self.connection.run(until, &mut FindTasks { numbers }).await;
            documents.extend(read.unwrap_or_default().into_iter().map(|row| (row.number, row)));
        }
        documents
    }

    /// Reports a batch that is durable.
    fn report_batch(&self, kind: BatchKind, plans: &[TaskPlan], began: Instant) {
        let (requests, events) = plans
            .iter()
            .map(TaskPlan::sizes)
            .fold((0, 0), |sum, plan| (sum.0 + plan.0, sum.1 + plan.1));
        let took = began.elapsed();
        let batch = BatchReport { kind, requests, events, tasks: plans.len(), took };
        self.post_commit.report(&Report::Committed(batch));
    }

    /// Tells callers and readers of a batch before it is durable, where a
    /// failpoint says so.
    #[cfg_attr(
        not(feature = "failpoints"),
        expect(
            clippy::unused_async,
            unused_variables,
            reason = "only failpoints do anything here"
        )
    )]
    async fn break_invariant_4(&self, plans: &mut [TaskPlan]) {
        failpoint!("reply-before-commit", |pause| {
            plans.iter_mut().for_each(TaskPlan::answer_early);
            tokio::time::sleep(pause).await;
        });
        failpoint!("show-before-commit", |pause| {
            let early: Vec<Commit> = plans.iter().map(TaskPlan::foretold).collect();
            self.post_commit.committed(&early);
            tokio::time::sleep(pause).await;
        });
    }

    async fn prune(&mut self, until: Instant) {
        let Some(id) = self.id.filter(|id| id.batch % PRUNE_EVERY == 0) else { return };
        let (after, up_to) = (self.pruned, id.batch.min(self.pruned + PRUNE_BATCHES));
        let mut prune = Prune { lane: id.lane, after, up_to };
        // The next batch finds out what is wrong with the connection.
        if let Ok(Some(last)) = self.connection.run(until, &mut prune).await {
            self.pruned = last;
        }
    }
}

/// Takes out what has the key of something before it.
fn set_repeats_aside<T>(jobs: &mut Vec<T>, key: impl Fn(&T) -> Option<IdempotencyKey>) -> Vec<T> {
    if jobs.iter().filter(|job| key(job).is_some()).nth(1).is_none() {
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let (first, repeats) = std::mem::take(jobs)
        .into_iter()
        .partition(|job| key(job).is_none_or(|key| seen.insert(key.key)));
    *jobs = first;
    repeats
}
