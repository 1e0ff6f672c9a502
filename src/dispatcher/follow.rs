//! Readers as async streams, for programs that follow tasks without HTTP.
//!
//! A stream here is what a socket would be: it pulls. While nobody asks for
//! its next item it costs no more than its place in the log.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::Dispatcher;
use super::feed::{FeedError, FeedItem, FeedReader, FeedRequest};
use super::history::{History, HistoryEvent, HistoryRequest, OpenedHistory};
use super::subscription::{Entry, Item, OpenedStream, StreamRequest, Subscription};
use crate::domain::{Cursor, Decision, Event, Filter, ResumeId, TaskId};
use crate::store::StoreError;

/// Bytes of events taken from the feed of all tasks at a time.
const FEED_BYTES: usize = 64 << 10;

/// A task cannot be followed, nor its history be read.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// There is no such task.
    #[error("no such task")]
    NoSuchTask,
    /// The task's own rules do not let the reader.
    #[error("refused by the task's rules")]
    Denied(Decision),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StreamRequest {
    /// Returns the request for everything there is of a task and will be.
    ///
    /// Its fields say what a reader may want otherwise.
    pub fn new(task: TaskId) -> Self {
        Self {
            task,
            filter: Filter::default(),
            last_event_id: None,
            cursor: Cursor::default(),
            limit: None,
            accumulated: false,
            guard: None,
        }
    }
}

impl HistoryRequest {
    /// Returns the request for everything there is of a task, event by event.
    pub fn new(task: TaskId) -> Self {
        Self {
            task,
            filter: Filter::default(),
            cursor: Cursor::default(),
            limit: usize::MAX,
            accumulated: false,
            guard: None,
        }
    }
}

impl Entry {
    /// Returns the event.
    pub fn event(&self) -> &Event {
        &self.slot.event
    }

    /// Returns the id to continue after this event with, as
    /// [`StreamRequest::last_event_id`]: that of the event, and in a collapsed
    /// replay what is needed to go on in the same view.
    pub fn resume_id(&self) -> ResumeId {
        ResumeId { event: self.slot.event.id(), collapsed_to: self.collapsed_to }
    }
}

impl FeedItem {
    /// Returns the event.
    pub fn event(&self) -> &Event {
        &self.slot.event
    }
}

impl Dispatcher {
    /// Opens a stream and returns its items; see [`Subscription::into_stream`].
    ///
    /// There is none for a reader that has seen the end.
    pub async fn follow(
        self: &Arc<Self>,
        request: StreamRequest,
    ) -> Result<BoxStream<'static, Result<Item, StoreError>>, FollowError> {
        match self.subscribe(request).await?.ok_or(FollowError::NoSuchTask)? {
            OpenedStream::Stream(subscription) => Ok(subscription.into_stream()),
            OpenedStream::AtEnd => Ok(stream::empty().boxed()),
            OpenedStream::Denied(decision) => Err(FollowError::Denied(decision)),
        }
    }

    /// Opens the stream of all tasks; see [`FeedReader::into_stream`].
    pub async fn follow_all(
        self: &Arc<Self>,
        request: FeedRequest,
    ) -> Result<BoxStream<'static, Result<FeedItem, FeedError>>, StoreError> {
        Ok(self.subscribe_all(request).await?.into_stream())
    }

    /// Opens a task's history as it is now; see [`History::into_stream`].
    pub async fn stream_history(
        self: &Arc<Self>,
        request: HistoryRequest,
    ) -> Result<BoxStream<'static, Result<HistoryEvent, StoreError>>, FollowError> {
        match self.history(request).await?.ok_or(FollowError::NoSuchTask)? {
            OpenedHistory::History(history) => Ok(history.into_stream()),
            OpenedHistory::Denied(decision) => Err(FollowError::Denied(decision)),
        }
    }
}

impl Subscription {
    /// Returns what this reader is told: first what there is, then each event
    /// as it is stored.
    ///
    /// It ends after [`Item::Done`] or [`Item::Deleted`]. A failure of the
    /// store is its last item; the reader may go on in another stream from
    /// [`Entry::resume_id`] of the last event it got. Dropping the stream ends the subscription.
    pub fn into_stream(self) -> BoxStream<'static, Result<Item, StoreError>> {
        let batches = stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            loop {
                match reader.read().await {
                    Err(error) => return Some((vec![Err(error)], None)),
                    Ok(batch) => {
                        let rest = (!batch.is_last).then_some(());
                        if !batch.items.is_empty() || rest.is_none() {
                            let items = batch.items.into_iter().map(Ok).collect::<Vec<_>>();
                            return Some((items, rest.map(|()| reader)));
                        }
                        if batch.is_caught_up {
                            reader.wait().await;
                        }
                    }
                }
            }
        });
        batches.flat_map(stream::iter).boxed()
    }
}

impl FeedReader {
    /// Returns the events of every task that are stored from now on.
    ///
    /// It goes on until it is dropped, or until the reader falls too far
    /// behind, which is its last item.
    pub fn into_stream(self) -> BoxStream<'static, Result<FeedItem, FeedError>> {
        let batches = stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            loop {
                match reader.read(FEED_BYTES) {
                    Err(error) => return Some((vec![Err(error)], None)),
                    Ok(items) if items.is_empty() => reader.wait().await,
                    Ok(items) => return Some((items.into_iter().map(Ok).collect(), Some(reader))),
                }
            }
        });
        batches.flat_map(stream::iter).boxed()
    }
}

impl History {
    /// Returns the events, page by page as they are asked for.
    ///
    /// A failure of the store is its last item.
    pub fn into_stream(self) -> BoxStream<'static, Result<HistoryEvent, StoreError>> {
        let pages = stream::unfold(Some(self), |history| async move {
            let mut history = history?;
            match history.read().await {
                Err(error) => Some((vec![Err(error)], None)),
                Ok(events) if events.is_empty() => None,
                Ok(events) => Some((events.into_iter().map(Ok).collect::<Vec<_>>(), Some(history))),
            }
        });
        pages.flat_map(stream::iter).boxed()
    }
}
