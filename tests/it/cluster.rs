//! Two servers on one database: what one takes, the other shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::support::client::{column, number_of};
use crate::support::postgres::Database;
use crate::support::server::Server;
use crate::support::sse::{Frame, members};
use crate::support::{Backend, until};

/// What Postgres calls the sessions that listen.
const LISTENER: &str = "taskcast-listener";

/// Polling a healthy listener's tasks happens about once in this time, so
/// what arrives much earlier was not found by polling.
const HEALTHY_POLL: Duration = Duration::from_secs(1);

async fn tasks(server: &Server, count: usize) -> Vec<String> {
    join_all((0..count).map(|_| server.running_task())).await
}

/// Reads the stream of every task to its end.
fn follow(server: &Server, ids: &[String]) -> Vec<JoinHandle<Vec<Frame>>> {
    let read = |id: &String| {
        let (server, id) = (server.clone(), id.clone());
        tokio::spawn(async move { server.stream(&id, "").await.rest().await })
    };
    ids.iter().map(read).collect()
}

/// Publishes to every task until `stop`, at least a hundred times, then ends it.
fn publish_flat_out(
    server: &Server,
    ids: &[String],
    stop: &Arc<AtomicBool>,
) -> Vec<JoinHandle<u64>> {
    let write = |id: &String| {
        let (server, id, stop) = (server.clone(), id.clone(), stop.clone());
        tokio::spawn(async move {
            let mut published = 0;
            while published < 100 || !stop.load(Ordering::Relaxed) {
                server.publish(&id, json!({"type": "n", "data": published})).await;
                published += 1;
            }
            server.enter(&id, "completed").await;
            published
        })
    };
    ids.iter().map(write).collect()
}

/// Checks that readers saw exactly what writers wrote.
async fn compare(
    server: &Server,
    ids: &[String],
    writers: Vec<JoinHandle<u64>>,
    readers: Vec<JoinHandle<Vec<Frame>>>,
) {
    for ((id, writer), reader) in ids.iter().zip(writers).zip(readers) {
        let published = writer.await.unwrap();
        let mut frames = reader.await.unwrap();
        assert_eq!(frames.pop().unwrap().data(), json!({"reason": "completed"}));
        assert_eq!(members(&frames, "rawIndex"), (0..published + 2).collect::<Vec<_>>());
        let data = members(&frames[1..frames.len() - 1], "data");
        assert_eq!(data, (0..published).collect::<Vec<_>>());
        assert_eq!(members(&frames, "eventId"), column(&server.history(id, "").await, "id"));
    }
}

/// Publishes one event at a time and returns how long each took to arrive.
async fn delays(writer: &Server, reader: &Server, count: u64) -> Vec<Duration> {
    let id = writer.running_task().await;
    let mut stream = reader.stream(&id, "").await;
    stream.one().await;
    let mut delays = Vec::new();
    for n in 0..count {
        writer.publish(&id, json!({"type": "n", "data": n})).await;
        let answered = Instant::now();
        assert_eq!(stream.one().await.get("data"), n);
        delays.push(answered.elapsed());
    }
    delays.sort();
    delays
}

fn median(delays: &[Duration]) -> Duration {
    delays[delays.len() / 2]
}

async fn listener(server: &Server) -> Value {
    server.get("/health/detail").await.expect(200).json()["listener"].clone()
}

async fn restarts(server: &Server) -> u64 {
    number_of(&listener(server).await["restarts"])
}

async fn is_listening(server: &Server) -> bool {
    listener(server).await["mode"] == "listening"
}

/// Ends every listening session; returns how many there were.
async fn end_listeners(database: &Database) -> u64 {
    database.terminate_application(LISTENER).await as u64
}

async fn two_servers(environment: &[(&str, &str)]) -> (Database, Server, Server) {
    let database = Database::migrated().await;
    let backend = Backend::Postgres(database.clone());
    let (first, second) =
        tokio::join!(backend.start_with(environment), backend.start_with(environment));
    (database, first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_tasks_flat_out_arrive_whole_at_the_other_instance() {
    let (_database, first, second) = two_servers(&[]).await;
    let ids = tasks(&first, 50).await;
    let readers = follow(&second, &ids);
    let writers = publish_flat_out(&first, &ids, &Arc::new(AtomicBool::new(true)));
    compare(&second, &ids, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_the_listener_every_second_loses_no_event() {
    let (database, first, second) = two_servers(&[]).await;
    // The listener is what wakes: faster than any poll.
    let before = delays(&first, &second, 20).await;
    assert!(median(&before) < HEALTHY_POLL / 4, "{before:?}");
    assert_eq!((restarts(&first).await, restarts(&second).await), (0, 0));

    let ids = tasks(&first, 50).await;
    let readers = follow(&second, &ids);
    let stop = Arc::new(AtomicBool::new(false));
    let writers = publish_flat_out(&first, &ids, &stop);
    let mut terminated = 0;
    let mut every_second = interval(Duration::from_secs(1));
    for _ in 0..6 {
        every_second.tick().await;
        let ended = end_listeners(&database).await;
        assert_eq!(ended, 2, "each server listens with one session");
        terminated += ended;
        until("each loss was followed by one new start", || async {
            let is_done = restarts(&first).await + restarts(&second).await == terminated;
            (is_done && is_listening(&first).await && is_listening(&second).await).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    compare(&second, &ids, writers, readers).await;
    let lost = first.log().count("listener lost") + second.log().count("listener lost");
    assert_eq!(lost as u64, terminated, "one line and one full look for each loss");
    assert_eq!(restarts(&first).await + restarts(&second).await, terminated);
    let after = delays(&first, &second, 20).await;
    assert!(median(&after) < HEALTHY_POLL / 4, "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notify_events_arrive_within_the_poll_period() {
    let (database, first, second) = two_servers(&[("TASKCAST_POSTGRES__LISTEN", "false")]).await;
    assert_eq!(end_listeners(&database).await, 0, "nobody listens");
    let polled = delays(&first, &second, 20).await;
    assert!(median(&polled) < Duration::from_millis(250), "{polled:?}");
    let ids = tasks(&first, 50).await;
    let readers = follow(&second, &ids);
    let writers = publish_flat_out(&first, &ids, &Arc::new(AtomicBool::new(true)));
    compare(&second, &ids, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_taken_over_from_a_killed_instance_goes_on() {
    let (_database, first, second) = two_servers(&[]).await;
    let id = first.running_task().await;
    let mut stream = first.stream(&id, "").await;
    for n in 0..10 {
        first.publish(&id, json!({"type": "n", "data": n})).await;
    }
    stream.take(6).await;
    let cursor = stream.last_event_id.clone().unwrap();
    first.kill();
    let mut resumed = second.resume(&id, "", &cursor).await;
    assert_eq!(members(&resumed.take(5).await, "data"), [5, 6, 7, 8, 9]);
    second.publish(&id, json!({"type": "n", "data": 10})).await;
    second.enter(&id, "completed").await;
    let rest = resumed.rest().await;
    assert_eq!(members(&rest[..2], "rawIndex"), [11, 12]);
    assert!(rest[2].is_done());
}
