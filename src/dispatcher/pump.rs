//! The loop that moves topics on.
//!
//! Four things wake it: a wake from another instance, a topic that found a
//! gap in front of a commit of our own, the poll, and the end of a deafness.
//! Whatever woke it, it then looks at heads where it must and reads what is
//! missing, many tasks in one query. All of it may happen twice or too often
//! without harm; the poll alone suffices, later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Dispatcher;
use super::topic::Topic;
use crate::domain::TaskNumber;
use crate::store::{BusHealth, HeadStatus, JournalMark, Moved, ReadRange, StoreError, View, Wake};

/// Pause between polls while wakes cannot be counted on.
const DEAF_POLL: Duration = Duration::from_millis(100);

/// Shortest time between two looks at the journal for readers of all tasks.
const FEED_PAUSE: Duration = Duration::from_millis(5);

/// Topics looked at with one query.
const TOPICS_PER_QUERY: usize = 256;

/// Events read for one topic at a time.
const EVENTS_PER_READ: usize = 512;

/// Bytes read for one topic at a time.
const BYTES_PER_READ: usize = 256 << 10;

/// Moves the topics of one dispatcher on, for ever.
pub(crate) async fn run(dispatcher: Arc<Dispatcher>, poll_interval: Duration) {
    let mut pump = Pump { dispatcher, poll_interval, mark: None, hits: AtomicUsize::new(0) };
    let mut next_poll = Instant::now();
    loop {
        let mut due: Vec<Arc<Topic>> = Vec::new();
        let mut look_at_all = false;
        let mut read_journal = false;
        let mut is_poll = false;
        tokio::select! {
            wake = pump.dispatcher.source().bus.next() => match wake {
                Wake::Moved(moved) => {
                    due = pump.heed(&moved);
                    read_journal = pump.dispatcher.feed.has_readers();
                }
                Wake::Rescan => look_at_all = true,
            },
            () = pump.dispatcher.stale.notified() => {}
            () = pump.dispatcher.feed.wanted() => read_journal = true,
            () = sleep_until(next_poll) => {
                read_journal = true;
                is_poll = true;
            }
        }
        let outcome = pump.turn(due, look_at_all, read_journal).await;
        let hits = std::mem::take(pump.hits.get_mut());
        if is_poll {
            pump.dispatcher.observer.metrics.poll_hits(hits);
        }
        if let Err(error) = outcome {
            tracing::debug!(%error, "could not look for new events");
            // Nothing is lost: what was heard is still missing next time.
            tokio::time::sleep(DEAF_POLL).await;
        }
        if read_journal {
            next_poll = Instant::now() + pump.pause();
            if pump.dispatcher.feed.has_readers() {
                tokio::time::sleep(FEED_PAUSE).await;
            }
        }
    }
}

struct Pump {
    dispatcher: Arc<Dispatcher>,
    poll_interval: Duration,
    /// How far the journal was read; none while nobody watches.
    mark: Option<JournalMark>,
    /// Topics found to have news in this turn that nobody had told of.
    hits: AtomicUsize,
}

impl Pump {
    fn pause(&self) -> Duration {
        match self.dispatcher.bus_health() {
            BusHealth::Healthy | BusHealth::Local => self.poll_interval,
            BusHealth::Deaf => DEAF_POLL.min(self.poll_interval),
        }
    }

    /// Returns the topics whose heads must be looked at after a wake.
    fn heed(&self, moved: &[Moved]) -> Vec<Arc<Topic>> {
        let heed = |wake: &Moved| {
            let topic = self.dispatcher.topic(wake.number)?;
            // Urgent and nothing new: it may have been deleted.
            (!topic.hear(wake.next_index) && wake.urgent).then_some(topic)
        };
        moved.iter().filter_map(heed).collect()
    }

    async fn turn(
        &mut self,
        mut due: Vec<Arc<Topic>>,
        look_at_all: bool,
        read_journal: bool,
    ) -> Result<(), StoreError> {
        // Breaks invariants 6 and 7: what a deaf listener did not hear, nobody looks for.
        failpoint!("no-re-read", |_| {
            self.look_at_heads(&due).await?;
            return self.fill().await;
        });
        if read_journal {
            due.extend(self.read_journal().await?);
        }
        if look_at_all {
            due = self.topics();
        }
        self.look_at_heads(&due).await?;
        self.fill().await
    }

    fn topics(&self) -> Vec<Arc<Topic>> {
        self.dispatcher.topics.lock().values().cloned().collect()
    }

    /// Hears what the journal says; returns the topics to look at besides.
    async fn read_journal(&mut self) -> Result<Vec<Arc<Topic>>, StoreError> {
        let dispatcher = &self.dispatcher;
        let has_feed = dispatcher.feed.has_readers();
        if !has_feed
            && (dispatcher.topics.lock().is_empty() || dispatcher.bus_health() == BusHealth::Local)
        {
            self.mark = None;
            return Ok(Vec::new());
        }
        let store = &dispatcher.source().store;
        let Some(mark) = self.mark.take() else {
            let now = store.journal(None).await?.mark;
            self.mark = Some(dispatcher.feed.take_start().unwrap_or(now));
            // What happened before the mark shows in the heads.
            return Ok(self.topics());
        };
        let journal = match store.journal(Some(&mark)).await {
            Ok(journal) => journal,
            Err(error) => {
                self.mark = Some(mark);
                return Err(error);
            }
        };
        let mut due = Vec::new();
        for entry in &journal.entries {
            let Some(topic) = dispatcher.topic(entry.number) else { continue };
            self.note_hit(&topic, entry.next_index);
            if !topic.hear(entry.next_index) && entry.from == entry.next_index {
                due.push(topic);
            }
        }
        if has_feed && let Err(error) = dispatcher.feed.push(store, &journal).await {
            // Read again from the same mark: readers of all tasks rely on it.
            self.mark = Some(mark);
            return Err(error);
        }
        self.mark = Some(journal.mark);
        if journal.has_gap {
            dispatcher.feed.lose_track();
            return Ok(self.topics());
        }
        Ok(due)
    }

    fn note_hit(&self, topic: &Topic, next_index: u64) {
        self.hits.fetch_add(usize::from(topic.has_not_heard(next_index)), Ordering::Relaxed);
    }

    async fn look_at_heads(&self, topics: &[Arc<Topic>]) -> Result<(), StoreError> {
        for chunk in topics.chunks(TOPICS_PER_QUERY) {
            let numbers: Vec<TaskNumber> = chunk.iter().map(|topic| topic.task.number).collect();
            let heads = self.dispatcher.source().store.heads(&numbers).await?;
            for topic in chunk {
                let head = heads.iter().find(|head| head.task.number == topic.task.number);
                match head {
                    Some(head) if head.status != HeadStatus::Deleted => {
                        self.note_hit(topic, head.next_index);
                        topic.place(head);
                    }
                    Some(_) | None => topic.delete(),
                }
            }
        }
        Ok(())
    }

    /// Reads what is missing in the rings.
    async fn fill(&self) -> Result<(), StoreError> {
        loop {
            let missing: Vec<(Arc<Topic>, ReadRange)> = self
                .topics()
                .into_iter()
                .filter_map(|topic| {
                    let (from, to) = topic.missing()?;
                    let range = ReadRange {
                        task: topic.task.clone(),
                        from,
                        to,
                        view: View::Live,
                        max_events: EVENTS_PER_READ,
                        max_bytes: BYTES_PER_READ,
                    };
                    Some((topic, range))
                })
                .take(TOPICS_PER_QUERY)
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            let (topics, ranges): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
            let pages = self.dispatcher.source().store.read(&ranges).await?;
            let mut deaf = Vec::new();
            for ((topic, range), page) in topics.into_iter().zip(&ranges).zip(pages) {
                if page.covers_to == range.from {
                    // It was heard of but is not there: a wrong wake, or the task is gone.
                    deaf.push(topic);
                } else {
                    topic.extend_to(
                        &page.events,
                        range.from,
                        page.covers_to,
                        None,
                        &self.dispatcher.options,
                    );
                }
            }
            self.unhear(&deaf).await?;
        }
    }

    /// Sets topics that heard of more than there is back to their heads.
    async fn unhear(&self, topics: &[Arc<Topic>]) -> Result<(), StoreError> {
        self.look_at_heads(topics).await?;
        for topic in topics {
            topic.believe_only_ring();
        }
        Ok(())
    }
}

/// Moves the topics of one dispatcher on, but never by the poll: what is not
/// told of stays unseen, so that a lost wake shows.
#[cfg(test)]
pub(super) async fn run_without_polls(dispatcher: Arc<Dispatcher>) {
    use std::pin::pin;

    use futures_util::future::{Either, select};

    let poll_interval = Duration::MAX;
    let mut pump = Pump { dispatcher, poll_interval, mark: None, hits: AtomicUsize::new(0) };
    loop {
        let (mut due, mut look_at_all, mut read_journal) = (Vec::new(), false, false);
        {
            let dispatcher = &pump.dispatcher;
            let feed = pin!(dispatcher.feed.wanted());
            let stale = pin!(dispatcher.stale.notified());
            let wake = dispatcher.source().bus.next();
            match select(wake, select(stale, feed)).await {
                Either::Left((Wake::Moved(moved), _)) => {
                    due = pump.heed(&moved);
                    read_journal = dispatcher.feed.has_readers();
                }
                Either::Left((Wake::Rescan, _)) => look_at_all = true,
                Either::Right((Either::Left(_), _)) => {}
                Either::Right((Either::Right(_), _)) => read_journal = true,
            }
        }
        pump.turn(due, look_at_all, read_journal).await.unwrap();
    }
}
