//! The ports of storage, and the adapters behind them.
//!
//! A port method is one whole atomic operation in every adapter: there is no
//! transaction type, no default body and no "supports" question. What a
//! method promises stands on the method; adapters only say how they keep it.
//! The conformance suite in `tests/it/store` is the definition in code: an
//! adapter that passes it is a store.
//!
//! To add an adapter: implement [`Tasks`], [`Events`], [`Deliveries`],
//! [`Cleanup`] and [`Bus`] (or reuse a bus), open it in [`open()`], and add it to the suite's list.

mod bus;
mod cleanup;
pub(crate) mod clock;
mod deliveries;
mod error;
mod events;
pub mod memory;
mod open;
pub mod postgres;
mod report;
mod tasks;

use std::sync::Arc;

pub use bus::{Bus, BusHealth, LocalBus, Moved, Wake};
pub use cleanup::{Backlog, Cleaned, Cleanup, Lead};
pub use deliveries::{
    Attempted, CancelledDelivery, ClaimedDelivery, Deliveries, Delivery, DeliveryClaim,
    DeliveryOutcome, DeliveryState, DueReceivers,
};
pub use error::StoreError;
pub use events::{
    Appended, Events, Head, HeadStatus, Journal, JournalEntry, JournalMark, Page, ReadRange,
    SeriesSpan, TaskRef, View,
};
pub use open::{OpenError, Opened, StorageOptions, open};
pub use report::{
    BatchKind, BatchReport, BusProblem, Probe, Report, SnapshotAge, StoreGauges, StorePart,
};
pub use tasks::{Created, Tasks};

use crate::domain::{Event, Task, TaskStatus};

/// Everything a storage adapter implements.
pub trait Store: Tasks + Events + Deliveries + Cleanup {}

impl<T: Tasks + Events + Deliveries + Cleanup> Store for T {}

/// A change an adapter made on this instance.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The task that changed.
    pub task: TaskRef,
    /// The events it gained, in order; empty when it was deleted.
    pub events: Vec<Arc<Event>>,
    /// Whether the task is gone.
    pub deleted: bool,
    /// Whether deliveries to webhooks are owed.
    pub owes: bool,
    /// What the task was before, as far as the adapter knows.
    pub before: Before,
}

impl Commit {
    /// Describes a task that is gone now.
    pub fn of_deletion(task: TaskRef) -> Self {
        let before = Before::default();
        Self { task, events: Vec::new(), deleted: true, owes: false, before }
    }
}

/// A task as it was before a change.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// What kind of task it is, in the backend's words.
    pub task_type: Option<Arc<str>>,
    /// The state it was in.
    pub status: Option<TaskStatus>,
}

/// Hears about changes the moment they are durable.
///
/// Adapters call it from whatever carried out the write, not from the caller
/// that asked for it, so that a caller that goes away silences nobody.
pub trait CommitListener: Send + Sync {
    /// Takes changes that are durable now; must not wait.
    fn committed(&self, commits: &[Commit]);

    /// Takes a task that is durable now; must not wait.
    fn created(&self, task: &Task) {
        let _ = task;
    }

    /// Takes what else there is to tell of; must not wait.
    fn reported(&self, report: &Report<'_>) {
        let _ = report;
    }
}
