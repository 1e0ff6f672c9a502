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

/// What was read. `head` is where the log ended, so that nothing superseded
/// since is given.
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

#[derive(Debug, Default)]
struct Kept {
    values: VecDeque<(Key, Value)>,
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
        if let Some((_, value)) = kept.values.iter().find(|(known, _)| *known == key) {
            return Ok(value.clone());
        }
        let value = read.await?;
        let size = value.size_bytes();
        if size <= MAX_BYTES {
            kept.bytes += size;
            kept.values.push_back((key, value.clone()));
            while kept.bytes > MAX_BYTES {
                let Some((_, oldest)) = kept.values.pop_front() else { break };
                kept.bytes -= oldest.size_bytes();
            }
        }
        Ok(value)
    }
}
