//! F06 and F09: what nobody heard the end of happens once or not at all.

use std::time::{Duration, Instant};

use super::{Load, Scenario, Shape, Toxic, each_seed};

const LANE: &str = "taskcast-lane";

/// F06: one reply in twenty to a writer's statement is lost after Postgres
/// carried it out. The receipts tell: no producer hears that nobody knows, and
/// nothing is stored twice, whether or not its request had a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub async fn f06_a_lost_commit_reply_is_resolved_by_its_receipt() {
    each_seed("F06", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(2)).await;
        scenario.load(Load::default()).await;
        for instance in scenario.instances() {
            instance.wire.set(LANE, Toxic::LoseReplies(0.05));
        }
        scenario.acknowledge(1_500).await;
        let lost: u64 = scenario.instances().map(|instance| instance.wire.lost()).sum();
        for instance in scenario.instances() {
            instance.wire.heal();
        }
        let verdict = scenario.settle().await;
        verdict.assert_base();
        assert!(lost > 10, "only {lost} replies were lost; {verdict}");
        assert_eq!((verdict.refused(), verdict.unknown()), (0, 0), "{verdict}");
    })
    .await;
}

/// F09: an instance is halted while its batches are under way. Its producers
/// turn to another one with the same keys; then the batches reach Postgres,
/// and then the instance wakes up and wants to answer. Nothing is applied
/// twice. Bounded: appends to every task flow within 10 s of the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f09_a_writer_that_comes_back_from_the_dead_applies_nothing_twice() {
    each_seed("F09", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(2)).await;
        let load = Load { request_timeout: Duration::from_secs(2), ..Load::default() };
        scenario.load(load).await;
        scenario.acknowledge(200).await;
        let zombie = scenario.instance(0);
        zombie.wire.set(LANE, Toxic::Hold);
        // As many again go to the one that is about to stop and hang there.
        scenario.acknowledge(60).await;
        zombie.pause();
        scenario.take_over(3).await;
        zombie.wire.heal();
        scenario.acknowledge(100).await;
        zombie.unpause();
        let cleared = Instant::now();
        scenario.acknowledge(300).await;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        verdict.assert_resumed_within(cleared, Duration::from_secs(10));
    })
    .await;
}
