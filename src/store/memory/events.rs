//! The event port over the maps.

use std::sync::Arc;

use async_trait::async_trait;

use super::log::{Kinds, Log};
use super::{KeyRecord, MemoryStore, Record, State};
use crate::domain::{
    Append, Change, Event, Filter, IdempotencyKey, Sealed, SeriesWrite, TaskId, TaskNumber,
    Transition, judge,
};
use crate::store::clock::now_ms;
use crate::store::{
    Appended, Before, Commit, Events, Head, HeadStatus, Journal, JournalMark, Page, ReadRange,
    SeriesSpan, StoreError, TaskRef,
};

impl Record {
    fn head(&self) -> Head {
        Head {
            task: self.task_ref(),
            status: HeadStatus::Is(self.state.status),
            next_index: self.state.next_index,
            last_timestamp_ms: self.last_timestamp_ms,
            auth_config: self.state.policy.auth_config.clone().map(Arc::new),
        }
    }

    /// Stores what was judged.
    fn apply(&mut self, sealed: Sealed) -> Vec<Arc<Event>> {
        if sealed.events.is_empty() {
            return Vec::new();
        }
        let timestamp_ms = now_ms().max(self.last_timestamp_ms);
        self.last_timestamp_ms = timestamp_ms;
        let task = self.task_ref();
        let mut events = Vec::with_capacity(sealed.events.len());
        for (index, draft) in (sealed.first_index..).zip(sealed.events) {
            let (id, number) = (task.id.clone(), task.number);
            let event = Arc::new(Event { task: id, number, index, timestamp_ms, draft });
            self.log.push(event.clone());
            events.push(event);
        }
        for write in &sealed.series {
            if write.state.first_index >= sealed.first_index {
                self.series_bytes += series_bytes(write);
            }
            self.log.fold(write, &events);
        }
        if let Some(transition) = sealed.transition {
            self.enter(transition, timestamp_ms);
        }
        events
    }

    fn enter(&mut self, transition: Transition, timestamp_ms: u64) {
        self.task.status = transition.to;
        self.task.updated_at_ms = timestamp_ms;
        self.task.completed_at_ms = transition.to.is_terminal().then_some(timestamp_ms);
        self.task.result = transition.result.or(self.task.result.take());
        self.task.error = transition.error.or(self.task.error.take());
        self.task_bytes = self.task.size_bytes();
    }
}

/// What a series takes up apart from its text.
const SERIES_BYTES: usize = 384;

fn series_bytes(write: &SeriesWrite) -> usize {
    let field = write.state.field.as_ref().or(write.state.named_field.as_ref());
    SERIES_BYTES
        + 2 * write.id.len()
        + write.state.event_type.len()
        + field.map_or(0, |field| 2 * field.len())
}

/// Returns how many bytes a change takes up at most, deliveries apart.
fn cost_bytes(change: &Change) -> usize {
    match change {
        Change::Publish(events) => events
            .iter()
            .map(|event| {
                let series = event.series.as_ref().map_or(0, |tag| {
                    let field = tag.field.as_ref().map_or(0, |field| field.len());
                    SERIES_BYTES + 2 * (tag.id.len() + field) + event.event_type.len()
                });
                Log::most_bytes(event) + series
            })
            .sum(),
        // The status event is kept with its data counted like any other's.
        Change::Transition(transition) => 1024 + 2 * transition.size_bytes(),
    }
}

/// Answers a write whose key is known.
fn repeat_append(append: Append, key: IdempotencyKey, did: &KeyRecord) -> Appended {
    if did.request != key.request {
        return Appended::KeyConflict;
    }
    // The same body makes the same drafts; only their place has to be known.
    let drafts = append.change.into_drafts();
    let event = |(index, draft)| {
        let (task, number, timestamp_ms) = (append.task.clone(), did.number, did.at_ms);
        Arc::new(Event { task, number, index, timestamp_ms, draft })
    };
    Appended::Replayed((did.first_index..).zip(drafts).map(event).collect())
}

impl MemoryStore {
    fn kinds_of(&self, task: TaskNumber) -> Option<Kinds> {
        Some(self.state.lock().records.get(&task)?.log.kinds())
    }

    fn append_locked(&self, state: &mut State, append: Append) -> Result<Appended, StoreError> {
        if let Some((key, did)) = state.known_key(append.key) {
            return Ok(repeat_append(append, key, did));
        }
        let Some(number) = state.numbers.get(&append.task).copied() else {
            return Ok(Appended::NoSuchTask);
        };
        self.make_room(state, cost_bytes(&append.change), Some(number))?;
        let Some(record) = state.records.get_mut(&number) else {
            return Ok(Appended::NoSuchTask);
        };
        let Append { change, rules, guard, key, .. } = append;
        let mut sealed = match judge(&mut record.state, change, &rules, guard.as_ref()) {
            Ok(sealed) => sealed,
            Err(refused) => return Ok(Appended::Refused(refused.refusal)),
        };
        let owed = std::mem::take(&mut sealed.owed);
        let size_before = record.size_bytes();
        let before = Before {
            task_type: record.task.spec.task_type.clone(),
            status: Some(record.task.status),
        };
        let is_transition = sealed.transition.is_some();
        let ended = sealed.transition.as_ref().is_some_and(|step| step.to.is_terminal());
        let events = record.apply(sealed);
        let size_after = record.size_bytes();
        let (task, task_ref) = (record.task.clone(), record.task_ref());
        state.bytes = state.bytes - size_before + size_after;
        if ended {
            if let Some(deadline) = State::deadline_of(&task) {
                state.deadlines.remove(&(deadline, number));
            }
            state.finished.insert((task.updated_at_ms, number));
            state.unswept.insert(number);
        }
        if let Some(first) = events.first() {
            state.note(number, first.index, first.index + events.len() as u64);
            let did = KeyRecord {
                request: [0; 32],
                number,
                task: None,
                first_index: first.index,
                at_ms: first.timestamp_ms,
            };
            state.remember_key(key, did, self.max_keys);
            let owes = !owed.is_empty();
            state.owe(number, &events, owed);
            // What is owed is known only now.
            self.trim(state, number);
            let commit =
                Commit { task: task_ref, events: events.clone(), deleted: false, owes, before };
            // Under the lock, so that readers hear of commits in their order.
            self.listener.committed(&[commit]);
        }
        match events.first() {
            Some(event) if is_transition => {
                Ok(Appended::Transitioned(event.clone(), Box::new(task)))
            }
            _ => Ok(Appended::Events(events)),
        }
    }
}

#[async_trait]
impl Events for MemoryStore {
    async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        self.append_locked(&mut self.state.lock(), append)
    }

    async fn head(&self, id: &TaskId) -> Result<Option<Head>, StoreError> {
        Ok(self.state.lock().record(id).map(Record::head))
    }

    async fn heads(&self, numbers: &[TaskNumber]) -> Result<Vec<Head>, StoreError> {
        let state = self.state.lock();
        Ok(numbers.iter().filter_map(|number| Some(state.records.get(number)?.head())).collect())
    }

    async fn read(&self, ranges: &[ReadRange]) -> Result<Vec<Page>, StoreError> {
        let state = self.state.lock();
        let read = |range: &ReadRange| match state.records.get(&range.task.number) {
            Some(record) => record.log.read(range, record.state.next_index),
            None => Page { events: Vec::new(), covers_to: range.from },
        };
        Ok(ranges.iter().map(read).collect())
    }

    async fn series_spans(&self, task: TaskNumber, to: u64) -> Result<Vec<SeriesSpan>, StoreError> {
        let state = self.state.lock();
        Ok(state
            .records
            .get(&task)
            .map(|record| record.log.spans(to, &record.state.series))
            .unwrap_or_default())
    }

    async fn snapshot(
        &self,
        task: &TaskRef,
        span: &SeriesSpan,
    ) -> Result<Option<Event>, StoreError> {
        let state = self.state.lock();
        Ok(state.records.get(&task.number).and_then(|record| record.log.snapshot(span)))
    }

    async fn count(
        &self,
        task: TaskNumber,
        positions: &[u64],
        filter: &Filter,
    ) -> Result<Vec<u64>, StoreError> {
        Ok(match self.kinds_of(task) {
            Some(kinds) => kinds.count(positions, filter),
            None => vec![0; positions.len()],
        })
    }

    async fn position_of(
        &self,
        task: TaskNumber,
        filter: &Filter,
        nth: u64,
    ) -> Result<Option<u64>, StoreError> {
        Ok(self.kinds_of(task).and_then(|kinds| kinds.position_of(filter, nth)))
    }

    async fn position_after(&self, task: TaskNumber, timestamp_ms: u64) -> Result<u64, StoreError> {
        let state = self.state.lock();
        Ok(state.records.get(&task).map_or(0, |record| record.log.position_after(timestamp_ms)))
    }

    async fn journal(&self, mark: Option<&JournalMark>) -> Result<Journal, StoreError> {
        let state = self.state.lock();
        let now = JournalMark([(0, state.journal_sequence)].into(), 0);
        let Some(read_to) = mark.and_then(|mark| mark.0.get(&0)) else {
            return Ok(Journal { entries: Vec::new(), mark: now, has_gap: false });
        };
        let first_kept = state.journal.front().map_or(state.journal_sequence + 1, |e| e.sequence);
        let read = state.journal.partition_point(|entry| entry.sequence <= *read_to);
        let entries = state.journal.iter().skip(read).copied().collect();
        Ok(Journal { entries, mark: now, has_gap: read_to + 1 < first_kept })
    }
}
