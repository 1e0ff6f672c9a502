//! Faults under load: real servers, a Postgres, links that fail, and one judge.
//!
//! A scenario starts servers, puts them under a [`Load`], does something
//! terrible, and lets things settle. Everyone who takes part writes down what
//! it saw; the [`checker`] compares that with the log. What a scenario proves
//! beside the common criterion is said where it is.
//!
//! What happens at random follows from a seed, which is printed at the start.
//! `TASKCAST_TEST_SEED` repeats one; `TASKCAST_FAULT_SEEDS` asks for more, by
//! their number or as a list.
//!
//! ```text
//! each_seed("what it is", async |seed| {
//!     let mut scenario = Scenario::start(seed, Shape::of(2)).await;
//!     scenario.load(Load::default()).await;
//!     scenario.acknowledge(200).await;
//!     scenario.instance(0).kill().await;              // the fault
//!     scenario.instance(0).start_again().await;
//!     let cleared = Instant::now();
//!     scenario.acknowledge(200).await;
//!     let verdict = scenario.settle().await;
//!     verdict.assert_base();                           // or look at verdict.counts
//!     verdict.assert_resumed_within(cleared, Duration::from_secs(10));
//! })
//! .await;
//! ```

mod checker;
mod checker_tests;
pub mod crashes;
mod failover;
mod history;
mod instance;
pub mod interleavings;
mod load;
pub mod locks;
mod net;
mod net_tests;
mod opening;
mod poison;
mod readers;
mod replies;
mod rolling;
mod scenario;
mod slow_link;
pub mod subscribing;
pub mod unknown;
mod verdict;
pub mod wakes;

use std::future::Future;

pub use instance::Instance;
pub use load::Load;
pub use net::{ALL, Toxic};
#[cfg(feature = "failpoints")]
pub use scenario::break_servers;
pub use scenario::{Scenario, Shape};
pub use verdict::Verdict;

use crate::support::client::Client;
use crate::support::environment_variable;

/// Plays a scenario once for each seed that was asked for.
async fn each_seed<F: Future<Output = ()>>(name: &str, play: impl Fn(u64) -> F) {
    for seed in seeds() {
        say(&format!("{name}: seed {seed} (TASKCAST_TEST_SEED={seed} repeats it)"));
        play(seed).await;
    }
}

/// Returns the seeds of this run: the one to repeat, those that are listed, or
/// so many new ones.
fn seeds() -> Vec<u64> {
    let number = |text: &str| -> u64 {
        text.trim().parse().unwrap_or_else(|_| panic!("{text:?} should be a number"))
    };
    if let Some(seed) = environment_variable("TASKCAST_TEST_SEED") {
        return vec![number(&seed)];
    }
    match environment_variable("TASKCAST_FAULT_SEEDS") {
        Some(list) if list.contains(',') => {
            list.split(',').filter(|seed| !seed.trim().is_empty()).map(number).collect()
        }
        Some(count) => (0..number(&count)).map(|_| u64::from(rand::random::<u32>())).collect(),
        None => vec![u64::from(rand::random::<u32>())],
    }
}

/// Returns the whole part of a number that a server exposes, by its name and
/// labels; 0 when it exposes none.
async fn metric(server: &Client, name: &str) -> u64 {
    let text = server.get("/metrics").await.expect(200).text;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let whole = value.unwrap_or("0").split('.').next().unwrap_or_default();
    whole.parse().unwrap_or_else(|_| panic!("{name} is {value:?}"))
}

#[expect(clippy::print_stderr, reason = "the test runner shows it beside a failure")]
fn say(text: &str) {
    eprintln!("{text}");
}
