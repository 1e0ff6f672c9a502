//! The ports of storage, and the adapters behind them.
//!
//! A port method is one whole atomic operation in every adapter: there is no
//! transaction type, no default body and no "supports" question. What a
//! method promises stands on the method; adapters only say how they keep it.
//! The conformance suite in `tests/it/store` is the definition in code: an
//! adapter that passes it is a store.
//!
//! To add an adapter: implement [`Tasks`], [`Events`] and [`Bus`] (or reuse a
//! bus), open it in [`open()`], and add it to the suite's list.

mod bus;
pub(crate) mod clock;
mod error;
mod events;
pub mod memory;
mod open;
pub mod postgres;
mod tasks;

use std::sync::Arc;

pub use bus::{Bus, BusHealth, LocalBus, Moved, Wake};
pub use error::StoreError;
pub use events::{
    Appended, Events, Head, HeadStatus, Journal, JournalEntry, JournalMark, Page, ReadRange,
    SeriesSpan, TaskRef, View,
};
pub use open::{OpenError, Opened, StorageOptions, open};
pub use tasks::{Created, Tasks};

use crate::domain::Event;

/// Everything a storage adapter implements.
pub trait Store: Tasks + Events {}

impl<T: Tasks + Events> Store for T {}

/// A change an adapter made on this instance.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The task that changed.
    pub task: TaskRef,
    /// The events it gained, in order; empty when it was deleted.
    pub events: Vec<Arc<Event>>,
    /// Whether the task is gone.
    pub deleted: bool,
}

/// Hears about changes the moment they are durable.
///
/// Adapters call it from whatever carried out the write, not from the caller
/// that asked for it, so that a caller that goes away silences nobody.
pub trait CommitListener: Send + Sync {
    /// Takes changes that are durable now; must not wait.
    fn committed(&self, commits: &[Commit]);
}
