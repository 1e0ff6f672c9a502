//! The port of wake-ups between instances.

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::domain::TaskNumber;

/// A task moved: its log now ends at `next_index`, or it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The task.
    pub number: TaskNumber,
    /// Index its next event gets.
    pub next_index: u64,
    /// Whether its readers should be told at once: it ended or was deleted.
    pub urgent: bool,
}

/// What a bus says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// These tasks moved on another instance.
    Moved(Vec<Moved>),
    /// Something may have been missed: look at everything.
    Rescan,
}

/// Whether wake-ups can be counted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusHealth {
    /// Proven to arrive.
    Healthy,
    /// Not proven: poll instead.
    Deaf,
    /// There is no other instance to hear from.
    Local,
}

/// Carries hints between instances.
///
/// A wake is a hint: it may be lost, late, doubled or wrong, and nobody
/// believes it without reading the store. After any time in which wakes may
/// have been lost the bus says [`Wake::Rescan`] before it calls itself
/// [`BusHealth::Healthy`] again.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Tells other instances that tasks moved; never waits, may be lost.
    fn announce(&self, moved: &[Moved]);

    /// Waits for the next wake from another instance.
    ///
    /// Dropping the future loses nothing.
    async fn next(&self) -> Wake;

    /// Says whether wakes can be counted on at the moment.
    fn health(&self) -> BusHealth;

    /// Returns how many times the bus had to start listening anew.
    fn restarts(&self) -> u64;
}

/// The bus of a single instance: there is nobody else.
#[derive(Debug, Default)]
pub struct LocalBus {
    never: Notify,
}

#[async_trait]
impl Bus for LocalBus {
    fn announce(&self, _moved: &[Moved]) {}

    async fn next(&self) -> Wake {
        self.never.notified().await;
        Wake::Rescan
    }

    fn health(&self) -> BusHealth {
        BusHealth::Local
    }

    fn restarts(&self) -> u64 {
        0
    }
}
