//! What can be measured, one file each.

pub(super) mod fanout;
pub(super) mod idle;
pub(super) mod join;
pub(super) mod lifecycle;
pub(super) mod publish;
pub(super) mod replay;
pub(super) mod stream;

use std::sync::Arc;

use self::fanout::FanoutOptions;
use self::idle::IdleOptions;
use self::join::JoinOptions;
use self::lifecycle::LifecycleOptions;
use self::publish::PublishOptions;
use self::replay::ReplayOptions;
use self::stream::StreamOptions;
use super::report::Report;
use super::{BenchError, Run};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scenario {
    /// Producers publish, and nobody reads until they are done.
    Publish(PublishOptions),
    /// The same with many events in a request.
    Batch(PublishOptions),
    /// Producers publish and readers follow.
    Stream(StreamOptions),
    /// Many readers follow one task.
    Fanout(FanoutOptions),
    /// Readers come late to a long text.
    Join(JoinOptions),
    /// Readers come late to many events.
    Replay(ReplayOptions),
    /// Streams on which nothing happens.
    Idle(IdleOptions),
    /// Tasks are created, run and completed.
    Lifecycle(LifecycleOptions),
}

impl Scenario {
    /// Returns how many connections it has open at once, at most.
    pub(super) fn files(&self) -> usize {
        match self {
            Self::Publish(PublishOptions { load }) | Self::Batch(PublishOptions { load }) => {
                load.producers
            }
            Self::Stream(StreamOptions { load, subscribers })
            | Self::Fanout(FanoutOptions { load, subscribers }) => load.producers + subscribers,
            Self::Join(JoinOptions { subscribers, .. })
            | Self::Replay(ReplayOptions { subscribers, .. })
            | Self::Idle(IdleOptions { subscribers, .. }) => *subscribers,
            Self::Lifecycle(LifecycleOptions { producers, .. }) => *producers,
        }
    }

    pub(super) async fn run(self, run: &Arc<Run>) -> Result<Report, BenchError> {
        match self {
            Self::Publish(options) => options.run(run, "publish").await,
            Self::Batch(options) => options.run(run, "batch").await,
            Self::Stream(options) => options.run(run).await,
            Self::Fanout(options) => options.run(run).await,
            Self::Join(options) => options.run(run).await,
            Self::Replay(options) => options.run(run).await,
            Self::Idle(options) => options.run(run).await,
            Self::Lifecycle(options) => options.run(run).await,
        }
    }
}
