//! How far a run is, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// A stretch of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phase {
    /// What is being done.
    pub name: &'static str,
    /// How many steps it takes; 0 when nobody knows.
    pub total: u64,
    /// How many of them are done.
    pub done: u64,
}

/// How far a run is. Written by the run, read by anyone at any time.
#[derive(Debug, Default)]
pub struct Progress {
    phase: Mutex<(&'static str, u64)>,
    done: AtomicU64,
}

impl Progress {
    /// Returns what is being done now.
    pub fn phase(&self) -> Phase {
        let (name, total) = *self.phase.lock();
        Phase { name, total, done: self.done.load(Ordering::Relaxed) }
    }

    pub(super) fn begin(&self, name: &'static str, total: usize) {
        *self.phase.lock() = (name, total as u64);
        self.done.store(0, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, steps: u64) {
        self.done.fetch_add(steps, Ordering::Relaxed);
    }
}
