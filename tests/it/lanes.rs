//! Instances that were taken for dead, and ids that change hands beside writers.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::support::postgres::Database;
use crate::support::{Backend, until};

/// Retires every lane that was not heard of for `silent_ms`, as an instance
/// does, and removes what is left of those retired before.
async fn retire_all(admin: &mut PgConnection) {
    let reap = include_str!("../../sql/write/reap.sql");
    let bury = include_str!("../../sql/write/bury.sql");
    // By clocks that are set to long ago.
    for statement in [
        "UPDATE taskcast.lane_heartbeat SET seen_at = 0",
        "UPDATE taskcast.receipt SET at = 0",
        &reap.replace("$1", "600000"),
        "UPDATE taskcast.retired_lane SET at = 0",
        &bury.replace("$1", "60000"),
    ] {
        admin.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    }
}

async fn an_instance_is_retired_while_it_is_suspended(environment: &[(&str, &str)]) {
    let database = Database::migrated().await;
    let backend = Backend::Postgres(database.clone());
    let (suspended, other) =
        tokio::join!(backend.start_with(environment), backend.start_with(environment));
    let id = suspended.running_task().await;
    suspended.publish(&id, json!({"type": "before"})).await;
    suspended.pause();
    retire_all(&mut database.connect().await).await;
    suspended.unpause();
    let events = |server: &crate::support::server::Server| {
        let (server, request) =
            (server.clone(), server.request(Method::GET, "/events?types=after"));
        async move { server.open(request).await }
    };
    let (mut here, mut there) = tokio::join!(events(&suspended), events(&other));
    let mut single = other.stream(&id, "?types=after").await;
    for n in 0..5 {
        suspended.publish(&id, json!({"type": "after", "data": n})).await;
    }
    for stream in [&mut here, &mut there, &mut single] {
        let seen: Vec<_> = stream.take(5).await.iter().map(|frame| frame.get("data")).collect();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_writes_after_it_was_retired_is_seen_everywhere() {
    an_instance_is_retired_while_it_is_suspended(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_retired_instance_writes_is_seen_without_wakes_too() {
    let environment = [("TASKCAST_POSTGRES__LISTEN", "false")];
    an_instance_is_retired_while_it_is_suspended(&environment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_change_hands_beside_writers_fail_no_request() {
    let backend = Backend::postgres().await;
    let (first, second) = backend.start_two().await;
    let ids: Vec<String> = (0..4).map(|n| format!("task-{n}")).collect();
    for id in &ids {
        first.create(json!({"id": id})).await;
    }
    let worker = |n: usize| {
        let (server, ids) =
            (if n.is_multiple_of(2) { first.clone() } else { second.clone() }, ids.clone());
        async move {
            let mut failures = Vec::new();
            for round in 0..60 {
                let id = &ids[(n + round) % ids.len()];
                let task = format!("/tasks/{id}");
                let (running, event) = (json!({"status": "running"}), json!({"type": "n"}));
                let request = match (n / 2 + round) % 5 {
                    0 => server.request(Method::DELETE, &task),
                    1 => server.json(Method::POST, "/tasks", json!({"id": id})),
                    2 => server.json(Method::PATCH, &format!("{task}/status"), running),
                    _ => server.json(Method::POST, &format!("{task}/events"), event),
                };
                let reply = server.send(request).await;
                if reply.status >= 500 {
                    failures.push(reply.text);
                }
            }
            failures
        }
    };
    let failures: Vec<String> = join_all((0..24).map(worker)).await.concat();
    assert!(failures.is_empty(), "{} of 1440: {:?}", failures.len(), failures.first());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_cannot_be_ended_hold_up_no_deadline() {
    let database = Database::migrated().await;
    let backend = Backend::Postgres(database.clone());
    let server = backend.start().await;
    let stuck = (0..110).map(|n| server.create(json!({"id": format!("stuck-{n}"), "ttl": 1})));
    join_all(stuck).await;
    database
        .execute(
            "CREATE SEQUENCE public.attempts;
             CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 PERFORM nextval('public.attempts');
                 RAISE EXCEPTION 'stuck' USING ERRCODE = '22023';
             END
             $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON taskcast.head FOR EACH ROW
             WHEN (OLD.task <= 110) EXECUTE FUNCTION public.refuse();",
        )
        .await;
    server.create(json!({"id": "free", "ttl": 1})).await;
    until("the task behind those that are stuck ends", || async {
        (server.task("free").await["status"] == "timeout").then_some(())
    })
    .await;
    let mut admin = database.connect().await;
    let attempts: i64 = sqlx::query_scalar("SELECT last_value FROM public.attempts")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(attempts < 3_000, "{attempts} attempts at tasks that cannot be ended");
}
