//! An open stream as hooks and metrics see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::dispatcher::{Dispatcher, Slot};
use crate::domain::{TaskId, TaskNumber};
use crate::hooks::{
    DropReason, EventDropped, Hooks as _, SseConnected, SseDisconnected, SseEnd, SseStream,
};
use crate::metrics::StreamKind;
use crate::observer::Observer;

/// Says whether a connection was cut because its client took nothing.
///
/// A server that cuts such connections puts it into the extensions of their
/// requests and sets it before it does; otherwise their streams count as left.
#[derive(Debug, Clone, Default)]
pub struct Stalled(Arc<Connection>);

/// What a server and the streams of one of its connections tell each other.
#[derive(Debug, Default)]
struct Connection {
    is_cut: AtomicBool,
    is_streaming: AtomicBool,
}

impl Stalled {
    /// Notes that the connection is being cut.
    pub fn set(&self) {
        self.0.is_cut.store(true, Ordering::Release);
    }

    /// Says whether a stream is open on the connection.
    pub fn is_streaming(&self) -> bool {
        self.0.is_streaming.load(Ordering::Acquire)
    }

    fn is_set(&self) -> bool {
        self.0.is_cut.load(Ordering::Acquire)
    }

    fn streams(&self, is_streaming: bool) {
        self.0.is_streaming.store(is_streaming, Ordering::Release);
    }
}

/// What was put into a chunk.
#[derive(Debug, Default)]
pub(super) struct Load {
    frames: usize,
    /// When this instance heard of the oldest event that is news.
    oldest: Option<Instant>,
}

/// Tells of a stream from its beginning to its end, whichever way it goes.
pub(super) struct OpenStream {
    observer: Arc<Observer>,
    dispatcher: Arc<Dispatcher>,
    stream: SseStream,
    number: Option<TaskNumber>,
    opened: Instant,
    end: SseEnd,
    stalled: Option<Stalled>,
}

impl OpenStream {
    /// Tells of a stream of one task whose reader is registered.
    pub(super) fn of_task(
        observer: &Arc<Observer>,
        dispatcher: &Arc<Dispatcher>,
        task: (TaskId, TaskNumber),
        stalled: Option<Stalled>,
    ) -> Self {
        let (id, number) = task;
        Self::begin(observer, dispatcher, SseStream::Task(id), Some(number), stalled)
    }

    /// Tells of a stream of all tasks whose reader is registered.
    pub(super) fn of_all_tasks(
        observer: &Arc<Observer>,
        dispatcher: &Arc<Dispatcher>,
        stalled: Option<Stalled>,
    ) -> Self {
        Self::begin(observer, dispatcher, SseStream::AllTasks, None, stalled)
    }

    fn begin(
        observer: &Arc<Observer>,
        dispatcher: &Arc<Dispatcher>,
        stream: SseStream,
        number: Option<TaskNumber>,
        stalled: Option<Stalled>,
    ) -> Self {
        let open = Self {
            observer: observer.clone(),
            dispatcher: dispatcher.clone(),
            stream,
            number,
            opened: Instant::now(),
            end: SseEnd::Left,
            stalled,
        };
        open.stalled.iter().for_each(|stalled| stalled.streams(true));
        open.observer.metrics.stream_opened(open.kind());
        if !open.observer.hooks.is_empty() {
            let connected = SseConnected::new(open.stream.clone(), open.subscribers());
            open.observer.hooks.sse_connected(&connected);
        }
        open
    }

    fn kind(&self) -> StreamKind {
        match self.stream {
            SseStream::Task(_) => StreamKind::Task,
            SseStream::AllTasks => StreamKind::All,
        }
    }

    fn subscribers(&self) -> usize {
        match self.number {
            Some(number) => self.dispatcher.reader_count(number),
            None => self.dispatcher.all_tasks_reader_count(),
        }
    }

    /// Notes why the stream ends; otherwise it was left.
    pub(super) fn ends(&mut self, end: SseEnd) {
        self.end = end;
    }

    /// Notes that an event was put into a chunk.
    pub(super) fn load(&self, load: &mut Load, slot: &Slot) {
        load.frames += 1;
        // What the instance heard of before the reader came is no news.
        let news = slot.heard.filter(|heard| *heard > self.opened);
        if let Some(heard) = news {
            load.oldest = Some(load.oldest.map_or(heard, |oldest| oldest.min(heard)));
        }
    }

    /// Counts a chunk that goes to the socket now.
    pub(super) fn sent(&self, load: &Load, bytes: usize) {
        let lag: Option<Duration> = load.oldest.map(|heard| heard.elapsed());
        self.observer.metrics.chunk(self.kind(), load.frames, bytes, lag);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let was_cut = self.stalled.as_ref().is_some_and(Stalled::is_set);
        self.stalled.iter().for_each(|stalled| stalled.streams(false));
        if self.end == SseEnd::Left && was_cut {
            self.end = SseEnd::Stalled;
            let task = self.stream.task().cloned();
            self.observer.dropped(&EventDropped::new(DropReason::Stalled, task, None));
        }
        self.observer.metrics.stream_closed(self.kind(), self.end);
        if !self.observer.hooks.is_empty() {
            let (left, duration) = (self.subscribers(), self.opened.elapsed());
            let gone = SseDisconnected::new(self.stream.clone(), left, duration, self.end);
            self.observer.hooks.sse_disconnected(&gone);
        }
    }
}
