//! Receivers that something may be due for.

use std::collections::{HashSet, VecDeque};

use super::slots::{Health, Slots};

/// Most receivers to remember; a later look finds the others.
const MOST: usize = 4_096;

/// Receivers that something may be due for, and how far the store was looked
/// through for them. They take turns.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    queue: VecDeque<u64>,
    queued: HashSet<u64>,
    /// Where the look that is under way goes on.
    from: Option<u64>,
    /// Whether to look from the beginning after that.
    again: bool,
}

impl Candidates {
    /// Asks for a look through the store.
    pub(super) fn look(&mut self) {
        if self.from.is_none() {
            self.from = Some(0);
        } else {
            self.again = true;
        }
    }

    /// Tells whether looking on can find any that may be served.
    pub(super) fn may_find(&self, slots: &Slots) -> bool {
        self.from.is_some() && self.queue.len() < MOST && slots.has_room()
    }

    /// Returns where to look next; `None` when there is no need to, or no room.
    pub(super) fn next_page(&mut self, slots: &Slots) -> Option<u64> {
        let from = self.from?;
        if self.queue.len() >= MOST {
            // Those that do not answer are many only when most do not.
            self.queue.retain(|receiver| slots.health(*receiver) != Health::Silent);
            self.queued = self.queue.iter().copied().collect();
        }
        (self.queue.len() < MOST).then_some(from)
    }

    /// Notes where the look goes on.
    pub(super) fn found(&mut self, next: Option<u64>) {
        self.from = next;
        if next.is_none() && std::mem::take(&mut self.again) {
            self.from = Some(0);
        }
    }

    /// Adds receivers behind those that wait already.
    pub(super) fn add(&mut self, receivers: impl Iterator<Item = u64>) {
        for receiver in receivers {
            if self.queued.insert(receiver) {
                self.queue.push_back(receiver);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.queue.iter().copied()
    }

    /// Notes that deliveries of a receiver were claimed: those who have more
    /// line up anew.
    pub(super) fn claimed(&mut self, receivers: &[(u64, bool)]) {
        let served: HashSet<u64> = receivers.iter().map(|(receiver, _)| *receiver).collect();
        self.queue.retain(|receiver| !served.contains(receiver));
        for (receiver, has_more) in receivers {
            if *has_more {
                self.queue.push_back(*receiver);
            } else {
                self.queued.remove(receiver);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_take_turns() {
        let mut candidates = Candidates::default();
        candidates.add([1, 2, 3, 1].into_iter());
        candidates.claimed(&[(1, true), (2, false)]);
        assert_eq!(candidates.iter().collect::<Vec<_>>(), [3, 1]);
        candidates.add([2, 3].into_iter());
        assert_eq!(candidates.iter().collect::<Vec<_>>(), [3, 1, 2]);
    }

    #[test]
    fn a_look_that_is_asked_for_during_another_follows_it() {
        let (mut candidates, slots) = (Candidates::default(), Slots::new(1));
        assert_eq!(candidates.next_page(&slots), None);
        candidates.look();
        assert_eq!(candidates.next_page(&slots), Some(0));
        candidates.found(Some(7));
        candidates.look();
        assert_eq!(candidates.next_page(&slots), Some(7));
        candidates.found(None);
        assert_eq!(candidates.next_page(&slots), Some(0));
        candidates.found(None);
        assert_eq!(candidates.next_page(&slots), None);
    }
}
