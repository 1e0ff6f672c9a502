//! One reply lost at a time, between the server and its database.

use serde_json::{Value, json};

use super::net::through;
use crate::support::client::column;
use crate::support::postgres::Database;
use crate::support::proxy::ReplyThief;
use crate::support::server::Server;
use crate::support::{Backend, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_sent_again_takes_effect_once() {
    publish_with_lost_replies(|n| json!({"type": "n", "data": n}), async |_, _| {}).await;
}

/// Deltas have a statement of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deltas_that_are_sent_again_take_effect_once() {
    let delta = |n| {
        let data = json!({"text": format!("{n} ")});
        json!({"type": "n", "data": data, "seriesId": "s", "seriesMode": "accumulate"})
    };
    publish_with_lost_replies(delta, async |server, id| {
        server.enter(id, "completed").await;
        let frames = server.stream(id, "").await.rest().await;
        let mut shown = frames.iter().map(|frame| frame.data());
        let snapshot = shown.find(|data| data["seriesSnapshot"] == true).expect("a snapshot");
        let whole: Vec<String> = (0..60).map(|n| n.to_string()).collect();
        assert_eq!(snapshot["data"]["text"], whole.join(" ") + " ");
    })
    .await;
}

/// Publishes 60 events to a task, while replies to the lane that writes them are
/// lost, and checks that the log holds each of them once; `look` sees the rest.
async fn publish_with_lost_replies(
    event: impl Fn(u32) -> Value,
    look: impl AsyncFnOnce(&Server, &str),
) {
    let database = Database::migrated().await;
    let (_, target) = through(&database.url(), 0);
    let thief = ReplyThief::start(target, "taskcast-lane").await;
    let (url, _) = through(&database.url(), thief.port());
    let backend = Backend::Postgres(database);
    let server = backend.start_with(&[("TASKCAST_POSTGRES_URL", &url)]).await;
    let other = backend.start().await;

    let id = server.running_task().await;
    let mut published: Vec<Value> = Vec::new();
    for n in 0..60 {
        if n % 5 == 0 {
            thief.steal_one();
        }
        // Now and then the other instance writes, so that the lane has to lock.
        if n % 7 == 0 {
            published.push(other.publish(&id, json!({"type": "other", "data": n})).await);
        }
        published.push(server.publish(&id, event(n)).await);
    }
    until("every reply that was to be lost was", || async { (thief.stolen() == 12).then_some(()) })
        .await;
    let history = server.history(&id, "").await;
    assert_eq!(column(&history[1..], "id"), column(&published, "id"));
    assert_eq!(
        column(&history, "index"),
        (0..=published.len() as u64).map(Value::from).collect::<Vec<_>>()
    );
    look(&server, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_and_deleting_survive_a_lost_reply() {
    let database = Database::migrated().await;
    let (_, target) = through(&database.url(), 0);
    let thief = ReplyThief::start(target, "taskcast-lane").await;
    let (url, _) = through(&database.url(), thief.port());
    let server = Backend::Postgres(database).start_with(&[("TASKCAST_POSTGRES_URL", &url)]).await;
    server.running_task().await;

    for n in 0..6 {
        thief.steal_one();
        server.post("/tasks", json!({"id": format!("t{n}")})).await.expect(201);
        thief.steal_one();
        server.delete(&format!("/tasks/t{n}")).await.expect(204);
        server.get(&format!("/tasks/t{n}")).await.refused(404, "task_not_found");
    }
    assert!(thief.stolen() > 0);
}
