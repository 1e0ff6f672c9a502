//! One reader of one task: replay, then live, without a seam.
//!
//! The reader's topic is registered before the head is read, so whatever is
//! not in the replay is in the ring or is read to fill it. Replay and live
//! are one movement of one cursor over the log; nothing is ever merged.

use std::sync::Arc;

use tokio::sync::watch;

use super::Dispatcher;
use super::collapse::CollapsedView;
use super::counter::Counter;
use super::reads::{Reads, Start};
use super::topic::{End, Slot, Tail, Topic};
use super::totals::Totals;
use crate::domain::{
    Anchor, AuthConfig, Cursor, Decision, EventId, Filter, Guard, ResumeId, TaskId, TaskNumber,
    TaskStatus,
};
use crate::store::{Head, HeadStatus, StoreError, View};

/// Bytes of events after which a batch is handed out.
const BATCH_BYTES: usize = 64 << 10;

/// What a reader wants of a task.
#[derive(Debug, Clone)]
pub struct StreamRequest {
    /// The task.
    pub task: TaskId,
    /// Events wanted.
    pub filter: Filter,
    /// The id of the last event a browser got, from its header.
    pub last_event_id: Option<String>,
    /// Where to continue otherwise.
    pub cursor: Cursor,
    /// Newest entries of the replay wanted; counts only without a cursor.
    pub limit: Option<usize>,
    /// Whether `accumulate` series are wanted as running totals.
    pub accumulated: bool,
    /// Who wants it, where the task's own rules shall have a say.
    pub guard: Option<Guard>,
}

/// What a subscription begins with.
#[derive(Debug)]
pub enum OpenedStream {
    /// Events follow.
    Stream(Box<Subscription>),
    /// The reader has seen the end of a finished task.
    AtEnd,
    /// The task's own rules do not let the reader.
    Denied(Decision),
}

/// An event for a reader.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The event.
    pub slot: Arc<Slot>,
    /// Its position among the events that pass the reader's filter.
    pub filtered_index: u64,
    /// Whether it stands for its whole series.
    pub is_snapshot: bool,
    /// How far the collapsed replay reaches that a reader needs to go on.
    pub collapsed_to: Option<u64>,
}

/// What a reader is told.
#[derive(Debug, Clone)]
pub enum Item {
    /// None of its cursors is known here; this is from the start.
    Reset,
    /// An event.
    Event(Entry),
    /// The task ended, with this event.
    Done(TaskStatus, EventId),
    /// The task was deleted.
    Deleted,
}

/// Some items, and whether there is more.
#[derive(Debug, Default)]
pub struct Batch {
    /// What to tell the reader.
    pub items: Vec<Item>,
    /// Whether to wait before reading on.
    pub is_caught_up: bool,
    /// Whether nothing follows.
    pub is_last: bool,
}

#[derive(Debug)]
enum Phase {
    /// Replaying with series collapsed, and whether its frames name the view.
    Collapsed { view: CollapsedView, newest: u64, is_named: bool },
    /// One event at a time, from the store or the ring.
    Single,
}

/// One open stream.
#[derive(Debug)]
pub struct Subscription {
    reads: Reads,
    registration: Registration,
    rules: Option<Arc<AuthConfig>>,
    filter: Filter,
    counter: Counter,
    totals: Option<Totals>,
    start: Start,
    phase: Phase,
    /// Next index to read in phase [`Phase::Single`].
    cursor: u64,
    is_reset: bool,
    is_replaying: bool,
    moved: watch::Receiver<()>,
}

/// Keeps a topic alive for one reader.
#[derive(Debug)]
struct Registration {
    dispatcher: Arc<Dispatcher>,
    topic: Arc<Topic>,
}

impl Registration {
    fn new(dispatcher: &Arc<Dispatcher>, head: &Head) -> Self {
        let mut topics = dispatcher.topics.lock();
        let topic =
            topics.entry(head.task.number).or_insert_with(|| Topic::new(head.task.clone())).clone();
        topic.add_reader();
        drop(topics);
        Self { dispatcher: dispatcher.clone(), topic }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Under the lock that readers register under, so that none is lost.
        let mut topics = self.dispatcher.topics.lock();
        if self.topic.remove_reader() == 0 {
            topics.remove(&self.topic.task.number);
        }
    }
}

impl Dispatcher {
    /// Opens a stream; `None` when there is no such task.
    pub async fn subscribe(
        self: &Arc<Self>,
        request: StreamRequest,
    ) -> Result<Option<OpenedStream>, StoreError> {
        let Some(head) = self.admitted_head(&request.task).await? else { return Ok(None) };
        if let Some(denied) = denial(request.guard.as_ref(), &head) {
            return Ok(Some(OpenedStream::Denied(denied)));
        }
        // Breaks invariant 7: the topic hears nothing of what comes after its head was read.
        #[cfg(feature = "failpoints")]
        let _late = self.register_late(&head).await;
        let registration = Registration::new(self, &head);
        let topic = registration.topic.clone();
        let moved = topic.watch();
        let mut head = head;
        if topic.placed().is_none() {
            // Read again, now that the topic hears of everything after.
            let heads = self.source().store.heads(&[head.task.number]).await?;
            let Some(again) = heads.into_iter().next() else { return Ok(None) };
            head = again;
        }
        // Also where others watch already: the reader may come from an
        // instance that is ahead of this topic.
        topic.place(&head);
        if topic.missing().is_some() {
            self.stale.notify_one();
        }
        let Some((ring_end, end)) = topic.placed() else { return Ok(None) };
        let next_index = ring_end.max(head.next_index);
        if let Some(id) = request.last_event_id.as_deref()
            && end.is_some_and(|end| has_seen_end(id, end))
        {
            return Ok(Some(OpenedStream::AtEnd));
        }
        topic.shared.begin_replay();
        let reads = Reads { dispatcher: self.clone(), task: head.task, topic: Some(topic) };
        let mut subscription = Subscription {
            reads,
            registration,
            rules: head.auth_config,
            counter: Counter::new(request.filter.clone()),
            filter: request.filter.clone(),
            totals: request.accumulated.then(Totals::default),
            start: Start::default(),
            phase: Phase::Single,
            cursor: 0,
            is_reset: false,
            is_replaying: true,
            moved,
        };
        subscription.position(&request, next_index).await?;
        Ok(Some(OpenedStream::Stream(Box::new(subscription))))
    }

    /// Registers a topic some time after its head was read, and believes that head.
    #[cfg(feature = "failpoints")]
    async fn register_late(self: &Arc<Self>, head: &Head) -> Option<Registration> {
        let pause = crate::failpoints::pause_at("read-before-register")?;
        tokio::time::sleep(pause).await;
        let registration = Registration::new(self, head);
        if registration.topic.placed().is_none() {
            registration.topic.place(head);
        }
        Some(registration)
    }

    async fn admitted_head(&self, task: &TaskId) -> Result<Option<Head>, StoreError> {
        // The semaphore is never closed.
        let _permit = self.reads.acquire().await;
        self.source().store.head(task).await
    }
}

/// Returns why the rules of a task that is there refuse, if they do.
pub(super) fn denial(guard: Option<&Guard>, head: &Head) -> Option<Decision> {
    let decision = guard?.decide(head.auth_config.as_deref());
    (head.status != HeadStatus::Deleted && decision != Decision::Allowed).then_some(decision)
}

/// Says whether an id is that of the event that ended a task, time included.
fn has_seen_end(id: &str, end: End) -> bool {
    ResumeId::parse(id) == Some(ResumeId { event: end.event, collapsed_to: None })
}

impl Subscription {
    /// Decides where and how the replay begins.
    async fn position(
        &mut self,
        request: &StreamRequest,
        next_index: u64,
    ) -> Result<(), StoreError> {
        let mut cursor = request.cursor.clone();
        cursor.ids.splice(..0, request.last_event_id.clone());
        let anchor = cursor.resolve(self.reads.task.number, next_index);
        let anchor = self.reads.verified(anchor, next_index).await?;
        let start = self.reads.locate(anchor, &self.filter, next_index).await?;
        self.start = start;
        self.cursor = start.from;
        let collapse_to = match anchor {
            Anchor::Start { .. } => Some((next_index, true)),
            Anchor::After(ResumeId { collapsed_to: Some(newest), .. }) => Some((newest + 1, true)),
            _ if request.accumulated => Some((next_index, false)),
            _ => None,
        };
        self.is_reset = anchor == Anchor::Start { reset: true };
        let Some((to, is_named)) = collapse_to.filter(|(to, _)| start.from < *to) else {
            return Ok(());
        };
        let mut view = CollapsedView::open(&self.reads, start.from, to, &self.filter).await?;
        if let (Some(limit), Anchor::Start { .. }) = (request.limit, anchor) {
            view.keep_newest(&self.reads, limit, &self.filter).await?;
        }
        self.cursor = to;
        self.phase = Phase::Collapsed { view, newest: to - 1, is_named };
        Ok(())
    }

    /// Returns the number of the task it follows.
    pub fn task_number(&self) -> TaskNumber {
        self.reads.task.number
    }

    /// Tells whether `guard` still admits its caller to this task.
    pub fn admits(&self, guard: &Guard) -> bool {
        guard.admits(&self.reads.task.id, self.rules.as_deref())
    }

    /// Waits until there may be something to read; dropping it loses nothing.
    pub async fn wait(&mut self) {
        // The sender lives in the topic this reader keeps alive.
        let _ = self.moved.changed().await;
    }

    /// Returns what is there, reading the store if need be; never waits for news.
    pub async fn read(&mut self) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        if std::mem::take(&mut self.is_reset) {
            batch.items.push(Item::Reset);
        }
        self.moved.mark_unchanged();
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            if let Phase::Collapsed { .. } = self.phase {
                bytes += self.read_collapsed(&mut batch).await?;
                // What was found is handed out before more is read.
                if batch.items.is_empty() {
                    continue;
                }
                break;
            }
            match self.registration.topic.tail(self.cursor, BATCH_BYTES - bytes) {
                Tail::Events(slots, next) => {
                    self.end_replay();
                    bytes += self.take(slots, &mut batch).await?;
                    self.cursor = next;
                }
                Tail::Behind { ring_start, head } => {
                    bytes += self.read_page(ring_start, head, &mut batch).await?;
                    if !batch.items.is_empty() {
                        break;
                    }
                }
                Tail::CaughtUp => {
                    self.end_replay();
                    batch.is_caught_up = true;
                    break;
                }
                Tail::Ended(end) => {
                    batch.items.push(Item::Done(end.status, end.event));
                    batch.is_last = true;
                    break;
                }
                Tail::Deleted => {
                    batch.items.push(Item::Deleted);
                    batch.is_last = true;
                    break;
                }
            }
        }
        Ok(batch)
    }

    fn end_replay(&mut self) {
        if std::mem::take(&mut self.is_replaying) {
            self.registration.topic.shared.end_replay();
        }
    }

    async fn read_collapsed(&mut self, batch: &mut Batch) -> Result<usize, StoreError> {
        let Phase::Collapsed { view, newest, is_named } = &mut self.phase else { return Ok(0) };
        let entries = view.read(&self.reads, &self.filter).await?;
        let collapsed_to = is_named.then_some(*newest);
        if view.is_gone() {
            // What the ring still has would stand behind a hole.
            self.registration.topic.delete();
        }
        if view.is_done() {
            self.phase = Phase::Single;
        }
        let indexes: Vec<(u64, bool)> =
            entries.iter().map(|entry| (entry.slot.event.index, entry.passes)).collect();
        let number = self.reads.task.number;
        let numbers = self.counter.number(self.reads.store(), number, &indexes).await?;
        let mut bytes = 0;
        for (entry, filtered_index) in entries.into_iter().zip(numbers) {
            if !entry.passes || !self.is_wanted(&entry.slot, filtered_index) {
                continue;
            }
            bytes += entry.slot.event.size_bytes();
            batch.items.push(Item::Event(Entry {
                collapsed_to: collapsed_to.filter(|_| entry.stands_before_fold),
                slot: entry.slot,
                filtered_index,
                is_snapshot: entry.is_snapshot,
            }));
        }
        Ok(bytes)
    }

    async fn read_page(
        &mut self,
        to: u64,
        head: u64,
        batch: &mut Batch,
    ) -> Result<usize, StoreError> {
        let page = self.reads.page(self.cursor, to, head, View::Single).await?;
        if page.covers_to == self.cursor {
            // Only a task that is gone has nothing to say about its past.
            self.registration.topic.delete();
            return Ok(0);
        }
        let slots = page.events.iter().map(|event| Slot::new(event.clone())).collect();
        let bytes = self.take(slots, batch).await?;
        self.cursor = page.covers_to;
        Ok(bytes)
    }

    /// Adds single events to a batch; returns their bytes.
    async fn take(
        &mut self,
        slots: Vec<Arc<Slot>>,
        batch: &mut Batch,
    ) -> Result<usize, StoreError> {
        let entries: Vec<(u64, bool)> =
            slots.iter().map(|slot| (slot.event.index, self.filter.admits(&slot.event))).collect();
        let number = self.reads.task.number;
        let numbers = self.counter.number(self.reads.store(), number, &entries).await?;
        let mut bytes = 0;
        for ((mut slot, filtered_index), (_, passes)) in slots.into_iter().zip(numbers).zip(entries)
        {
            if !passes || !self.is_wanted(&slot, filtered_index) {
                continue;
            }
            let is_total = self.totals.is_some() && slot.event.is_delta();
            if let (Some(totals), true) = (&mut self.totals, is_total) {
                let whole = totals.fold(self.reads.store(), &self.reads.task, &slot.event).await?;
                slot = Slot::heard(Arc::new(whole), slot.heard);
            }
            bytes += slot.event.size_bytes();
            let (is_snapshot, collapsed_to) = (is_total, None);
            batch.items.push(Item::Event(Entry {
                slot,
                filtered_index,
                is_snapshot,
                collapsed_to,
            }));
        }
        // A batch that skips a long stretch makes progress too.
        Ok(bytes.max(1))
    }

    fn is_wanted(&self, slot: &Slot, filtered_index: u64) -> bool {
        filtered_index >= self.start.min_filtered
            && slot.event.timestamp_ms >= self.start.min_timestamp_ms
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.end_replay();
    }
}
