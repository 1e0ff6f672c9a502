//! The stream of every task's events, live from the moment of connecting.
//!
//! It is read from the store's journal, which knows of every batch committed
//! anywhere, in an order in which no task's events change places. Readers
//! share one bounded ring; one that falls out of it is cut off, because this
//! stream has no cursor it could come back with.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::lock::Mutex;
use super::{Dispatcher, Slot};
use crate::domain::{AuthConfig, Decision, Event, Filter, Guard, TaskNumber, decide};
use crate::hooks::{DropReason, EventDropped};
use crate::store::{
    Commit, Journal, JournalEntry, JournalMark, ReadRange, Store, StoreError, TaskRef, View,
};

/// Events read for one journal entry at a time.
const EVENTS_PER_READ: usize = 2048;

/// Events that a reader takes from the ring at a time: the lock around it is
/// held for that long.
const EVENTS_PER_TAKE: usize = 512;

/// Bytes read for one journal entry at a time.
const BYTES_PER_READ: usize = 1 << 20;

/// Heads read for rules at a time.
const HEADS_PER_READ: usize = 1024;

/// Time for readers to take a quarter of what is kept, within a burst.
const BURST_PAUSE: Duration = Duration::from_millis(2);

/// Most tasks whose rules are remembered; past it all are read again.
const RULES_KEPT: usize = 4096;

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

#[derive(Debug, Clone)]
struct Queued {
    slot: Arc<Slot>,
    entry: JournalEntry,
    rules: Rules,
}

/// What is known of a task's own rules.
#[derive(Debug, Clone)]
enum Rules {
    /// These, or none.
    Known(Option<Arc<AuthConfig>>),
    /// Nothing: nobody asked, or the task is gone.
    Unknown,
}

/// Events, and when this instance heard of them.
#[derive(Debug, Default)]
struct Told {
    events: Vec<Arc<Event>>,
    at: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    ring: VecDeque<Queued>,
    bytes: usize,
    /// Position of the first entry of the ring.
    first: u64,
    /// Our own commits, kept until the journal names them.
    recent: HashMap<(TaskNumber, u64), Told>,
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
    /// Readers who see only what tasks' rules let them.
    judged_readers: AtomicUsize,
    /// Rules never change, and a number is never used again.
    rules: Mutex<HashMap<TaskNumber, Option<Arc<AuthConfig>>>>,
    wanted: Notify,
    moved: watch::Sender<()>,
}

impl Feed {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            max_bytes,
            readers: AtomicUsize::new(0),
            judged_readers: AtomicUsize::new(0),
            rules: Mutex::default(),
            wanted: Notify::new(),
            moved: watch::Sender::new(()),
        }
    }

    pub(super) fn has_readers(&self) -> bool {
        self.reader_count() > 0
    }

    pub(super) fn reader_count(&self) -> usize {
        self.readers.load(Ordering::Acquire)
    }

    /// Waits until somebody wants the journal read.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Notes commits of this instance: the journal has something new.
    pub(super) fn note(&self, commits: &[Commit], now: Instant) {
        if !self.has_readers() {
            return;
        }
        let mut state = self.state.lock();
        for commit in commits {
            let Some(first) = commit.events.first() else { continue };
            state.recent_bytes += size_of(&commit.events);
            let told = Told { events: commit.events.clone(), at: Some(now) };
            state.recent.insert((commit.task.number, first.index), told);
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
        let rules = self.read_rules(store, &entries).await?;
        let mut found = self.take_recent(&entries);
        self.read_others(store, &entries, &mut found).await?;
        self.state.lock().start = None;
        let mut unseen_bytes = 0;
        for entry in entries {
            let told = found.remove(&(entry.number, entry.from)).unwrap_or_default();
            for event in told.events {
                unseen_bytes += event.size_bytes();
                let rules = rules.get(&entry.number).cloned().unwrap_or(Rules::Unknown);
                self.push_one(event, told.at, entry, rules);
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

    /// Returns the rules of the tasks that moved, if a reader is judged by them.
    ///
    /// One that comes later has a later start than what is pushed without.
    async fn read_rules(
        &self,
        store: &Arc<dyn Store>,
        entries: &[JournalEntry],
    ) -> Result<HashMap<TaskNumber, Rules>, StoreError> {
        let mut found = HashMap::new();
        if self.judged_readers.load(Ordering::Acquire) == 0 {
            return Ok(found);
        }
        let mut unread = Vec::new();
        {
            let mut known = self.rules.lock();
            if known.len() >= RULES_KEPT {
                known.clear();
            }
            for entry in entries {
                match known.get(&entry.number) {
                    Some(rules) => {
                        found.insert(entry.number, Rules::Known(rules.clone()));
                    }
                    None => unread.push(entry.number),
                }
            }
        }
        unread.sort_unstable();
        unread.dedup();
        for numbers in unread.chunks(HEADS_PER_READ) {
            let heads = store.heads(numbers).await?;
            let mut known = self.rules.lock();
            for head in heads {
                known.insert(head.task.number, head.auth_config.clone());
                found.insert(head.task.number, Rules::Known(head.auth_config));
            }
        }
        Ok(found)
    }

    fn push_one(
        &self,
        event: Arc<Event>,
        heard: Option<Instant>,
        entry: JournalEntry,
        rules: Rules,
    ) {
        let mut state = self.state.lock();
        state.bytes += event.size_bytes();
        state.ring.push_back(Queued { slot: Slot::heard(event, heard), entry, rules });
        while state.bytes > self.max_bytes {
            let Some(oldest) = state.ring.pop_front() else { break };
            state.bytes -= oldest.slot.event.size_bytes();
            state.first += 1;
        }
    }

    fn take_recent(&self, entries: &[JournalEntry]) -> HashMap<(TaskNumber, u64), Told> {
        let mut state = self.state.lock();
        let mut found = HashMap::with_capacity(entries.len());
        for entry in entries {
            let key = (entry.number, entry.from);
            if let Some(told) = state.recent.remove(&key) {
                state.recent_bytes -= size_of(&told.events);
                found.insert(key, told);
            }
        }
        found
    }

    async fn read_others(
        &self,
        store: &Arc<dyn Store>,
        entries: &[JournalEntry],
        found: &mut HashMap<(TaskNumber, u64), Told>,
    ) -> Result<(), StoreError> {
        let unread: Vec<&JournalEntry> = entries
            .iter()
            .filter(|entry| !found.contains_key(&(entry.number, entry.from)))
            .collect();
        if unread.is_empty() {
            return Ok(());
        }
        // The journal told of them just now.
        let at = Some(Instant::now());
        let numbers: Vec<TaskNumber> = unread.iter().map(|entry| entry.number).collect();
        let heads = store.heads(&numbers).await?;
        let tasks: HashMap<TaskNumber, TaskRef> =
            heads.into_iter().map(|head| (head.task.number, head.task)).collect();
        for entry in unread {
            // A task that was deleted meanwhile has nothing to say.
            let Some(task) = tasks.get(&entry.number) else { continue };
            let events = read_entry(store, task, entry).await?;
            found.insert((entry.number, entry.from), Told { events, at });
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

/// What a reader of all tasks wants.
#[derive(Debug, Clone, Default)]
pub struct FeedRequest {
    /// Events wanted.
    pub filter: Filter,
    /// Who wants them, where not every task is for everyone: only tasks it
    /// admits are shown and counted.
    pub guard: Option<Guard>,
}

/// One reader of all tasks.
#[derive(Debug)]
pub struct FeedReader {
    dispatcher: Arc<Dispatcher>,
    filter: Filter,
    guard: Option<Guard>,
    /// What was committed before the reader came.
    start: JournalMark,
    position: u64,
    passed: u64,
    is_cut: bool,
    moved: watch::Receiver<()>,
}

impl Dispatcher {
    /// Starts reading the events of every task, from this moment on.
    pub async fn subscribe_all(
        self: &Arc<Self>,
        request: FeedRequest,
    ) -> Result<FeedReader, StoreError> {
        let FeedRequest { filter, guard } = request;
        self.feed.readers.fetch_add(1, Ordering::AcqRel);
        self.feed.judged_readers.fetch_add(usize::from(guard.is_some()), Ordering::AcqRel);
        let mut reader = FeedReader {
            dispatcher: self.clone(),
            filter,
            guard,
            start: JournalMark::default(),
            position: 0,
            passed: 0,
            is_cut: false,
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
    /// Sees by another guard from now on; `false` when that lets it see nothing.
    pub fn renew(&mut self, guard: Guard) -> bool {
        let may = decide(&guard.principal, guard.action, None) == Decision::Allowed;
        // A reader that nobody judges stays one.
        if self.guard.is_some() {
            self.guard = Some(guard);
        }
        may
    }

    fn may_see(&self, queued: &Queued) -> bool {
        let Some(guard) = &self.guard else { return true };
        match &queued.rules {
            Rules::Known(rules) => guard.admits(&queued.slot.event.task, rules.as_deref()),
            // Nobody can be let in by rules that nobody can read.
            Rules::Unknown => false,
        }
    }

    /// Waits until there may be something to read; dropping it loses nothing.
    pub async fn wait(&mut self) {
        // The sender lives in the dispatcher this reader holds.
        let _ = self.moved.changed().await;
    }

    /// Returns up to about `max_bytes` of what is new, without waiting.
    ///
    /// May return nothing where nothing passes the filter, and be ready again.
    pub fn read(&mut self, max_bytes: usize) -> Result<Vec<FeedItem>, FeedError> {
        self.moved.mark_unchanged();
        // Filters and rules are evaluated without the lock: every commit of
        // this instance takes it.
        let queued = self.take(max_bytes)?;
        let mut items = Vec::with_capacity(queued.len());
        for queued in queued {
            let is_wanted = !self.start.covers(&queued.entry)
                && self.filter.admits(&queued.slot.event)
                && self.may_see(&queued);
            if is_wanted {
                items.push(FeedItem { slot: queued.slot, filtered_index: self.passed });
                self.passed += 1;
            }
        }
        Ok(items)
    }

    /// Takes the next entries of the ring, whatever the filter makes of them.
    fn take(&mut self, max_bytes: usize) -> Result<Vec<Queued>, FeedError> {
        let state = self.dispatcher.feed.state.lock();
        if self.position < state.first {
            drop(state);
            if !std::mem::replace(&mut self.is_cut, true) {
                let dropped = EventDropped::new(DropReason::Lagged, None, None);
                self.dispatcher.observer.dropped(&dropped);
            }
            return Err(FeedError::Lagged);
        }
        let offset = usize::try_from(self.position - state.first).unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        let mut bytes = 0;
        for queued in state.ring.range(offset.min(state.ring.len())..) {
            if bytes >= max_bytes || taken.len() >= EVENTS_PER_TAKE {
                self.moved.mark_changed();
                break;
            }
            bytes += queued.slot.event.size_bytes();
            taken.push(queued.clone());
        }
        self.position += taken.len() as u64;
        Ok(taken)
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        let is_judged = usize::from(self.guard.is_some());
        self.dispatcher.feed.judged_readers.fetch_sub(is_judged, Ordering::AcqRel);
        if self.dispatcher.feed.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut state = self.dispatcher.feed.state.lock();
            let first = state.first + state.ring.len() as u64;
            *state = State { first, ..State::default() };
        }
    }
}
