//! Opens a fresh store: the one place of the suite that knows adapters.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use taskcast::store::{self, Bus, Commit, CommitListener, StorageOptions, Store};
use taskcast::supervisor::Supervisor;

use crate::support::Backend;

/// Most bytes in memory, in cases that are not about running out.
const MAX_BYTES: usize = 256 << 20;

/// An open store with what it reported.
#[derive(Clone)]
pub struct Fresh {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub commits: Arc<Recorder>,
    /// Ends the store's loops with the last handle.
    _running: Arc<Running>,
}

struct Running {
    supervisor: Supervisor,
    _backend: Backend,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.supervisor.stop_token().cancel();
    }
}

impl Fresh {
    /// Opens a store on the backend.
    pub async fn open(backend: &Backend) -> Self {
        let options = match backend {
            Backend::Memory => StorageOptions::Memory { max_bytes: MAX_BYTES },
            Backend::Postgres(database) => {
                StorageOptions::Postgres(postgres_options(&database.url()))
            }
        };
        let (commits, supervisor) = (Arc::new(Recorder::default()), Supervisor::new());
        let opened = store::open(options, commits.clone(), &supervisor).await.unwrap();
        let running = Running { supervisor, _backend: backend.clone() };
        Self { store: opened.store, bus: opened.bus, commits, _running: Arc::new(running) }
    }

    /// Opens two stores on the same tasks. In memory there can be only one, so
    /// both are the same one.
    pub async fn open_two(backend: &Backend) -> (Self, Self) {
        let first = Self::open(backend).await;
        let second = match backend {
            Backend::Memory => first.clone(),
            Backend::Postgres(_) => Self::open(backend).await,
        };
        (first, second)
    }
}

impl Deref for Fresh {
    type Target = dyn Store;

    fn deref(&self) -> &(dyn Store + 'static) {
        &*self.store
    }
}

fn postgres_options(url: &str) -> store::postgres::PostgresOptions {
    // No append of a case is under way while it cleans up.
    let removal_delay = Duration::ZERO;
    store::postgres::PostgresOptions { removal_delay, ..store::postgres::PostgresOptions::new(url) }
}

/// Keeps what a store reports.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<Commit>>);

impl Recorder {
    /// Returns everything reported so far, in order.
    pub fn all(&self) -> Vec<Commit> {
        self.0.lock().clone()
    }
}

impl CommitListener for Recorder {
    fn committed(&self, commits: &[Commit]) {
        self.0.lock().extend_from_slice(commits);
    }
}
