//! F10: a database that is far away, or whose disk is slow.

use std::time::{Duration, Instant};

use super::history::Outcome;
use super::{ALL, Load, Scenario, Shape, Toxic, each_seed, metric};

/// How much later each reply of Postgres arrives.
const DELAY: Duration = Duration::from_millis(200);

/// Memory a server may need beyond what it needed before, in bytes.
const ROOM: u64 = 64 << 20;

/// F10: for some seconds every reply of Postgres is late. Writes get slower
/// and go on, in batches; who is refused is told to come again; nobody waits
/// for ever; and what waits has room for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_a_slow_link_slows_down_and_breaks_nothing() {
    each_seed("F10", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(2)).await;
        scenario.load(Load { producers: 4, rate: 400, ..Load::default() }).await;
        scenario.acknowledge(400).await;
        let mut before = Vec::new();
        for instance in scenario.instances() {
            before.push(metric(&instance.server(), "process_resident_memory_bytes").await);
            instance.wire.set(ALL, Toxic::Delay(DELAY));
        }
        let (slowed, goal) = (Instant::now(), Duration::from_secs(3));
        while slowed.elapsed() < goal {
            scenario.acknowledge(50).await;
        }
        let mut after = Vec::new();
        for instance in scenario.instances() {
            after.push(metric(&instance.server(), "process_resident_memory_bytes").await);
        }
        let healed = Instant::now();
        scenario.instances().for_each(|instance| instance.wire.heal());
        scenario.acknowledge(200).await;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        for publication in &verdict.history.publications {
            let is_slow = publication.asked > slowed && publication.answered < healed;
            match &publication.outcome {
                Outcome::Acknowledged if is_slow => {
                    let took = publication.answered - publication.asked_last;
                    assert!(took >= DELAY, "answered after {took:?}; {verdict}");
                }
                // A task that has ended takes nothing any more.
                Outcome::Acknowledged | Outcome::Refused(400 | 429 | 503, _) => {}
                other => panic!("{other:?}; {verdict}"),
            }
        }
        let slowest = verdict.slowest_answer();
        assert!(slowest <= Duration::from_secs(10), "an answer took {slowest:?}; {verdict}");
        for (before, after) in before.into_iter().zip(after) {
            assert!(after <= before + ROOM, "{before} bytes became {after}; {verdict}");
        }
    })
    .await;
}
