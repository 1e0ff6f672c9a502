//! The stream of every task's events, live from the moment of connecting.
//!
//! It is read from the store's journal, which knows of every batch committed
//! anywhere, in an order in which no task's events change places. Readers
//! share one bounded ring; one that falls out of it is cut off, because this
//! stream has no cursor it could come back with.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::{Dispatcher, Slot};
use crate::domain::{Event, Filter, TaskNumber};
use crate::store::{
    Commit, Journal, JournalEntry, JournalMark, ReadRange, Store, StoreError, TaskRef, View,
};

/// Events read for one journal entry at a time.
const EVENTS_PER_READ: usize = 2048;

/// Bytes read for one journal entry at a time.
const BYTES_PER_READ: usize = 1 << 20;

/// Time for readers to take a quarter of what is kept, within a burst.
const BURST_PAUSE: Duration = Duration::from_millis(2);

/// A reader of all tasks was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// It fell further behind than is kept.
    #[error("too far behind")]
    Lagged,
}

/// An event on its way to readers of all tasks.
#[derive(Debug, Clone)]
pub struct FeedItem {
    /// The event.
    pub slot: Arc<Slot>,
    /// Its number among those this reader got, from 0.
    pub filtered_index: u64,
}

#[derive(Debug)]
struct Queued {
    slot: Arc<Slot>,
    entry: JournalEntry,
}

#[derive(Debug, Default)]
struct State {
    ring: VecDeque<Queued>,
    bytes: usize,
    /// Position of the first entry of the ring.
    first: u64,
    /// Our own commits, kept until the journal names them.
    recent: HashMap<(TaskNumber, u64), Vec<Arc<Event>>>,
    recent_bytes: usize,
    /// Where the journal stood when the first reader came.
    start: Option<JournalMark>,
}

/// What readers of all tasks share.
#[derive(Debug)]
pub(super) struct Feed {
    state: Mutex<State>,
    max_bytes: usize,
    readers: AtomicUsize,
    wanted: Notify,
    moved: watch::Sender<()>,
}

impl Feed {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            max_bytes,
            readers: AtomicUsize::new(0),
            wanted: Notify::new(),
            moved: watch::Sender::new(()),
        }
    }

    pub(super) fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Acquire) > 0
    }

    /// Waits until somebody wants the journal read.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Notes commits of this instance: the journal has something new.
    pub(super) fn note(&self, commits: &[Commit]) {
        if !self.has_readers() {
            return;
        }
        let mut state = self.state.lock();
        for commit in commits {
            let Some(first) = commit.events.first() else { continue };
            state.recent_bytes += size_of(&commit.events);
            state.recent.insert((commit.task.number, first.index), commit.events.clone());
        }
        if state.recent_bytes > self.max_bytes {
            // The store has them as well.
            state.recent.clear();
            state.recent_bytes = 0;
        }
        drop(state);
        self.wanted.notify_one();
    }

    pub(super) fn take_start(&self) -> Option<JournalMark> {
        self.state.lock().start.take()
    }

    /// Cuts everybody off: what comes next does not follow what they have.
    pub(super) fn lose_track(&self) {
        let mut state = self.state.lock();
        state.first += state.ring.len() as u64 + 1;
        state.ring.clear();
        state.bytes = 0;
        drop(state);
        self.moved.send_replace(());
    }

    /// Adds what the journal says happened.
    pub(super) async fn push(
        &self,
        store: &Arc<dyn Store>,
        journal: &Journal,
    ) -> Result<(), StoreError> {
        let entries: Vec<JournalEntry> =
            journal.entries.iter().filter(|entry| entry.from < entry.next_index).copied().collect();
        let mut found = self.take_recent(&entries);
        self.read_others(store, &entries, &mut found).await?;
        self.state.lock().start = None;
        let mut unseen_bytes = 0;
        for entry in entries {
            for event in found.remove(&(entry.number, entry.from)).unwrap_or_default() {
                unseen_bytes += event.size_bytes();
                self.push_one(event, entry);
                if unseen_bytes >= self.max_bytes / 4 {
                    // A burst shall not push out what nobody had a chance to take.
                    self.moved.send_replace(());
                    sleep(BURST_PAUSE).await;
                    unseen_bytes = 0;
                }
            }
        }
        self.moved.send_replace(());
        Ok(())
    }

    fn push_one(&self, event: Arc<Event>, entry: JournalEntry) {
        let mut state = self.state.lock();
        state.bytes += event.size_bytes();
        state.ring.push_back(Queued { slot: Slot::new(event), entry });
        while state.bytes > self.max_bytes {
            let Some(oldest) = state.ring.pop_front() else { break };
            state.bytes -= oldest.slot.event.size_bytes();
            state.first += 1;
        }
    }

    fn take_recent(&self, entries: &[JournalEntry]) -> HashMap<(TaskNumber, u64), Vec<Arc<Event>>> {
        let mut state = self.state.lock();
        let mut found = HashMap::with_capacity(entries.len());
        for entry in entries {
            let key = (entry.number, entry.from);
            if let Some(events) = state.recent.remove(&key) {
                state.recent_bytes -= size_of(&events);
                found.insert(key, events);
            }
        }
        found
    }

    async fn read_others(
        &self,
        store: &Arc<dyn Store>,
        entries: &[JournalEntry],
        found: &mut HashMap<(TaskNumber, u64), Vec<Arc<Event>>>,
    ) -> Result<(), StoreError> {
        let unread: Vec<&JournalEntry> = entries
            .iter()
            .filter(|entry| !found.contains_key(&(entry.number, entry.from)))
            .collect();
        if unread.is_empty() {
            return Ok(());
        }
        let numbers: Vec<TaskNumber> = unread.iter().map(|entry| entry.number).collect();
        let heads = store.heads(&numbers).await?;
        let tasks: HashMap<TaskNumber, TaskRef> =
            heads.into_iter().map(|head| (head.task.number, head.task)).collect();
        for entry in unread {
            // A task that was deleted meanwhile has nothing to say.
            let Some(task) = tasks.get(&entry.number) else { continue };
            let events = read_entry(store, task, entry).await?;
            found.insert((entry.number, entry.from), events);
        }
        Ok(())
    }
}

async fn read_entry(
    store: &Arc<dyn Store>,
    task: &TaskRef,
    entry: &JournalEntry,
) -> Result<Vec<Arc<Event>>, StoreError> {
    let mut events = Vec::new();
    let mut from = entry.from;
    while from < entry.next_index {
        let range = ReadRange {
            task: task.clone(),
            from,
            to: entry.next_index,
            view: View::Live,
            max_events: EVENTS_PER_READ,
            max_bytes: BYTES_PER_READ,
        };
        let Some(page) = store.read(&[range]).await?.into_iter().next() else { break };
        if page.covers_to == from {
            break;
        }
        from = page.covers_to;
        events.extend(page.events);
    }
    Ok(events)
}

fn size_of(events: &[Arc<Event>]) -> usize {
    events.iter().map(|event| event.size_bytes()).sum()
}

/// One reader of all tasks.
#[derive(Debug)]
pub struct FeedReader {
    dispatcher: Arc<Dispatcher>,
    filter: Filter,
    /// What was committed before the reader came.
    start: JournalMark,
    position: u64,
    passed: u64,
    moved: watch::Receiver<()>,
}

impl Dispatcher {
    /// Starts reading the events of every task, from this moment on.
    pub async fn subscribe_all(self: &Arc<Self>, filter: Filter) -> Result<FeedReader, StoreError> {
        self.feed.readers.fetch_add(1, Ordering::AcqRel);
        let mut reader = FeedReader {
            dispatcher: self.clone(),
            filter,
            start: JournalMark::default(),
            position: 0,
            passed: 0,
            moved: self.feed.moved.subscribe(),
        };
        {
            // Before the journal is asked, so that nothing after it is passed over.
            let state = self.feed.state.lock();
            reader.position = state.first + state.ring.len() as u64;
        }
        reader.start = self.source().store.journal(None).await?.mark;
        self.feed.state.lock().start.get_or_insert_with(|| reader.start.clone());
        self.feed.wanted.notify_one();
        Ok(reader)
    }
}

impl FeedReader {
    /// Waits until there may be something to read; dropping it loses nothing.
    pub async fn wait(&mut self) {
        // The sender lives in the dispatcher this reader holds.
        let _ = self.moved.changed().await;
    }

    /// Returns up to about `max_bytes` of what is new, without waiting.
    pub fn read(&mut self, max_bytes: usize) -> Result<Vec<FeedItem>, FeedError> {
        self.moved.mark_unchanged();
        let state = self.dispatcher.feed.state.lock();
        if self.position < state.first {
            return Err(FeedError::Lagged);
        }
        let offset = usize::try_from(self.position - state.first).unwrap_or(usize::MAX);
        let mut items = Vec::new();
        let mut bytes = 0;
        for queued in state.ring.iter().skip(offset) {
            if bytes >= max_bytes {
                self.moved.mark_changed();
                break;
            }
            self.position += 1;
            let event = &queued.slot.event;
            if self.start.covers(&queued.entry) || !self.filter.admits(event) {
                continue;
            }
            bytes += event.size_bytes();
            items.push(FeedItem { slot: queued.slot.clone(), filtered_index: self.passed });
            self.passed += 1;
        }
        Ok(items)
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        if self.dispatcher.feed.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut state = self.dispatcher.feed.state.lock();
            let first = state.first + state.ring.len() as u64;
            *state = State { first, ..State::default() };
        }
    }
}
