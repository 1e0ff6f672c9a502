//! A stretch of the log with each `accumulate` series as one snapshot.
//!
//! The snapshot stands where the newest event of its series stood when the
//! view was taken. Everything is taken as of one index, so the view can be
//! left anywhere and continued later: a frame that stands before a snapshot
//! of older events says how far its view reached.

use std::collections::VecDeque;
use std::sync::Arc;

use super::reads::Reads;
use super::topic::Slot;
use crate::domain::Filter;
use crate::store::{SeriesSpan, StoreError, View};

/// Indexes looked back at first for a `limit`; grows fourfold.
const FIRST_WINDOW: u64 = 1024;

/// An entry of a collapsed view.
#[derive(Debug)]
pub(super) struct Collapsed {
    pub(super) slot: Arc<Slot>,
    pub(super) is_snapshot: bool,
    pub(super) passes: bool,
    /// Whether a reader that stops here needs the view to go on.
    pub(super) stands_before_fold: bool,
}

/// A collapsed view of `next..to`.
#[derive(Debug)]
pub(super) struct CollapsedView {
    next: u64,
    to: u64,
    /// Snapshots still to come, by position.
    snapshots: VecDeque<SeriesSpan>,
    is_gone: bool,
}

impl CollapsedView {
    /// Takes the view; snapshots that `filter` hides are left out.
    pub(super) async fn open(
        reads: &Reads,
        from: u64,
        to: u64,
        filter: &Filter,
    ) -> Result<Self, StoreError> {
        let spans = if from < to { reads.spans(to).await? } else { Arc::default() };
        let mut snapshots: Vec<SeriesSpan> = spans
            .iter()
            .filter(|span| span.last_index >= from)
            .filter(|span| filter.admits_kind(&span.kind.event_type, span.kind.level))
            .cloned()
            .collect();
        snapshots.sort_by_key(|span| span.last_index);
        Ok(Self { next: from, to, snapshots: snapshots.into(), is_gone: false })
    }

    /// Moves the start so that only the newest `limit` entries that pass are left.
    pub(super) async fn keep_newest(
        &mut self,
        reads: &Reads,
        limit: usize,
        filter: &Filter,
    ) -> Result<(), StoreError> {
        let mut window = FIRST_WINDOW.max(2 * limit as u64);
        loop {
            let from = self.to.saturating_sub(window).max(self.next);
            let mut positions = self.positions(reads, from, filter).await?;
            if positions.len() >= limit || from == self.next {
                let surplus = positions.len().saturating_sub(limit);
                positions.drain(..surplus);
                self.next = positions.first().copied().unwrap_or(self.to);
                self.snapshots.retain(|span| span.last_index >= self.next);
                return Ok(());
            }
            window = window.saturating_mul(4);
        }
    }

    /// Returns where entries that pass stand, from `from` on.
    async fn positions(
        &self,
        reads: &Reads,
        from: u64,
        filter: &Filter,
    ) -> Result<Vec<u64>, StoreError> {
        let mut positions: Vec<u64> =
            self.snapshots.iter().map(|span| span.last_index).filter(|at| *at >= from).collect();
        let mut next = from;
        while next < self.to {
            let page = reads.page(next, self.to, self.to, View::WithoutDeltas).await?;
            if page.covers_to == next {
                break;
            }
            let passing = page.events.iter().filter(|event| filter.admits(event));
            positions.extend(passing.map(|event| event.index));
            next = page.covers_to;
        }
        positions.sort_unstable();
        Ok(positions)
    }

    /// Tells whether everything was read.
    pub(super) fn is_done(&self) -> bool {
        self.next >= self.to
    }

    /// Tells whether the task went before everything was read.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Reads on; an empty answer before the end means the task is gone.
    pub(super) async fn read(
        &mut self,
        reads: &Reads,
        filter: &Filter,
    ) -> Result<Vec<Collapsed>, StoreError> {
        if self.is_done() {
            return Ok(Vec::new());
        }
        let page = reads.page(self.next, self.to, self.to, View::WithoutDeltas).await?;
        if page.covers_to == self.next {
            self.next = self.to;
            self.is_gone = true;
            return Ok(Vec::new());
        }
        let mut entries = Vec::with_capacity(page.events.len());
        let mut events = page.events.iter().peekable();
        while let Some(span) = self.snapshots.pop_front_if(|span| span.last_index < page.covers_to)
        {
            while let Some(event) = events.next_if(|event| event.index < span.last_index) {
                entries.push(plain(event, filter));
            }
            if let Some(event) = reads.snapshot(&span).await? {
                entries.push(Collapsed {
                    slot: Slot::new(event),
                    is_snapshot: true,
                    passes: true,
                    stands_before_fold: false,
                });
            }
            if folds(&span) {
                for entry in &mut entries {
                    let is_before = entry.slot.event.index < span.last_index;
                    entry.stands_before_fold |= is_before;
                }
            }
        }
        entries.extend(events.map(|event| plain(event, filter)));
        if self.snapshots.iter().any(folds) {
            for entry in &mut entries {
                entry.stands_before_fold = true;
            }
        }
        self.next = page.covers_to;
        Ok(entries)
    }
}

/// Tells whether a snapshot stands for more than its newest event.
fn folds(span: &SeriesSpan) -> bool {
    span.first_index < span.last_index
}

fn plain(event: &Arc<crate::domain::Event>, filter: &Filter) -> Collapsed {
    Collapsed {
        slot: Slot::new(event.clone()),
        is_snapshot: false,
        passes: filter.admits(event),
        stands_before_fold: false,
    }
}
