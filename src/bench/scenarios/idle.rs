//! `idle`: what a stream costs the server on which nothing happens.
//!
//! At the end one event is published to each task, and every stream must
//! deliver it: a stream that is open and deaf costs nothing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::super::checker::Completeness;
use super::super::load::{Load, LoadOptions};
use super::super::memory::resident_bytes;
use super::super::readers::Readers;
use super::super::report::{Report, ServerMemory, milliseconds, per_second};
use super::super::stage::{Period, Stage, Until};
use super::super::tasks::Tasks;
use super::super::{BenchError, Run};

/// Options of `idle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleOptions {
    /// Streams, spread over the tasks.
    pub subscribers: usize,
    /// Tasks.
    pub tasks: usize,
    /// How long the streams stay idle before memory is read.
    pub hold: Duration,
}

impl IdleOptions {
    pub(super) async fn run(self, run: &Arc<Run>) -> Result<Report, BenchError> {
        let Self { subscribers, tasks: count, hold } = self;
        let memory = || resident_bytes(&run.read, run.target.timeout);
        let tasks = Tasks::create(run, count).await?;
        let before = memory().await;
        let until = Until::Count(count as u64);
        let period = Period { warmup: Duration::ZERO, until };
        let stage = Arc::new(Stage::new(run, period));
        let began = run.clock.micros();
        let readers = Readers::open(run, &tasks, &stage, subscribers, Completeness::Every).await;
        let micros = run.clock.micros() - began;
        run.progress.begin("idle", 0);
        sleep(hold).await;
        let after = memory().await;
        let options =
            LoadOptions { tasks: count, producers: 1, events: 1, rate: None, series: None, period };
        let load = Load::new(run, options, &tasks, &stage, None);
        load.measure(Some(&readers)).await;
        readers.settle().await;
        readers.conclude().await;
        Tasks::leave(run, tasks.ids()).await;
        let parameters = json!({
            "subscribers": subscribers,
            "tasks": count,
            "hold": hold.as_secs_f64(),
        });
        let memory = ServerMemory::between(before, after);
        Ok(Report {
            seconds: milliseconds(micros) / 1_000.0,
            rate: per_second(subscribers as u64, micros),
            rate_unit: "streams/s",
            latencies: [readers.opening(), readers.delivery()].into_iter().flatten().collect(),
            acknowledged: tasks.acknowledged(),
            delivered: readers.delivered(),
            server_memory: memory.map(|memory| memory.over(subscribers)),
            ..run.report("idle", parameters)
        })
    }
}
