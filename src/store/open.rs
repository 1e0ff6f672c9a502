//! Opening a store: the only place that names adapters.

use std::sync::Arc;
use std::time::Duration;

use super::memory::MemoryStore;
use super::postgres::{self, PostgresOptions};
use super::{Bus, CommitListener, LocalBus, Store};
use crate::supervisor::Supervisor;

/// Where tasks are kept.
#[derive(Debug, Clone)]
pub enum StorageOptions {
    /// In this process; gone with it.
    Memory {
        /// Most bytes of tasks and events to hold.
        max_bytes: usize,
    },
    /// In Postgres.
    Postgres(PostgresOptions),
}

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Postgres is not usable as it is.
    #[error(transparent)]
    Postgres(#[from] postgres::ConnectError),
}

/// An open store with the bus that belongs to it.
pub struct Opened {
    /// What kind of store it is, in one word: `memory`, `postgres`.
    pub provider: &'static str,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// How long polling may rest while the bus is healthy.
    pub poll_interval: Duration,
    /// Finishes what was accepted; resolves when nothing is in flight.
    pub closer: Box<dyn Fn() -> futures_util::future::BoxFuture<'static, ()> + Send + Sync>,
}

impl Opened {
    /// Returns a store with its bus, polled once a second and with nothing to
    /// finish when it closes.
    pub fn new(provider: &'static str, store: Arc<dyn Store>, bus: Arc<dyn Bus>) -> Self {
        Self {
            provider,
            store,
            bus,
            poll_interval: Duration::from_secs(1),
            closer: Box::new(|| Box::pin(std::future::ready(()))),
        }
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

/// Opens the store `options` describe; `listener` hears every commit.
pub async fn open(
    options: StorageOptions,
    listener: Arc<dyn CommitListener>,
    supervisor: &Supervisor,
) -> Result<Opened, OpenError> {
    match options {
        StorageOptions::Memory { max_bytes } => {
            let store = Arc::new(MemoryStore::new(max_bytes, listener));
            Ok(Opened::new("memory", store, Arc::new(LocalBus::default())))
        }
        StorageOptions::Postgres(options) => {
            Ok(postgres::open(options, listener, supervisor).await?)
        }
    }
}
