//! A writer lane: group commit for a share of the tasks.
//!
//! A lane keeps one batch in flight and takes whatever queued up meanwhile:
//! no timer, the latency of one statement when idle, group commit under load.
//! All writes to a task go through one lane of an instance, so the lane can
//! judge them by memory and let Postgres check that the memory is true (see
//! [`super::known`]).
//!
//! # Failure handling
//!
//! - A task another instance moved in between drops out of the batch and is
//!   judged again under its lock ([`Lane::write_locked`]).
//! - A lost reply leaves an unknown outcome. The same batch number is sent
//!   again: its receipt, written in the same transaction, lets it take effect
//!   once. A reply that does not come in half of the callers' patience counts
//!   as lost. Past their patience they are told that the outcome is unknown,
//!   and the lane goes on under a new number.
//! - A row that breaks a batch is found by halving; a head that somebody else
//!   holds is found by asking, and the batch goes on without it
//!   (see [`super::parked`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout_at;

use super::crowd::Crowd;
use super::error::{Failure, classify, to_store_error};
use super::known::Known;
use super::parked::Parked;
use super::plan::{Judged, Request, TaskPlan, judge_batch};
use super::queue::{Job, LaneQueue, Work};
use super::session::{Route, Session};
use super::write::{BatchId, Sent, look_up, send};
use super::{After, codes};
use crate::domain::IdempotencyKey;
use crate::store::{Appended, BatchKind, BatchReport, Commit, Report, StoreError};

/// First pause before a broken connection is tried again; doubles up to 16 times.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// What an attempt to connect gets at the least.
const CONNECT_TIME: Duration = Duration::from_millis(500);

/// Batches between two prunings of old receipts.
const PRUNE_EVERY: i64 = 256;

/// How long receipts are kept, in milliseconds: far longer than a batch is retried.
const RECEIPT_LIFE_MS: i64 = 120_000;

/// One writer lane.
pub(super) struct Lane {
    pub(super) queue: Arc<LaneQueue>,
    pub(super) options: PgConnectOptions,
    pub(super) after: Arc<After>,
    pub(super) write_timeout: Duration,
    route: Route,
    connection: Option<Session>,
    id: Option<BatchId>,
    known: Known,
    parked: Parked,
    crowd: Crowd,
}

impl Lane {
    pub(super) fn new(
        queue: Arc<LaneQueue>,
        options: PgConnectOptions,
        after: Arc<After>,
        write_timeout: Duration,
        route: Route,
    ) -> Self {
        Self {
            queue,
            options,
            after,
            write_timeout,
            route,
            connection: None,
            id: None,
            known: Known::default(),
            parked: Parked::default(),
            crowd: Crowd::default(),
        }
    }

    /// Serves batches until the queue is closed.
    pub(super) async fn run(mut self) {
        let mut answered = 0;
        loop {
            let jobs = match self.parked.next_try() {
                None => self.take_together(answered).await,
                Some(due) => tokio::select! {
                    jobs = self.queue.take() => jobs,
                    () = tokio::time::sleep_until(due.into()) => {
                        self.serve(Vec::new()).await;
                        continue;
                    }
                },
            };
            if jobs.is_empty() {
                break;
            }
            answered = jobs.len();
            self.serve(jobs).await;
        }
        self.fail_parked();
    }

    /// Takes the next batch, once those are there who came back together the
    /// last times.
    async fn take_together(&mut self, answered: usize) -> Vec<Job> {
        if let Some(count) = self.crowd.expected(answered, self.queue.len()) {
            let came = self.queue.gather(count).await;
            self.crowd.note(came);
        }
        self.queue.take().await
    }

    async fn serve(&mut self, jobs: Vec<Job>) {
        let now = Instant::now();
        if let Some(oldest) = jobs.first() {
            let waited = now.saturating_duration_since(oldest.since);
            self.after.report(&Report::Waited(waited));
        }
        let late = StoreError::Unavailable("the database did not answer in time".into());
        if jobs.iter().any(|job| job.deadline <= now) {
            self.after.failed(&late);
        }
        let in_time = jobs.iter().map(|job| job.deadline).filter(|deadline| *deadline > now);
        let first_deadline = in_time.min();
        let (mut creates, mut requests, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            if job.deadline <= now {
                job.fail(late.clone());
                continue;
            }
            match job.work {
                Work::Create(birth) => creates.push(*birth),
                Work::Append { append, reply } => {
                    let (deadline, bytes) = (job.deadline, job.bytes);
                    requests.push(Request { append, reply, deadline, bytes });
                }
                Work::Delete { task, reply } => deletes.push((task, reply)),
            }
        }
        // Whoever has waited longest is answered in time, and the others with it.
        let until = first_deadline.unwrap_or(now + self.write_timeout);
        // A key stands once in a batch; a repeat finds what the first one did.
        while !creates.is_empty() {
            let repeats = set_repeats_aside(&mut creates, |birth| birth.key);
            self.create(creates, until).await;
            creates = repeats;
        }
        requests = self.rejoin_parked(requests);
        while !requests.is_empty() {
            let repeats = set_repeats_aside(&mut requests, |request| request.append.key);
            // What one round read, with its keys, says nothing of another's.
            self.known.begin_batch();
            self.append(requests, until).await;
            requests = repeats;
        }
        if !deletes.is_empty() {
            self.delete(deletes, until).await;
        }
        self.prune().await;
    }

    /// Returns the lane's connection, making one if there is none.
    pub(super) async fn connect(&mut self, until: Instant) -> Result<&mut Session, StoreError> {
        let mut pause = RECONNECT_PAUSE;
        while self.connection.is_none() {
            if Instant::now() >= until + CONNECT_TIME {
                // One that is made but never gets an answer is made no more.
                return Err(StoreError::Unavailable("connections break".into()));
            }
            let patience = self.write_timeout / 2;
            let attempt = Session::connect(&self.options, self.route, patience);
            // Late or not, a database that is there has the time to say so.
            let deadline = until.max(Instant::now() + CONNECT_TIME);
            match timeout_at(deadline.into(), attempt).await {
                Ok(Ok(connection)) => self.connection = Some(connection),
                Ok(Err(error)) if Instant::now() + pause >= until => {
                    return Err(StoreError::Unavailable(error.to_string()));
                }
                Err(_) => return Err(StoreError::Unavailable("no connection in time".into())),
                Ok(Err(_)) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECONNECT_PAUSE * 16);
                }
            }
        }
        self.connection.as_mut().ok_or_else(|| StoreError::Unavailable("no connection".into()))
    }

    /// Returns the connection for sending what may have been sent before.
    pub(super) async fn connect_to_send(
        &mut self,
        until: Instant,
        may_have_happened: bool,
    ) -> Result<&mut Session, StoreError> {
        if may_have_happened && Instant::now() >= until {
            return Err(StoreError::OutcomeUnknown("the database did not answer in time".into()));
        }
        match self.connect(until).await {
            Err(StoreError::Unavailable(why)) if may_have_happened => {
                Err(StoreError::OutcomeUnknown(why))
            }
            outcome => outcome,
        }
    }

    /// Takes the connection out of the lane, making one if there is none.
    pub(super) async fn take_connection(&mut self, until: Instant) -> Result<Session, StoreError> {
        self.connect(until).await?;
        self.connection.take().ok_or_else(|| StoreError::Unavailable("no connection".into()))
    }

    /// Gives the connection back to the lane.
    pub(super) fn put_connection(&mut self, connection: Session) {
        self.connection = Some(connection);
    }

    /// Forgets the connection after it broke.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    pub(super) fn known(&mut self) -> &mut Known {
        &mut self.known
    }

    pub(super) fn parked(&mut self) -> &mut Parked {
        &mut self.parked
    }

    /// Returns the number of the next batch, under a lane that readers know.
    pub(super) async fn batch_id(&mut self, until: Instant) -> Result<BatchId, StoreError> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let lane = loop {
            let connection = self.connect(until).await?;
            let registered = sqlx::query_file_scalar!("sql/lanes/register.sql");
            match registered.fetch_one(connection).await {
                Ok(lane) => break lane,
                // A lane that was registered unheard is retired in time.
                Err(error) if classify(&error) == Failure::Lost => self.disconnect(),
                Err(error) => return Err(to_store_error(&error)),
            }
        };
        self.after.add_lane(lane);
        let id = BatchId { lane, batch: 1 };
        self.id = Some(id);
        Ok(id)
    }

    /// Moves on to the next number, after a batch is known to be carried out.
    pub(super) fn finish_batch(&mut self) {
        if let Some(id) = &mut self.id {
            id.batch += 1;
        }
    }

    /// Gives up on the present number: whatever comes of it, it is not reused.
    pub(super) fn abandon_batch(&mut self) {
        self.id = None;
        self.known.forget_all();
    }

    async fn append(&mut self, mut requests: Vec<Request>, until: Instant) {
        if self.parked.is_wary() {
            requests = self.park_held(requests, until).await;
        }
        let Judged { mut plans, mut unread } = judge_batch(&mut self.known, requests);
        if !unread.is_empty() {
            match self.load(&mut unread, until).await {
                Ok(()) => plans.extend(self.judge_loaded(unread)),
                Err(error) => {
                    self.after.failed(&error);
                    fail_requests(unread, &error);
                }
            }
        }
        self.write_plans(plans, until).await;
    }

    /// Judges requests whose tasks were just read: every verdict counts.
    pub(super) fn judge_loaded(&mut self, requests: Vec<Request>) -> Vec<TaskPlan> {
        let Judged { plans, unread } = judge_batch(&mut self.known, requests);
        for request in unread {
            drop(request.reply.send(Ok(Appended::NoSuchTask)));
        }
        plans
    }

    async fn write_plans(&mut self, plans: Vec<TaskPlan>, until: Instant) {
        let mut to_write = Vec::with_capacity(plans.len());
        for mut plan in plans {
            plan.answer_refused();
            if plan.moves_head() {
                to_write.push(plan);
            } else {
                // Nothing to store, for instance an empty list of events.
                drop(plan.settle(0, &mut self.known));
            }
        }
        if to_write.is_empty() {
            return;
        }
        to_write.sort_unstable_by_key(|plan| plan.task.number);
        let overtaken = self.write_group(to_write, until).await;
        if !overtaken.is_empty() {
            let requests = overtaken.into_iter().flat_map(TaskPlan::into_requests).collect();
            self.write_locked(requests, until).await;
        }
    }

    /// Writes plans in one statement; returns those another writer overtook.
    async fn write_group(&mut self, plans: Vec<TaskPlan>, until: Instant) -> Vec<TaskPlan> {
        let mut groups = vec![plans];
        let mut overtaken = Vec::new();
        while let Some(mut plans) = groups.pop() {
            // Breaks invariant 4: callers are told before it is durable.
            failpoint!("reply-before-commit", |pause| {
                plans.iter_mut().for_each(TaskPlan::answer_early);
                tokio::time::sleep(pause).await;
            });
            // Breaks invariant 4: readers are shown what a crash can take back.
            failpoint!("show-before-commit", |pause| {
                let early: Vec<Commit> = plans.iter().map(TaskPlan::foretold).collect();
                self.after.committed(&early);
                tokio::time::sleep(pause).await;
            });
            let began = Instant::now();
            match self.send_once(&plans, until).await {
                Ok(moved) => {
                    self.report_batch(BatchKind::Append, &plans, &moved, began);
                    overtaken.extend(self.settle(plans, moved));
                }
                Err(GroupError::OfARow(_)) if plans.len() > 1 => {
                    let second = plans.split_off(plans.len() / 2);
                    groups.push(second);
                    groups.push(plans);
                }
                Err(GroupError::Held(_)) if Instant::now() < until => {
                    let free = self.park_held_plans(plans, until).await;
                    if !free.is_empty() {
                        groups.push(free);
                    }
                }
                Err(
                    GroupError::Held(error) | GroupError::OfARow(error) | GroupError::Failed(error),
                ) => {
                    self.after.failed(&error);
                    for plan in plans {
                        plan.fail(&error);
                    }
                }
            }
        }
        overtaken
    }

    /// Sends a batch until its outcome is known: once carried out, or not at all.
    async fn send_once(
        &mut self,
        plans: &[TaskPlan],
        until: Instant,
    ) -> Result<Vec<(i64, i64)>, GroupError> {
        let id = self.batch_id(until).await.map_err(GroupError::Failed)?;
        let mut may_have_happened = false;
        loop {
            let connection = match self.connect_to_send(until, may_have_happened).await {
                Ok(connection) => connection,
                Err(error) => {
                    if may_have_happened {
                        self.abandon_batch();
                    }
                    return Err(GroupError::Failed(error));
                }
            };
            let outcome = match send(connection, id, plans).await {
                Ok(Sent::Again) => look_up(connection, id).await.map(Option::unwrap_or_default),
                Ok(Sent::Moved(moved)) => Ok(moved),
                Err(error) => Err(error),
            };
            let error = match outcome {
                Ok(moved) => {
                    self.finish_batch();
                    return Ok(moved);
                }
                Err(error) => error,
            };
            match classify(&error) {
                Failure::Transient => {}
                Failure::Lost => {
                    may_have_happened = true;
                    self.disconnect();
                }
                // Perhaps an earlier copy that still runs.
                Failure::Held if may_have_happened => {}
                Failure::Held => return Err(GroupError::Held(to_store_error(&error))),
                Failure::OfARow => return Err(GroupError::OfARow(to_store_error(&error))),
                Failure::Refused => return Err(GroupError::Failed(to_store_error(&error))),
            }
        }
    }

    /// Tells of a batch that is durable.
    pub(super) fn report_batch(
        &self,
        kind: BatchKind,
        plans: &[TaskPlan],
        moved: &[(i64, i64)],
        began: Instant,
    ) {
        let (requests, events) = plans
            .iter()
            .map(TaskPlan::sizes)
            .fold((0, 0), |sum, plan| (sum.0 + plan.0, sum.1 + plan.1));
        let took = began.elapsed();
        let batch = BatchReport { kind, requests, events, tasks: moved.len(), took };
        self.after.report(&Report::Committed(batch));
    }

    /// Answers those who were written and returns the others.
    pub(super) fn settle(&mut self, plans: Vec<TaskPlan>, moved: Vec<(i64, i64)>) -> Vec<TaskPlan> {
        let moved: HashMap<i64, i64> = moved.into_iter().collect();
        let mut commits: Vec<Commit> = Vec::with_capacity(plans.len());
        let mut overtaken = Vec::new();
        for plan in plans {
            match moved.get(&codes::of_number(plan.task.number)) {
                Some(at) => commits.extend(plan.settle(codes::to_u64(*at), &mut self.known)),
                None => overtaken.push(plan),
            }
        }
        self.after.committed(&commits);
        overtaken
    }

    async fn prune(&mut self) {
        let Some(id) = self.id.filter(|id| id.batch % PRUNE_EVERY == 0) else { return };
        let Some(connection) = &mut self.connection else { return };
        let pruned = sqlx::query_file!(
            "sql/lanes/prune.sql",
            id.lane,
            id.batch - PRUNE_EVERY,
            RECEIPT_LIFE_MS
        );
        if pruned.execute(connection).await.is_err() {
            // The next batch finds out what is wrong with the connection.
            self.disconnect();
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

/// Why a group was not written.
enum GroupError {
    /// Somebody else holds a head.
    Held(StoreError),
    /// One of its rows is to blame.
    OfARow(StoreError),
    /// None of it happened, or nobody knows.
    Failed(StoreError),
}

/// Tells those who asked that nothing was done.
pub(super) fn fail_requests(requests: Vec<Request>, error: &StoreError) {
    for request in requests {
        drop(request.reply.send(Err(error.clone())));
    }
}
