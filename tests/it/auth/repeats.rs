//! Repeated requests with a key: whose they are, and what they are answered
//! when the task is another one by now.

use reqwest::Method;
use serde_json::{Value, json};

use super::start_two;
use super::tokens::{bare, now, root, with};
use super::{AUDIENCE, JWT};
use crate::support::client::{Client, Reply};
use crate::support::{Backend, on_every_store};

on_every_store![
    a_repeat_shows_nothing_of_a_task_that_somebody_else_created_again,
    a_repeat_is_answered_only_while_its_task_is_there,
    a_key_is_found_by_a_refreshed_token_and_by_nobody_else,
];

async fn send(client: &Client, method: Method, path: &str, key: &str, body: &Value) -> Reply {
    client.send(client.json(method, path, body).header("Idempotency-Key", key)).await
}

/// Rules: H83
async fn a_repeat_shows_nothing_of_a_task_that_somebody_else_created_again(backend: Backend) {
    let (first, second) = start_two(&backend).await;
    let mine = with(json!({"taskIds": "*", "scope": ["*"]}));
    let (me, again) = (first.bearing(&mine), second.bearing(&mine));
    me.create(json!({"id": "a"})).await;
    let (start, event) = (json!({"status": "running"}), json!({"type": "x"}));
    send(&me, Method::PATCH, "/tasks/a/status", "k", &start).await.expect(200);
    send(&me, Method::POST, "/tasks/a/events", "k", &event).await.expect(201);
    send(&me, Method::POST, "/tasks", "k", &json!({"id": "b"})).await.expect(201);
    for id in ["a", "b"] {
        me.delete(&format!("/tasks/{id}")).await.expect(204);
    }
    let rules = json!({"rules": [{"match": {"scope": ["*"]}, "require": {"sub": ["you"]}}]});
    let yours = with(json!({"sub": "you", "taskIds": "*", "scope": ["*"]}));
    for id in ["a", "b"] {
        let task = json!({"id": id, "params": {"text": "canary"}, "authConfig": rules});
        second.bearing(&yours).create(task).await;
    }
    for client in [&me, &again] {
        for (method, path, body) in [
            (Method::PATCH, "/tasks/a/status", &start),
            (Method::POST, "/tasks/a/events", &event),
            (Method::POST, "/tasks", &json!({"id": "b"})),
        ] {
            let reply = send(client, method, path, "k", body).await;
            assert!(!reply.text.contains("canary"), "{path}: {}", reply.text);
            reply.refused(404, "task_not_found");
        }
    }
    let history = second.bearing(&yours).history("a", "").await;
    assert!(history.is_empty(), "{history:?}");
}

/// Rules: H83
async fn a_repeat_is_answered_only_while_its_task_is_there(backend: Backend) {
    let server = backend.start().await;
    for id in ["a", "b"] {
        send(&server, Method::POST, "/tasks", id, &json!({"id": id})).await.expect(201);
        let path = format!("/tasks/{id}/events");
        send(&server, Method::POST, &path, id, &json!({"type": "x"})).await.expect(201);
    }
    server.delete("/tasks/a").await.expect(204);
    for (id, status) in [("a", 404), ("b", 201)] {
        send(&server, Method::POST, "/tasks", id, &json!({"id": id})).await.expect(status);
        let path = format!("/tasks/{id}/events");
        send(&server, Method::POST, &path, id, &json!({"type": "x"})).await.expect(status);
    }
}

/// Rules: H86
async fn a_key_is_found_by_a_refreshed_token_and_by_nobody_else(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let nobody = |claims: Value| {
        let mut all = json!({"aud": AUDIENCE, "exp": now() + 600, "scope": ["*"]});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        bare(&all)
    };
    let body = json!({"type": "t"});
    // Each row: a caller's token, one of the same caller later, and of others.
    let callers = [
        (
            with(json!({"taskIds": "*", "scope": ["*"]})),
            with(json!({"taskIds": "*", "scope": "*", "exp": now() + 900, "jti": "b"})),
        ),
        (
            with(json!({"sub": "you", "taskIds": "*", "scope": ["*"]})),
            with(json!({"sub": "you", "taskIds": "*", "scope": ["task:create"], "iat": now()})),
        ),
        (
            nobody(json!({"taskIds": "*"})),
            nobody(json!({"taskIds": "*", "jti": "z", "exp": now() + 900})),
        ),
        (
            nobody(json!({"taskIds": "*", "org": "x"})),
            nobody(json!({"org": "x", "taskIds": "*", "nonce": "n"})),
        ),
    ];
    let mut ids = Vec::new();
    for (token, _) in &callers {
        let created = send(&server.bearing(token), Method::POST, "/tasks", "k", &body).await;
        ids.push(created.expect(201).json()["id"].clone());
    }
    for (position, (_, refreshed)) in callers.iter().enumerate() {
        let again = send(&server.bearing(refreshed), Method::POST, "/tasks", "k", &body).await;
        let again = again.expect(201);
        assert_eq!(again.header("idempotent-replayed"), "true", "{position}");
        assert_eq!(again.json()["id"], ids[position]);
    }
    ids.sort_by_key(ToString::to_string);
    ids.dedup();
    assert_eq!(ids.len(), callers.len());
    server.bearing(root()).get("/tasks").await.expect(200);
}
