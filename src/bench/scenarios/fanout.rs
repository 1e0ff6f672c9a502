//! `fanout`: how many deliveries per second many readers of one task get.
//!
//! Producers publish as fast as the readers take it. Without that brake they
//! would be far ahead soon, and what is measured would be reading a long log.

use std::sync::Arc;

use super::super::load::LoadOptions;
use super::super::report::Report;
use super::super::{BenchError, Run};
use super::stream::follow;

/// Events the average reader may be behind: enough to keep it busy, too few for
/// a server to send it to the store.
const LAG: u64 = 64;

/// Options of `fanout`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FanoutOptions {
    /// What is published.
    pub load: LoadOptions,
    /// Readers, spread over the tasks.
    pub subscribers: usize,
}

impl FanoutOptions {
    pub(super) async fn run(self, run: &Arc<Run>) -> Result<Report, BenchError> {
        let report = follow(run, "fanout", self.load, self.subscribers, Some(LAG)).await?;
        Ok(Report {
            rate: report.delivery_rate.unwrap_or_default(),
            rate_unit: "deliveries/s",
            ..report
        })
    }
}
