//! What is streamed, and how instances hear of each other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::Sample;
use super::cells::{CounterTable, Counters, Gauges, Histograms, counter};
use super::labels::{CatchUpRead, ListenerState, StreamKind};
use crate::hooks::{BroadcastProblem, SseEnd};

#[derive(Debug)]
pub(super) struct StreamMetrics {
    open: Gauges<StreamKind>,
    opened: Counters<StreamKind>,
    not_opened: Counters<StreamKind>,
    closed: CounterTable<StreamKind, SseEnd>,
    frames: Counters<StreamKind>,
    bytes: Counters<StreamKind>,
    lag: Histograms<StreamKind>,
    catch_up_reads: Counters<CatchUpRead>,
    poll_hits: Counter,
    wakes_sent: Counter,
    wakes_received: Counter,
    listener: Gauges<ListenerState>,
    restarts: Counter,
    errors: Counters<BroadcastProblem>,
}

impl StreamMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            open: Gauges::new(registry, "streams_open", "Streams open now"),
            opened: Counters::new(registry, "streams_opened", "Streams opened"),
            not_opened: Counters::new(
                registry,
                "streams_not_opened",
                "Requests for streams that were held in vain while something was unreachable",
            ),
            closed: CounterTable::new(registry, "streams_closed", "Streams that ended, by how"),
            frames: Counters::new(registry, "frames_sent", "Events handed to sockets"),
            bytes: Counters::new(registry, "stream_bytes", "Bytes of streams handed to sockets"),
            lag: Histograms::of_times(
                registry,
                "delivery_lag",
                "From the moment this instance heard of an event to its frame at the socket",
            ),
            catch_up_reads: Counters::new(
                registry,
                "catch_up_reads",
                "Reads of the store for readers that are behind",
            ),
            poll_hits: counter(
                registry,
                "poll_hits",
                "Tasks whose news the poll found before a wake told of it",
            ),
            wakes_sent: counter(registry, "wakes_sent", "Tasks told of to other instances"),
            wakes_received: counter(registry, "wakes_received", "Tasks other instances told of"),
            listener: Gauges::new(
                registry,
                "listener_state",
                "1 at whether wakes from other instances can be counted on",
            ),
            restarts: counter(
                registry,
                "listener_restarts",
                "Times listening was lost and started anew",
            ),
            errors: Counters::new(
                registry,
                "broadcast_errors",
                "Failures of the wakes between instances",
            ),
        }
    }

    pub(super) fn set(&self, sample: &Sample) {
        for state in ListenerState::ALL {
            self.listener.of(state).set(i64::from(sample.listener == Some(state)));
        }
        self.restarts.inner().store(sample.listener_restarts, Ordering::Relaxed);
    }

    pub(super) fn opened(&self, kind: StreamKind) {
        self.open.of(kind).inc();
        self.opened.of(kind).inc();
    }

    pub(super) fn not_opened(&self, kind: StreamKind) {
        self.not_opened.of(kind).inc();
    }

    pub(super) fn closed(&self, kind: StreamKind, reason: SseEnd) {
        self.open.of(kind).dec();
        self.closed.of(kind, reason).inc();
    }

    pub(super) fn chunk(
        &self,
        kind: StreamKind,
        frames: usize,
        bytes: usize,
        lag: Option<Duration>,
    ) {
        self.frames.of(kind).inc_by(frames as u64);
        self.bytes.of(kind).inc_by(bytes as u64);
        if let Some(lag) = lag {
            self.lag.of(kind).observe_time(lag);
        }
    }

    pub(super) fn catch_up_read(&self, read: CatchUpRead) {
        self.catch_up_reads.of(read).inc();
    }

    pub(super) fn poll_hits(&self, tasks: usize) {
        self.poll_hits.inc_by(tasks as u64);
    }

    pub(super) fn wakes_sent(&self, tasks: usize) {
        self.wakes_sent.inc_by(tasks as u64);
    }

    pub(super) fn wakes_received(&self, tasks: usize) {
        self.wakes_received.inc_by(tasks as u64);
    }

    pub(super) fn broadcast_error(&self, problem: BroadcastProblem) {
        self.errors.of(problem).inc();
    }
}
