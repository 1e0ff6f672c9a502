//! What an adapter tells of besides commits: how it is doing.
//!
//! Nothing depends on it. An adapter reports what it has to a
//! [`CommitListener`], right where it happens; one that reports nothing is a
//! store all the same, only without these numbers.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{CommitListener, StoreError, TaskRef};

/// Something that happened inside of a store or on its bus.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Report<'a> {
    /// A batch was committed.
    Committed(BatchReport),
    /// A batch is about to be served whose oldest request waited this long.
    Waited(Duration),
    /// Every connection for reading was in use when one was wanted.
    PoolWait,
    /// The store failed, or refused for want of room.
    Failed(StorePart, &'a StoreError),
    /// A finished task went to make room, with this many events.
    Evicted(&'a TaskRef, u64),
    /// This many tasks were told of to other instances.
    WakesSent(usize),
    /// This many tasks were told of by other instances.
    WakesReceived(usize),
    /// Wakes could not be sent or heard, in the words of the driver.
    BusFailed(BusProblem, &'a str),
    /// How old the oldest snapshot is that somebody holds in the database.
    OldestSnapshot(SnapshotAge),
    /// The store is open; from now on it can be asked how full it is.
    Opened(Probe),
}

/// What a batch was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// Appends to tasks that no other instance writes to, as far as is known.
    Append,
    /// Appends to contended tasks that claimed the next index of each.
    Claim,
    /// Appends to contended tasks behind a reservation of the next index.
    Reserve,
    /// New tasks.
    Create,
    /// Deletions.
    Delete,
}

/// A batch that was committed.
#[derive(Debug, Clone, Copy)]
pub struct BatchReport {
    /// What it was.
    pub kind: BatchKind,
    /// Requests in it that were carried out.
    pub requests: usize,
    /// Events it stored.
    pub events: usize,
    /// Tasks it moved.
    pub tasks: usize,
    /// From sending it to knowing its outcome.
    pub took: Duration,
}

/// How far back the oldest snapshot in a database reaches. Row versions that
/// are newer cannot be vacuumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotAge {
    /// Time since its transaction began, as far as it is a session's.
    pub age: Duration,
    /// Transactions that have begun since, replication slots included.
    pub transactions: u64,
}

/// A part of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorePart {
    /// What writes.
    Writer,
    /// What reads.
    Reader,
}

/// What is wrong with a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusProblem {
    /// The listener worked and was lost.
    ListenerLost,
    /// Listening cannot begin; told once until it does.
    NotListening,
    /// Wakes cannot be sent; told once until they can.
    NotSending,
}

/// How full a store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreGauges {
    /// Bytes of writes that wait.
    pub queue_bytes: u64,
    /// Connections for reading somebody uses.
    pub connections_in_use: u64,
    /// Connections for reading nobody uses.
    pub connections_idle: u64,
}

/// Looks how full a store is; never waits.
#[derive(Clone)]
pub struct Probe(Arc<dyn Fn() -> StoreGauges + Send + Sync>);

impl Probe {
    /// Makes a probe. It must hold on to nothing that holds on to the
    /// listener it is given to.
    pub fn new(look: impl Fn() -> StoreGauges + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    /// Looks.
    pub fn look(&self) -> StoreGauges {
        (self.0)()
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

/// The listener as the parts of an adapter share it that a reader of the
/// listener may hold: they must not keep it alive in turn.
#[derive(Clone, Default)]
pub(super) struct Reporter(Option<Weak<dyn CommitListener>>);

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").finish_non_exhaustive()
    }
}

impl Reporter {
    pub(super) fn new(listener: &Arc<dyn CommitListener>) -> Self {
        Self(Some(Arc::downgrade(listener)))
    }

    pub(super) fn report(&self, report: &Report<'_>) {
        if let Some(listener) = self.0.as_ref().and_then(Weak::upgrade) {
            listener.reported(report);
        }
    }

    pub(super) fn failed(&self, part: StorePart, error: &StoreError) {
        self.report(&Report::Failed(part, error));
    }
}
