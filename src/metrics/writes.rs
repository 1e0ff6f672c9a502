//! What is written, how it is batched, and how the store is doing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Sample;
use super::cells::{
    CounterTable, Counters, Gauges, Histogram, Histograms, SECONDS, SIZES, counter,
};
use super::labels::{AppendKind, AppendOutcome, BatchKind, ConnectionState};
use crate::domain::TaskStatus;
use crate::hooks::{StoragePart, StorageProblem};

#[derive(Debug)]
pub(super) struct WriteMetrics {
    appends: CounterTable<AppendKind, AppendOutcome>,
    events: Counter,
    created: Counter,
    transitions: Counters<TaskStatus>,
    batch_requests: Histograms<BatchKind>,
    batch_events: Histograms<BatchKind>,
    batch_tasks: Histograms<BatchKind>,
    commit: Histograms<BatchKind>,
    queue_wait: Histogram,
    queue_bytes: Gauge,
    connections: Gauges<ConnectionState>,
    pool_waits: Counter,
    snapshot_age: Gauge,
    snapshot_transactions: Gauge,
    errors: CounterTable<StoragePart, StorageProblem>,
}

impl WriteMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let queue_wait = Histogram::new(SECONDS);
        registry.register_with_unit(
            "queue_wait",
            "How long the oldest request of each batch had waited for its lane",
            Unit::Seconds,
            queue_wait.clone(),
        );
        let queue_bytes = Gauge::default();
        registry.register_with_unit(
            "queue",
            "Bytes of writes waiting for a lane",
            Unit::Bytes,
            queue_bytes.clone(),
        );
        let snapshot_age = Gauge::default();
        registry.register_with_unit(
            "oldest_snapshot",
            "Age of the oldest snapshot that a session holds in the database",
            Unit::Seconds,
            snapshot_age.clone(),
        );
        let snapshot_transactions = Gauge::default();
        registry.register(
            "oldest_snapshot_transactions",
            "Transactions begun since the oldest snapshot, replication slots included",
            snapshot_transactions.clone(),
        );
        let sizes =
            |registry: &mut Registry, name, help| Histograms::new(registry, name, help, SIZES);
        Self {
            appends: CounterTable::new(registry, "appends", "Appends, by what they came to"),
            events: counter(registry, "appended_events", "Events stored by appends"),
            created: counter(registry, "tasks_created", "Tasks created"),
            transitions: Counters::new(registry, "transitions", "Tasks that entered a state"),
            batch_requests: sizes(registry, "batch_requests", "Requests in each committed batch"),
            batch_events: sizes(registry, "batch_events", "Events in each committed batch"),
            batch_tasks: sizes(registry, "batch_tasks", "Tasks in each committed batch"),
            commit: Histograms::of_times(
                registry,
                "commit",
                "From sending a batch to knowing that it is durable",
            ),
            queue_wait,
            queue_bytes,
            connections: Gauges::new(
                registry,
                "pool_connections",
                "Connections for reading, by what they are at",
            ),
            pool_waits: counter(
                registry,
                "pool_waits",
                "Reads that found every connection in use and had to wait",
            ),
            snapshot_age,
            snapshot_transactions,
            errors: CounterTable::new(registry, "storage_errors", "Failures of the store"),
        }
    }

    pub(super) fn set(&self, sample: &Sample) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.queue_bytes.inner().store(signed(sample.queue_bytes), Ordering::Relaxed);
        let (in_use, idle) = (ConnectionState::InUse, ConnectionState::Idle);
        self.connections.of(in_use).set(signed(sample.connections_in_use));
        self.connections.of(idle).set(signed(sample.connections_idle));
    }

    pub(super) fn append(&self, kind: AppendKind, outcome: AppendOutcome, events: usize) {
        self.appends.of(kind, outcome).inc();
        if outcome == AppendOutcome::Accepted {
            self.events.inc_by(events as u64);
        }
    }

    pub(super) fn task_created(&self) {
        self.created.inc();
    }

    pub(super) fn task_transitioned(&self, to: TaskStatus) {
        self.transitions.of(to).inc();
    }

    pub(super) fn batch(&self, kind: BatchKind, sizes: [usize; 3], took: Duration) {
        let [requests, events, tasks] = sizes.map(|size| size as u64);
        self.batch_requests.of(kind).observe(requests);
        self.batch_events.of(kind).observe(events);
        self.batch_tasks.of(kind).observe(tasks);
        self.commit.of(kind).observe_time(took);
    }

    pub(super) fn queue_wait(&self, waited: Duration) {
        self.queue_wait.observe_time(waited);
    }

    pub(super) fn pool_wait(&self) {
        self.pool_waits.inc();
    }

    pub(super) fn oldest_snapshot(&self, age: Duration, transactions: u64) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.snapshot_age.set(signed(age.as_secs()));
        self.snapshot_transactions.set(signed(transactions));
    }

    pub(super) fn storage_error(&self, part: StoragePart, problem: StorageProblem) {
        self.errors.of(part, problem).inc();
    }
}
