//! Feeds readers: who watches what, what is new, what is next.
//!
//! A *topic* stands for a task somebody on this instance watches: a bounded
//! ring of its newest events, in order and without gaps, shared by all its
//! readers. Topics are moved on by commits of this instance, by wakes from
//! others, and by a poll that stands behind both (see `pump`). A wake is a
//! hint: what enters a ring comes from a commit of our own or from the store.
//!
//! A reader is a cursor that its socket pulls, not a queue that is pushed to:
//! it takes from the ring while it keeps up and reads pages from the store
//! when it does not, so a slow reader costs nobody anything.
//!
//! The dispatcher never writes. [`Dispatcher::follow`],
//! [`Dispatcher::follow_all`] and [`Dispatcher::stream_history`] are its doors
//! for programs without HTTP; each leads to an async stream.

mod collapse;
mod counter;
mod feed;
mod follow;
mod history;
mod lock;
pub(crate) mod pump;
mod reads;
mod shared;
mod subscription;
mod topic;
mod totals;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::{Notify, Semaphore};

pub use feed::{FeedError, FeedItem, FeedReader, FeedRequest};
pub use follow::FollowError;
pub use history::{History, HistoryEvent, HistoryRequest, OpenedHistory};
pub use subscription::{Batch, Entry, Item, OpenedStream, StreamRequest, Subscription};
pub use topic::Slot;

use self::feed::Feed;
use self::lock::Mutex;
use self::topic::Topic;
use crate::domain::TaskNumber;
use crate::metrics::{ListenerState, Sample};
use crate::observer::Observer;
use crate::store::{Bus, BusHealth, Commit, CommitListener, Moved, Store};

/// Store reads on behalf of readers that run at once; the others queue up.
const CONCURRENT_READS: usize = 4;

/// Store reads on behalf of histories that run at once.
const CONCURRENT_HISTORY_READS: usize = 2;

/// Bounds of what is kept for readers.
#[derive(Debug, Clone, Copy)]
pub struct DispatcherOptions {
    /// Most events in the ring of a topic.
    pub ring_events: usize,
    /// Most bytes in the ring of a topic; one event always fits.
    pub ring_bytes: usize,
    /// How far a reader of all tasks may fall behind, in bytes.
    pub feed_bytes: usize,
}

impl Default for DispatcherOptions {
    fn default() -> Self {
        Self { ring_events: 256, ring_bytes: 256 << 10, feed_bytes: 4 << 20 }
    }
}

/// What the dispatcher reads from and hears through.
struct Source {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
}

/// Feeds the readers of one instance.
pub struct Dispatcher {
    options: DispatcherOptions,
    source: OnceLock<Source>,
    topics: Mutex<HashMap<TaskNumber, Arc<Topic>>>,
    feed: Feed,
    /// Topics that heard of events they do not have.
    stale: Notify,
    reads: Semaphore,
    /// Of those, what histories may take: streams come first.
    history_reads: Semaphore,
    observer: Observer,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// Makes a dispatcher without readers.
    ///
    /// It has to exist before its store, which reports commits to it; see
    /// [`Self::attach`].
    pub fn new(options: DispatcherOptions) -> Arc<Self> {
        Self::observed(options, Observer::default())
    }

    /// Makes a dispatcher without readers that tells `observer` of them.
    pub fn observed(options: DispatcherOptions, observer: Observer) -> Arc<Self> {
        Arc::new(Self {
            options,
            source: OnceLock::new(),
            topics: Mutex::default(),
            feed: Feed::new(options.feed_bytes),
            stale: Notify::new(),
            reads: Semaphore::new(CONCURRENT_READS),
            history_reads: Semaphore::new(CONCURRENT_HISTORY_READS),
            observer,
        })
    }

    /// Gives the dispatcher its store and its bus; later calls change nothing.
    pub fn attach(&self, store: Arc<dyn Store>, bus: Arc<dyn Bus>) {
        // Only the first pair counts, as documented.
        let _ = self.source.set(Source { store, bus });
    }

    /// Returns how many streams of a task are open on this instance.
    pub fn reader_count(&self, task: TaskNumber) -> usize {
        self.topics.lock().get(&task).map_or(0, |topic| topic.reader_count())
    }

    /// Returns how many streams of all tasks are open on this instance.
    pub fn all_tasks_reader_count(&self) -> usize {
        self.feed.reader_count()
    }

    /// Says whether wakes from other instances can be counted on.
    pub fn bus_health(&self) -> BusHealth {
        self.source.get().map_or(BusHealth::Deaf, |source| source.bus.health())
    }

    /// Returns how many times listening for wakes was started anew.
    pub fn bus_restarts(&self) -> u64 {
        self.source.get().map_or(0, |source| source.bus.restarts())
    }

    /// Looks at the store and at the bus for what is shown but not counted.
    pub fn sample(&self) -> Sample {
        let listener = match self.bus_health() {
            BusHealth::Healthy => ListenerState::Healthy,
            BusHealth::Deaf => ListenerState::Deaf,
            BusHealth::Local => ListenerState::Local,
        };
        Sample {
            listener: Some(listener),
            listener_restarts: self.bus_restarts(),
            ..self.observer.sample()
        }
    }

    fn source(&self) -> &Source {
        self.source.get().expect("the server attaches a store before it serves")
    }

    fn topic(&self, number: TaskNumber) -> Option<Arc<Topic>> {
        self.topics.lock().get(&number).cloned()
    }
}

impl CommitListener for Dispatcher {
    fn committed(&self, commits: &[Commit]) {
        let now = Instant::now();
        let mut moved = Vec::with_capacity(commits.len());
        for commit in commits {
            let next_index = commit.events.last().map_or(0, |last| last.index + 1);
            let ended = commit.events.iter().any(|event| topic::terminal_status(event).is_some());
            moved.push(Moved {
                number: commit.task.number,
                next_index,
                urgent: ended || commit.deleted,
            });
            if let Some(topic) = self.topic(commit.task.number) {
                if commit.deleted {
                    topic.delete();
                } else if !topic.extend(&commit.events, now, &self.options) {
                    self.stale.notify_one();
                }
            }
        }
        self.feed.note(commits, now);
        if let Some(source) = self.source.get()
            && !moved.is_empty()
        {
            source.bus.announce(&moved);
        }
    }
}

#[cfg(test)]
mod tests;
