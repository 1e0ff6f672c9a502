//! Reading one task's log on behalf of readers: few at a time, shared where
//! readers want the same.

use std::sync::Arc;

use super::Dispatcher;
use super::shared::{Key, Value};
use super::topic::Topic;
use crate::domain::{Anchor, Event, EventId, Filter};
use crate::metrics::CatchUpRead;
use crate::store::{Page, ReadRange, SeriesSpan, Store, StoreError, TaskRef, View};

/// Events of one page.
const PAGE_EVENTS: usize = 512;

/// Bytes of payload after which a page ends.
const PAGE_BYTES: usize = 256 << 10;

/// Reads the log of one task.
#[derive(Debug, Clone)]
pub(super) struct Reads {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) task: TaskRef,
    /// The topic whose readers share what is read, for streams.
    pub(super) topic: Option<Arc<Topic>>,
}

/// Where a reader begins, and what it must not get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// First index to look at.
    pub(super) from: u64,
    /// Smallest filtered index wanted, where the log does not reach it yet.
    pub(super) min_filtered: u64,
    /// Smallest timestamp wanted.
    pub(super) min_timestamp_ms: u64,
}

impl Reads {
    pub(super) fn store(&self) -> &dyn Store {
        &*self.dispatcher.source().store
    }

    /// Returns the anchor of a reader, whose id has to be that of the event at
    /// its index: after a restore, or where a number was given out again, the
    /// log may hold another one there.
    pub(super) async fn verified(&self, anchor: Anchor, end: u64) -> Result<Anchor, StoreError> {
        match anchor {
            Anchor::After(id) if !self.is_known(id.event, end).await? => {
                Ok(Anchor::Start { reset: true })
            }
            anchor => Ok(anchor),
        }
    }

    /// Says whether a log that ends before `end` has, or had, an event of this id.
    ///
    /// Where the event is gone, its time must lie between those of its neighbours.
    async fn is_known(&self, id: EventId, end: u64) -> Result<bool, StoreError> {
        match self.first_event(id.index(), end).await? {
            Some(event) if event.index == id.index() => Ok(event.id() == id),
            Some(after) if after.timestamp_ms < id.timestamp_ms() => Ok(false),
            // No event before it may be later than it was.
            Some(_) | None => {
                let number = self.task.number;
                let later = self.store().position_after(number, id.timestamp_ms()).await?;
                Ok(self.first_event(later, id.index()).await?.is_none())
            }
        }
    }

    /// Returns the first event that is left in a range.
    async fn first_event(&self, from: u64, to: u64) -> Result<Option<Arc<Event>>, StoreError> {
        if from >= to {
            return Ok(None);
        }
        let (task, view) = (self.task.clone(), View::Live);
        let range = ReadRange { task, from, to, view, max_events: 1, max_bytes: 1 };
        let mut pages = self.store().read(&[range]).await?;
        Ok(pages.pop().and_then(|page| page.events.into_iter().next()))
    }

    /// Finds out where a cursor leads in a log that ends at `next_index`.
    pub(super) async fn locate(
        &self,
        anchor: Anchor,
        filter: &Filter,
        next_index: u64,
    ) -> Result<Start, StoreError> {
        let from = |from| Start { from, ..Start::default() };
        match anchor {
            Anchor::Start { .. } => Ok(from(0)),
            Anchor::After(id) => Ok(from(id.event.index() + 1)),
            Anchor::AfterFiltered(index) => {
                let Ok(index) = u64::try_from(index) else { return Ok(from(0)) };
                let min_filtered = index.saturating_add(1);
                let position = if filter.is_all() {
                    (index < next_index).then_some(index)
                } else {
                    self.store().position_of(self.task.number, filter, index).await?
                };
                let from = position.map_or(next_index, |position| position + 1);
                Ok(Start { from, min_filtered, min_timestamp_ms: 0 })
            }
            Anchor::AfterTimestamp(timestamp_ms) => {
                let from = self.store().position_after(self.task.number, timestamp_ms).await?;
                let min_timestamp_ms = timestamp_ms.saturating_add(1);
                Ok(Start { from, min_filtered: 0, min_timestamp_ms })
            }
        }
    }

    /// Reads a page of a log that ends at `head`.
    pub(super) async fn page(
        &self,
        from: u64,
        to: u64,
        head: u64,
        view: View,
    ) -> Result<Arc<Page>, StoreError> {
        let range = ReadRange {
            task: self.task.clone(),
            from,
            to,
            view,
            max_events: PAGE_EVENTS,
            max_bytes: PAGE_BYTES,
        };
        let read = async {
            self.count(CatchUpRead::Page);
            let pages = self.store().read(&[range]).await?;
            Ok(Value::Page(Arc::new(pages.into_iter().next().unwrap_or_default())))
        };
        match self.get(Key::Page { from, to, head, view }, read).await? {
            Value::Page(page) => Ok(page),
            Value::Spans(_) | Value::Snapshot(_) => Ok(Arc::default()),
        }
    }

    /// Reads the `accumulate` series before `to`.
    pub(super) async fn spans(&self, to: u64) -> Result<Arc<Vec<SeriesSpan>>, StoreError> {
        let read = async {
            self.count(CatchUpRead::Series);
            let spans = self.store().series_spans(self.task.number, to).await?;
            Ok(Value::Spans(Arc::new(spans)))
        };
        match self.get(Key::Spans { to }, read).await? {
            Value::Spans(spans) => Ok(spans),
            Value::Page(_) | Value::Snapshot(_) => Ok(Arc::default()),
        }
    }

    /// Reads a series as one event.
    pub(super) async fn snapshot(
        &self,
        span: &SeriesSpan,
    ) -> Result<Option<Arc<Event>>, StoreError> {
        let read = async {
            self.count(CatchUpRead::Snapshot);
            let event = self.store().snapshot(&self.task, span).await?;
            Ok(Value::Snapshot(event.map(Arc::new)))
        };
        let key = Key::Snapshot { series: span.id.clone(), last_index: span.last_index };
        match self.get(key, read).await? {
            Value::Snapshot(event) => Ok(event),
            Value::Page(_) | Value::Spans(_) => Ok(None),
        }
    }

    /// Counts a read for streams; histories read as a matter of course.
    fn count(&self, read: CatchUpRead) {
        if self.topic.is_some() {
            self.dispatcher.observer.metrics.catch_up_read(read);
        }
    }

    async fn get<R>(&self, key: Key, read: R) -> Result<Value, StoreError>
    where
        R: Future<Output = Result<Value, StoreError>>,
    {
        let admitted = async {
            // The semaphore is never closed.
            let _permit = self.dispatcher.reads.acquire().await;
            read.await
        };
        match &self.topic {
            Some(topic) => topic.shared.get(key, admitted).await,
            None => admitted.await,
        }
    }
}
