//! Sessions of the database that die while they are idle, and defaults that
//! somebody has changed.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::support::client::{Client, column};
use crate::support::pooler::Pooler;
use crate::support::postgres::Database;
use crate::support::server::Server;
use crate::support::sse::Frame;
use crate::support::{Backend, until};

/// What Postgres calls the sessions that read.
const READ: &str = "taskcast-read";

/// Sessions that a server has for reading.
const READ_SESSIONS: i64 = 6;

/// Counts sessions, by way of another database, whose settings are as usual.
async fn sessions(database: &Database, condition: &str) -> i64 {
    let mut admin = database.connect_beside().await;
    let count = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND {condition}",
        database.name()
    );
    sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut admin).await.unwrap()
}

/// Makes a server open every session that it may have for reading.
async fn fill_the_pool(server: &Server, database: &Database, id: &str) {
    let path = format!("/tasks/{id}/events/history");
    until("all sessions for reading are open", || async {
        join_all((0..48).map(|_| server.get(&path))).await;
        let condition = format!("application_name = '{READ}'");
        (sessions(database, &condition).await == READ_SESSIONS).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_for_idle_sessions_that_died() {
    let database = Database::migrated().await;
    let backend = Backend::Postgres(database.clone());
    let server = backend.start_with(&[("TASKCAST_WEBHOOK__ALLOW_PRIVATE_TARGETS", "true")]).await;
    let id = server.running_task().await;
    let hook = json!({"webhooks": [{"url": "http://127.0.0.1:9/"}]});
    let hooked = server.create(hook).await["id"].as_str().unwrap().to_owned();
    server.publish(&id, json!({"type": "n"})).await;
    for _ in 0..2 {
        fill_the_pool(&server, &database, &id).await;
        let doomed = [server.new_task().await, server.new_task().await];
        let ended = database.terminate_application(READ).await;
        assert_eq!(i64::try_from(ended).unwrap(), READ_SESSIONS);
        let get = |path: String| server.request(Method::GET, &path);
        let running = json!({"status": "running"});
        let requests = vec![
            get(format!("/tasks/{id}")),
            get(format!("/tasks/{id}/events/history")),
            get("/tasks".to_owned()),
            get("/health/ready".to_owned()),
            get(format!("/tasks/{hooked}/webhooks")),
            server.json(Method::PATCH, &format!("/tasks/{}/status", doomed[0]), running),
            server.request(Method::DELETE, &format!("/tasks/{}", doomed[1])),
            get(format!("/tasks/{id}")),
            get("/health/ready".to_owned()),
            get("/tasks?status=running".to_owned()),
        ];
        // One after another, so that each meets an idle session.
        let mut statuses = Vec::new();
        for request in requests {
            statuses.push(server.send(request).await.status);
        }
        assert!(statuses.iter().all(|status| *status < 300), "{statuses:?}");
        assert_eq!(server.stream(&id, "").await.one().await.get("type"), "taskcast:status");
    }
}

/// What a role or a database may have changed, each to what hurts most.
const CHANGED: [(&str, &str); 44] = [
    ("search_path", "'nowhere'"),
    ("statement_timeout", "'1s'"),
    ("lock_timeout", "'1ms'"),
    ("idle_in_transaction_session_timeout", "'1ms'"),
    ("idle_session_timeout", "'300ms'"),
    ("transaction_timeout", "'1s'"),
    ("default_transaction_isolation", "'serializable'"),
    ("default_transaction_deferrable", "on"),
    ("synchronous_commit", "local"),
    ("\"DateStyle\"", "'German, DMY'"),
    ("\"IntervalStyle\"", "'iso_8601'"),
    ("\"TimeZone\"", "'Asia/Kathmandu'"),
    ("bytea_output", "'escape'"),
    ("extra_float_digits", "-15"),
    ("standard_conforming_strings", "off"),
    ("escape_string_warning", "on"),
    ("backslash_quote", "off"),
    ("transform_null_equals", "on"),
    ("array_nulls", "off"),
    ("client_min_messages", "debug1"),
    ("lc_messages", "'C'"),
    ("row_security", "off"),
    ("exit_on_error", "on"),
    ("quote_all_identifiers", "on"),
    ("gin_fuzzy_search_limit", "1"),
    ("jit", "on"),
    ("jit_above_cost", "0"),
    ("plan_cache_mode", "'force_custom_plan'"),
    ("enable_seqscan", "on"),
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_tidscan", "off"),
    ("enable_nestloop", "off"),
    ("enable_hashjoin", "off"),
    ("enable_hashagg", "off"),
    ("enable_mergejoin", "off"),
    ("enable_sort", "off"),
    ("enable_material", "off"),
    ("random_page_cost", "1000"),
    ("parallel_setup_cost", "0"),
    ("max_parallel_workers_per_gather", "4"),
    ("constraint_exclusion", "on"),
    ("join_collapse_limit", "1"),
];

/// Changes settings for the database and for the role in it.
async fn change_every_setting(database: &Database) {
    let mut admin = database.connect().await;
    let name = database.name();
    for (setting, value) in CHANGED {
        for whose in [format!("DATABASE {name}"), format!("ROLE CURRENT_USER IN DATABASE {name}")] {
            let alter = format!("ALTER {whose} SET {setting} = {value}");
            match admin.execute(AssertSqlSafe(alter.clone())).await {
                // Older servers do not know all of them.
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42704") => {}
                outcome => drop(outcome.unwrap_or_else(|error| panic!("{alter}: {error}"))),
            }
        }
    }
}

/// Works on tasks by way of both servers; every request has to succeed.
async fn work(first: &Client, second: &Client, round: usize) {
    let tasks = (0..6).map(|n| async move {
        let tags = json!([format!("round-{round}"), "all"]);
        let task = first.create(json!({"tags": tags, "ttl": 600})).await;
        let id = task["id"].as_str().unwrap().to_owned();
        first.enter(&id, "running").await;
        let mut stream = second.stream(&id, "").await;
        for event in 0..10 {
            let server = if event % 3 == n % 3 { second } else { first };
            let data = json!({"text": format!("{event}")});
            let plain = json!({"type": "n", "data": {"null": null, "text": "\\ '"}});
            let delta =
                json!({"type": "d", "seriesId": "s", "seriesMode": "accumulate", "data": data});
            server.publish(&id, json!([plain, delta])).await;
        }
        first.enter(&id, "completed").await;
        let done = stream.up_to(Frame::is_done).await;
        assert_eq!(done.len(), 23, "22 events and the end");
        let text = second.history(&id, "?seriesFormat=accumulated&types=d").await;
        assert_eq!(column(&text, "data"), [json!({"text": "0123456789"})]);
    });
    join_all(tasks).await;
    for query in ["tag=all", &format!("tag=round-{round}"), "status=completed&tag=all"] {
        let page = second.get(&format!("/tasks?{query}")).await.expect(200).json();
        assert!(page["tasks"].as_array().unwrap().len() >= 6, "{query}: {page}");
    }
}

/// Returns what a server warned of.
fn warnings(server: &Server) -> Vec<Value> {
    // A loaded machine is slow, whatever the settings.
    let is_slow = |line: &Value| line["message"].as_str().unwrap_or("").starts_with("slow ");
    let is_warning =
        |line: &Value| (line["level"] == "WARN" || line["level"] == "ERROR") && !is_slow(line);
    server.log().entries().into_iter().filter(is_warning).collect()
}

async fn a_load_runs_clean(database: &Database, environment: &[(&str, &str)]) {
    let backend = Backend::Postgres(database.clone());
    let (first, second) =
        tokio::join!(backend.start_with(environment), backend.start_with(environment));
    let before = [warnings(&first), warnings(&second)];
    work(&first, &second, 1).await;
    // Longer than an idle session would live by default.
    until("sessions that idle are not ended", || async {
        let lasting = "application_name = 'taskcast-listener' \
                       AND backend_start < now() - interval '1 second'";
        (sessions(database, lasting).await == 2).then_some(())
    })
    .await;
    work(&first, &second, 2).await;
    assert_eq!([warnings(&first), warnings(&second)], before);
    for server in [&first, &second] {
        let listener = &server.get("/health/detail").await.expect(200).json()["listener"];
        assert_eq!(listener["restarts"], 0, "{listener}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_default_of_a_role_or_a_database_matters() {
    let database = Database::migrated().await;
    change_every_setting(&database).await;
    a_load_runs_clean(&database, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_no_default_of_a_role_or_a_database_matters() {
    let database = Database::migrated().await;
    change_every_setting(&database).await;
    let (direct, pooler) = (database.url(), Pooler::start(&database.url()).await);
    let pooled = pooler.url();
    let environment =
        [("TASKCAST_POSTGRES_URL", &*pooled), ("TASKCAST_POSTGRES_DIRECT_URL", &*direct)];
    a_load_runs_clean(&database, &environment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_run_whatever_a_role_or_a_database_has_set() {
    let database = Database::empty().await;
    change_every_setting(&database).await;
    let place = crate::support::place::Place::new().env("TASKCAST_POSTGRES_URL", database.url());
    let ended = place.run("migrate").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
