//! Interleavings of two writers that broke an insert-only log before its rules
//! were in place, each played to the end on purpose.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::scenario::is_broken;
use super::{Scenario, Shape, Toxic, metric};
use crate::support::client::{Client, number_of};
use crate::support::until;

/// What Postgres calls the sessions that write.
const LANE: &str = "taskcast-lane";

/// Events of a `latest` series that supersede each other, enough for two blocks.
const SUPERSEDED: usize = 2_400;

/// Rounds of an interleaving that needs some luck with time.
const ROUNDS: usize = 4;

/// Two servers with one lane each.
async fn two_servers() -> Scenario {
    Scenario::start(1, Shape::of(2).environment("TASKCAST_POSTGRES__LANES", "1")).await
}

fn client(scenario: &Scenario, number: usize) -> Client {
    scenario.instance(number).client().expect("it runs")
}

/// Keeps the next index of a task's log, as a transaction of somebody else does.
async fn hold(connection: &mut PgConnection, id: &str) {
    connection.execute("BEGIN").await.unwrap();
    let reserve = format!(
        "SELECT reserved_index FROM taskcast.reserve(ARRAY(SELECT number FROM taskcast.task \
         WHERE id = '{id}' AND deleted_at IS NULL))"
    );
    let reserved = connection.fetch_all(AssertSqlSafe(reserve)).await.unwrap();
    assert_eq!(reserved.len(), 1, "the task is unfinished");
}

/// Events that each of two instances publishes to each task.
const EACH: usize = 60;

/// Waits until so many lanes wait for a lock.
async fn waiting_lanes(scenario: &Scenario, count: i64) {
    let mut connection = scenario.database().connect().await;
    let statement = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = '{LANE}' AND wait_event_type = 'Lock'"
    );
    loop {
        let asked = sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement.clone()));
        if asked.fetch_one(&mut connection).await.unwrap() >= count {
            return;
        }
    }
}

async fn number_in(scenario: &Scenario, statement: String) -> i64 {
    let mut connection = scenario.database().connect().await;
    sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut connection).await.unwrap()
}

fn event() -> Value {
    json!({"type": "n"})
}

fn latest() -> Value {
    json!({"type": "p", "seriesId": "p", "seriesMode": "latest"})
}

/// Rule 1. An append reads the head of a task, and then waits for another task.
/// Meanwhile the event that has its place is superseded, rolled up and would be
/// removed. It must not take that place when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub async fn an_append_that_waits_takes_no_place_of_a_removed_event() {
    let scenario = two_servers().await;
    let (one, other) = (client(&scenario, 0), client(&scenario, 1));
    for _ in 0..ROUNDS {
        wait_behind_another_task(&scenario, &one, &other).await;
    }
}

async fn wait_behind_another_task(scenario: &Scenario, one: &Client, other: &Client) {
    // In the order of their numbers, which is the order in which a batch inserts.
    let (busy, gate, task) =
        (one.running_task().await, one.running_task().await, one.running_task().await);
    one.publish(&task, latest()).await;
    let (mut first, mut second) =
        (scenario.database().connect().await, scenario.database().connect().await);
    // A batch is under way, so that the next one takes both requests that follow.
    hold(&mut first, &busy).await;
    hold(&mut second, &gate).await;
    let publish = |id: String, event: Value| {
        let one = one.clone();
        tokio::spawn(async move { one.publish(&id, event).await })
    };
    let on_busy = publish(busy, event());
    waiting_lanes(scenario, 1).await;
    let (at_gate, waiting) = (publish(gate, event()), publish(task.clone(), latest()));
    until("both requests wait for the lane", || async {
        (metric(one, "taskcast_queue_bytes").await > 1_000).then_some(())
    })
    .await;
    first.execute("ROLLBACK").await.unwrap();
    on_busy.await.unwrap();
    waiting_lanes(scenario, 1).await;
    let events: Vec<Value> = (0..SUPERSEDED).map(|_| latest()).collect();
    for events in events.chunks(800) {
        other.publish(&task, Value::from(events)).await;
    }
    let floor = format!(
        "SELECT h.floor FROM taskcast.head h JOIN taskcast.task t ON t.number = h.task \
         WHERE t.id = '{task}'"
    );
    until("the events are rolled up", || async {
        (number_in(scenario, floor.clone()).await > 0).then_some(())
    })
    .await;
    let left = format!(
        "SELECT count(*) FROM taskcast.event e JOIN taskcast.task t ON t.number = e.task \
         WHERE t.id = '{task}' AND e.index = 2"
    );
    if is_broken() {
        until("the events are removed at once", || async {
            (number_in(scenario, left.clone()).await == 0).then_some(())
        })
        .await;
    }
    second.execute("ROLLBACK").await.unwrap();
    at_gate.await.unwrap();
    let index = number_of(&waiting.await.unwrap()["index"]);
    assert!(index >= SUPERSEDED as u64 + 2, "index {index} was given out twice");
    first.close().await.unwrap();
    second.close().await.unwrap();
}

/// Rule 2. The database loses the end of a log, as a failover to an asynchronous
/// standby or a restore does. What a lane knew of the log is forgotten with the
/// server it knew it from, so that no hole remains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub async fn an_end_that_lies_beyond_the_log_is_read_again() {
    let mut scenario = Scenario::start(2, Shape::of(1).private_postgres()).await;
    let one = client(&scenario, 0);
    let id = one.running_task().await;
    for _ in 0..5 {
        one.publish(&id, event()).await;
    }
    for lost in ["DELETE FROM taskcast.event WHERE index >= 3", "DELETE FROM taskcast.receipt"] {
        scenario.database().execute(lost).await;
    }
    scenario.stop_postgres_at_once().await;
    scenario.start_postgres_again().await;
    let path = format!("/tasks/{id}/events");
    let reply = until("the server has found the database", || async {
        let reply = one.post(&path, event()).await;
        (reply.status == 201).then(|| reply.json())
    })
    .await;
    assert_eq!(reply["index"], 3);
    let history = until("the log can be read", || async {
        let reply = one.get(&format!("{path}/history")).await;
        (reply.status == 200).then(|| reply.json())
    })
    .await;
    let history = history.as_array().unwrap();
    let indexes: Vec<u64> = history.iter().map(|event| number_of(&event["index"])).collect();
    assert_eq!(indexes, [0, 1, 2, 3]);
}

/// Rule 3. Two instances write to one series in turns, so each finds that the
/// other was first and drops all it knew, the length of the text included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub async fn the_length_of_a_series_counts_what_every_instance_wrote() {
    const LIMIT: usize = 40;
    let shape = Shape::of(2).environment("TASKCAST_LIMITS__SERIES_TEXT_BYTES", "40");
    let scenario = Scenario::start(3, shape).await;
    let (one, other) = (client(&scenario, 0), client(&scenario, 1));
    let id = one.running_task().await;
    let path = format!("/tasks/{id}/events");
    let delta =
        json!({"type": "d", "data": {"text": "x"}, "seriesId": "s", "seriesMode": "accumulate"});
    let mut accepted = 0;
    for turn in 0..LIMIT + 6 {
        let server = if turn % 2 == 0 { &one } else { &other };
        let reply = server.post(&path, &delta).await;
        accepted += usize::from(reply.status == 201);
    }
    assert!(accepted <= LIMIT, "the series took {accepted} bytes, more text than its limit");
    assert_eq!(accepted, LIMIT);
    let text = one.history(&id, "?types=d&seriesFormat=accumulated").await;
    assert_eq!(text[0]["data"]["text"], "x".repeat(LIMIT));
}

/// Rule 8. A task that an instance beside the database writes to flat out is
/// cancelled from one that is far from it: the reservation gets through where
/// optimistic concurrency does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_from_afar_beats_a_task_that_is_written_to_flat_out() {
    let scenario = two_servers().await;
    let (one, other) = (client(&scenario, 0), client(&scenario, 1));
    scenario.instance(1).wire.set(LANE, Toxic::Delay(Duration::from_millis(5)));
    let mut reserved = 0;
    for _ in 0..5 {
        let id = one.running_task().await;
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let (one, path) = (one.clone(), format!("/tasks/{id}/events"));
                tokio::spawn(async move {
                    let mut written = 0;
                    while one.post(&path, event()).await.status == 201 {
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        until("the task is written to", || async {
            (one.history(&id, "?limit=100").await.len() == 100).then_some(())
        })
        .await;
        let path = format!("/tasks/{id}/status");
        let cancelled = other.patch(&path, json!({"status": "cancelled"})).await.expect(200).json();
        assert_eq!(cancelled["status"], "cancelled");
        let mut written = 0;
        for writer in writers {
            written += writer.await.unwrap();
        }
        let history = one.history(&id, "").await;
        assert_eq!(history.len(), written + 2, "the start, what was accepted, the end");
        assert_eq!(history.last().unwrap()["data"]["status"], "cancelled");
        reserved = metric(&other, "taskcast_commit_seconds_count{lane=\"reserve\"}").await;
    }
    assert!(reserved > 0, "no transition had to reserve its index");
}

/// Rule 8. Two instances that both write to the same tasks as fast as they can:
/// neither starves, and no request is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_of_two_instances_starves_on_the_same_tasks() {
    let scenario = two_servers().await;
    let clients = [client(&scenario, 0), client(&scenario, 1)];
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(clients[0].running_task().await);
    }
    let writers: Vec<_> = clients
        .iter()
        .flat_map(|client| ids.iter().map(move |id| (client.clone(), id.clone())))
        .map(|(client, id)| {
            tokio::spawn(async move {
                for _ in 0..EACH {
                    client.publish(&id, event()).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for id in &ids {
        let history = clients[1].history(id, "").await;
        let indexes: Vec<u64> = history.iter().map(|event| number_of(&event["index"])).collect();
        assert_eq!(indexes, (0..=2 * EACH as u64).collect::<Vec<_>>());
    }
    let mut claims = 0;
    for client in &clients {
        claims += metric(client, "taskcast_commit_seconds_count{lane=\"claim\"}").await;
    }
    assert!(claims > 0, "no batch had to claim its indexes");
}
