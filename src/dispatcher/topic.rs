//! A watched task: its newest events, shared by its readers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use super::DispatcherOptions;
use super::lock::Mutex;
use super::shared::Shared;
use crate::domain::{Event, EventId, STATUS_EVENT_TYPE, TaskStatus, json};
use crate::store::{Head, HeadStatus, TaskRef};

/// An event with room for what it looks like on the wire.
///
/// The dispatcher knows nothing of wire formats; whoever writes them leaves
/// the result here for the other readers.
#[derive(Debug)]
pub struct Slot {
    /// The event.
    pub event: Arc<Event>,
    /// When this instance heard of it: its commit here, or the wake or poll
    /// that told of it. `None` for what was read for a replay.
    pub heard: Option<Instant>,
    /// Its frame as an envelope.
    pub wrapped: OnceLock<Bytes>,
    /// Its frame as a raw event.
    pub raw: OnceLock<Bytes>,
}

impl Slot {
    /// Makes a slot nothing was written into.
    pub fn new(event: Arc<Event>) -> Arc<Self> {
        Self::heard(event, None)
    }

    /// Makes a slot of an event this instance heard of at a known time.
    pub(super) fn heard(event: Arc<Event>, heard: Option<Instant>) -> Arc<Self> {
        Arc::new(Self { event, heard, wrapped: OnceLock::new(), raw: OnceLock::new() })
    }
}

/// Returns the terminal state a status event announces.
pub(super) fn terminal_status(event: &Event) -> Option<TaskStatus> {
    if &*event.draft.event_type != STATUS_EVENT_TYPE {
        return None;
    }
    let data = event.draft.data.as_str();
    let name = json::string_body(&data[json::member(data, "status")?])?;
    TaskStatus::parse(name).filter(|status| status.is_terminal())
}

/// How a log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) status: TaskStatus,
    pub(super) event: EventId,
}

#[derive(Debug, Default)]
struct State {
    /// The newest events, in order; holes are superseded for good.
    ring: VecDeque<Arc<Slot>>,
    ring_bytes: usize,
    /// The ring tells everything about `first..next`.
    first: u64,
    next: u64,
    /// Whether `next` was read from the store or a commit yet.
    is_placed: bool,
    /// The log is said to reach here.
    heard: u64,
    /// When it was first said to reach past `next`.
    heard_at: Option<Instant>,
    end: Option<End>,
    is_deleted: bool,
}

/// What a topic has for a cursor.
#[derive(Debug)]
pub(super) enum Tail {
    /// Events from the cursor on, and where the next read goes on.
    Events(Vec<Arc<Slot>>, u64),
    /// The cursor is older than the ring: read the store up to there.
    Behind { ring_start: u64, head: u64 },
    /// Nothing new; the log goes on.
    CaughtUp,
    /// Nothing new, and nothing will be.
    Ended(End),
    /// The task is gone.
    Deleted,
}

/// A watched task.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) task: TaskRef,
    pub(super) shared: Shared,
    state: Mutex<State>,
    readers: AtomicUsize,
    moved: watch::Sender<()>,
}

impl Topic {
    pub(super) fn new(task: TaskRef) -> Arc<Self> {
        Arc::new(Self {
            task,
            shared: Shared::default(),
            state: Mutex::default(),
            readers: AtomicUsize::new(0),
            moved: watch::Sender::new(()),
        })
    }

    pub(super) fn reader_count(&self) -> usize {
        self.readers.load(Ordering::Acquire)
    }

    pub(super) fn add_reader(&self) {
        self.readers.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes a reader away; returns how many are left.
    pub(super) fn remove_reader(&self) -> usize {
        self.readers.fetch_sub(1, Ordering::AcqRel) - 1
    }

    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// Learns where the log ends, from the store.
    ///
    /// Called after the topic was registered, so that whatever the head does
    /// not show yet is reported as a commit or a wake.
    pub(super) fn place(&self, head: &Head) {
        let mut state = self.state.lock();
        match head.status {
            HeadStatus::Deleted => state.is_deleted = true,
            HeadStatus::Is(status) if status.is_terminal() && state.end.is_none() => {
                state.end = Some(End { status, event: head.newest_event_id() });
            }
            HeadStatus::Is(_) => {}
        }
        if !state.is_placed {
            state.is_placed = true;
            state.first = head.next_index;
            state.next = head.next_index;
        }
        state.heard = state.heard.max(head.next_index);
        if state.heard > state.next {
            state.heard_at.get_or_insert_with(Instant::now);
        }
        drop(state);
        self.moved.send_replace(());
    }

    /// Returns where the ring ends and how the log ended, once that is known
    /// and while the task is there.
    pub(super) fn placed(&self) -> Option<(u64, Option<End>)> {
        let state = self.state.lock();
        (state.is_placed && !state.is_deleted).then_some((state.next, state.end))
    }

    /// Takes events that follow each other; `false` when some before them are missing.
    pub(super) fn extend(
        &self,
        events: &[Arc<Event>],
        at: Instant,
        options: &DispatcherOptions,
    ) -> bool {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return true };
        self.extend_to(events, first.index, last.index + 1, Some(at), options)
    }

    /// Takes all that is left of `from..to`; `false` when some before it are missing.
    pub(super) fn extend_to(
        &self,
        events: &[Arc<Event>],
        from: u64,
        to: u64,
        at: Option<Instant>,
        options: &DispatcherOptions,
    ) -> bool {
        let mut state = self.state.lock();
        state.heard = state.heard.max(to);
        if !state.is_placed || from > state.next {
            state.heard_at = state.heard_at.or(at);
            return false;
        }
        let next = state.next;
        // A commit of our own is news by itself; what was read was told of.
        let at = at.or(state.heard_at);
        for event in events.iter().filter(|event| event.index >= next) {
            if let Some(status) = terminal_status(event) {
                state.end = Some(End { status, event: event.id() });
            }
            state.ring_bytes += event.size_bytes();
            state.ring.push_back(Slot::heard(event.clone(), at));
        }
        state.next = next.max(to);
        while state.ring.len() > options.ring_events
            || (state.ring_bytes > options.ring_bytes && state.ring.len() > 1)
        {
            let Some(oldest) = state.ring.pop_front() else { break };
            state.ring_bytes -= oldest.event.size_bytes();
            state.first = oldest.event.index + 1;
        }
        let is_complete = state.next >= state.heard;
        if is_complete {
            state.heard_at = None;
        }
        drop(state);
        self.moved.send_replace(());
        is_complete
    }

    /// Notes that the log is said to reach `next_index`; `true` when that is news.
    pub(super) fn hear(&self, next_index: u64) -> bool {
        let mut state = self.state.lock();
        state.heard = state.heard.max(next_index);
        let is_news = state.is_placed && state.heard > state.next;
        if is_news {
            state.heard_at.get_or_insert_with(Instant::now);
        }
        is_news
    }

    /// Tells whether nobody said before that the log reaches `next_index`.
    pub(super) fn has_not_heard(&self, next_index: u64) -> bool {
        let state = self.state.lock();
        state.is_placed && state.heard < next_index
    }

    /// Returns what is missing in the ring, if anything.
    pub(super) fn missing(&self) -> Option<(u64, u64)> {
        let state = self.state.lock();
        (state.is_placed && state.heard > state.next && !state.is_deleted)
            .then_some((state.next, state.heard))
    }

    /// Forgets what was heard but is not there: a wrong hint.
    pub(super) fn believe_only_ring(&self) {
        let mut state = self.state.lock();
        state.heard = state.next;
        state.heard_at = None;
    }

    /// Ends the topic: its task is gone.
    pub(super) fn delete(&self) {
        self.state.lock().is_deleted = true;
        self.moved.send_replace(());
    }

    /// Returns up to `max_bytes` of events from `cursor` on, one at least.
    pub(super) fn tail(&self, cursor: u64, max_bytes: usize) -> Tail {
        let state = self.state.lock();
        if state.is_deleted {
            return Tail::Deleted;
        }
        if cursor < state.first {
            return Tail::Behind { ring_start: state.first, head: state.next };
        }
        if cursor >= state.next {
            return match state.end {
                Some(end) if state.next >= state.heard => Tail::Ended(end),
                _ => Tail::CaughtUp,
            };
        }
        let start = state.ring.partition_point(|slot| slot.event.index < cursor);
        let mut bytes = 0;
        let mut taken = Vec::new();
        for slot in state.ring.range(start..) {
            if bytes >= max_bytes {
                return Tail::Events(taken, slot.event.index);
            }
            bytes += slot.event.size_bytes();
            taken.push(slot.clone());
        }
        Tail::Events(taken, state.next)
    }
}
