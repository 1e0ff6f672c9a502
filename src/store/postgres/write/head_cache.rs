//! The head cache: what a lane knows of the tasks it writes to.
//!
//! The cache is never trusted on its own. This is optimistic concurrency:
//! every write names the index it was decided at, and Postgres stores it only
//! if nobody else took that index. A series has no version of its own: it
//! changes only together with the log, so the index covers it as well.
//!
//! Rules that keep a wrong entry from doing harm: the end of a log comes from
//! a commit of this lane or from a read, never from a hint; a conflict drops
//! everything known of a task at once; and all of it belongs to one run of one
//! server (see [`HeadCache::clear`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::{Change, TaskId, TaskNumber, TaskState};

/// Tasks and series kept before the least recently used half is dropped.
const MAX_WEIGHT: usize = 100_000;

/// How long a task counts as contended after another writer was first.
const CONTENDED_FOR: Duration = Duration::from_secs(2);

/// A task as last seen.
#[derive(Debug)]
pub(super) struct CachedHead {
    pub(super) number: TaskNumber,
    pub(super) state: TaskState,
    /// Timestamp of the newest event, Unix milliseconds; 0 without events.
    pub(super) last_at_ms: u64,
    /// Series known not to exist.
    pub(super) missing_series: HashSet<Arc<str>>,
    /// Every series there is, is in `state`.
    pub(super) has_every_series: bool,
    /// Read while the present batch was served: a rejection needs no second look.
    pub(super) is_fresh: bool,
    /// The batch it was read for.
    read_for: u64,
    last_used: u64,
}

impl CachedHead {
    pub(super) fn new(
        number: TaskNumber,
        state: TaskState,
        last_at_ms: u64,
        has_every_series: bool,
    ) -> Self {
        Self {
            number,
            state,
            last_at_ms,
            missing_series: HashSet::new(),
            has_every_series,
            is_fresh: true,
            read_for: 0,
            last_used: 0,
        }
    }

    /// Tells whether every series that `change` names is known, there or not.
    pub(super) fn covers(&self, change: &Change) -> bool {
        self.has_every_series
            || series_of(change)
                .all(|id| self.state.series.contains_key(id) || self.missing_series.contains(id))
    }

    fn weight(&self) -> usize {
        1 + self.state.series.len() + self.missing_series.len()
    }
}

/// Returns the series with a mode that a change names, one for each event.
pub(super) fn series_of(change: &Change) -> impl Iterator<Item = &Arc<str>> {
    let events = match change {
        Change::Publish(events) => events.as_slice(),
        Change::Transition(_) => &[],
    };
    events
        .iter()
        .filter_map(|event| event.series.as_ref().filter(|tag| tag.mode.is_some()))
        .map(|tag| &tag.id)
}

/// The tasks a lane knows.
#[derive(Debug, Default)]
pub(super) struct HeadCache {
    tasks: HashMap<TaskId, CachedHead>,
    weight: usize,
    batch: u64,
    /// Tasks that another instance writes to as well, and until when that is
    /// assumed.
    contended: HashMap<TaskId, Instant>,
    /// Series as of the last write of this lane, for the failpoint that breaks
    /// the rule that a conflict drops everything.
    #[cfg(feature = "failpoints")]
    outdated: HashMap<TaskId, HashMap<Arc<str>, crate::domain::SeriesState>>,
}

impl HeadCache {
    /// Starts a batch: what was read before is no longer fresh.
    pub(super) fn begin_batch(&mut self) {
        self.batch += 1;
        if self.weight > MAX_WEIGHT {
            self.drop_older_half();
        }
        if !self.contended.is_empty() {
            let now = Instant::now();
            self.contended.retain(|_, until| now < *until);
        }
    }

    pub(super) fn get(&self, id: &TaskId) -> Option<&CachedHead> {
        self.tasks.get(id)
    }

    /// Takes a task out; what becomes of it is put back, or dropped.
    pub(super) fn take(&mut self, id: &TaskId) -> Option<CachedHead> {
        let mut task = self.tasks.remove(id)?;
        self.weight -= task.weight();
        // It may have been read for a batch that then had no use for it.
        task.is_fresh = task.read_for == self.batch;
        Some(task)
    }

    /// Keeps a task after a write.
    pub(super) fn put(&mut self, id: TaskId, mut task: CachedHead) {
        // A finished task sees no more writes worth keeping it for.
        if task.state.status.is_terminal() {
            return;
        }
        task.last_used = self.batch;
        task.read_for = 0;
        failpoint!("stale-series", |_| {
            self.outdated.insert(id.clone(), task.state.series.clone());
        });
        self.insert(id, task);
    }

    /// Adds a task just read, so that rejections based on it count at once.
    pub(super) fn put_fresh(&mut self, id: TaskId, mut task: CachedHead) {
        task.last_used = self.batch;
        task.read_for = self.batch;
        // Breaks the rule that a conflict drops everything known of a task.
        failpoint!("stale-series", |_| {
            let outdated = self.outdated.get(&id).cloned().unwrap_or_default();
            task.state.series.extend(outdated);
        });
        self.insert(id, task);
    }

    fn insert(&mut self, id: TaskId, task: CachedHead) {
        self.weight += task.weight();
        if let Some(old) = self.tasks.insert(id, task) {
            self.weight -= old.weight();
        }
    }

    /// Drops everything, contention apart: after a reconnect to what may be
    /// another server, or the same one restored, an end may lie behind the log.
    pub(super) fn clear(&mut self) {
        self.tasks.clear();
        self.weight = 0;
    }

    /// Notes that another writer was first.
    pub(super) fn mark_contended(&mut self, id: &TaskId) {
        self.contended.insert(id.clone(), Instant::now() + CONTENDED_FOR);
    }

    /// Tells whether another instance writes to a task as well.
    pub(super) fn is_contended(&self, id: &TaskId) -> bool {
        !self.contended.is_empty() && self.contended.contains_key(id)
    }

    fn drop_older_half(&mut self) {
        let mut used: Vec<u64> = self.tasks.values().map(|task| task.last_used).collect();
        used.sort_unstable();
        let median = used.get(used.len() / 2).copied().unwrap_or_default();
        self.tasks.retain(|_, task| task.last_used > median);
        self.weight = self.tasks.values().map(CachedHead::weight).sum();
    }
}
