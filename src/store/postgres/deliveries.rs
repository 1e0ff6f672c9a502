//! The port of webhook deliveries over SQL.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::PostgresStore;
use super::columns::{of_number, to_i64, to_number, to_u64};
use super::rows::{EventRow, to_task_id};
use crate::domain::{DeliveryId, EventId, HookKey, Webhook};
use crate::store::{
    Attempted, CancelledDelivery, ClaimedDelivery, Deliveries, Delivery, DeliveryClaim,
    DeliveryOutcome, DeliveryState, DueReceivers, StoreError, TaskRef,
};

/// How long a delivery that came to its end is kept, in milliseconds.
const ENDED_LIFE_MS: i64 = 3_600_000;

/// How long one that failed can be sent again, in milliseconds: seven days.
const FAILED_LIFE_MS: i64 = 604_800_000;

/// Most deliveries that one look marks as due.
const MARKED_AT_ONCE: i64 = 1_000;

const fn of_state(state: DeliveryState) -> i16 {
    match state {
        // Statements and indexes count on pending being 0 and failed 2.
        DeliveryState::Pending => 0,
        DeliveryState::Delivered => 1,
        DeliveryState::Failed => 2,
        DeliveryState::Cancelled => 3,
    }
}

fn to_state(code: i16) -> Result<DeliveryState, StoreError> {
    [
        DeliveryState::Pending,
        DeliveryState::Delivered,
        DeliveryState::Failed,
        DeliveryState::Cancelled,
    ]
    .into_iter()
    .find(|state| of_state(*state) == code)
    .ok_or_else(|| StoreError::Corrupt(format!("delivery.state {code}")))
}

fn to_hook(text: &str) -> Result<HookKey, StoreError> {
    HookKey::parse(text).ok_or_else(|| StoreError::Corrupt(format!("delivery.hook {text:?}")))
}

/// A delivery as it stands.
struct DeliveryRow {
    index: i64,
    hook: String,
    at: i64,
    state: i16,
    attempts: i32,
    next_at: i64,
    updated_at: i64,
    last_status: Option<i32>,
    last_problem: Option<String>,
}

impl DeliveryRow {
    fn into_delivery(self, task: &TaskRef) -> Result<Delivery, StoreError> {
        let state = to_state(self.state)?;
        let status = self.last_status.and_then(|status| u16::try_from(status).ok());
        let problem = self.last_problem.map(Arc::from);
        let event = EventId::new(to_u64(self.at), task.number, to_u64(self.index));
        Ok(Delivery {
            id: DeliveryId { event, hook: to_hook(&self.hook)? },
            state,
            attempts: u32::try_from(self.attempts).unwrap_or_default(),
            last: (status.is_some() || problem.is_some()).then_some(Attempted { status, problem }),
            next_at_ms: (state == DeliveryState::Pending).then(|| to_u64(self.next_at)),
            updated_at_ms: to_u64(self.updated_at),
        })
    }
}

/// A delivery that was claimed, with its event, unless that is gone.
struct ClaimRow {
    task: i64,
    index: i64,
    hook: String,
    receiver: i64,
    at: i64,
    attempts: i32,
    id: String,
    webhooks: Option<String>,
    level: Option<i16>,
    mode: Option<i16>,
    event_type: Option<String>,
    series: Option<String>,
    field: Option<String>,
    data: Option<String>,
}

impl ClaimRow {
    /// Returns how a delivery ends whose event was removed before it was sent:
    /// nobody can send it, so it must not stay owed.
    fn outcome_without_event(&self) -> Result<Option<DeliveryOutcome>, StoreError> {
        if self.event_type.is_some() {
            return Ok(None);
        }
        let event = EventId::new(to_u64(self.at), to_number(self.task)?, to_u64(self.index));
        let problem = Some(Arc::from("the event was removed before it was sent"));
        Ok(Some(DeliveryOutcome {
            id: DeliveryId { event, hook: to_hook(&self.hook)? },
            attempt: u32::try_from(self.attempts).unwrap_or_default(),
            state: DeliveryState::Failed,
            retry_in_ms: 0,
            last: Some(Attempted { status: None, problem }),
        }))
    }

    fn into_claimed(self) -> Result<ClaimedDelivery, StoreError> {
        let task = TaskRef { id: to_task_id(&self.id)?, number: to_number(self.task)? };
        let hook = to_hook(&self.hook)?;
        let webhook = match (hook.position(), &self.webhooks) {
            (Some(position), Some(text)) => {
                let hooks: Vec<Webhook> = super::rows::from_text("task.webhooks", text)?;
                hooks.into_iter().nth(position)
            }
            _ => None,
        };
        let gone = || StoreError::Corrupt("a delivery without its event".into());
        let event = EventRow {
            index: self.index,
            at: self.at,
            level: self.level.ok_or_else(gone)?,
            mode: self.mode,
            event_type: self.event_type.ok_or_else(gone)?,
            series: self.series,
            field: self.field,
            data: self.data.ok_or_else(gone)?,
        };
        Ok(ClaimedDelivery {
            event: Arc::new(event.into_event(&task)?),
            hook,
            receiver: self.receiver.cast_unsigned(),
            attempt: u32::try_from(self.attempts).unwrap_or_default(),
            webhook,
        })
    }
}

/// Outcomes as columns.
#[derive(Default)]
struct Outcomes<'a> {
    task: Vec<i64>,
    index: Vec<i64>,
    hook: Vec<&'a str>,
    attempt: Vec<i32>,
    state: Vec<i16>,
    retry_in: Vec<i64>,
    was_made: Vec<bool>,
    status: Vec<Option<i32>>,
    problem: Vec<Option<&'a str>>,
}

impl<'a> Outcomes<'a> {
    fn push(&mut self, outcome: &'a DeliveryOutcome) {
        let last = outcome.last.as_ref();
        self.task.push(of_number(outcome.id.event.task()));
        self.index.push(to_i64(outcome.id.event.index()));
        self.hook.push(outcome.id.hook.as_str());
        self.attempt.push(i32::try_from(outcome.attempt).unwrap_or(i32::MAX));
        self.state.push(of_state(outcome.state));
        self.retry_in.push(to_i64(outcome.retry_in_ms));
        self.was_made.push(last.is_some());
        self.status.push(last.and_then(|last| last.status).map(i32::from));
        self.problem.push(last.and_then(|last| last.problem.as_deref()));
    }
}

#[async_trait]
impl Deliveries for PostgresStore {
    async fn due_receivers(&self, from: u64, limit: usize) -> Result<DueReceivers, StoreError> {
        let rows = sqlx::query_file!(
            "sql/deliveries/due.sql",
            to_i64(from),
            to_i64(limit as u64 + 1),
            MARKED_AT_ONCE,
        )
        .fetch_all(&self.reads)
        .await?;
        let marked = rows.iter().filter(|row| row.is_marked).count();
        let mut receivers: Vec<u64> =
            rows.iter().filter(|row| !row.is_marked).map(|row| to_u64(row.receiver)).collect();
        let mut next = receivers.get(limit).copied();
        receivers.truncate(limit);
        // Those that come before `from` or after the page; not those of endpoints.
        let marked_for = rows.iter().filter(|row| row.is_marked && row.receiver >= 0);
        receivers.extend(marked_for.map(|row| to_u64(row.receiver)));
        receivers.sort_unstable();
        receivers.dedup();
        if next.is_none() && to_i64(marked as u64) >= MARKED_AT_ONCE {
            // More may have become due than one statement marks.
            next = Some(0);
        }
        Ok(DueReceivers { receivers, next })
    }

    async fn claim(&self, claims: &[DeliveryClaim]) -> Result<Vec<ClaimedDelivery>, StoreError> {
        let receivers: Vec<i64> = claims.iter().map(|claim| claim.receiver.cast_signed()).collect();
        let limits: Vec<i64> = claims.iter().map(|claim| to_i64(claim.limit as u64)).collect();
        let leases: Vec<i64> = claims.iter().map(|claim| to_i64(claim.lease_ms)).collect();
        let rows = sqlx::query_file_as!(
            ClaimRow,
            "sql/deliveries/claim.sql",
            &receivers,
            &limits,
            &leases,
        )
        .fetch_all(&self.reads)
        .await?;
        let mut claimed = Vec::with_capacity(rows.len());
        let mut without_event = Vec::new();
        for row in rows {
            let read = match row.outcome_without_event() {
                Ok(None) => row.into_claimed().map(|delivery| claimed.push(delivery)),
                gone => gone.map(|outcome| without_event.extend(outcome)),
            };
            if let Err(error) = read {
                // One that cannot be read must not hold up the others.
                tracing::error!(%error, "a delivery cannot be read");
            }
        }
        if !without_event.is_empty() {
            self.settle(&without_event).await?;
        }
        Ok(claimed)
    }

    async fn cancel_unclaimed(
        &self,
        known: &[u64],
        unclaimed_ms: u64,
        limit: usize,
    ) -> Result<Vec<CancelledDelivery>, StoreError> {
        let known: Vec<i64> = known.iter().map(|receiver| receiver.cast_signed()).collect();
        let rows = sqlx::query_file!(
            "sql/deliveries/cancel.sql",
            &known,
            to_i64(unclaimed_ms),
            to_i64(limit as u64),
        )
        .fetch_all(&self.reads)
        .await?;
        let mut cancelled = Vec::with_capacity(rows.len());
        for row in rows {
            let number = to_number(row.task)?;
            let event = EventId::new(to_u64(row.at), number, to_u64(row.index));
            cancelled.push(CancelledDelivery {
                task: to_task_id(&row.id)?,
                id: DeliveryId { event, hook: to_hook(&row.hook)? },
                attempts: u32::try_from(row.attempts).unwrap_or_default(),
            });
        }
        Ok(cancelled)
    }

    async fn settle(&self, outcomes: &[DeliveryOutcome]) -> Result<(), StoreError> {
        let mut columns = Outcomes::default();
        let mut sorted: Vec<&DeliveryOutcome> = outcomes.iter().collect();
        sorted.sort_unstable_by_key(|outcome| {
            (outcome.id.event.task(), outcome.id.event.index(), outcome.id.hook.clone())
        });
        for outcome in sorted {
            columns.push(outcome);
        }
        sqlx::query_file!(
            "sql/deliveries/settle.sql",
            &columns.task,
            &columns.index,
            &columns.hook as &[&str],
            &columns.attempt,
            &columns.state,
            &columns.retry_in,
            &columns.was_made,
            &columns.status as &[Option<i32>],
            &columns.problem as &[Option<&str>],
        )
        .execute(&self.reads)
        .await?;
        Ok(())
    }

    async fn deliveries(
        &self,
        task: &TaskRef,
        before: Option<&DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let (index, hook) = match before {
            Some(id) => (to_i64(id.event.index()), id.hook.as_str()),
            None => (i64::MAX, ""),
        };
        let rows = sqlx::query_file_as!(
            DeliveryRow,
            "sql/deliveries/list.sql",
            of_number(task.number),
            index,
            hook,
            to_i64(limit as u64),
        )
        .fetch_all(&self.reads)
        .await?;
        rows.into_iter().map(|row| row.into_delivery(task)).collect()
    }

    async fn redeliver(
        &self,
        task: &TaskRef,
        id: &DeliveryId,
    ) -> Result<Option<Delivery>, StoreError> {
        if id.event.task() != task.number {
            return Ok(None);
        }
        let row = sqlx::query_file_as!(
            DeliveryRow,
            "sql/deliveries/redeliver.sql",
            of_number(task.number),
            to_i64(id.event.index()),
            id.hook.as_str(),
        )
        .fetch_optional(&self.reads)
        .await?;
        row.map(|row| row.into_delivery(task)).transpose()
    }

    async fn prune_deliveries(&self, limit: usize) -> Result<usize, StoreError> {
        let mut gone = 0;
        for (state, life_ms) in [
            (DeliveryState::Delivered, ENDED_LIFE_MS),
            (DeliveryState::Cancelled, ENDED_LIFE_MS),
            (DeliveryState::Failed, FAILED_LIFE_MS),
        ] {
            let left = to_i64((limit as u64).saturating_sub(gone));
            let code = of_state(state);
            let pruned = &self.pruned.deliveries[code.unsigned_abs() as usize];
            let from = pruned.load(Ordering::Relaxed);
            let removed = sqlx::query_file!("sql/deliveries/prune.sql", code, life_ms, left, from)
                .fetch_one(&self.reads)
                .await?;
            pruned.fetch_max(removed.newest.unwrap_or(0), Ordering::Relaxed);
            gone += to_u64(removed.count);
        }
        Ok(usize::try_from(gone).unwrap_or(usize::MAX))
    }
}
