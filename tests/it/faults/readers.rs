//! F13 and F14: readers that are slow, and readers that all come at once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;

use super::{ALL, Load, Scenario, Shape, each_seed, metric};
use crate::support::client::Client;
use crate::support::sse::{Stream, members};
use crate::support::until;

/// More than the buffers of any socket between server and reader.
const BIG_EVENTS: usize = 40;
const BIG_BYTES: usize = 500_000;

/// Readers that take one big event at a time and rest.
const SLOW: usize = 4;

/// Readers that take nothing.
const STALLED: usize = 4;

/// Memory that readers like that may cost a server, in bytes.
const ROOM: u64 = 30 << 20;

/// F13: some readers are slow and some take nothing at all, of a task that
/// grows quickly. The slow get everything; who takes nothing is disconnected
/// and can resume; nobody else notices; and none of them costs memory by what
/// it has not taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_slow_readers_cost_nobody_anything() {
    each_seed("F13", async |seed| {
        let shape = Shape::of(2).environment("TASKCAST_SSE__STALL_TIMEOUT_MS", "1500");
        let mut scenario = Scenario::start(seed, shape).await;
        scenario.load(Load { rate: 120, ..Load::default() }).await;
        scenario.acknowledge(100).await;
        let server = scenario.instance(0).server();
        let id = server.running_task().await;
        let open = async || {
            let mut stream = server.stream(&id, "").await;
            stream.one().await;
            stream
        };
        let slow = join_all((0..SLOW).map(|_| open())).await;
        let stalled = join_all((0..STALLED).map(|_| open())).await;
        let before = metric(&server, "process_resident_memory_bytes").await;
        let began = Instant::now();
        let slow: Vec<_> =
            slow.into_iter().map(|stream| tokio::spawn(read_slowly(stream))).collect();
        let payload = "x".repeat(BIG_BYTES);
        let mut most = before;
        for n in 0..BIG_EVENTS {
            let elsewhere = scenario.instance(1).server();
            elsewhere.publish(&id, json!({"type": "big", "data": [n, payload]})).await;
            most = most.max(metric(&server, "process_resident_memory_bytes").await);
        }
        let name = r#"taskcast_streams_closed_total{stream="task",reason="stalled"}"#;
        until("who takes nothing is disconnected", || async {
            (metric(&server, name).await == STALLED as u64).then_some(())
        })
        .await;
        let ended = Instant::now();
        most = most.max(metric(&server, "process_resident_memory_bytes").await);
        server.enter(&id, "completed").await;
        for reader in slow {
            assert_eq!(reader.await.unwrap(), (1..=BIG_EVENTS + 1).collect::<Vec<_>>());
        }
        for stream in stalled {
            resume_stalled(&server, &id, stream).await;
        }
        assert!(most <= before + ROOM, "{before} bytes became {most}; seed {seed}");
        scenario.acknowledge(100).await;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        let lag = verdict.lag(99, began, ended);
        assert!(lag <= Duration::from_secs(3), "others waited up to {lag:?}; {verdict}");
    })
    .await;
}

/// Returns the indexes a slow reader got before it was told of the end.
async fn read_slowly(mut stream: Stream) -> Vec<usize> {
    let mut indexes = Vec::new();
    while let Some(frame) = stream.next().await {
        if frame.is_done() {
            return indexes;
        }
        indexes.push(frame.get("rawIndex").as_u64().expect("an index") as usize);
        // What makes it slow, not a wait for anything.
        sleep(Duration::from_millis(60)).await;
    }
    panic!("a slow reader was cut off after {indexes:?}");
}

/// Takes what was still on its way to a reader that was disconnected, resumes,
/// and checks that it misses nothing.
async fn resume_stalled(client: &Client, id: &str, mut stream: Stream) {
    let mut frames = stream.rest().await;
    assert!(frames.len() < BIG_EVENTS, "it was disconnected before the end");
    let cursor = stream.last_event_id.clone().expect("it got the start");
    frames.extend(client.resume(id, "", &cursor).await.rest().await);
    assert!(frames.pop().expect("the end").is_done());
    assert_eq!(members(&frames, "rawIndex"), (1..=BIG_EVENTS + 1).collect::<Vec<_>>());
}

/// Streams that are cut at once.
const CROWD: usize = 300;

/// F14: all streams of all instances are cut at once, and all readers come
/// back. Nobody misses anything or gets anything twice, everyone is back soon,
/// and the store is read for tasks, not for readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_crowd_that_comes_back_at_once_is_served() {
    each_seed("F14", async |seed| {
        let mut scenario = Scenario::start(seed, Shape::of(2).fronts()).await;
        let load = Load { tasks: 15, subscribers: CROWD, ending: 0, rate: 100, ..Load::default() };
        scenario.load(load).await;
        scenario.acknowledge(200).await;
        until("everybody is there", || async {
            (total(&scenario, r#"taskcast_streams_open{stream="task"}"#).await
                >= CROWD as u64 * 9 / 10)
                .then_some(())
        })
        .await;
        let name = r#"taskcast_catch_up_reads_total{read="page"}"#;
        let before = total(&scenario, name).await;
        let cut = Instant::now();
        for instance in scenario.instances() {
            instance.front.as_ref().expect("Shape::fronts").cut(ALL);
        }
        scenario.acknowledge(200).await;
        scenario.deliver(10 * CROWD as u64).await;
        let reads = total(&scenario, name).await - before;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        let mut back: Vec<Duration> = verdict
            .history
            .readers
            .iter()
            .map(|reader| {
                let opened = reader.connections.iter().map(|connection| connection.opened);
                opened.filter(|opened| *opened > cut).min().map_or(Duration::MAX, |at| at - cut)
            })
            .collect();
        back.sort_unstable();
        let most = back[CROWD * 95 / 100];
        super::say(&format!(
            "95 in 100 back after {most:?}, all after {:?}, {reads} pages",
            back[CROWD - 1]
        ));
        assert!(most <= Duration::from_secs(15), "95 in 100 were back after {most:?}; {verdict}");
        assert!(back[CROWD - 1] <= Duration::from_secs(30), "{:?}; {verdict}", back[CROWD - 1]);
        assert!(reads <= CROWD as u64 / 2, "{reads} pages were read; {verdict}");
    })
    .await;
}

/// Adds a number up over all servers.
async fn total(scenario: &Scenario, name: &str) -> u64 {
    let servers: Vec<_> = scenario.instances().map(super::Instance::server).collect();
    join_all(servers.iter().map(|server| metric(server, name))).await.iter().sum()
}
