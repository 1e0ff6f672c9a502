//! One task's log in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::domain::{
    BLOCK_LEN, BlockTally, CleanupRule, Contribution, Event, EventDraft, Filter, Kind, SeriesMode,
    SeriesState, SeriesWrite, fold,
};
use crate::store::{Page, ReadRange, SeriesSpan, View};

/// What an entry of the log takes up apart from the event: its place in the
/// map, and where a delta ends in the text of its series.
const PLACE_BYTES: usize = 192;

/// What a kind of events takes up in the histogram of a block, apart from its
/// type, and what a run does. Both stay when events go.
const KIND_BYTES: usize = 96;
const RUN_BYTES: usize = 8;

/// The text of an `accumulate` series, with where each delta ends in it.
#[derive(Debug, Default)]
struct SeriesText {
    body: String,
    /// Index of a delta, and the length of the text up to and including it.
    ends: Vec<(u64, usize)>,
}

impl SeriesText {
    /// Returns how many deltas lie before `index`.
    fn deltas_before(&self, index: u64) -> usize {
        self.ends.partition_point(|(at, _)| *at < index)
    }
}

/// What a bite of cleanup came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bite {
    /// Events removed.
    pub(super) removed: u64,
    /// Where to go on; `None` at the end of the log.
    pub(super) next_index: Option<u64>,
    /// Timestamp of the first event that was too young, Unix milliseconds.
    pub(super) younger_at_ms: Option<u64>,
}

/// The kinds of a log, block by block; cheap to take along, so that filters are
/// evaluated without the lock of the store.
#[derive(Debug, Clone, Default)]
pub(super) struct Kinds(Vec<Arc<BlockTally>>);

/// The events of one task.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// What is left; superseded events are gone.
    events: BTreeMap<u64, Arc<Event>>,
    /// The kinds of all events, also of those that are gone.
    kinds: Kinds,
    texts: HashMap<Arc<str>, SeriesText>,
    bytes: usize,
}

impl Log {
    /// Returns roughly how many bytes the log takes up.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many bytes `draft` takes up until its event goes.
    fn cost_bytes(draft: &EventDraft) -> usize {
        // A delta is kept twice: as an event and in the text of its series.
        PLACE_BYTES + draft.size_bytes() + draft.data.as_str().len()
    }

    /// Returns how many bytes `draft` takes up at most.
    pub(super) fn most_bytes(draft: &EventDraft) -> usize {
        Self::cost_bytes(draft) + KIND_BYTES + draft.event_type.len() + RUN_BYTES
    }

    /// Adds an event.
    pub(super) fn push(&mut self, event: Arc<Event>) {
        let block = usize::try_from(event.index / BLOCK_LEN).unwrap_or(usize::MAX);
        if self.kinds.0.len() <= block {
            self.kinds.0.push(Arc::default());
        }
        let draft = &event.draft;
        let kinds = Arc::make_mut(&mut self.kinds.0[block]);
        if kinds.push(&draft.event_type, draft.level, event.is_delta()) {
            self.bytes += KIND_BYTES + draft.event_type.len();
        }
        if (event.index + 1).is_multiple_of(BLOCK_LEN) {
            kinds.seal();
        }
        self.bytes += RUN_BYTES + Self::cost_bytes(draft);
        self.events.insert(event.index, event);
    }

    /// Brings a series up to date after its events were added.
    pub(super) fn fold(&mut self, write: &SeriesWrite, events: &[Arc<Event>]) {
        for index in &write.superseded {
            if let Some(gone) = self.events.remove(index) {
                self.bytes -= Self::cost_bytes(&gone.draft);
            }
        }
        self.accumulate(write, events);
    }

    fn accumulate(&mut self, write: &SeriesWrite, events: &[Arc<Event>]) {
        if write.state.mode != SeriesMode::Accumulate {
            return;
        }
        let text = self.texts.entry(write.id.clone()).or_default();
        for event in events {
            let is_member = event.draft.series.as_ref().is_some_and(|tag| tag.id == write.id);
            if event.is_delta() && is_member {
                if let Some(part) = Contribution::of(write.state.field.as_ref(), &event.draft) {
                    text.body.push_str(part.body);
                }
                text.ends.push((event.index, text.body.len()));
            }
        }
    }

    /// Reads a page.
    pub(super) fn read(&self, range: &ReadRange, next_index: u64) -> Page {
        let to = range.to.min(next_index);
        let mut page = Page { events: Vec::new(), covers_to: to.max(range.from) };
        let mut bytes = 0;
        for (index, event) in self.events.range(range.from..to.max(range.from)) {
            if range.view == View::WithoutDeltas && event.is_delta() {
                continue;
            }
            if page.events.len() >= range.max_events || (bytes > 0 && bytes >= range.max_bytes) {
                page.covers_to = *index;
                break;
            }
            bytes += event.draft.data.as_str().len();
            page.events.push(event.clone());
        }
        page
    }

    /// Returns the spans of `accumulate` series before `to`.
    pub(super) fn spans(
        &self,
        to: u64,
        series: &HashMap<Arc<str>, SeriesState>,
    ) -> Vec<SeriesSpan> {
        let span = |(id, text): (&Arc<str>, &SeriesText)| {
            let last_index = text.ends[..text.deltas_before(to)].last()?.0;
            let first_index = text.ends.first()?.0;
            let state = series.get(id)?;
            let kind = Kind { event_type: state.event_type.clone(), level: state.level };
            let field = state.field.clone();
            Some(SeriesSpan { id: id.clone(), kind, field, first_index, last_index })
        };
        self.texts.iter().filter_map(span).collect()
    }

    /// Folds a span into its newest event.
    pub(super) fn snapshot(&self, span: &SeriesSpan) -> Option<Event> {
        let text = self.texts.get(&span.id)?;
        let deltas = text.deltas_before(span.last_index + 1);
        let body = &text.body[..text.ends[..deltas].last()?.1];
        let newest = Event::clone(self.events.get(&span.last_index)?);
        Some(fold(newest, span.field.as_deref(), body))
    }

    /// Returns the kinds of the log's events.
    pub(super) fn kinds(&self) -> Kinds {
        self.kinds.clone()
    }

    /// Removes what a rule names of the next `limit` events from an index on,
    /// as far as it is not later than `horizon_ms`.
    pub(super) fn clean(
        &mut self,
        rule: &CleanupRule,
        horizon_ms: u64,
        from: u64,
        limit: usize,
    ) -> Bite {
        self.drop_texts(rule, horizon_ms);
        let stretch: Vec<Arc<Event>> =
            self.events.range(from..).take(limit).map(|(_, event)| event.clone()).collect();
        let mut bite = Bite { removed: 0, next_index: None, younger_at_ms: None };
        if stretch.len() == limit {
            bite.next_index = stretch.last().map(|event| event.index + 1);
        }
        for event in stretch {
            let draft = &event.draft;
            let is_young = event.timestamp_ms > horizon_ms;
            if is_young {
                bite.younger_at_ms.get_or_insert(event.timestamp_ms);
            }
            let tag = draft.series.as_ref();
            let is_doomed = if event.is_delta() {
                tag.is_some_and(|tag| !self.texts.contains_key(&tag.id))
            } else {
                let mode = tag.and_then(|tag| tag.mode);
                !is_young && rule.admits_event(&draft.event_type, draft.level, mode)
            };
            if is_doomed {
                self.events.remove(&event.index);
                self.bytes -= Self::cost_bytes(draft);
                bite.removed += 1;
            }
        }
        bite
    }

    /// Drops the text of each series that a rule names whole.
    fn drop_texts(&mut self, rule: &CleanupRule, horizon_ms: u64) {
        let events = &self.events;
        self.texts.retain(|_, text| {
            let newest = text.ends.last().and_then(|(index, _)| events.get(index));
            newest.is_some_and(|newest| {
                let draft = &newest.draft;
                newest.timestamp_ms > horizon_ms
                    || !rule.admits_event(
                        &draft.event_type,
                        draft.level,
                        Some(SeriesMode::Accumulate),
                    )
            })
        });
    }

    /// Finds the first index from which on everything left is later.
    pub(super) fn position_after(&self, timestamp_ms: u64) -> u64 {
        let last_not_later =
            self.events.iter().rev().find(|(_, event)| event.timestamp_ms <= timestamp_ms);
        last_not_later.map_or(0, |(index, _)| index + 1)
    }
}

impl Kinds {
    /// Counts what passes `filter` before each position.
    pub(super) fn count(&self, positions: &[u64], filter: &Filter) -> Vec<u64> {
        let mut sums = vec![0];
        for block in &self.0 {
            sums.push(sums[sums.len() - 1] + block.count_before(BLOCK_LEN, filter));
        }
        let count = |position: &u64| {
            let block = usize::try_from(position / BLOCK_LEN).unwrap_or(usize::MAX);
            match self.0.get(block) {
                Some(kinds) => sums[block] + kinds.count_before(position % BLOCK_LEN, filter),
                None => sums[sums.len() - 1],
            }
        };
        positions.iter().map(count).collect()
    }

    /// Finds the event that passes `filter` as number `nth`.
    pub(super) fn position_of(&self, filter: &Filter, nth: u64) -> Option<u64> {
        let mut left = nth;
        for (block, kinds) in self.0.iter().enumerate() {
            if let Some(offset) = kinds.offset_of(left, filter) {
                return Some(block as u64 * BLOCK_LEN + offset);
            }
            left -= kinds.count_before(BLOCK_LEN, filter);
        }
        None
    }
}
