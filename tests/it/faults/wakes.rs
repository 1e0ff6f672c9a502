//! F04, F05, F07 and F08: wakes between instances are hints. Losing some or
//! all of them, with or without a sign, costs time and nothing else.

use std::time::{Duration, Instant};

use super::{Instance, Load, Scenario, Shape, Toxic, Verdict, each_seed};
use crate::support::until;

const LISTENER: &str = "taskcast-listener";
const NOTIFIER: &str = "taskcast-notifier";

/// Waits until every instance hears its own pings.
async fn until_all_listen(scenario: &Scenario) {
    for instance in scenario.instances() {
        until("the listener is healthy", || async { listens(instance).await.then_some(()) }).await;
    }
}

async fn listens(instance: &Instance) -> bool {
    let detail = instance.server().get("/health/detail").await.expect(200).json();
    detail["listener"]["mode"] == "listening"
}

async fn restarts(scenario: &Scenario) -> u64 {
    let mut restarts = 0;
    for instance in scenario.instances() {
        let detail = instance.server().get("/health/detail").await.expect(200).json();
        restarts += detail["listener"]["restarts"].as_u64().unwrap();
    }
    restarts
}

/// Checks that half of what was published from `from` on arrived within one
/// time and nearly all within another.
fn assert_lag(verdict: &Verdict, from: Instant, half: Duration, most: Duration) {
    let to = Instant::now();
    let (median, tail) = (verdict.lag(50, from, to), verdict.lag(99, from, to));
    assert!(median < half && tail < most, "lag {median:?}, at the end {tail:?}; {verdict}");
}

/// F04: listening sessions are terminated again and again; each loss is told
/// once and followed by one new start. Bounded: half of the events arrive
/// within 0.5 s, which the poll of a healthy instance does not reach, and
/// 99 % within 3 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_a_listener_that_is_terminated_again_and_again_loses_no_event() {
    each_seed("F04", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(3)).await;
        until_all_listen(&scenario).await;
        scenario.load(Load::default()).await;
        let began = Instant::now();
        let mut terminated = 0;
        for _ in 0..5 {
            scenario.deliver(200).await;
            terminated += scenario.database().terminate_application(LISTENER).await as u64;
            until("each loss was followed by one new start", || async {
                (restarts(&scenario).await == terminated).then_some(())
            })
            .await;
            until_all_listen(&scenario).await;
        }
        assert_eq!(terminated, 15, "each instance listens with one session");
        scenario.deliver(200).await;
        let after = restarts(&scenario).await;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        assert_eq!(after, terminated, "{verdict}");
        assert_eq!(verdict.logged("listener lost") as u64, terminated, "{verdict}");
        assert_eq!((verdict.refused(), verdict.unknown()), (0, 0), "{verdict}");
        assert_lag(&verdict, began, Duration::from_millis(500), Duration::from_secs(3));
    })
    .await;
}

/// F05: the listener's connection is cut off without a word, on the instance
/// where the subscribers are and the producers are not. Bounded: it is
/// noticed within 10 s; by the poll, half of the events arrive within 4 s and
/// 99 % within 8 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub async fn f05_a_listener_that_is_cut_off_without_a_word_is_noticed() {
    each_seed("F05", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(2)).await;
        until_all_listen(&scenario).await;
        scenario.load(Load { apart: true, ..Load::default() }).await;
        scenario.deliver(200).await;
        let began = Instant::now();
        let deaf = scenario.instance(1);
        deaf.wire.set(LISTENER, Toxic::Swallow);
        until("the deafness is noticed", || async {
            (deaf.logged("listener lost") == 1).then_some(())
        })
        .await;
        let noticed = Instant::now();
        scenario.deliver(600).await;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        assert!(noticed - began < Duration::from_secs(10), "{:?}", noticed - began);
        assert_eq!((verdict.refused(), verdict.unknown()), (0, 0), "{verdict}");
        assert_lag(&verdict, began, Duration::from_secs(4), Duration::from_secs(8));
    })
    .await;
}

/// Plays a load during which the instances' listeners hear only what holds
/// `text`.
async fn with_notifications_of(seed: u64, text: &'static str) -> (Instant, Verdict) {
    let mut scenario = Scenario::start(seed, Shape::of(2)).await;
    until_all_listen(&scenario).await;
    for instance in scenario.instances() {
        instance.wire.set(LISTENER, Toxic::NotifyOnly(text));
        instance.wire.cut(LISTENER);
    }
    scenario.load(Load::default()).await;
    let began = Instant::now();
    scenario.deliver(3_000).await;
    let lost: Vec<u64> = scenario.instances().map(|instance| instance.wire.lost()).collect();
    let verdict = scenario.settle().await;
    assert!(lost.iter().all(|lost| *lost > 50), "{lost:?} notifications were lost; {verdict}");
    assert_eq!((verdict.refused(), verdict.unknown()), (0, 0), "{verdict}");
    (began, verdict)
}

/// F07: no notification arrives, pings neither, so instances know and poll ten
/// times a second. Bounded: half of the events arrive within 0.5 s, 99 % within 3 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f07_without_any_notification_polling_finds_every_event() {
    each_seed("F07", async |seed| {
        let (began, verdict) = with_notifications_of(seed, "no such text").await;
        verdict.assert_base();
        assert_lag(&verdict, began, Duration::from_millis(500), Duration::from_secs(3));
    })
    .await;
}

/// F07: pings arrive and nothing else does, so instances believe that they are
/// woken and poll once a second. Bounded: half of the events arrive within
/// 1 s, 99 % within 3 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f07_an_instance_that_only_believes_it_is_woken_finds_every_event() {
    each_seed("F07, unnoticed", async |seed| {
        let (began, verdict) = with_notifications_of(seed, " ping ").await;
        verdict.assert_base();
        assert_lag(&verdict, began, Duration::from_secs(1), Duration::from_secs(3));
    })
    .await;
}

/// F08: NOTIFY fails, as with a full queue, then hangs, as with a blocked one,
/// then its session is lost without a word. No append is refused for it, the
/// failure is counted, and wakes arrive again once it is over. Bounded: half of
/// the events arrive within 1 s, 99 % within 3 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f08_an_append_never_fails_for_a_notification() {
    each_seed("F08", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(2)).await;
        until_all_listen(&scenario).await;
        scenario.load(Load::default()).await;
        let began = Instant::now();
        let instance = scenario.instance(0);
        for toxic in [Toxic::Refuse, Toxic::Hold, Toxic::Swallow] {
            scenario.acknowledge(100).await;
            instance.wire.set(NOTIFIER, toxic);
            scenario.deliver(400).await;
            if toxic == Toxic::Swallow {
                until("its pings are missed", || async {
                    (!listens(instance).await).then_some(())
                })
                .await;
            }
            instance.wire.heal();
        }
        until("wakes are sent again", || async { listens(instance).await.then_some(()) }).await;
        let metrics = instance.server().get("/metrics").await.expect(200).text;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        let failures = "taskcast_broadcast_errors_total{problem=\"not_sending\"} ";
        let counted = metrics.lines().find_map(|line| line.strip_prefix(failures)).unwrap();
        assert_ne!(counted, "0");
        assert_eq!((verdict.refused(), verdict.unknown()), (0, 0), "{verdict}");
        assert_lag(&verdict, began, Duration::from_secs(1), Duration::from_secs(3));
    })
    .await;
}
