//! What later releases bring is refused until it is there.

use reqwest::Method;
use serde_json::{Value, json};

use super::plain;
use crate::support::{Backend, on_every_store};

on_every_store![
    features_to_come_are_refused_and_store_nothing,
    an_idempotency_key_is_refused_and_stores_nothing
];

/// Rules: H76
async fn features_to_come_are_refused_and_store_nothing(backend: Backend) {
    let server = backend.start().await;
    let values = [
        json!([]),
        json!({}),
        json!([{"url": "https://hooks.example.com/secret-path"}]),
        json!(1),
        json!(false),
    ];
    for name in ["webhooks", "authConfig", "cleanup"] {
        for value in &values {
            let mut body = json!({"id": "refused", "type": "t"});
            body[name] = value.clone();
            let reply = server.post("/tasks", body).await;
            reply.refused_at(400, "not_supported", &format!("/{name}"));
            assert!(!reply.text.contains("secret-path"), "{}", reply.text);
        }
    }
    server.get("/tasks/refused").await.refused(404, "task_not_found");
    let mut absent = json!({"id": "created"});
    for name in ["webhooks", "authConfig", "cleanup"] {
        absent[name] = Value::Null;
    }
    server.create(absent).await;
}

/// Rules: H77
async fn an_idempotency_key_is_refused_and_stores_nothing(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let requests = [
        server.json(Method::POST, "/tasks", json!({"id": "refused"})),
        server.json(Method::POST, &format!("/tasks/{id}/events"), plain("a", 1)),
        server.json(Method::PATCH, &format!("/tasks/{id}/status"), json!({"status": "running"})),
    ];
    for request in requests {
        server.send(request.header("Idempotency-Key", "k-1")).await.refused(400, "not_supported");
    }
    server.get("/tasks/refused").await.refused(404, "task_not_found");
    assert!(server.history(&id, "").await.is_empty());
    assert_eq!(server.task(&id).await["status"], "pending");
}
