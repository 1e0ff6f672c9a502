//! The one shape of errors, and failures of the store behind the server.

use reqwest::Method;
use serde_json::json;

use super::plain;
use crate::support::client::{Reply, text_of};
use crate::support::server::Server;
use crate::support::{Backend, on_every_store, until};

on_every_store![
    every_error_has_the_one_shape,
    a_failing_store_is_503_without_a_word_of_its_driver,
    service_returns_when_the_store_does,
    sentences_begin_with_what_users_of_the_sdks_know,
];

/// Rules: H37, H62
async fn sentences_begin_with_what_users_of_the_sdks_know(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let says = |reply: Reply, beginning: &str| {
        let sentence = text_of(&reply.json()["error"]);
        assert!(sentence.starts_with(beginning), "{sentence}");
    };
    says(server.post("/tasks", json!({"id": id})).await, &format!("Task already exists: {id}"));
    says(server.get("/tasks/nobody").await, "Task not found: nobody");
    says(server.delete("/tasks/nobody").await, "Task not found: nobody");
    says(server.post("/tasks/nobody/events", plain("a", 1)).await, "Task not found: nobody");
    let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
    let body = json!({"status": "running"});
    says(server.patch("/tasks/nobody/status", &body).await, "Task not found: nobody");
    server.enter(&id, "completed").await;
    let reply = server.patch(&status, &body).await;
    says(reply, "Invalid transition: completed \u{2192} running");
    let reply = server.post(&events, plain("a", 1)).await;
    says(reply, "Cannot publish to task in terminal status: completed");
    // Words for states to come are known, and match nothing yet.
    let page = server.get("/tasks?status=paused,assigned,blocked").await.expect(200).json();
    assert_eq!(page["tasks"], json!([]));
    server.create(json!({"id": "-_nanoid"})).await;
}

/// Rules: H16
async fn every_error_has_the_one_shape(backend: Backend) {
    let server = backend.start_with(&[("TASKCAST_LIMITS__BODY_BYTES", "1000")]).await;
    let id = server.running_task().await;
    let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
    server.post("/tasks", "{").await.refused(400, "invalid_json");
    server.post("/tasks", json!({"ttl": 0})).await.refused_at(400, "invalid_request", "/ttl");
    server.get("/nowhere").await.refused(404, "not_found");
    server.get("/tasks/nobody").await.refused(404, "task_not_found");
    server.delete("/health").await.refused(405, "method_not_allowed");
    server.post("/tasks", json!({"id": id})).await.refused(409, "task_exists");
    server.patch(&status, json!({"status": "pending"})).await.refused(409, "invalid_transition");
    server.post(&events, plain("a", "x".repeat(1_000))).await.refused(413, "payload_too_large");
    server
        .send(server.request(Method::POST, "/tasks").body("{}"))
        .await
        .refused(415, "unsupported_media_type");
    server.post(&events, json!({"type": "a", "seriesMode": "latest"})).await.refused_at(
        400,
        "invalid_request",
        "/seriesMode",
    );
    server.enter(&id, "completed").await;
    server.post(&events, plain("a", 1)).await.refused(400, "task_closed");
    server.get("/tasks/nobody/events").await.refused(404, "task_not_found");
}

/// Makes the store of a server fail for whoever writes.
async fn break_store(backend: &Backend, server: &Server) {
    match backend {
        Backend::Postgres(database) => database.shut_out().await,
        Backend::Memory => {
            // Unfinished tasks are never dropped, so the store fills up.
            until("the store is full", || async {
                let big = json!({"params": {"p": "x".repeat(20_000)}});
                (server.post("/tasks", big).await.status != 201).then_some(())
            })
            .await;
        }
    }
}

fn little_memory(backend: &Backend) -> &'static [(&'static str, &'static str)] {
    match backend {
        Backend::Memory => &[("TASKCAST_MEMORY__MAX_BYTES", "200000")],
        Backend::Postgres(_) => &[("TASKCAST_POSTGRES__WRITE_TIMEOUT_MS", "1000")],
    }
}

/// Rules: H17, H18
async fn a_failing_store_is_503_without_a_word_of_its_driver(backend: Backend) {
    let server = backend.start_with(little_memory(&backend)).await;
    let id = server.new_task().await;
    break_store(&backend, &server).await;
    let big = "x".repeat(100_000);
    let (task, events) = (format!("/tasks/{id}"), format!("/tasks/{id}/events"));
    let writes = [
        server.post("/tasks", json!({"params": {"p": big}})).await,
        server.post(&events, plain("a", big.as_str())).await,
    ];
    let mut replies: Vec<(Reply, &[&str])> = Vec::new();
    match &backend {
        Backend::Memory => replies.extend(writes.map(|reply| (reply, &["store_full"][..]))),
        Backend::Postgres(_) => {
            // A write that was on its way when the connection broke may have happened.
            const CODES: [&str; 2] = ["store_unavailable", "outcome_unknown"];
            replies.extend(writes.map(|reply| (reply, &CODES[..])));
            replies.push((server.delete(&task).await, &CODES));
            for path in [&task, "/tasks", &format!("{events}/history")] {
                replies.push((server.get(path).await, &CODES[..1]));
            }
        }
    }
    for (reply, codes) in replies {
        let code = text_of(&reply.json()["code"]);
        assert!(codes.contains(&code.as_str()), "{}", reply.text);
        reply.refused(503, &code);
        let wait: u64 = reply.header("retry-after").parse().expect("whole seconds");
        assert!(wait > 0);
        let text = reply.text.to_lowercase();
        for word in
            ["postgres", "sqlx", "connection", "taskcast_test", "127.0.0.1", "tcp", "sql", "pool"]
        {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
}

/// Rules: H18, H39, H40
async fn service_returns_when_the_store_does(backend: Backend) {
    let server = backend.start_with(little_memory(&backend)).await;
    let id = server.running_task().await;
    server.publish(&id, plain("before", 1)).await;
    break_store(&backend, &server).await;
    let health = server.get("/health").await.expect(200).json();
    assert_eq!(health["ok"], true);
    match &backend {
        Backend::Memory => {
            server.get("/health/ready").await.expect(200);
            // Finished tasks make room, so an end is always possible.
            server.enter(&id, "completed").await;
            assert_eq!(server.history(&id, "").await.len(), 3);
        }
        Backend::Postgres(database) => {
            let unready = until("the server is not ready", || async {
                let reply = server.get("/health/ready").await;
                (reply.status == 503).then_some(reply)
            })
            .await;
            assert_eq!(unready.json()["ok"], false);
            assert_ne!(unready.json()["dependencies"]["database"]["state"], "ok");
            database.let_in().await;
            until("the server is ready again", || async {
                (server.get("/health/ready").await.status == 200).then_some(())
            })
            .await;
            until("an event can be published again", || async {
                let reply = server.post(&format!("/tasks/{id}/events"), plain("after", 1)).await;
                (reply.status == 201).then_some(())
            })
            .await;
            let types = crate::support::client::column(&server.history(&id, "").await, "type");
            assert_eq!(types, ["taskcast:status", "before", "after"]);
        }
    }
}
