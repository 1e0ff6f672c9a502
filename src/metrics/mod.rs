//! The numbers of a service, for Prometheus.
//!
//! Each service has a registry of its own; nothing is global. What the parts
//! of a service see is [`Metrics`]: one method for each thing that is counted,
//! cheap enough for the paths where it happens. What every name means stands
//! in `docs/metrics.md`, and a test keeps the two together.

mod cells;
mod cleanup;
mod http;
mod labels;
mod process;
mod streams;
mod writes;

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use self::labels::{
    AppendKind, AppendOutcome, BatchKind, CatchUpRead, CleanupOutcome, ConnectionState,
    ListenerState, StreamKind, WebhookOutcome,
};

use self::cells::{Counters, counter};
use self::cleanup::CleanupMetrics;
use self::http::HttpMetrics;
use self::process::ProcessMetrics;
use self::streams::StreamMetrics;
use self::writes::WriteMetrics;
use crate::domain::TaskStatus;
use crate::hooks::{BroadcastProblem, DropReason, SseEnd, StoragePart, StorageProblem};

/// The type of what [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is looked at when somebody asks, instead of being counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Bytes of writes that wait for a lane.
    pub queue_bytes: u64,
    /// Connections for reading somebody uses.
    pub connections_in_use: u64,
    /// Connections for reading nobody uses.
    pub connections_idle: u64,
    /// Whether wakes arrive.
    pub listener: Option<ListenerState>,
    /// How many times listening was started anew.
    pub listener_restarts: u64,
}

/// The numbers of one service.
pub struct Metrics {
    registry: Registry,
    writes: WriteMetrics,
    streams: StreamMetrics,
    http: HttpMetrics,
    process: ProcessMetrics,
    webhooks: Counters<WebhookOutcome>,
    cleanup: CleanupMetrics,
    deadlines: Counter,
    dropped: Counters<DropReason>,
    unhandled: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes a registry in which everything is zero.
    pub fn new() -> Self {
        let mut whole = Registry::default();
        let process = ProcessMetrics::new(&mut whole);
        let registry = whole.sub_registry_with_prefix("taskcast");
        registry.register(
            "build",
            "What is running",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let writes = WriteMetrics::new(registry);
        let streams = StreamMetrics::new(registry);
        let http = HttpMetrics::new(registry);
        let webhooks = Counters::new(
            registry,
            "webhook_attempts",
            "Attempts at webhook deliveries, by what they came to",
        );
        let cleanup = CleanupMetrics::new(registry);
        let deadlines =
            counter(registry, "deadlines_enforced", "Tasks this instance ended at their deadline");
        let dropped = Counters::new(
            registry,
            "dropped",
            "Times events were given up or a reader was cut off before it had them",
        );
        let unhandled =
            counter(registry, "unhandled_errors", "Panics, and requests answered with 500");
        Self {
            writes,
            streams,
            http,
            process,
            webhooks,
            cleanup,
            deadlines,
            dropped,
            unhandled,
            registry: whole,
        }
    }

    /// Returns everything as text, with what `sample` shows.
    pub fn encode(&self, sample: &Sample) -> String {
        self.process.look();
        self.writes.set(sample);
        self.streams.set(sample);
        let mut out = String::with_capacity(32 << 10);
        // Writing to a String cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    /// Counts an append and the events it stored.
    pub fn append(&self, kind: AppendKind, outcome: AppendOutcome, events: usize) {
        self.writes.append(kind, outcome, events);
    }

    /// Counts a task that was created.
    pub fn task_created(&self) {
        self.writes.task_created();
    }

    /// Counts a task that entered a state.
    pub fn task_transitioned(&self, to: TaskStatus) {
        self.writes.task_transitioned(to);
    }

    /// Counts a batch a lane committed: requests, their events, their tasks,
    /// and how long the commit took.
    pub fn batch(&self, kind: BatchKind, sizes: [usize; 3], took: Duration) {
        self.writes.batch(kind, sizes, took);
    }

    /// Counts how long the oldest request of a batch waited for its lane.
    pub fn queue_wait(&self, waited: Duration) {
        self.writes.queue_wait(waited);
    }

    /// Counts a read that found every connection in use.
    pub fn pool_wait(&self) {
        self.writes.pool_wait();
    }

    /// Sets how old the oldest snapshot in the database is, and how many
    /// transactions have begun since.
    pub fn oldest_snapshot(&self, age: Duration, transactions: u64) {
        self.writes.oldest_snapshot(age, transactions);
    }

    /// Counts a failure of the store.
    pub fn storage_error(&self, part: StoragePart, problem: StorageProblem) {
        self.writes.storage_error(part, problem);
    }

    /// Counts a stream that was opened.
    pub fn stream_opened(&self, kind: StreamKind) {
        self.streams.opened(kind);
    }

    /// Counts a request for a stream that was held in vain.
    pub fn stream_not_opened(&self, kind: StreamKind) {
        self.streams.not_opened(kind);
    }

    /// Counts a stream that ended.
    pub fn stream_closed(&self, kind: StreamKind, reason: SseEnd) {
        self.streams.closed(kind, reason);
    }

    /// Counts a chunk handed to a socket, and how long ago this instance heard
    /// of the oldest event in it, if that was while the stream was open.
    pub fn chunk(&self, kind: StreamKind, frames: usize, bytes: usize, lag: Option<Duration>) {
        self.streams.chunk(kind, frames, bytes, lag);
    }

    /// Counts a read of the store on behalf of readers that are behind.
    pub fn catch_up_read(&self, read: CatchUpRead) {
        self.streams.catch_up_read(read);
    }

    /// Counts tasks whose news the poll found before a wake told of it.
    pub fn poll_hits(&self, tasks: usize) {
        self.streams.poll_hits(tasks);
    }

    /// Counts tasks told of to other instances.
    pub fn wakes_sent(&self, tasks: usize) {
        self.streams.wakes_sent(tasks);
    }

    /// Counts tasks other instances told of.
    pub fn wakes_received(&self, tasks: usize) {
        self.streams.wakes_received(tasks);
    }

    /// Counts a failure of the wakes between instances.
    pub fn broadcast_error(&self, problem: BroadcastProblem) {
        self.streams.broadcast_error(problem);
    }

    /// Counts an attempt at a webhook delivery.
    pub fn webhook_attempt(&self, outcome: WebhookOutcome) {
        self.webhooks.of(outcome).inc();
    }

    /// Counts a round of cleanup: tasks removed, and events of tasks that stay.
    pub fn cleaned(&self, tasks: u64, events: u64) {
        self.cleanup.rounds.of(CleanupOutcome::Done).inc();
        self.cleanup.tasks.inc_by(tasks);
        self.cleanup.events.inc_by(events);
    }

    /// Counts a round of cleanup the store did not let happen.
    pub fn cleanup_failed(&self) {
        self.cleanup.rounds.of(CleanupOutcome::Failed).inc();
    }

    /// Sets how many deleted tasks are not purged and how many rules are due.
    pub fn backlog(&self, deleted_tasks: u64, due_cleanups: u64) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.cleanup.deleted.set(signed(deleted_tasks));
        self.cleanup.due.set(signed(due_cleanups));
    }

    /// Sets whether another instance has other cleanup rules.
    pub fn cleanup_rules_differ(&self, differ: bool) {
        self.cleanup.rules_differ.set(i64::from(differ));
    }

    /// Counts a task ended at its deadline.
    pub fn deadline_enforced(&self) {
        self.deadlines.inc();
    }

    /// Counts events that were given up, or a reader that was cut off.
    pub fn dropped(&self, reason: DropReason) {
        self.dropped.of(reason).inc();
    }

    /// Counts a panic, or an answer of 500.
    pub fn unhandled_error(&self) {
        self.unhandled.inc();
    }

    /// Counts a request that was answered; `route` is a template, never a path.
    pub fn http_request(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.http.request(method, route, status, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_exposed_and_services_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.append(AppendKind::Publish, AppendOutcome::Accepted, 3);
        one.webhook_attempt(WebhookOutcome::Retried);
        one.cleaned(2, 5);
        one.http_request("GET", "/tasks/{id}", 200, Duration::from_millis(3));
        let sample = Sample { listener: Some(ListenerState::Deaf), ..Sample::default() };
        let text = one.encode(&sample);
        for line in [
            "taskcast_appends_total{kind=\"publish\",outcome=\"accepted\"} 1",
            "taskcast_appended_events_total 3",
            "taskcast_webhook_attempts_total{outcome=\"retried\"} 1",
            "taskcast_cleaned_tasks_total 2",
            "taskcast_listener_state{state=\"deaf\"} 1",
            "taskcast_listener_state{state=\"healthy\"} 0",
            "taskcast_http_requests_total{method=\"GET\",route=\"/tasks/{id}\",status=\"2xx\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(other.encode(&sample).contains("taskcast_appended_events_total 0"));
    }
}
