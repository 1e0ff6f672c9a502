//! The delivery port over the maps.

use std::sync::Arc;

use async_trait::async_trait;

use super::outbox::Entry;
use super::{MemoryStore, Record, State};
use crate::domain::{DeliveryId, ENDPOINT_RECEIVERS, Event, HookKey, Owed, TaskNumber};
use crate::store::clock::now_ms;
use crate::store::{
    Attempted, CancelledDelivery, ClaimedDelivery, Deliveries, Delivery, DeliveryClaim,
    DeliveryOutcome, DeliveryState, DueReceivers, StoreError, TaskRef,
};

/// How long a delivery that came to its end is kept, in milliseconds.
const ENDED_LIFE_MS: u64 = 3_600_000;

/// How long one that failed can be sent again, in milliseconds: seven days.
const FAILED_LIFE_MS: u64 = 604_800_000;

/// What a delivery takes up beside its event, roughly.
const DELIVERY_BYTES: usize = 256;

/// Where a delivery stands within its task.
pub(super) type DeliverySpot = (u64, HookKey);

/// What is owed to one hook for one event.
#[derive(Debug)]
pub(super) struct Debt {
    event: Arc<Event>,
    receiver: u64,
    state: DeliveryState,
    attempts: u32,
    last: Option<Attempted>,
    next_at_ms: u64,
    updated_at_ms: u64,
    /// What it takes up, and for the first of an event also the event, which
    /// it may outlive in the log.
    bytes: usize,
}

impl Debt {
    /// Returns where the delivery stands in the order of what is pending.
    pub(super) fn entry(&self, number: TaskNumber, index: u64, hook: &HookKey) -> Entry {
        (self.next_at_ms, number, index, hook.clone())
    }

    pub(super) fn receiver(&self) -> u64 {
        self.receiver
    }

    fn delivery(&self, hook: &HookKey) -> Delivery {
        Delivery {
            id: DeliveryId { event: self.event.id(), hook: hook.clone() },
            state: self.state,
            attempts: self.attempts,
            last: self.last.clone(),
            next_at_ms: (self.state == DeliveryState::Pending).then_some(self.next_at_ms),
            updated_at_ms: self.updated_at_ms,
        }
    }
}

impl Record {
    /// Tells whether a webhook still waits for an event of the task.
    pub(super) fn owes(&self) -> bool {
        self.debts.values().any(|debt| debt.state == DeliveryState::Pending)
    }
}

impl State {
    /// Notes what a write owes.
    pub(super) fn owe(&mut self, number: TaskNumber, events: &[Arc<Event>], owed: Vec<Owed>) {
        let Some(record) = self.records.get_mut(&number) else { return };
        let mut kept = None;
        for Owed { position, hook, receiver } in owed {
            let event = events[position].clone();
            let now = event.timestamp_ms;
            self.outbox.ready(receiver, (now, number, event.index, hook.clone()));
            let is_first = kept.replace(position) != Some(position);
            let debt = Debt {
                bytes: DELIVERY_BYTES + if is_first { event.size_bytes() } else { 0 },
                receiver,
                state: DeliveryState::Pending,
                attempts: 0,
                last: None,
                next_at_ms: now,
                updated_at_ms: now,
                event,
            };
            record.debt_bytes += debt.bytes;
            self.bytes += debt.bytes;
            record.debts.insert((debt.event.index, hook), debt);
        }
    }

    /// Changes a delivery and keeps the order of what is pending.
    fn change(
        &mut self,
        number: TaskNumber,
        spot: &DeliverySpot,
        change: impl FnOnce(&mut Debt),
    ) -> Option<&Debt> {
        let debt = self.records.get_mut(&number)?.debts.get_mut(spot)?;
        self.outbox.remove(debt.receiver, debt.entry(number, spot.0, &spot.1));
        change(debt);
        if debt.state == DeliveryState::Pending {
            self.outbox.wait(debt.receiver, debt.entry(number, spot.0, &spot.1));
        }
        Some(debt)
    }

    fn debt(&self, number: TaskNumber, spot: &DeliverySpot) -> Option<&Debt> {
        self.records.get(&number)?.debts.get(spot)
    }
}

#[async_trait]
impl Deliveries for MemoryStore {
    async fn due_receivers(&self, from: u64, limit: usize) -> Result<DueReceivers, StoreError> {
        let mut state = self.state.lock();
        state.outbox.advance(now_ms());
        let of_tasks = state.outbox.receivers(from);
        let mut receivers: Vec<u64> = of_tasks
            .take_while(|receiver| *receiver < ENDPOINT_RECEIVERS)
            .take(limit + 1)
            .collect();
        let next = receivers.get(limit).copied();
        receivers.truncate(limit);
        Ok(DueReceivers { receivers, next })
    }

    async fn claim(&self, claims: &[DeliveryClaim]) -> Result<Vec<ClaimedDelivery>, StoreError> {
        let mut state = self.state.lock();
        let now = now_ms();
        state.outbox.advance(now);
        let mut claimed = Vec::new();
        for claim in claims {
            let due: Vec<Entry> =
                state.outbox.due(claim.receiver).take(claim.limit).cloned().collect();
            for (_, number, index, hook) in due {
                let webhook = hook.position().and_then(|position| {
                    let hooks = state.records.get(&number)?.task.spec.webhooks.as_ref()?;
                    hooks.get(position).cloned()
                });
                let changed = state.change(number, &(index, hook.clone()), |debt| {
                    debt.attempts += 1;
                    debt.next_at_ms = now + claim.lease_ms;
                    debt.updated_at_ms = now;
                });
                let Some(debt) = changed else { continue };
                claimed.push(ClaimedDelivery {
                    event: debt.event.clone(),
                    hook,
                    receiver: debt.receiver,
                    attempt: debt.attempts,
                    webhook,
                });
            }
        }
        Ok(claimed)
    }

    async fn cancel_unclaimed(
        &self,
        known: &[u64],
        unclaimed_ms: u64,
        limit: usize,
    ) -> Result<Vec<CancelledDelivery>, StoreError> {
        let mut state = self.state.lock();
        let now = now_ms();
        let endpoints = state.outbox.receivers(ENDPOINT_RECEIVERS);
        let unknown = endpoints.filter(|receiver| !known.contains(receiver));
        let due = unknown.flat_map(|receiver| state.outbox.due(receiver));
        let old = due.filter(|(at, ..)| at + unclaimed_ms <= now);
        let old: Vec<Entry> = old.take(limit).cloned().collect();
        let mut cancelled = Vec::with_capacity(old.len());
        for (_, number, index, hook) in old {
            let changed = state.change(number, &(index, hook.clone()), |debt| {
                debt.state = DeliveryState::Cancelled;
                debt.updated_at_ms = now;
            });
            let Some(debt) = changed else { continue };
            cancelled.push(CancelledDelivery {
                task: debt.event.task.clone(),
                id: DeliveryId { event: debt.event.id(), hook },
                attempts: debt.attempts,
            });
        }
        Ok(cancelled)
    }

    async fn settle(&self, outcomes: &[DeliveryOutcome]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let now = now_ms();
        for outcome in outcomes {
            let number = outcome.id.event.task();
            let spot = (outcome.id.event.index(), outcome.id.hook.clone());
            let holds = state.debt(number, &spot).is_some_and(|debt| {
                debt.state == DeliveryState::Pending && debt.attempts == outcome.attempt
            });
            if !holds {
                continue;
            }
            state.change(number, &spot, |debt| {
                debt.state = outcome.state;
                debt.next_at_ms = now + outcome.retry_in_ms;
                debt.updated_at_ms = now;
                match &outcome.last {
                    Some(last) => debt.last = Some(last.clone()),
                    None => debt.attempts -= 1,
                }
            });
        }
        Ok(())
    }

    async fn deliveries(
        &self,
        task: &TaskRef,
        before: Option<&DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let state = self.state.lock();
        let Some(record) = state.records.get(&task.number) else { return Ok(Vec::new()) };
        let before = before.map(|id| (id.event.index(), id.hook.clone()));
        let is_before = |spot: &DeliverySpot| before.as_ref().is_none_or(|before| spot < before);
        let debts = record.debts.iter().rev().filter(|(spot, _)| is_before(spot)).take(limit);
        Ok(debts.map(|((_, hook), debt)| debt.delivery(hook)).collect())
    }

    async fn redeliver(
        &self,
        task: &TaskRef,
        id: &DeliveryId,
    ) -> Result<Option<Delivery>, StoreError> {
        if id.event.task() != task.number {
            return Ok(None);
        }
        let spot = (id.event.index(), id.hook.clone());
        let now = now_ms();
        let mut state = self.state.lock();
        let changed = state.change(task.number, &spot, |debt| {
            debt.state = DeliveryState::Pending;
            debt.attempts = 0;
            debt.next_at_ms = now;
            debt.updated_at_ms = now;
        });
        Ok(changed.map(|debt| debt.delivery(&id.hook)))
    }

    async fn prune_deliveries(&self, limit: usize) -> Result<usize, StoreError> {
        let mut state = self.state.lock();
        let (now, mut gone, mut freed) = (now_ms(), 0, 0);
        for record in state.records.values_mut() {
            let before = freed;
            record.debts.retain(|_, debt| {
                let life_ms = match debt.state {
                    DeliveryState::Pending => return true,
                    DeliveryState::Delivered | DeliveryState::Cancelled => ENDED_LIFE_MS,
                    DeliveryState::Failed => FAILED_LIFE_MS,
                };
                let is_kept = gone >= limit || debt.updated_at_ms + life_ms > now;
                gone += usize::from(!is_kept);
                freed += if is_kept { 0 } else { debt.bytes };
                is_kept
            });
            record.debt_bytes -= freed - before;
        }
        state.bytes -= freed;
        Ok(gone)
    }
}
