//! What a lane remembers of the tasks it writes to.
//!
//! A memory is worth nothing by itself: every write names the head it was
//! judged from, and Postgres carries it out only if the head is still that.
//! A series belongs to its head's version, so one comparison covers both.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::domain::{Change, TaskId, TaskNumber, TaskState};

/// Tasks and series remembered before the oldest half is forgotten.
const MAX_WEIGHT: usize = 100_000;

/// A task as last seen.
#[derive(Debug)]
pub(super) struct KnownTask {
    pub(super) number: TaskNumber,
    pub(super) state: TaskState,
    /// Series known not to exist.
    pub(super) absent: HashSet<Arc<str>>,
    /// Every series there is, is in `state`.
    pub(super) has_every_series: bool,
    /// Seen while the present batch was served: verdicts need no second look.
    pub(super) is_fresh: bool,
    /// The batch it was read for.
    seen_in: u64,
    last_used: u64,
}

impl KnownTask {
    pub(super) fn new(number: TaskNumber, state: TaskState, has_every_series: bool) -> Self {
        Self {
            number,
            state,
            absent: HashSet::new(),
            has_every_series,
            is_fresh: true,
            seen_in: 0,
            last_used: 0,
        }
    }

    /// Tells whether every series `change` names is known, there or not.
    pub(super) fn covers(&self, change: &Change) -> bool {
        self.has_every_series
            || series_of(change)
                .all(|id| self.state.series.contains_key(id) || self.absent.contains(id))
    }

    fn weight(&self) -> usize {
        1 + self.state.series.len() + self.absent.len()
    }
}

/// Returns the folding series a change names, one for each event that does.
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

/// The tasks a lane remembers.
#[derive(Debug, Default)]
pub(super) struct Known {
    tasks: HashMap<TaskId, KnownTask>,
    weight: usize,
    batch: u64,
}

impl Known {
    /// Starts a batch: what was seen before is no longer fresh.
    pub(super) fn begin_batch(&mut self) {
        self.batch += 1;
        if self.weight > MAX_WEIGHT {
            self.forget_oldest_half();
        }
    }

    pub(super) fn get(&self, id: &TaskId) -> Option<&KnownTask> {
        self.tasks.get(id)
    }

    /// Takes a task out; what becomes of it is put back, or forgotten.
    pub(super) fn take(&mut self, id: &TaskId) -> Option<KnownTask> {
        let mut task = self.tasks.remove(id)?;
        self.weight -= task.weight();
        // It may have been read for a batch that then had no use for it.
        task.is_fresh = task.seen_in == self.batch;
        Some(task)
    }

    pub(super) fn put(&mut self, id: TaskId, mut task: KnownTask) {
        // A finished task sees no more writes worth remembering it for.
        if task.state.status.is_terminal() {
            return;
        }
        task.last_used = self.batch;
        task.seen_in = 0;
        self.insert(id, task);
    }

    /// Adds a task just read, so that verdicts on it count at once.
    pub(super) fn put_fresh(&mut self, id: TaskId, mut task: KnownTask) {
        task.last_used = self.batch;
        task.seen_in = self.batch;
        self.insert(id, task);
    }

    fn insert(&mut self, id: TaskId, task: KnownTask) {
        self.weight += task.weight();
        if let Some(old) = self.tasks.insert(id, task) {
            self.weight -= old.weight();
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.tasks.clear();
        self.weight = 0;
    }

    fn forget_oldest_half(&mut self) {
        let mut used: Vec<u64> = self.tasks.values().map(|task| task.last_used).collect();
        used.sort_unstable();
        let median = used.get(used.len() / 2).copied().unwrap_or_default();
        self.tasks.retain(|_, task| task.last_used > median);
        self.weight = self.tasks.values().map(KnownTask::weight).sum();
    }
}
