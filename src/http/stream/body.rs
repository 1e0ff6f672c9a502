//! The bodies of streams: pulled by the socket, never pushed.
//!
//! Every way out of a stream is here: the task ended or was deleted, the
//! reader left (the body is dropped), its credentials ran out, the store failed
//! (the connection is cut, so that it cannot be taken for an end), the server
//! drains.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, unfold};
use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep_until};

use super::StreamSettings;
use super::drain::Drain;
use super::frames::{Chunk, EXPIRED, KEEP_ALIVE, OPENED, RESET, Wrap};
use super::lease::{Lease, Standing};
use super::open::{Load, OpenStream};
use crate::dispatcher::{FeedReader, Item, Subscription};
use crate::hooks::SseEnd;

/// Bytes after which a chunk of the stream of all tasks is handed out.
const CHUNK_BYTES: usize = 64 << 10;

/// A stream was cut because it could not go on.
#[derive(Debug, thiserror::Error)]
#[error("the stream cannot go on")]
pub(super) struct Cut;

/// What a quiet stream waits for.
enum Woken {
    News,
    Lease,
    Silence,
    Drain,
}

/// When to break the silence, and when to end.
#[derive(Debug)]
struct Pace {
    keep_alive: Duration,
    next_beat: Instant,
    opened: Instant,
    drain: Drain,
    /// When this stream ends, once the server drains.
    leave_at: Option<Instant>,
}

impl Pace {
    fn new(settings: &StreamSettings) -> Self {
        Self {
            keep_alive: settings.keep_alive,
            next_beat: Instant::now() + settings.keep_alive,
            opened: Instant::now(),
            drain: settings.drain.clone(),
            leave_at: None,
        }
    }

    /// Notes that something was sent.
    fn sent(&mut self) {
        self.next_beat = Instant::now() + self.keep_alive;
    }

    /// Picks the time to leave, once the server drains.
    fn plan_to_leave(&mut self) {
        self.leave_at = self.leave_at.or_else(|| self.drain.leave_at(self.opened));
    }

    fn retry_ms(&self) -> u64 {
        self.drain.retry_ms(self.opened)
    }

    /// Tells whether it is time to leave; a busy stream never waits to be told.
    fn must_leave(&mut self) -> bool {
        self.plan_to_leave();
        self.leave_at.is_some_and(|leave_at| leave_at <= Instant::now())
    }

    async fn wait(&mut self, news: impl Future<Output = ()>, lease: &mut Lease) -> Woken {
        let lease = lease.changed();
        tokio::pin!(news, lease);
        let draining = self.drain.token().clone();
        loop {
            let leave_at = self.leave_at.unwrap_or(self.next_beat);
            tokio::select! {
                () = &mut news => return Woken::News,
                () = &mut lease => return Woken::Lease,
                () = sleep_until(leave_at), if self.leave_at.is_some() => return Woken::Drain,
                () = sleep_until(self.next_beat) => return Woken::Silence,
                () = draining.cancelled(), if self.leave_at.is_none() => {
                    self.plan_to_leave();
                }
            }
        }
    }
}

/// Begins every stream with a comment, on its own and at once: proxies and
/// development servers hold the head of an answer back until its first byte.
fn opened_first<S>(body: S) -> impl Stream<Item = Result<Bytes, Cut>>
where
    S: Stream<Item = Result<Bytes, Cut>>,
{
    stream::once(std::future::ready(Ok(Bytes::from_static(OPENED)))).chain(body)
}

/// The stream of one task.
pub(super) struct TaskBody {
    subscription: Subscription,
    wrap: Wrap,
    lease: Lease,
    pace: Pace,
    /// Whether the next frame says that the reader's cursor is unknown.
    is_reset: bool,
    is_over: bool,
    /// Dropped after the reader, so that it is not counted any more.
    open: OpenStream,
}

impl TaskBody {
    pub(super) fn new(
        subscription: Subscription,
        wrap: Wrap,
        lease: Lease,
        settings: &StreamSettings,
        open: OpenStream,
    ) -> Self {
        let (pace, is_reset, is_over) = (Pace::new(settings), false, false);
        Self { subscription, wrap, lease, pace, is_reset, is_over, open }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Cut>> {
        opened_first(unfold(self, |mut body| async move {
            let next = body.next().await?;
            Some((next, body))
        }))
    }

    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        let (mut chunk, mut load) = (Chunk::default(), Load::default());
        while !self.is_over {
            if !self.may_go_on() {
                chunk.push(EXPIRED);
                self.open.ends(SseEnd::Expired);
                self.is_over = true;
                break;
            }
            let batch = match self.subscription.read().await {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::warn!(%error, "stream cut: the store failed");
                    self.open.ends(SseEnd::StoreFailed);
                    self.is_over = true;
                    return Some(Err(Cut));
                }
            };
            for item in &batch.items {
                match item {
                    Item::Event(entry) => self.open.load(&mut load, &entry.slot),
                    Item::Done(..) => self.open.ends(SseEnd::Done),
                    Item::Deleted => self.open.ends(SseEnd::Deleted),
                    Item::Reset => {}
                }
                self.push(&mut chunk, item);
            }
            self.is_over = batch.is_last;
            if !self.is_over && self.pace.must_leave() {
                self.leave(&mut chunk);
                break;
            }
            if !batch.items.is_empty() {
                break;
            }
            if batch.is_caught_up {
                match self.pace.wait(self.subscription.wait(), &mut self.lease).await {
                    Woken::News | Woken::Lease => continue,
                    Woken::Silence => chunk.push(KEEP_ALIVE),
                    Woken::Drain => self.leave(&mut chunk),
                }
                break;
            }
        }
        self.pace.sent();
        let bytes = chunk.take()?;
        self.open.sent(&load, bytes.len());
        Some(Ok(bytes))
    }

    /// Adds what a reader is told to a chunk.
    fn push(&mut self, chunk: &mut Chunk, item: &Item) {
        match item {
            Item::Reset => {
                chunk.push(RESET);
                self.is_reset = true;
            }
            Item::Event(entry) => {
                let is_reset = std::mem::take(&mut self.is_reset);
                chunk.push_entry(entry, self.wrap, is_reset);
            }
            Item::Done(status, id) => chunk.push_done(*status, *id, self.is_reset),
            Item::Deleted => chunk.push_deleted(self.is_reset),
        }
    }

    /// Tells whether the reader's credentials still let it.
    fn may_go_on(&mut self) -> bool {
        match self.lease.standing() {
            Standing::Holds => true,
            Standing::Renewed(guard) => self.subscription.admits(&guard),
            Standing::Over => false,
        }
    }

    fn leave(&mut self, chunk: &mut Chunk) {
        chunk.push_retry(self.pace.retry_ms());
        self.open.ends(SseEnd::Drained);
        self.is_over = true;
    }
}

/// The stream of every task.
pub(super) struct AllTasksBody {
    reader: FeedReader,
    wrap: Wrap,
    lease: Lease,
    pace: Pace,
    is_over: bool,
    /// Dropped after the reader, so that it is not counted any more.
    open: OpenStream,
}

impl AllTasksBody {
    pub(super) fn new(
        reader: FeedReader,
        wrap: Wrap,
        lease: Lease,
        settings: &StreamSettings,
        open: OpenStream,
    ) -> Self {
        Self { reader, wrap, lease, pace: Pace::new(settings), is_over: false, open }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Cut>> {
        opened_first(unfold(self, |mut body| async move {
            let next = body.next().await?;
            Some((next, body))
        }))
    }

    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        let (mut chunk, mut load) = (Chunk::default(), Load::default());
        while !self.is_over {
            if !self.may_go_on() {
                chunk.push(EXPIRED);
                self.open.ends(SseEnd::Expired);
                self.is_over = true;
                break;
            }
            let Ok(items) = self.reader.read(CHUNK_BYTES) else {
                tracing::info!("stream cut: reader of all tasks too far behind");
                self.open.ends(SseEnd::Lagged);
                self.is_over = true;
                return Some(Err(Cut));
            };
            for item in &items {
                self.open.load(&mut load, &item.slot);
                chunk.push_unnumbered(&item.slot, item.filtered_index, self.wrap);
            }
            if self.pace.must_leave() {
                self.leave(&mut chunk);
                break;
            }
            if !items.is_empty() {
                break;
            }
            match self.pace.wait(self.reader.wait(), &mut self.lease).await {
                Woken::News | Woken::Lease => continue,
                Woken::Silence => chunk.push(KEEP_ALIVE),
                Woken::Drain => self.leave(&mut chunk),
            }
            break;
        }
        self.pace.sent();
        let bytes = chunk.take()?;
        self.open.sent(&load, bytes.len());
        Some(Ok(bytes))
    }

    /// Tells whether the reader's credentials still let it, and has it see by
    /// new ones what those allow.
    fn may_go_on(&mut self) -> bool {
        match self.lease.standing() {
            Standing::Holds => true,
            Standing::Renewed(guard) => self.reader.renew(guard),
            Standing::Over => false,
        }
    }

    fn leave(&mut self, chunk: &mut Chunk) {
        chunk.push_retry(self.pace.retry_ms());
        self.open.ends(SseEnd::Drained);
        self.is_over = true;
    }
}
