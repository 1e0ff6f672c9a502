//! Pending deliveries in the order they are sent: what is due by receiver,
//! what waits by when it is due.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{HookKey, TaskNumber};

/// A pending delivery, by when it is or was due.
pub(super) type Entry = (u64, TaskNumber, u64, HookKey);

/// The order of pending deliveries.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    ready: BTreeMap<u64, BTreeSet<Entry>>,
    waiting: BTreeSet<(Entry, u64)>,
}

impl Outbox {
    /// Adds a delivery that is due.
    pub(super) fn ready(&mut self, receiver: u64, entry: Entry) {
        self.ready.entry(receiver).or_default().insert(entry);
    }

    /// Adds a delivery that is due at its time.
    pub(super) fn wait(&mut self, receiver: u64, entry: Entry) {
        self.waiting.insert((entry, receiver));
    }

    /// Removes a delivery, wherever it stands.
    pub(super) fn remove(&mut self, receiver: u64, entry: Entry) {
        if let Some(entries) = self.ready.get_mut(&receiver) {
            entries.remove(&entry);
            if entries.is_empty() {
                self.ready.remove(&receiver);
            }
        }
        self.waiting.remove(&(entry, receiver));
    }

    /// Makes what waited until now due.
    pub(super) fn advance(&mut self, now: u64) {
        while let Some(((at, ..), _)) = self.waiting.first()
            && *at <= now
            && let Some((entry, receiver)) = self.waiting.pop_first()
        {
            self.ready(receiver, entry);
        }
    }

    /// Returns the receivers something is due for, from one on.
    pub(super) fn receivers(&self, from: u64) -> impl Iterator<Item = u64> {
        self.ready.range(from..).map(|(receiver, _)| *receiver)
    }

    /// Returns what is due for a receiver, longest due first.
    pub(super) fn due(&self, receiver: u64) -> impl Iterator<Item = &Entry> {
        self.ready.get(&receiver).into_iter().flatten()
    }
}
