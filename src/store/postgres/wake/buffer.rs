//! Wakes that arrived and were not yet looked at, and those to be sent.
//!
//! Both are maps from task to how far it moved: any number of wakes for one
//! task is one. Both are bounded; what does not fit becomes "look at
//! everything", respectively is lost, as a hint may be.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::TaskNumber;
use crate::store::{Moved, Wake};

/// Tasks held before the whole becomes a rescan.
const MAX_TASKS: usize = 50_000;

#[derive(Debug, Default)]
struct Content {
    moved: HashMap<TaskNumber, Moved>,
    rescan: bool,
}

/// Coalesced wake-ups, at most one for each task.
#[derive(Debug, Default)]
pub(super) struct WakeBuffer {
    content: Mutex<Content>,
    arrived: Notify,
}

impl WakeBuffer {
    pub(super) fn push(&self, moved: impl IntoIterator<Item = Moved>) {
        let mut content = self.content.lock();
        for wake in moved {
            if content.moved.len() >= MAX_TASKS {
                content.rescan = true;
                content.moved.clear();
            }
            let known = content.moved.entry(wake.number).or_insert(wake);
            known.next_index = known.next_index.max(wake.next_index);
            known.urgent |= wake.urgent;
        }
        drop(content);
        self.arrived.notify_one();
    }

    pub(super) fn push_rescan(&self) {
        self.content.lock().rescan = true;
        self.arrived.notify_one();
    }

    /// Takes what is there; `None` when that is nothing.
    pub(super) fn take(&self) -> Option<Wake> {
        let mut content = self.content.lock();
        if content.rescan {
            *content = Content::default();
            return Some(Wake::Rescan);
        }
        let moved = std::mem::take(&mut content.moved);
        (!moved.is_empty()).then(|| Wake::Moved(moved.into_values().collect()))
    }

    /// Tells whether something urgent waits.
    pub(super) fn is_urgent(&self) -> bool {
        self.content.lock().moved.values().any(|moved| moved.urgent)
    }

    /// Waits until something was pushed.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Waits for the next wake.
    pub(super) async fn next(&self) -> Wake {
        loop {
            if let Some(wake) = self.take() {
                return wake;
            }
            self.arrived.notified().await;
        }
    }
}
