//! What was promised against what arrived.
//!
//! A [`Ledger`] holds what the server acknowledged of one task, a [`Sequence`]
//! what one reader saw of it. Both are a few numbers, however many events there
//! are: indexes must follow each other and ids rise, which a reader sees by
//! itself, and sums over all events must be equal, which shows that what stands
//! at those indexes is what was acknowledged.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::events::{Delivered, Id, Place, digest};
use super::faults::Faults;
use super::report::FaultKind;

/// Ranges of indexes a sequence waits for before it calls them missing.
const MISSING: usize = 1_000;

/// Whether a reader may be spared events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completeness {
    /// Every event is to be delivered.
    Every,
    /// Events of a `latest` series may be left out for newer ones.
    Newest,
}

/// What the server acknowledged of one task. Shared by those who publish to it.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The index after the newest acknowledged event.
    next: AtomicU64,
    events: AtomicU64,
    digest: AtomicU64,
    /// Events of requests that were not answered: they may have been stored or not.
    unknown: AtomicU64,
}

impl Ledger {
    /// Makes the ledger of a task whose log holds `next` events already.
    pub(super) fn after(next: u64) -> Self {
        Self {
            next: AtomicU64::new(next),
            events: AtomicU64::new(0),
            digest: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }

    /// Notes an acknowledged request, whose first event has this number.
    pub(super) fn acknowledge(&self, places: &[Place], first_number: u64) {
        let Some(last) = places.last() else { return };
        let numbered = places.iter().zip(first_number..);
        let sum =
            numbered.fold(0, |sum: u64, (place, number)| sum.wrapping_add(digest(place, number)));
        self.digest.fetch_add(sum, Ordering::Relaxed);
        self.events.fetch_add(places.len() as u64, Ordering::Relaxed);
        self.next.fetch_max(last.index + 1, Ordering::Release);
    }

    /// Notes events of which nobody knows whether they are stored.
    pub(super) fn lose(&self, events: usize) {
        self.unknown.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// Returns the index after the newest acknowledged event.
    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Returns how many events were acknowledged.
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Adds what is wrong with the acknowledgements alone: each event moves the
    /// index by one, so there are as many indexes as events.
    pub(super) fn check(&self, began_at: u64, who: &str, faults: &Faults) {
        let unknown = self.unknown.load(Ordering::Relaxed);
        let (indexes, events) = (self.next() - began_at, self.events());
        if events > indexes || indexes > events + unknown {
            faults.add(FaultKind::Mismatch, || {
                format!("{who}: {events} events were acknowledged at {indexes} indexes")
            });
        }
    }
}

/// What one reader saw of a task.
#[derive(Debug)]
pub(super) struct Sequence {
    who: String,
    completeness: Completeness,
    /// The index after the newest event seen.
    next: u64,
    last_id: Id,
    /// Indexes that were jumped over and may still come, too late.
    missing: Vec<Range<u64>>,
    /// Events of ours that were seen, and the sum of their digests.
    events: u64,
    digest: u64,
}

impl Sequence {
    /// Makes a reader that begins at index `next`; `who` is how faults name it.
    pub(super) fn new(who: String, next: u64, completeness: Completeness) -> Self {
        Self {
            who,
            completeness,
            next,
            last_id: [0; 26],
            missing: Vec::new(),
            events: 0,
            digest: 0,
        }
    }

    /// Returns the index after the newest event seen.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Returns how many of our events were seen.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Takes the next event of the stream.
    pub(super) fn see(&mut self, event: &Delivered<'_>, faults: &Faults) {
        let Place { index, id } = event.place;
        if index < self.next {
            self.see_late(index, faults);
            return;
        }
        if index > self.next && self.completeness == Completeness::Every {
            self.jump(self.next..index, faults);
        }
        if id <= self.last_id {
            faults.add(FaultKind::Reordering, || {
                format!("{}: the id at index {index} is not above the one before", self.who)
            });
        }
        self.next = index + 1;
        self.last_id = id;
        if let Some(mark) = event.mark {
            self.events += 1;
            self.digest = self.digest.wrapping_add(digest(&event.place, mark.number));
        }
    }

    /// Takes an event whose index lies behind: one that was jumped over comes
    /// too late, any other a second time.
    #[cold]
    fn see_late(&mut self, index: u64, faults: &Faults) {
        let jumped = self.missing.iter().position(|range| range.contains(&index));
        let Some(at) = jumped else {
            faults.add(FaultKind::Duplicate, || format!("{}: index {index} came twice", self.who));
            return;
        };
        let range = self.missing.swap_remove(at);
        let around = [range.start..index, index + 1..range.end];
        self.missing.extend(around.into_iter().filter(|range| !range.is_empty()));
        faults.add(FaultKind::Reordering, || {
            format!("{}: index {index} came after a higher one", self.who)
        });
    }

    #[cold]
    fn jump(&mut self, range: Range<u64>, faults: &Faults) {
        if self.missing.len() < MISSING {
            self.missing.push(range);
        } else {
            self.miss(&range, faults);
        }
    }

    fn miss(&self, range: &Range<u64>, faults: &Faults) {
        faults.add_many(FaultKind::Gap, range.end - range.start, || {
            let last = range.end - 1;
            if range.start == last {
                format!("{}: index {last} did not arrive", self.who)
            } else {
                format!("{}: indexes {} to {last} did not arrive", self.who, range.start)
            }
        });
    }

    /// Compares what was seen with what was acknowledged, once nothing more is
    /// to come.
    pub(super) fn conclude(&self, ledger: &Ledger, faults: &Faults) {
        for range in &self.missing {
            self.miss(range, faults);
        }
        if self.next < ledger.next() {
            self.miss(&(self.next..ledger.next()), faults);
        }
        let is_whole = self.missing.is_empty() && self.next >= ledger.next();
        // Where something is known to be missing or to be unknown, sums must differ.
        let is_known = ledger.unknown.load(Ordering::Relaxed) == 0;
        if !is_whole || !is_known || self.completeness == Completeness::Newest || !faults.is_empty()
        {
            return;
        }
        let acknowledged = (ledger.events(), ledger.digest.load(Ordering::Relaxed));
        if acknowledged != (self.events, self.digest) {
            faults.add(FaultKind::Mismatch, || {
                let (promised, seen) = (acknowledged.0, self.events);
                format!(
                    "{}: {promised} events were acknowledged, {seen} seen, not the same",
                    self.who
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::Mark;
    use super::*;

    fn place(index: u64) -> Place {
        let id = format!("{index:026}");
        Place { index, id: id.as_bytes().try_into().unwrap() }
    }

    fn delivered(index: u64, number: u64) -> Delivered<'static> {
        let mark = Some(Mark { number, sent: 0 });
        Delivered { place: place(index), mark, is_snapshot: false, envelope: b"" }
    }

    /// Shows a reader these indexes of a log of six acknowledged events.
    fn faults_of(indexes: &[u64], completeness: Completeness) -> Vec<(FaultKind, u64)> {
        let (ledger, faults) = (Ledger::after(0), Faults::default());
        for index in 0..6 {
            ledger.acknowledge(&[place(index)], index);
        }
        ledger.check(0, "task", &faults);
        let mut sequence = Sequence::new("task, reader".to_owned(), 0, completeness);
        for index in indexes {
            sequence.see(&delivered(*index, *index), &faults);
        }
        sequence.conclude(&ledger, &faults);
        faults.list().iter().map(|fault| (fault.kind, fault.count)).collect()
    }

    #[test]
    fn each_lie_has_its_name() {
        let every = |indexes: &[u64]| faults_of(indexes, Completeness::Every);
        assert_eq!(every(&[0, 1, 2, 3, 4, 5]), []);
        assert_eq!(every(&[0, 1, 4, 5]), [(FaultKind::Gap, 2)]);
        assert_eq!(every(&[0, 1, 2]), [(FaultKind::Gap, 3)]);
        assert_eq!(every(&[0, 1, 1, 2, 3, 4, 5]), [(FaultKind::Duplicate, 1)]);
        assert_eq!(every(&[0, 2, 1, 3, 4, 5]), [(FaultKind::Reordering, 1)]);
        let faults = every(&[0, 4, 2, 5]);
        assert_eq!(faults, [(FaultKind::Gap, 2), (FaultKind::Reordering, 1)]);
    }

    #[test]
    fn superseded_events_may_be_left_out_but_not_the_newest() {
        assert_eq!(faults_of(&[1, 5], Completeness::Newest), []);
        assert_eq!(faults_of(&[1, 3], Completeness::Newest), [(FaultKind::Gap, 2)]);
        assert_eq!(faults_of(&[1, 5, 5], Completeness::Newest), [(FaultKind::Duplicate, 1)]);
    }

    #[test]
    fn other_events_at_the_right_places_are_a_mismatch() {
        let (ledger, faults) = (Ledger::after(0), Faults::default());
        ledger.acknowledge(&[place(0), place(1)], 7);
        let mut sequence = Sequence::new("task".to_owned(), 0, Completeness::Every);
        sequence.see(&delivered(0, 7), &faults);
        sequence.see(&delivered(1, 9), &faults);
        sequence.conclude(&ledger, &faults);
        assert_eq!(faults.list()[0].kind, FaultKind::Mismatch);
    }

    #[test]
    fn an_index_that_is_acknowledged_twice_is_a_mismatch_unless_unknown_ones_explain_a_hole() {
        let kinds = |indexes: &[u64], unknown| {
            let (ledger, faults) = (Ledger::after(0), Faults::default());
            for index in indexes {
                ledger.acknowledge(&[place(*index)], *index);
            }
            ledger.lose(unknown);
            ledger.check(0, "task", &faults);
            faults.list().len()
        };
        assert_eq!(kinds(&[0, 1, 1], 0), 1);
        assert_eq!(kinds(&[0, 2], 0), 1);
        assert_eq!(kinds(&[0, 2], 1), 0);
    }

    #[test]
    fn ids_that_do_not_rise_are_a_reordering() {
        let faults = Faults::default();
        let mut sequence = Sequence::new("task".to_owned(), 0, Completeness::Every);
        let mut low = delivered(1, 1);
        low.place.id = place(0).id;
        sequence.see(&delivered(0, 0), &faults);
        sequence.see(&low, &faults);
        assert_eq!(faults.list()[0].kind, FaultKind::Reordering);
    }
}
