//! What happens once a write is durable.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::columns::of_number;
use super::super::rollup::RollupQueue;
use crate::domain::{BLOCK_LEN, Task};
use crate::store::{Commit, CommitListener, Report, StoreError, StorePart};

/// Tells those who have to know of a commit.
pub(in super::super) struct PostCommit {
    listener: Arc<dyn CommitListener>,
    rollup: Arc<RollupQueue>,
    /// Lanes that write, for their heartbeat.
    lanes: Mutex<Vec<i64>>,
}

impl PostCommit {
    pub(in super::super) fn new(
        listener: Arc<dyn CommitListener>,
        rollup: Arc<RollupQueue>,
    ) -> Arc<Self> {
        Arc::new(Self { listener, rollup, lanes: Mutex::default() })
    }

    pub(super) fn committed(&self, commits: &[Commit]) {
        self.listener.committed(commits);
        for commit in commits {
            let (Some(first), Some(last)) = (commit.events.first(), commit.events.last()) else {
                continue;
            };
            let next_index = last.index + 1;
            if first.index / BLOCK_LEN != next_index / BLOCK_LEN {
                self.rollup.push(of_number(commit.task.number), next_index);
            }
        }
    }

    pub(super) fn created(&self, task: &Task) {
        self.listener.created(task);
    }

    pub(in super::super) fn report(&self, report: &Report<'_>) {
        self.listener.reported(report);
    }

    pub(super) fn failed(&self, error: &StoreError) {
        self.report(&Report::Failed(StorePart::Writer, error));
    }

    pub(super) fn add_lane(&self, lane: i64) {
        self.lanes.lock().push(lane);
    }

    pub(super) fn remove_lane(&self, lane: i64) {
        self.lanes.lock().retain(|known| *known != lane);
    }

    /// Tells whether a lane is registered, as far as is known.
    pub(super) fn has_lane(&self, lane: i64) -> bool {
        self.lanes.lock().contains(&lane)
    }

    /// Returns the lanes that write.
    pub(in super::super) fn lanes(&self) -> Vec<i64> {
        self.lanes.lock().clone()
    }
}
