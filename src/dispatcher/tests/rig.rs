//! A dispatcher over a store in memory, with every step of it in the hands of
//! an exploration.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use shuttle::future::{spawn, yield_now};
use tokio::sync::Notify;

use super::shelf::Shelf;
use crate::dispatcher::{
    Batch, Dispatcher, DispatcherOptions, Item, OpenedStream, StreamRequest, pump,
};
use crate::domain::{
    Append, AppendRules, Change, Event, EventDraft, Json, Level, NewTask, TaskId, TaskStatus,
    Transition,
};
use crate::store::{
    Appended, Bus, BusHealth, Commit, CommitListener as _, Created, Events as _, Moved, TaskRef,
    Tasks as _, Wake,
};

/// The task everything is about.
pub(super) const TASK: &str = "t";

/// A bus whose wakes the test sends.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    queue: parking_lot::Mutex<VecDeque<Wake>>,
    sent: Notify,
}

impl Wakes {
    pub(super) fn send(&self, wake: Wake) {
        self.queue.lock().push_back(wake);
        self.sent.notify_one();
    }
}

#[async_trait]
impl Bus for Wakes {
    fn announce(&self, _moved: &[Moved]) {}

    async fn next(&self) -> Wake {
        loop {
            if let Some(wake) = self.queue.lock().pop_front() {
                return wake;
            }
            self.sent.notified().await;
        }
    }

    fn health(&self) -> BusHealth {
        BusHealth::Healthy
    }

    fn restarts(&self) -> u64 {
        0
    }
}

/// One instance with one task.
pub(super) struct Rig {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) wakes: Arc<Wakes>,
    pub(super) task: TaskRef,
}

/// What a reader got.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Got {
    /// Indexes of events, in order.
    pub(super) indexes: Vec<u64>,
    /// How the stream ended: a state, or `None` for a deletion.
    pub(super) end: Option<TaskStatus>,
    /// Id of the last event.
    pub(super) last_event_id: Option<String>,
}

/// Who carries a write out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// This instance: the commit is reported to the dispatcher.
    Here,
    /// Another: a wake tells of it.
    Elsewhere,
}

impl Rig {
    /// Makes a dispatcher that keeps `ring_events` events, over a shelf.
    pub(super) async fn new(ring_events: usize, shelf: Shelf) -> Arc<Self> {
        let options = DispatcherOptions { ring_events, ..DispatcherOptions::default() };
        let (dispatcher, shelf) = (Dispatcher::new(options), Arc::new(shelf));
        let wakes = Arc::new(Wakes::default());
        dispatcher.attach(shelf.clone(), wakes.clone());
        let new = NewTask::new(TaskId::parse(TASK).unwrap());
        let Ok(Created::New(task)) = shelf.memory.create(new, None).await else {
            panic!("a fresh store takes a task")
        };
        // Dropping the handle lets it run until the exploration ends.
        drop(spawn(pump::run_without_polls(dispatcher.clone())));
        let task = TaskRef::from(&*task);
        Arc::new(Self { dispatcher, shelf, wakes, task })
    }

    /// Stores a change and tells nobody.
    pub(super) async fn store(&self, change: Change) -> Vec<Arc<Event>> {
        let append = Append {
            task: self.task.id.clone(),
            change,
            rules: Arc::new(AppendRules { series_text_limit: 1_000, ..AppendRules::default() }),
            guard: None,
            key: None,
        };
        yield_now().await;
        let Ok(Some(events)) = self.shelf.memory.append(append).await.map(Appended::into_stored)
        else {
            panic!("the write is accepted")
        };
        // It is durable, and everybody may read it before anybody is told.
        yield_now().await;
        events
    }

    /// Carries out a change as `writer` would.
    pub(super) async fn write(&self, writer: Writer, change: Change) {
        let events = self.store(change).await;
        let (first, last) = (&events[0], &events[events.len() - 1]);
        let (number, next_index) = (first.number, last.index + 1);
        match writer {
            Writer::Here => self.dispatcher.committed(&[Commit {
                events,
                deleted: false,
                ..Commit::of_deletion(self.task.clone())
            }]),
            Writer::Elsewhere => {
                self.wakes.send(Wake::Moved(vec![Moved { number, next_index, urgent: false }]));
            }
        }
    }

    /// Returns where the log ends.
    pub(super) async fn head(&self) -> u64 {
        self.shelf.memory.head(&self.task.id).await.unwrap().unwrap().next_index
    }

    /// Deletes the task.
    pub(super) async fn delete(&self) {
        yield_now().await;
        assert!(self.shelf.memory.delete(&self.task).await.unwrap());
        yield_now().await;
        self.dispatcher.committed(&[Commit::of_deletion(self.task.clone())]);
    }

    /// Reads a stream to its end, or up to `most` events.
    pub(super) async fn read(&self, last_event_id: Option<String>, most: usize) -> Got {
        let mut got = Got::default();
        let request = StreamRequest { last_event_id, ..StreamRequest::new(self.task.id.clone()) };
        let opened = self.dispatcher.subscribe(request).await.unwrap();
        let mut subscription = match opened {
            Some(OpenedStream::Stream(subscription)) => subscription,
            // Gone before it was found, or seen to its end before.
            None | Some(OpenedStream::AtEnd) => return got,
            Some(OpenedStream::Denied(decision)) => panic!("{decision:?}"),
        };
        loop {
            let Batch { items, is_caught_up, is_last } = subscription.read().await.unwrap();
            for item in items {
                match item {
                    Item::Event(entry) => {
                        assert_eq!(entry.filtered_index, entry.slot.event.index);
                        got.indexes.push(entry.slot.event.index);
                        got.last_event_id = Some(entry.slot.event.id().to_string());
                    }
                    Item::Done(status, event) => {
                        assert_eq!(Some(event.to_string()), got.last_event_id);
                        got.end = Some(status);
                    }
                    Item::Deleted => {}
                    Item::Reset => panic!("the cursor was given out by this log"),
                }
            }
            if is_last || got.indexes.len() >= most {
                return got;
            }
            if is_caught_up {
                subscription.wait().await;
            }
        }
    }
}

/// A publication of `count` events.
pub(super) fn events(count: usize) -> Change {
    let draft = EventDraft {
        event_type: "n".into(),
        level: Level::Info,
        data: Json::from_valid("1"),
        series: None,
    };
    Change::Publish(vec![draft; count])
}

/// A move to another state.
pub(super) fn enter(status: TaskStatus) -> Change {
    Change::Transition(Transition::to(status))
}
