//! F01 to F03: what dies, or is cut off, takes nothing along.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::{ALL, Load, Scenario, Shape, Toxic, each_seed};

/// F01: an instance is killed with SIGKILL amid its appends, again and again,
/// and started again. Bounded: appends to every task flow again within 10 s of
/// its readiness.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub async fn f01_a_server_that_is_killed_loses_nothing_it_acknowledged() {
    each_seed("F01", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(2)).await;
        scenario.load(Load::default()).await;
        let mut cleared = Instant::now();
        for _ in 0..3 {
            let more = scenario.dice.random_range(200..500);
            scenario.acknowledge(more).await;
            let victim = scenario.dice.random_range(0..2);
            scenario.instance(victim).kill().await;
            scenario.acknowledge(100).await;
            scenario.instance(victim).start_again().await;
            cleared = Instant::now();
        }
        scenario.acknowledge(500).await;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        verdict.assert_resumed_within(cleared, Duration::from_secs(10));
    })
    .await;
}

/// F02: the backend of a writer lane is killed with SIGKILL, so that Postgres
/// ends every session and recovers. Bounded: appends to every task flow again
/// within 10 s of its recovery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f02_a_backend_that_is_killed_takes_nothing_along() {
    each_seed("F02", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(2).private_postgres()).await;
        scenario.load(Load::default()).await;
        let mut cleared = Instant::now();
        for _ in 0..2 {
            let more = scenario.dice.random_range(150..400);
            scenario.acknowledge(more).await;
            scenario.postgres().kill_backend("taskcast-lane").await;
            cleared = Instant::now();
            scenario.acknowledge(200).await;
        }
        let verdict = scenario.settle().await;
        verdict.assert_base();
        verdict.assert_resumed_within(cleared, Duration::from_secs(10));
    })
    .await;
}

/// F03: Postgres stops as if it had crashed, stays away until producers were
/// told so, and comes back. Bounded: the answer of each append during the
/// outage (5 s and a grace), the return of appends to every task
/// (5 s from when Postgres takes connections).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f03_while_postgres_is_down_appends_are_refused_and_none_is_lost() {
    each_seed("F03", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(2).private_postgres()).await;
        scenario.load(Load::default()).await;
        let more = scenario.dice.random_range(200..500);
        scenario.acknowledge(more).await;
        scenario.stop_postgres_at_once().await;
        // About one of each producer.
        scenario.answer(30).await;
        scenario.start_postgres_again().await;
        let cleared = Instant::now();
        scenario.acknowledge(400).await;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        assert!(verdict.refused() > 10, "the outage was noticed; {verdict}");
        let slowest = verdict.slowest_answer();
        assert!(slowest < Duration::from_millis(6_500), "an append waited {slowest:?}; {verdict}");
        verdict.assert_resumed_within(cleared, Duration::from_secs(5));
    })
    .await;
}

/// F03, silently: the way to Postgres swallows everything, as when its host
/// vanishes or a firewall forgets: nothing is refused, no connection ends.
/// Bounded: the answer of each append (5 s, half as long again for a reply
/// that is waited for, and a grace), the return of appends to every task
/// (10 s from when new connections are answered).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f03_a_database_that_vanishes_without_a_word_is_given_up_on() {
    each_seed("F03, silently", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(2)).await;
        scenario.load(Load::default()).await;
        let more = scenario.dice.random_range(200..500);
        scenario.acknowledge(more).await;
        for instance in scenario.instances() {
            instance.wire.set(ALL, Toxic::Swallow);
        }
        scenario.answer(25).await;
        for instance in scenario.instances() {
            instance.wire.heal();
        }
        let cleared = Instant::now();
        scenario.acknowledge(400).await;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        let slowest = verdict.slowest_answer();
        assert!(slowest < Duration::from_secs(9), "an append waited {slowest:?}; {verdict}");
        verdict.assert_resumed_within(cleared, Duration::from_secs(10));
    })
    .await;
}
