//! Reads that several readers of one task want: done once, kept briefly.
//!
//! Readers that join together read the same pages and snapshots. A read runs
//! under the topic's lock, and whoever waited for it finds its result. What
//! is kept is small and goes when no reader of the topic replays any more.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Mutex;

use crate::domain::Event;
use crate::store::{Page, SeriesSpan, StoreError, View};

/// Bytes kept for late joiners of one topic.
const MAX_BYTES: usize = 4 << 20;

/// What was read. `head` is where the log ended: what an event added since
/// superseded is not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// A page of the log.
    Page { from: u64, to: u64, head: u64, view: View },
    /// The series before an index.
    Spans { to: u64 },
    /// A series up to an index.
    Snapshot { series: Arc<str>, last_index: u64 },
}

/// What a read gave.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Page(Arc<Page>),
    Spans(Arc<Vec<SeriesSpan>>),
    Snapshot(Option<Arc<Event>>),
}

impl Value {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Page(page) => page.events.iter().map(|event| event.size_bytes()).sum(),
            Self::Spans(spans) => 128 * spans.len(),
            Self::Snapshot(event) => event.as_ref().map_or(0, |event| event.size_bytes()),
        }
    }
}

/// What was read, and for whom it will do.
#[derive(Debug)]
struct Read {
    key: Key,
    value: Value,
    /// Whether it stays what it is however long the log grows.
    is_final: bool,
}

impl Read {
    fn new(key: Key, value: Value) -> Self {
        let is_final = match &value {
            // Only the newest event of a `latest` series counts, and that can change.
            Value::Page(page) => !page.events.iter().any(|event| event.is_replaceable()),
            Value::Spans(_) | Value::Snapshot(_) => true,
        };
        Self { key, value, is_final }
    }

    /// Tells whether it is what `wanted` names.
    fn answers(&self, wanted: &Key) -> bool {
        match (&self.key, wanted) {
            (
                Key::Page { from, to, view, .. },
                Key::Page { from: wanted_from, to: wanted_to, view: wanted_view, .. },
            ) if self.is_final => (from, to, view) == (wanted_from, wanted_to, wanted_view),
            (known, wanted) => known == wanted,
        }
    }
}

#[derive(Debug, Default)]
struct Kept {
    reads: VecDeque<Read>,
    bytes: usize,
}

/// The shared reads of a topic.
#[derive(Debug, Default)]
pub(super) struct Shared {
    kept: Mutex<Kept>,
    replaying: AtomicUsize,
}

impl Shared {
    pub(super) fn begin_replay(&self) {
        self.replaying.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends a replay; the last one out clears the table.
    pub(super) fn end_replay(&self) {
        if self.replaying.fetch_sub(1, Ordering::AcqRel) == 1
            && let Ok(mut kept) = self.kept.try_lock()
        {
            *kept = Kept::default();
        }
    }

    /// Returns what `key` names, reading it if nobody did.
    pub(super) async fn get<R>(&self, key: Key, read: R) -> Result<Value, StoreError>
    where
        R: Future<Output = Result<Value, StoreError>>,
    {
        let mut kept = self.kept.lock().await;
        if let Some(read) = kept.reads.iter().find(|read| read.answers(&key)) {
            return Ok(read.value.clone());
        }
        let value = read.await?;
        let size = value.size_bytes();
        if size <= MAX_BYTES {
            kept.bytes += size;
            kept.reads.push_back(Read::new(key, value.clone()));
            while kept.bytes > MAX_BYTES {
                let Some(oldest) = kept.reads.pop_front() else { break };
                kept.bytes -= oldest.value.size_bytes();
            }
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventDraft, Json, SeriesMode, TaskId, TaskNumber};

    fn event(mode: Option<SeriesMode>) -> Arc<Event> {
        let draft = EventDraft::new("x", Json::null()).unwrap();
        let (task, number) = (TaskId::parse("t").unwrap(), TaskNumber::new(1).unwrap());
        let draft = match mode {
            Some(mode) => draft.in_series("s", mode),
            None => draft,
        };
        Arc::new(Event { task, number, index: 3, timestamp_ms: 0, draft })
    }

    /// Reads the same stretch of a log that ends at 10 and then at 11; returns how often the
    /// store was asked.
    async fn reads_of_a_growing_log(event: Arc<Event>) -> usize {
        let shared = Shared::default();
        let asked = AtomicUsize::new(0);
        for head in [10, 11] {
            let key = Key::Page { from: 3, to: 4, head, view: View::Single };
            let read = async {
                asked.fetch_add(1, Ordering::Relaxed);
                let page = Page { events: vec![event.clone()], covers_to: 4 };
                Ok(Value::Page(Arc::new(page)))
            };
            shared.get(key, read).await.unwrap();
        }
        asked.into_inner()
    }

    #[tokio::test]
    async fn a_page_is_read_once_for_readers_that_come_while_the_log_grows() {
        assert_eq!(reads_of_a_growing_log(event(None)).await, 1);
        assert_eq!(reads_of_a_growing_log(event(Some(SeriesMode::Accumulate))).await, 1);
        assert_eq!(reads_of_a_growing_log(event(Some(SeriesMode::KeepAll))).await, 1);
    }

    #[tokio::test]
    async fn a_page_with_what_a_later_event_may_replace_is_read_again() {
        assert_eq!(reads_of_a_growing_log(event(Some(SeriesMode::Latest))).await, 2);
    }
}
