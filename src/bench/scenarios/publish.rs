//! `publish` and `batch`: how many events are stored per second.
//!
//! Nobody reads meanwhile. Afterwards every log is read back and compared with
//! what was acknowledged.

use std::sync::Arc;

use super::super::checker::Completeness;
use super::super::load::{Load, LoadOptions, Series};
use super::super::log::read_back;
use super::super::memory::resident_bytes;
use super::super::report::{Report, ServerMemory};
use super::super::stage::Stage;
use super::super::tasks::Tasks;
use super::super::{BenchError, Run};

/// Options of `publish` and `batch`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishOptions {
    /// What is published.
    pub load: LoadOptions,
}

impl PublishOptions {
    pub(super) async fn run(
        self,
        run: &Arc<Run>,
        name: &'static str,
    ) -> Result<Report, BenchError> {
        let Self { load: options } = self;
        let memory = || resident_bytes(&run.write, run.target.timeout);
        let tasks = Tasks::create(run, options.tasks).await?;
        let before = memory().await;
        let stage = Arc::new(Stage::new(run, options.period));
        let load = Load::new(run, options, &tasks, &stage, None);
        let measured = load.measure(None).await;
        let after = memory().await;
        tasks.check(run);
        let delivered = read_back(run, &tasks, completeness(options.series)).await;
        Tasks::leave(run, tasks.ids()).await;
        Ok(Report {
            seconds: measured.seconds(),
            rate: measured.rates()[0],
            latencies: load.latency().into_iter().collect(),
            acknowledged: tasks.acknowledged(),
            delivered,
            server_memory: ServerMemory::between(before, after),
            ..run.report(name, options.parameters())
        })
    }
}

/// Returns what a reader of such a series may be spared.
pub(super) fn completeness(series: Option<Series>) -> Completeness {
    match series {
        None | Some(Series::KeepAll | Series::Accumulate) => Completeness::Every,
        Some(Series::Latest) => Completeness::Newest,
    }
}
