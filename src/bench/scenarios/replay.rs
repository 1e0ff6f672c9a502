//! `replay`: how long readers take who come late to many events.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use super::super::checker::Completeness;
use super::super::load::{Load, LoadOptions};
use super::super::log::read_log;
use super::super::memory::resident_bytes;
use super::super::report::{Latency, Recorder, Report, ServerMemory, milliseconds, per_second};
use super::super::stage::{Period, Stage, Until};
use super::super::tasks::Tasks;
use super::super::{BenchError, Run};

/// Events in a request that prepares a log.
pub(super) const PREPARING: usize = 500;

/// Options of `replay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayOptions {
    /// Readers that come at the same moment.
    pub subscribers: usize,
    /// Events in the log.
    pub events: usize,
    /// How often they come, one time after the other.
    pub rounds: usize,
}

impl ReplayOptions {
    pub(super) async fn run(self, run: &Arc<Run>) -> Result<Report, BenchError> {
        let Self { subscribers, events, rounds } = self;
        let tasks = Tasks::create(run, 1).await?;
        fill(run, &tasks, events).await;
        let before = resident_bytes(&run.read, run.target.timeout).await;
        run.progress.begin("replaying", rounds);
        let (mut replays, mut delivered, mut micros) = (Recorder::default(), 0, 0);
        for round in 0..rounds {
            let began = run.clock.micros();
            let mut readers = JoinSet::new();
            for reader in 0..subscribers {
                readers.spawn(replay(run.clone(), tasks.clone(), round, reader));
            }
            while let Some(joined) = readers.join_next().await {
                if let Ok(Some(reading)) = joined {
                    replays.record(reading.micros);
                    delivered += reading.events;
                }
            }
            micros += run.clock.micros() - began;
            run.progress.advance(1);
        }
        let after = resident_bytes(&run.read, run.target.timeout).await;
        Tasks::leave(run, tasks.ids()).await;
        let replays = replays.summary().map(|summary| Latency { name: "replay", summary });
        let parameters = json!({"subscribers": subscribers, "events": events, "rounds": rounds});
        Ok(Report {
            seconds: milliseconds(micros) / 1_000.0,
            rate: per_second(delivered, micros),
            latencies: replays.into_iter().collect(),
            acknowledged: tasks.acknowledged(),
            delivered,
            server_memory: ServerMemory::between(before, after),
            ..run.report("replay", parameters)
        })
    }
}

/// Publishes so many events to the first task.
async fn fill(run: &Arc<Run>, tasks: &Arc<Tasks>, events: usize) {
    // Requests are of one size, so the last few events come one by one.
    for (size, count) in [(PREPARING, events / PREPARING * PREPARING), (1, events % PREPARING)] {
        let until = Until::Count(count as u64);
        let period = Period { warmup: std::time::Duration::ZERO, until };
        let options =
            LoadOptions { tasks: 1, producers: 1, events: size, rate: None, series: None, period };
        let stage = Arc::new(Stage::new(run, period));
        Load::new(run, options, tasks, &stage, None).measure(None).await;
    }
}

async fn replay(
    run: Arc<Run>,
    tasks: Arc<Tasks>,
    round: usize,
    reader: usize,
) -> Option<super::super::log::Reading> {
    let id = &tasks.ids()[0];
    let who = format!("task {id}, reader {reader} of round {round}");
    let path = format!("/tasks/{id}/events");
    read_log(&run, &path, who, tasks.ledger(0), Completeness::Every).await
}
