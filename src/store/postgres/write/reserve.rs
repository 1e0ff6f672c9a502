//! Writing behind a reservation, where optimistic concurrency does not get
//! through: pessimistic locking for tasks that another instance keeps writing
//! to, and for their transitions.
//!
//! A lock on the head alone does not stop other writers, who do not lock it.
//! So a placeholder row takes the next index of the log first. From then on
//! every other writer waits for this transaction, which reads the task, decides,
//! and writes its events in place of the placeholder.

use super::super::session::Session;
use super::append::{AppendBatch, BatchId, Outcome, Stale, Written};
use super::connection::Statement;
use super::head_cache::HeadCache;
use super::idempotency::answer_repeats;
use super::load::Load;
use super::plan::{TaskPlan, decide_batch};
use super::receipt::{look_up, void};
use super::request::AppendRequest;
use crate::store::Appended;

/// What became of requests that were to be written behind a reservation.
pub(super) enum Reserved {
    /// Nothing was left to write.
    Nothing,
    /// These plans are durable.
    Written(Vec<TaskPlan>, Written),
    /// It did not happen, because it was based on outdated state.
    Stale(Stale),
}

/// Decides and writes requests while the next index of their tasks is reserved.
pub(super) struct ReservedWrite<'a> {
    pub(super) id: &'a mut BatchId,
    pub(super) cache: &'a mut HeadCache,
    /// What is left to do.
    pub(super) requests: Vec<AppendRequest>,
    /// What was sent, while nobody knows what came of it.
    pub(super) unsettled: Option<Vec<TaskPlan>>,
}

impl ReservedWrite<'_> {
    /// Returns every request that is not answered yet.
    pub(super) fn into_requests(mut self) -> Vec<AppendRequest> {
        self.reset();
        self.requests
    }

    fn reset(&mut self) {
        let plans = self.unsettled.take().unwrap_or_default();
        self.requests.extend(plans.into_iter().flat_map(TaskPlan::into_requests));
    }

    /// Settles what an earlier attempt left open; `None` when it did not happen.
    async fn resolve(&mut self, session: &mut Session) -> Result<Option<Reserved>, sqlx::Error> {
        if self.unsettled.is_none() {
            return Ok(None);
        }
        if void(session, *self.id).await? {
            self.id.batch += 1;
            self.reset();
            return Ok(None);
        }
        let receipt = look_up(session, *self.id).await?;
        let plans = self.unsettled.take().unwrap_or_default();
        Ok(receipt.map(|receipt| Reserved::Written(plans, Written::some(receipt))))
    }

    /// Reserves, reads, decides and writes; all but the commit.
    async fn write(
        &mut self,
        session: &mut Session,
    ) -> Result<Result<Written, Reserved>, sqlx::Error> {
        let ids: Vec<String> =
            self.requests.iter().map(|request| request.task.to_string()).collect();
        let reserved = sqlx::query_file!("sql/write/reserve.sql", &ids as &[String])
            .fetch_all(&mut *session)
            .await?;
        let (tasks, keys) = Load { requests: &self.requests }.run(&mut *session, false).await?;
        let tasks = tasks.map_err(|error| sqlx::Error::Decode(error.to_string().into()))?;
        answer_repeats(&mut self.requests, &keys);
        for (id, task) in tasks {
            self.cache.put_fresh(id, task);
        }
        let decided = decide_batch(self.cache, std::mem::take(&mut self.requests));
        for request in decided.unread {
            request.ticket.answer(Ok(Appended::NoSuchTask));
        }
        let mut plans = Vec::with_capacity(decided.plans.len());
        for mut plan in decided.plans {
            plan.answer_rejected();
            if plan.writes() {
                plans.push(plan);
            } else {
                drop(plan.settle(0, None, self.cache));
            }
        }
        if plans.is_empty() {
            return Ok(Err(Reserved::Nothing));
        }
        plans.sort_unstable_by_key(|plan| plan.task.number);
        let plans = self.unsettled.insert(plans);
        let (tasks, indexes): (Vec<i64>, Vec<i64>) =
            reserved.into_iter().map(|row| (row.task, row.index)).unzip();
        sqlx::query_file!("sql/write/release.sql", &tasks, &indexes).execute(&mut *session).await?;
        match AppendBatch::new(*self.id, plans).send(session).await? {
            Outcome::Written(written) => Ok(Ok(written)),
            Outcome::Stale { what, .. } => Ok(Err(Reserved::Stale(what))),
        }
    }
}

impl Statement for ReservedWrite<'_> {
    type Output = Reserved;

    async fn run(&mut self, session: &mut Session, _: bool) -> Result<Reserved, sqlx::Error> {
        if let Some(settled) = self.resolve(session).await? {
            return Ok(settled);
        }
        session.begin().await?;
        let written = match self.write(session).await {
            Ok(written) => written,
            Err(error) => {
                // Without a commit nothing happened.
                self.reset();
                // A session that cannot even roll back is lost.
                session.rollback().await?;
                return Err(error);
            }
        };
        match written {
            Ok(written) => {
                session.commit().await?;
                let plans = self.unsettled.take().unwrap_or_default();
                Ok(Reserved::Written(plans, written))
            }
            Err(outcome) => {
                self.reset();
                session.rollback().await?;
                Ok(outcome)
            }
        }
    }
}
