//! The numbers of a server, as a collector sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use reqwest::Method;
use serde_json::json;
use sqlx::Executor as _;

use crate::support::postgres::Database;
use crate::support::server::Server;
use crate::support::{Backend, on_every_store, until};

on_every_store![what_is_written_and_streamed_is_counted];

/// Returns the samples of a server: the whole part of the value of each name
/// with its labels.
async fn scrape(server: &Server) -> BTreeMap<String, u64> {
    let reply = server.get("/metrics").await.expect(200);
    assert_eq!(
        reply.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(reply.text.ends_with("# EOF\n"), "{}", reply.text);
    let samples = reply.text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let whole = value.split('.').next().unwrap_or(value);
            // What is far below one is written with an exponent.
            (name.to_owned(), whole.parse().unwrap_or(0))
        })
        .collect()
}

/// Returns the name a metric is documented by.
fn documented_name(line: &str) -> Option<String> {
    let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
    Some(match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_lists_exactly_what_is_exposed() {
    let server = Backend::Memory.start().await;
    server.running_task().await;
    let exposed: BTreeSet<String> =
        server.get("/metrics").await.text.lines().filter_map(documented_name).collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    // Keys of the configuration have points in their names, metrics have none.
    let rows = rows.filter(|(name, _)| !name.contains('.'));
    let documented: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(documented, exposed);
    for line in page.lines().filter(|line| line.contains("taskcast_")) {
        for word in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            let known = exposed.contains(word) || base.is_some_and(|base| exposed.contains(base));
            assert!(!word.starts_with("taskcast_") || known, "{word} is exposed nowhere");
        }
    }
}

async fn what_is_written_and_streamed_is_counted(backend: Backend) {
    let is_postgres = matches!(backend, Backend::Postgres(_));
    let server = backend.start().await;
    let id = server.running_task().await;
    let mut stream = server.stream(&id, "").await;
    stream.one().await;
    server.publish(&id, json!([{"type": "a", "data": 1}, {"type": "b", "data": 2}])).await;
    stream.take(2).await;
    server.get("/tasks/none").await.expect(404);
    server.patch(&format!("/tasks/{id}/status"), r#"{"status":"pending"}"#).await.expect(409);

    let seen = scrape(&server).await;
    let value = |name: &str| *seen.get(name).unwrap_or_else(|| panic!("{name} in {seen:#?}"));
    assert_eq!(value("taskcast_appends_total{kind=\"publish\",outcome=\"accepted\"}"), 1);
    assert_eq!(value("taskcast_appends_total{kind=\"transition\",outcome=\"refused\"}"), 1);
    assert_eq!(value("taskcast_appended_events_total"), 3);
    assert_eq!(value("taskcast_tasks_created_total"), 1);
    assert_eq!(value("taskcast_transitions_total{to=\"running\"}"), 1);
    assert_eq!(value("taskcast_streams_open{stream=\"task\"}"), 1);
    assert_eq!(value("taskcast_frames_sent_total{stream=\"task\"}"), 3);
    assert!(value("taskcast_stream_bytes_total{stream=\"task\"}") > 300);
    let lags = value("taskcast_delivery_lag_seconds_count{stream=\"task\"}");
    assert!((1..=2).contains(&lags), "what was there before the reader is no news: {lags}");
    let requests =
        "taskcast_http_requests_total{method=\"GET\",route=\"/tasks/{id}\",status=\"4xx\"}";
    assert_eq!(value(requests), 1);
    assert!(value("process_resident_memory_bytes") > 1_000_000);
    let state = if is_postgres { "healthy" } else { "local" };
    until("the listener's state shows", || async {
        let name = format!("taskcast_listener_state{{state=\"{state}\"}}");
        (scrape(&server).await[&name] == 1).then_some(())
    })
    .await;
    if is_postgres {
        // The refused one is in no batch; the first transition and the publish are.
        assert_eq!(value("taskcast_batch_events_sum{lane=\"append\"}"), 3);
        assert_eq!(value("taskcast_batch_requests_sum{lane=\"create\"}"), 1);
        assert_eq!(value("taskcast_commit_seconds_count{lane=\"append\"}"), 2);
        assert!(value("taskcast_queue_wait_seconds_count") >= 3);
        assert!(value("taskcast_pool_connections{state=\"idle\"}") >= 1);
    }
    server.enter(&id, "completed").await;
    stream.rest().await;
    until("the end of the stream is counted", || async {
        let seen = scrape(&server).await;
        let done = seen["taskcast_streams_closed_total{stream=\"task\",reason=\"done\"}"];
        (done == 1 && seen["taskcast_streams_open{stream=\"task\"}"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wakes_and_what_only_the_poll_found_are_told_apart() {
    let backend = Backend::postgres().await;
    let (teller, hearer) = (backend.start().await, backend.start().await);
    let deaf = backend.start_with(&[("TASKCAST_POSTGRES__LISTEN", "false")]).await;
    let id = teller.running_task().await;
    let mut streams = [hearer.stream(&id, "").await, deaf.stream(&id, "").await];
    for stream in &mut streams {
        stream.one().await;
    }
    teller.publish(&id, json!({"type": "n", "data": 1})).await;
    for stream in &mut streams {
        stream.one().await;
    }
    let total = async |server: &Server, name: &str| scrape(server).await[name];
    until("the wake is counted where it was sent", || async {
        (total(&teller, "taskcast_wakes_sent_total").await > 0).then_some(())
    })
    .await;
    until("the wake is counted where it was heard", || async {
        (total(&hearer, "taskcast_wakes_received_total").await > 0).then_some(())
    })
    .await;
    until("the poll's finding is counted", || async {
        (total(&deaf, "taskcast_poll_hits_total").await >= 1).then_some(())
    })
    .await;
    assert_eq!(total(&deaf, "taskcast_listener_state{state=\"deaf\"}").await, 1);
    assert_eq!(total(&deaf, "taskcast_wakes_received_total").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_and_readers_that_start_late_are_counted() {
    let server = Backend::Memory.start().await;
    server.create(json!({"id": "t", "ttl": 1})).await;
    server.enter("t", "running").await;
    until("the deadline is counted", || async {
        (scrape(&server).await["taskcast_deadlines_enforced_total"] == 1).then_some(())
    })
    .await;
    server.stream("t", "").await.rest().await;
    assert!(scrape(&server).await["taskcast_catch_up_reads_total{read=\"page\"}"] >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numbers_can_be_kept_to_those_with_a_token() {
    let server = Backend::Memory.start_with(&[("TASKCAST_METRICS__TOKEN", "canary-token")]).await;
    let refused = server.get("/metrics").await;
    assert!(refused.header("www-authenticate").starts_with("Bearer"));
    refused.refused(401, "unauthorized");
    let with = |token: &str| server.request(Method::GET, "/metrics").bearer_auth(token);
    server.send(with("wrong")).await.refused(401, "unauthorized");
    server.send(with("canary-token")).await.expect(200);
    let head = server.request(Method::HEAD, "/metrics").bearer_auth("canary-token");
    assert_eq!(server.send(head).await.expect(200).text, "");
    server.post("/metrics", "{}").await.refused(405, "method_not_allowed");
    server.get("/health").await.expect(200);
    assert!(!server.log().text().contains("canary-token"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_that_are_switched_off_are_not_there() {
    let server = Backend::Memory.start_with(&[("TASKCAST_METRICS__ENABLED", "false")]).await;
    server.get("/metrics").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_take_nothing_from_callers() {
    let server = Backend::Memory.start().await;
    let before = scrape(&server).await.len();
    for n in 0..20 {
        server.get(&format!("/tasks/none-{n}?token=canary")).await;
        server.get(&format!("/nowhere/canary-{n}")).await;
        let method = Method::from_bytes(format!("CANARY{n}").as_bytes()).unwrap();
        server.send(server.request(method, "/tasks")).await;
    }
    let after = scrape(&server).await;
    assert!(after.keys().all(|name| !name.to_lowercase().contains("canary")), "{after:#?}");
    // Three routes were asked for, and so was this one.
    assert!(after.len() - before < 100, "{} new series", after.len() - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_snapshot_in_the_database_shows() {
    let database = Database::migrated().await;
    let mut holder = database.connect().await;
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    holder.execute("SELECT count(*) FROM taskcast.event").await.unwrap();
    for lane in 1..=3 {
        database.execute(&format!("INSERT INTO taskcast.retired_lane VALUES ({lane}, 0)")).await;
    }
    let server = Backend::Postgres(database).start().await;
    until("the server has looked for old snapshots", || async {
        let samples = scrape(&server).await;
        (samples["taskcast_oldest_snapshot_transactions"] >= 3).then_some(())
    })
    .await;
    assert!(scrape(&server).await.contains_key("taskcast_oldest_snapshot_seconds"));
    holder.execute("ROLLBACK").await.unwrap();
}
