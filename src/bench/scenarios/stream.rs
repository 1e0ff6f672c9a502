//! `stream`: publishing while every event is followed live.
//!
//! Without a rate it measures what goes through; with one, how long an event
//! takes from its publisher to its readers.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::load::{Brake, Load, LoadOptions};
use super::super::memory::resident_bytes;
use super::super::readers::Readers;
use super::super::report::{Report, ServerMemory};
use super::super::stage::Stage;
use super::super::tasks::Tasks;
use super::super::{BenchError, Run};
use super::publish::completeness;

/// Options of `stream`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamOptions {
    /// What is published.
    pub load: LoadOptions,
    /// Readers, spread over the tasks.
    pub subscribers: usize,
}

impl StreamOptions {
    pub(super) async fn run(self, run: &Arc<Run>) -> Result<Report, BenchError> {
        follow(run, "stream", self.load, self.subscribers, None).await
    }
}

/// Publishes and follows; `lag` is how many events producers may be ahead of
/// readers, on average.
pub(super) async fn follow(
    run: &Arc<Run>,
    name: &'static str,
    options: LoadOptions,
    subscribers: usize,
    lag: Option<u64>,
) -> Result<Report, BenchError> {
    let memory = || resident_bytes(&run.read, run.target.timeout);
    let tasks = Tasks::create(run, options.tasks).await?;
    let before = memory().await;
    let stage = Arc::new(Stage::new(run, options.period));
    let completeness = completeness(options.series);
    let readers = Readers::open(run, &tasks, &stage, subscribers, completeness).await;
    let brake = lag.map(|events| Brake { readers: readers.clone(), events });
    let load = Load::new(run, options, &tasks, &stage, brake);
    let measured = load.measure(Some(&readers)).await;
    readers.settle().await;
    let after = memory().await;
    readers.conclude().await;
    tasks.check(run);
    Tasks::leave(run, tasks.ids()).await;
    let mut parameters = options.parameters();
    if let Value::Object(parameters) = &mut parameters {
        parameters.insert("subscribers".to_owned(), json!(subscribers));
    }
    let [rate, delivery_rate] = measured.rates();
    Ok(Report {
        seconds: measured.seconds(),
        rate,
        delivery_rate: Some(delivery_rate),
        latencies: [load.latency(), readers.delivery()].into_iter().flatten().collect(),
        acknowledged: tasks.acknowledged(),
        delivered: readers.delivered(),
        server_memory: ServerMemory::between(before, after),
        ..run.report(name, parameters)
    })
}
