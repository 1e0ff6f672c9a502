//! The port of webhook deliveries.

use std::sync::Arc;

use async_trait::async_trait;

use super::{StoreError, TaskRef};
use crate::domain::{DeliveryId, Event, HookKey, TaskId, Webhook};

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Owed: waiting for its first or next attempt, or in one.
    Pending,
    /// Taken by the receiver.
    Delivered,
    /// Given up: refused for good, or out of attempts.
    Failed,
    /// Nobody is left to send it to: no instance knows the endpoint any more.
    Cancelled,
}

/// What came of the newest attempt of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// Status the receiver answered with, if it answered.
    pub status: Option<u16>,
    /// Why there was no answer that counts, in a few words of our own.
    pub problem: Option<Arc<str>>,
}

/// A delivery as it stands.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// How far it has come.
    pub state: DeliveryState,
    /// Attempts made so far.
    pub attempts: u32,
    /// What came of the newest.
    pub last: Option<Attempted>,
    /// When the next is due, Unix milliseconds; pending deliveries only.
    pub next_at_ms: Option<u64>,
    /// When it last changed, Unix milliseconds.
    pub updated_at_ms: u64,
}

/// What to claim for one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryClaim {
    /// The receiver.
    pub receiver: u64,
    /// Most deliveries to take.
    pub limit: usize,
    /// How long the claim holds, in milliseconds; then anyone may claim anew.
    pub lease_ms: u64,
}

/// Receivers that something is due for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DueReceivers {
    /// Receivers of webhooks of tasks, each once.
    pub receivers: Vec<u64>,
    /// Where to go on; `None` when these were the last.
    pub next: Option<u64>,
}

/// A delivery that was cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelledDelivery {
    /// The task the event belongs to.
    pub task: TaskId,
    /// The delivery.
    pub id: DeliveryId,
    /// Attempts made before.
    pub attempts: u32,
}

/// A delivery to attempt, which nobody else attempts while the lease holds.
#[derive(Debug, Clone)]
pub struct ClaimedDelivery {
    /// What is owed.
    pub event: Arc<Event>,
    /// To whom.
    pub hook: HookKey,
    /// Groups deliveries that share a receiver.
    pub receiver: u64,
    /// Number of this attempt, from 1; it tells whether the claim still holds.
    pub attempt: u32,
    /// The task's hook, unless it is owed to an endpoint of the configuration.
    pub webhook: Option<Webhook>,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct DeliveryOutcome {
    /// The delivery.
    pub id: DeliveryId,
    /// The attempt this is about; an outcome of an older one is passed over.
    pub attempt: u32,
    /// What came of it; `None` when it was not made.
    pub last: Option<Attempted>,
    /// State from now on.
    pub state: DeliveryState,
    /// Milliseconds until the next attempt; pending deliveries only.
    pub retry_in_ms: u64,
}

/// What is owed to webhooks.
///
/// An append owes its deliveries in its own transaction: they exist exactly
/// if the event does. Deleting the task cancels those that are pending.
#[async_trait]
pub trait Deliveries: Send + Sync {
    /// Returns receivers of webhooks of tasks that something is due for, in
    /// their order, from `from` on and up to about `limit`. It costs by what is
    /// due, whatever else is owed.
    ///
    /// This is a hint: another instance may claim what is due meanwhile.
    /// Endpoints of the configuration are not among them, since an instance
    /// claims only for those it knows.
    async fn due_receivers(&self, from: u64, limit: usize) -> Result<DueReceivers, StoreError>;

    /// Claims deliveries that are due, for these receivers, longest due first.
    ///
    /// The claim counts as an attempt. What is not settled before the lease
    /// ends is due again.
    async fn claim(&self, claims: &[DeliveryClaim]) -> Result<Vec<ClaimedDelivery>, StoreError>;

    /// Cancels up to `limit` deliveries to endpoints of the configuration that
    /// have been due for `unclaimed_ms` and that no instance claimed, except
    /// those to the receivers in `known`.
    async fn cancel_unclaimed(
        &self,
        known: &[u64],
        unclaimed_ms: u64,
        limit: usize,
    ) -> Result<Vec<CancelledDelivery>, StoreError>;

    /// Notes how attempts ended. A failed delivery keeps what it needs to be
    /// sent again, also when the event is cleaned up.
    async fn settle(&self, outcomes: &[DeliveryOutcome]) -> Result<(), StoreError>;

    /// Returns up to `limit` deliveries of a task, newest event first, of
    /// events below `before`.
    async fn deliveries(
        &self,
        task: &TaskRef,
        before: Option<&DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// Makes a delivery due at once, with its attempts counted anew.
    ///
    /// Returns it as it then stands, `None` when the task has no such delivery.
    async fn redeliver(
        &self,
        task: &TaskRef,
        id: &DeliveryId,
    ) -> Result<Option<Delivery>, StoreError>;

    /// Removes up to about `limit` deliveries that were kept long enough:
    /// delivered and cancelled ones an hour, failed ones seven days.
    async fn prune_deliveries(&self, limit: usize) -> Result<usize, StoreError>;
}
