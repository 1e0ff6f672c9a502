//! What cleanup removed, and what waits for it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::cells::{Counters, counter};
use super::labels::CleanupOutcome;

#[derive(Debug)]
pub(super) struct CleanupMetrics {
    pub(super) rounds: Counters<CleanupOutcome>,
    pub(super) tasks: Counter,
    pub(super) events: Counter,
    pub(super) deleted: Gauge,
    pub(super) due: Gauge,
    pub(super) rules_differ: Gauge,
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, Gauge::clone(&gauge));
    gauge
}

impl CleanupMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            rounds: Counters::new(
                registry,
                "cleanup_rounds",
                "Rounds of cleanup this instance carried out",
            ),
            tasks: counter(
                registry,
                "cleaned_tasks",
                "Tasks removed by cleanup rules, with all they own",
            ),
            events: counter(
                registry,
                "cleaned_events",
                "Events removed by cleanup rules from tasks that stay",
            ),
            deleted: gauge(
                registry,
                "deleted_tasks",
                "Deleted tasks of which something is still stored",
            ),
            due: gauge(registry, "due_cleanups", "Cleanup rules that are due for a task"),
            rules_differ: gauge(
                registry,
                "cleanup_rules_differ",
                "1 while another instance carries out other cleanup rules than this one has",
            ),
        }
    }
}
