//! The hooks and the numbers of a service, as its parts share them.
//!
//! An observer stands beside the parts and hears of commits and of how the
//! store is doing as any other [`CommitListener`] does. Nothing it does can
//! change what they come to.

use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use crate::domain::{Event, STATUS_EVENT_TYPE, Task, TaskStatus, json};
use crate::hooks::{
    BroadcastError, BroadcastProblem, DropReason, EventDropped, HookSet, Hooks as _, StorageError,
    StoragePart, StorageProblem, TaskCreated, TaskFailed, TaskTimedOut, TaskTransitioned,
    UnhandledError, WebhookFailure,
};
use crate::metrics::{BatchKind, Metrics, Sample, WebhookOutcome};
use crate::store::{
    self, BatchReport, BusProblem, Commit, CommitListener, Probe, Report, StoreError, StorePart,
};
use crate::webhooks::{AttemptReport, DeliveryListener, Verdict};

/// Calls hooks and counts.
#[derive(Debug, Clone, Default)]
pub struct Observer {
    /// Who is told.
    pub hooks: HookSet,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    probe: Arc<OnceLock<Probe>>,
}

/// What of a status event's data is told.
#[derive(Default, Deserialize)]
struct StatusData {
    error: Option<StatusError>,
}

#[derive(Deserialize)]
struct StatusError {
    code: Option<Arc<str>>,
    message: Option<Arc<str>>,
}

impl Observer {
    /// Makes an observer that tells `hooks` and counts from zero.
    pub fn new(hooks: HookSet) -> Self {
        Self { hooks, ..Self::default() }
    }

    /// Looks at the store for those numbers that are not counted.
    pub fn sample(&self) -> Sample {
        let gauges = self.probe.get().map(Probe::look).unwrap_or_default();
        Sample {
            queue_bytes: gauges.queue_bytes,
            connections_in_use: gauges.connections_in_use,
            connections_idle: gauges.connections_idle,
            ..Sample::default()
        }
    }

    /// Tells of events that were given up, or of a reader that was cut off.
    pub fn dropped(&self, dropped: &EventDropped) {
        self.metrics.dropped(dropped.reason);
        self.hooks.event_dropped(dropped);
    }

    /// Tells of what nobody foresaw.
    pub fn unhandled(&self, error: &UnhandledError) {
        self.metrics.unhandled_error();
        self.hooks.unhandled_error(error);
    }

    fn entered(&self, event: &Event, transitioned: &TaskTransitioned) {
        self.hooks.task_transitioned(transitioned);
        match transitioned.to {
            TaskStatus::Failed => {
                let data: StatusData =
                    serde_json::from_str(event.draft.data.as_str()).unwrap_or_default();
                let (code, message) =
                    data.error.map_or((None, None), |error| (error.code, error.message));
                self.hooks.task_failed(&TaskFailed::new(transitioned, code, message));
            }
            TaskStatus::Timeout => {
                self.hooks.task_timed_out(&TaskTimedOut::new(transitioned));
            }
            _ => {}
        }
    }

    fn storage_failed(&self, part: StorePart, error: &StoreError) {
        let part = match part {
            StorePart::Writer => StoragePart::Writer,
            StorePart::Reader => StoragePart::Reader,
        };
        let problem = match error {
            StoreError::Unavailable(_) => StorageProblem::Unavailable,
            StoreError::Overloaded => StorageProblem::Overloaded,
            StoreError::Full => StorageProblem::Full,
            StoreError::OutcomeUnknown(_) => StorageProblem::OutcomeUnknown,
            StoreError::Corrupt(_) => StorageProblem::Corrupt,
            StoreError::Unexpected(_) => StorageProblem::Unexpected,
        };
        self.metrics.storage_error(part, problem);
        if !self.hooks.is_empty() {
            self.hooks.storage_error(&StorageError::new(part, problem, error.to_string()));
        }
    }

    fn bus_failed(&self, problem: BusProblem, detail: &str) {
        let problem = match problem {
            BusProblem::ListenerLost => BroadcastProblem::ListenerLost,
            BusProblem::NotListening => BroadcastProblem::NotListening,
            BusProblem::NotSending => BroadcastProblem::NotSending,
        };
        self.metrics.broadcast_error(problem);
        self.hooks.broadcast_error(&BroadcastError::new(problem, detail));
    }

    fn batch_committed(&self, batch: &BatchReport) {
        let kind = match batch.kind {
            store::BatchKind::Append => BatchKind::Append,
            store::BatchKind::Claim => BatchKind::Claim,
            store::BatchKind::Reserve => BatchKind::Reserve,
            store::BatchKind::Create => BatchKind::Create,
            store::BatchKind::Delete => BatchKind::Delete,
        };
        self.metrics.batch(kind, [batch.requests, batch.events, batch.tasks], batch.took);
    }
}

/// Returns the state a status event announces; `None` for any other event.
fn entered_state(event: &Event) -> Option<TaskStatus> {
    if &*event.draft.event_type != STATUS_EVENT_TYPE {
        return None;
    }
    let data = event.draft.data.as_str();
    TaskStatus::parse(json::string_body(&data[json::member(data, "status")?])?)
}

impl DeliveryListener for Observer {
    fn attempted(&self, report: &AttemptReport) {
        self.metrics.webhook_attempt(match report.verdict {
            Verdict::Delivered => WebhookOutcome::Delivered,
            Verdict::Retried => WebhookOutcome::Retried,
            Verdict::Failed => WebhookOutcome::Failed,
            Verdict::Cancelled => WebhookOutcome::Cancelled,
        });
        if report.verdict != Verdict::Failed || self.hooks.is_empty() {
            return;
        }
        let (status, problem) =
            report.outcome.clone().map_or((None, None), |last| (last.status, last.problem));
        let (task, delivery) = (report.task.clone(), report.delivery.clone());
        let failure = WebhookFailure::new(task, delivery, report.attempt, status, problem);
        self.hooks.webhook_failed(&failure);
    }
}

impl CommitListener for Observer {
    fn committed(&self, commits: &[Commit]) {
        for commit in commits {
            let mut from = commit.before.status;
            for event in &commit.events {
                let Some(to) = entered_state(event) else { continue };
                self.metrics.task_transitioned(to);
                if !self.hooks.is_empty() {
                    let task_type = commit.before.task_type.clone();
                    let task = event.task.clone();
                    let transitioned =
                        TaskTransitioned::new(task, task_type, from, to, event.timestamp_ms);
                    self.entered(event, &transitioned);
                }
                from = Some(to);
            }
        }
    }

    fn created(&self, task: &Task) {
        self.metrics.task_created();
        if !self.hooks.is_empty() {
            let spec = &task.spec;
            let created =
                TaskCreated::new(spec.id.clone(), spec.task_type.clone(), task.created_at_ms);
            self.hooks.task_created(&created);
        }
    }

    fn reported(&self, report: &Report<'_>) {
        match report {
            Report::Committed(batch) => self.batch_committed(batch),
            Report::Waited(waited) => self.metrics.queue_wait(*waited),
            Report::PoolWait => self.metrics.pool_wait(),
            Report::OldestSnapshot(oldest) => {
                self.metrics.oldest_snapshot(oldest.age, oldest.transactions);
            }
            Report::Failed(part, error) => self.storage_failed(*part, error),
            Report::Evicted(task, events) => {
                let (task, events) = (Some(task.id.clone()), Some(*events));
                self.dropped(&EventDropped::new(DropReason::Evicted, task, events));
            }
            Report::WakesSent(tasks) => self.metrics.wakes_sent(*tasks),
            Report::WakesReceived(tasks) => self.metrics.wakes_received(*tasks),
            Report::BusFailed(problem, detail) => self.bus_failed(*problem, detail),
            Report::Opened(probe) => {
                // A service opens one store.
                let _ = self.probe.set(probe.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::domain::{EventDraft, Json, Level, TaskId, TaskNumber};
    use crate::hooks::Hooks;
    use crate::store::{Before, TaskRef};

    /// Writes down in a line what it is told.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Hooks for Notes {
        fn task_transitioned(&self, step: &TaskTransitioned) {
            let from = step.from.map_or("?", TaskStatus::as_str);
            let kind = step.task_type.as_deref().unwrap_or("?");
            self.0.lock().push(format!("{kind} {from} {} {}", step.to, step.at_ms));
        }

        fn task_failed(&self, failed: &TaskFailed) {
            self.0.lock().push(format!("failed {:?} {:?}", failed.code, failed.message));
        }

        fn task_timed_out(&self, timed_out: &TaskTimedOut) {
            self.0.lock().push(format!("timed out {:?}", timed_out.from));
        }
    }

    fn event(index: u64, event_type: &str, data: &str) -> Arc<Event> {
        Arc::new(Event {
            task: TaskId::parse("t").unwrap(),
            number: TaskNumber::new(1).unwrap(),
            index,
            timestamp_ms: 5 + index,
            draft: EventDraft {
                event_type: event_type.into(),
                level: Level::Info,
                data: Json::from_valid(data),
                series: None,
            },
        })
    }

    fn told(events: Vec<Arc<Event>>, before: Before) -> Vec<String> {
        let notes = Arc::new(Notes::default());
        let observer = Observer::new(HookSet::default().with(notes.clone()));
        let (id, number) = (TaskId::parse("t").unwrap(), TaskNumber::new(1).unwrap());
        let task = TaskRef { id, number };
        observer.committed(&[Commit { task, events, deleted: false, owes: false, before }]);
        std::mem::take(&mut notes.0.lock())
    }

    #[test]
    fn every_transition_of_a_batch_is_told_with_the_state_it_left() {
        let before = Before { task_type: Some("llm".into()), status: Some(TaskStatus::Pending) };
        let events = vec![
            event(0, STATUS_EVENT_TYPE, r#"{"status":"running"}"#),
            event(1, "note", r#"{"status":"failed"}"#),
            event(
                2,
                STATUS_EVENT_TYPE,
                r#"{"status":"failed","error":{"code":"E1","message":"a \"b\"","details":{"k":1}}}"#,
            ),
        ];
        assert_eq!(
            told(events, before),
            [
                "llm pending running 5",
                "llm running failed 7",
                r#"failed Some("E1") Some("a \"b\"")"#
            ]
        );
    }

    #[test]
    fn a_store_that_says_nothing_of_before_is_enough() {
        let events = vec![event(0, STATUS_EVENT_TYPE, r#"{"status":"timeout"}"#)];
        assert_eq!(told(events, Before::default()), ["? ? timeout 5", "timed out None"]);
        let failed = vec![event(0, STATUS_EVENT_TYPE, r#"{"status":"failed"}"#)];
        assert_eq!(told(failed, Before::default()), ["? ? failed 5", "failed None None"]);
    }
}
