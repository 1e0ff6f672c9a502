//! F19 and F20: the server at the other end of the sessions is not the primary
//! any more, or takes no writes.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use sqlx::Executor as _;

use super::{Load, Scenario, Shape, each_seed};
use crate::support::client::Client;
use crate::support::place::Place;
use crate::support::private_postgres::PrivatePostgres;
use crate::support::{Backend, until};

/// How long a write is tried, in milliseconds.
const WRITE_TIMEOUT_MS: u64 = 2_000;

/// What a write may take after the fault is over, beyond that time.
const GRACE: Duration = Duration::from_secs(2);

const WRITE_TIMEOUT: (&str, &str) = ("TASKCAST_POSTGRES__WRITE_TIMEOUT_MS", "2000");

/// Waits until `/health/ready` of every server has this status.
async fn until_ready_is(scenario: &Scenario, status: u16) {
    for instance in scenario.instances() {
        until("readiness changes", || async {
            (instance.server().get("/health/ready").await.status == status).then_some(())
        })
        .await;
    }
}

/// F19: a switchover. The primary comes back as a standby, where the servers'
/// sessions end up; then another standby is promoted and the address moves
/// there, while the old sessions stay open. Bounded: appends to every task
/// return within the write timeout and 2 s of the switch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f19_after_a_switchover_everything_moves_to_the_new_primary() {
    each_seed("F19", async |seed| {
        let (name, value) = WRITE_TIMEOUT;
        let shape = Shape::of(2).private_postgres().environment(name, value);
        let mut scenario = Scenario::start(seed, shape).await;
        let standby = scenario.postgres().standby().await;
        scenario.load(Load { rate: 120, ..Load::default() }).await;
        scenario.acknowledge(100).await;
        scenario.demote_postgres().await;
        until_ready_is(&scenario, 503).await;
        // About one of each producer.
        scenario.answer(30).await;
        standby.promote().await;
        let switched = Instant::now();
        scenario.lead_to(standby.port());
        until_ready_is(&scenario, 200).await;
        scenario.acknowledge(200).await;
        let verdict = scenario.settle().await;
        verdict.assert_base();
        assert!(verdict.refused() > 10, "the outage was noticed; {verdict}");
        assert_eq!(verdict.failed(), 0, "{verdict}");
        let limit = Duration::from_millis(WRITE_TIMEOUT_MS) + GRACE;
        verdict.assert_resumed_within(switched, limit);
    })
    .await;
}

async fn set_read_only(admin: &mut sqlx::PgConnection, is_on: bool) {
    let is_on = if is_on { "on" } else { "off" };
    let set = format!("ALTER SYSTEM SET default_transaction_read_only = {is_on}");
    admin.execute(sqlx::AssertSqlSafe(set)).await.unwrap();
    admin.execute("SELECT pg_reload_conf()").await.unwrap();
}

/// F20: the database turns read-only, as managed services make it when a disk
/// is full. Writes are refused as unavailable, reads are served, the server is
/// not ready, and no other starts. Bounded: the first write is taken within
/// the write timeout and 2 s of its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_a_database_that_turns_read_only_is_unavailable_for_writes() {
    let postgres = PrivatePostgres::start().await;
    let database = postgres.database().await;
    let mut admin = postgres.admin().await;
    let backend = Backend::Postgres(database.clone());
    let server = backend.start_with(&[WRITE_TIMEOUT]).await;
    let id = server.running_task().await;
    server.publish(&id, json!({"type": "n"})).await;
    set_read_only(&mut admin, true).await;
    until("the server is not ready", || async {
        (server.get("/health/ready").await.status == 503).then_some(())
    })
    .await;
    for reply in every_write(&server, &id).await {
        reply.refused(503, "store_unavailable");
        assert!(!reply.header("retry-after").is_empty());
    }
    server.task(&id).await;
    assert_eq!(server.history(&id, "?types=n").await.len(), 1);
    let place = Place::new().env("TASKCAST_POSTGRES_URL", database.url());
    place.refused("serve --port 0", &["read-only"]).await;
    set_read_only(&mut admin, false).await;
    let began = Instant::now();
    until("a write is taken", || async {
        let reply = server.post(&format!("/tasks/{id}/events"), json!({"type": "n"})).await;
        assert_ne!(reply.status, 500, "{}", reply.text);
        (reply.status == 201).then_some(())
    })
    .await;
    let took = began.elapsed();
    assert!(took < Duration::from_millis(WRITE_TIMEOUT_MS) + GRACE, "{took:?}");
    until("the server is ready", || async {
        (server.get("/health/ready").await.status == 200).then_some(())
    })
    .await;
}

/// Sends each kind of write at once.
async fn every_write(server: &Client, id: &str) -> Vec<crate::support::client::Reply> {
    let task = format!("/tasks/{id}");
    let writes = [
        server.json(Method::POST, "/tasks", "{}"),
        server.json(Method::POST, &format!("{task}/events"), json!({"type": "n"})),
        server.json(Method::PATCH, &format!("{task}/status"), json!({"status": "completed"})),
        server.request(Method::DELETE, &task),
    ];
    futures_util::future::join_all(writes.map(|write| server.send(write))).await
}
