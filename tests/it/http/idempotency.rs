//! Requests that are sent again.

use reqwest::Method;
use serde_json::{Value, json};

use super::plain;
use crate::support::client::{Client, Reply};
use crate::support::{Backend, on_every_store};

on_every_store![
    a_key_that_is_none_is_refused,
    a_repeat_is_answered_as_the_first_request_was,
    a_repeat_is_answered_after_the_task_finished,
    a_key_with_another_body_is_a_conflict,
    a_refused_request_leaves_no_key,
    a_key_belongs_to_its_route_and_task,
];

async fn send(client: &Client, method: Method, path: &str, key: &str, body: &Value) -> Reply {
    client.send(client.json(method, path, body).header("Idempotency-Key", key)).await
}

fn is_replay(reply: &Reply) -> bool {
    reply.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// Rules: H82
async fn a_key_that_is_none_is_refused(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let long = "k".repeat(256);
    let requests = || {
        [
            server.json(Method::POST, "/tasks", json!({"id": "refused"})),
            server.json(Method::POST, &format!("/tasks/{id}/events"), plain("a", 1)),
            server.json(
                Method::PATCH,
                &format!("/tasks/{id}/status"),
                json!({"status": "running"}),
            ),
        ]
    };
    for key in ["", "a b", "a\u{e9}", &long] {
        for request in requests() {
            let reply = server.send(request.header("Idempotency-Key", key.as_bytes())).await;
            reply.refused_at(400, "invalid_request", "/headers/Idempotency-Key");
        }
    }
    for request in requests() {
        let twice = request.header("Idempotency-Key", "a").header("Idempotency-Key", "b");
        server.send(twice).await.refused_at(400, "invalid_request", "/headers/Idempotency-Key");
    }
    server.get("/tasks/refused").await.refused(404, "task_not_found");
    assert!(server.history(&id, "").await.is_empty());
    let longest = "k".repeat(255);
    send(&server, Method::POST, "/tasks", &longest, &json!({"id": "taken"})).await.expect(201);
}

/// Rules: H83
async fn a_repeat_is_answered_as_the_first_request_was(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let create = json!({"type": "t", "params": {"n": 1.0}});
    let created = send(&first, Method::POST, "/tasks", "c", &create).await.expect(201);
    assert!(!is_replay(&created));
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
    let requests = [
        (Method::PATCH, &status, "s", json!({"status": "running"}), 200),
        (Method::POST, &events, "e", json!([plain("a", 1), plain("b", 2)]), 201),
        (Method::POST, &events, "f", plain("c", 3), 201),
    ];
    let mut answers = Vec::new();
    for (method, path, key, body, expected) in &requests {
        let answer = send(&first, method.clone(), path, key, body).await.expect(*expected);
        assert!(!is_replay(&answer));
        answers.push(answer);
    }
    for server in [&first, &second] {
        let again = send(server, Method::POST, "/tasks", "c", &create).await.expect(201);
        assert!(is_replay(&again));
        assert_eq!(again.text, created.text);
        for ((method, path, key, body, expected), answer) in requests.iter().zip(&answers) {
            let again = send(server, method.clone(), path, key, body).await.expect(*expected);
            assert!(is_replay(&again), "{key}");
            assert_eq!(again.text, answer.text, "{key}");
        }
    }
    assert_eq!(first.history(&id, "").await.len(), 4);
}

/// Rules: H83
async fn a_repeat_is_answered_after_the_task_finished(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
    let last = send(&server, Method::POST, &events, "e", &plain("last", 1)).await.expect(201);
    let end = json!({"status": "completed", "result": {"n": 1}});
    let ended = send(&server, Method::PATCH, &status, "s", &end).await.expect(200);
    let again = send(&server, Method::POST, &events, "e", &plain("last", 1)).await.expect(201);
    assert_eq!((again.text == last.text, is_replay(&again)), (true, true));
    let again = send(&server, Method::PATCH, &status, "s", &end).await.expect(200);
    assert_eq!((again.text == ended.text, is_replay(&again)), (true, true));
    assert_eq!(server.history(&id, "").await.len(), 3);
}

/// Rules: H84
async fn a_key_with_another_body_is_a_conflict(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
    send(&server, Method::POST, "/tasks", "k", &json!({"id": "one"})).await.expect(201);
    send(&server, Method::POST, &events, "k", &plain("a", 1)).await.expect(201);
    send(&server, Method::PATCH, &status, "k", &json!({"status": "completed"})).await.expect(200);
    for (method, path, body) in [
        (Method::POST, "/tasks", json!({"id": "two"})),
        (Method::POST, &events, plain("a", 2)),
        (Method::PATCH, &status, json!({"status": "failed"})),
    ] {
        let reply = send(&server, method, path, "k", &body).await;
        reply.refused_at(409, "idempotency_conflict", "/headers/Idempotency-Key");
    }
    server.get("/tasks/two").await.refused(404, "task_not_found");
    assert_eq!(server.history(&id, "").await.len(), 3);
}

/// Rules: H85
async fn a_refused_request_leaves_no_key(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
    let end = json!({"status": "completed"});
    send(&server, Method::PATCH, &status, "k", &end).await.refused(409, "invalid_transition");
    send(&server, Method::POST, &events, "k", &json!([])).await.expect(201);
    server.enter(&id, "running").await;
    assert!(!is_replay(&send(&server, Method::PATCH, &status, "k", &end).await.expect(200)));
    let reply = send(&server, Method::POST, &events, "k", &plain("late", 1)).await;
    reply.refused(400, "task_closed");
}

/// Rules: H86
async fn a_key_belongs_to_its_route_and_task(backend: Backend) {
    let server = backend.start().await;
    let mut ids = Vec::new();
    for id in ["one", "two"] {
        let body = json!({"id": id});
        send(&server, Method::POST, "/tasks", id, &body).await.expect(201);
        for (method, route, body) in [
            (Method::PATCH, "status", json!({"status": "running"})),
            (Method::POST, "events", plain("a", 1)),
        ] {
            let path = format!("/tasks/{id}/{route}");
            let reply = send(&server, method, &path, "same", &body).await;
            assert!(reply.status < 300 && !is_replay(&reply), "{id} {route}: {}", reply.text);
        }
        ids.push(id);
    }
    for id in ids {
        assert_eq!(server.history(id, "").await.len(), 2);
    }
}
