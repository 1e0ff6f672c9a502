//! F15: a new version goes out, one server at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Instance, Load, Scenario, Shape, each_seed};
use crate::support::client::{Client, column};
use crate::support::sse::Stream;

/// Over how long a server that ends sends its readers away.
const WINDOW: Duration = Duration::from_millis(1_200);

/// Writers that know nothing of which server is being restarted.
const WRITERS: usize = 8;

/// Streams on each server that note when they were sent away.
const STREAMS: usize = 40;

/// F15: each server in turn gets SIGTERM under load and is started again. A
/// client that repeats a failed request once, elsewhere and with its key,
/// never fails; readers are sent away over the whole window, each told when to
/// come back; and no server takes longer than its window and 5 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_a_rolling_restart_fails_nobody_who_tries_twice() {
    each_seed("F15", async |seed| {
        let window = WINDOW.as_millis().to_string();
        let shape = Shape::of(3).fronts().environment("TASKCAST_SSE__DRAIN_MS", &window);
        let mut scenario = Scenario::start(seed, shape).await;
        scenario.load(Load { rate: 120, ..Load::default() }).await;
        let clients: Vec<Client> = scenario.instances().map(client_of).collect();
        let id = clients[0].running_task().await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<JoinHandle<Vec<Value>>> = (0..WRITERS)
            .map(|n| {
                let dice = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(n as u64));
                tokio::spawn(write(clients.clone(), id.clone(), n, stop.clone(), dice))
            })
            .collect();
        scenario.acknowledge(100).await;
        for (number, client) in clients.iter().enumerate() {
            let streams = open_streams(client, &id).await;
            let asked = Instant::now();
            let status = scenario.instance(number).end().await;
            let took = asked.elapsed();
            assert!(status.success(), "{status}; seed {seed}");
            assert!(took <= WINDOW + Duration::from_secs(5), "it took {took:?}; seed {seed}");
            check_sent_away(streams, seed).await;
            scenario.acknowledge(50).await;
            scenario.instance(number).start_again().await;
            scenario.acknowledge(50).await;
        }
        stop.store(true, Ordering::SeqCst);
        let mut written = 0;
        let mut ids = Vec::new();
        for writer in writers {
            let answers = writer.await.unwrap();
            written += answers.len();
            ids.extend(column(&answers, "id"));
        }
        let history = clients[0].history(&id, "?types=rolling").await;
        let stored = column(&history, "id");
        assert_eq!(stored.len(), written, "seed {seed}");
        assert!(ids.iter().all(|id| stored.contains(id)), "seed {seed}");
        scenario.settle().await.assert_base();
    })
    .await;
}

fn client_of(instance: &Instance) -> Client {
    let front = instance.front.as_ref().expect("Shape::fronts");
    Client::new(&format!("http://127.0.0.1:{}", front.port()))
}

/// Publishes with keys to any server, and once more to the next one when that
/// fails; returns the answers.
async fn write(
    clients: Vec<Client>,
    id: String,
    writer: usize,
    stop: Arc<AtomicBool>,
    mut dice: StdRng,
) -> Vec<Value> {
    let mut answers = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let first = dice.random_range(0..clients.len());
        let body = json!({"type": "rolling", "data": [writer, answers.len()]});
        let key = format!("{writer}-{}", answers.len());
        let mut failure = String::new();
        let mut answer = None;
        for client in [&clients[first], &clients[(first + 1) % clients.len()]] {
            let request = client.json(Method::POST, &format!("/tasks/{id}/events"), &body);
            match client.try_send(request.header("Idempotency-Key", &key)).await {
                Ok(reply) if reply.status == 201 => {
                    answer = Some(reply.json());
                    break;
                }
                Ok(reply) => failure = format!("{}: {}", reply.status, reply.text),
                Err(error) => failure = format!("{error:?}"),
            }
        }
        answers.push(answer.unwrap_or_else(|| panic!("it failed twice, then with {failure}")));
    }
    answers
}

/// Opens streams that note when they end and what they were told.
async fn open_streams(client: &Client, id: &str) -> Vec<JoinHandle<(Instant, bool)>> {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream: Stream = client.stream(id, "?types=none").await;
        streams.push(tokio::spawn(async move {
            let frames = stream.rest().await;
            assert!(frames.is_empty(), "{frames:?}");
            (Instant::now(), stream.retry.is_some())
        }));
    }
    streams
}

/// Checks that streams ended apart from each other, each told when to return.
async fn check_sent_away(streams: Vec<JoinHandle<(Instant, bool)>>, seed: u64) {
    let mut ends = Vec::new();
    for stream in streams {
        let (at, is_told) = stream.await.unwrap();
        assert!(is_told, "a reader was not told when to come back; seed {seed}");
        ends.push(at);
    }
    let (first, last) = (ends.iter().min().expect("some"), ends.iter().max().expect("some"));
    let spread = *last - *first;
    assert!(spread >= WINDOW / 2, "all were sent away within {spread:?}; seed {seed}");
}
