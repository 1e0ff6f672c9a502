//! Webhooks: the real program and a receiver that remembers, and the real
//! loop over a network of the test's own.
//!
//! Every numbered rule of `docs/webhooks.md` has a case here that names it.

mod connections;
mod crash;
mod deliveries;
mod endpoints;
mod fairness;
mod outcomes;
mod requests;
mod secrets;
mod targets;
mod verify;

use serde_json::{Value, json};

use crate::support::Backend;
use crate::support::client::{Client, number_of};
use crate::support::server::Server;
use crate::support::until;

/// Lets the webhooks of tasks reach the receivers of the tests.
const PRIVATE: (&str, &str) = ("TASKCAST_WEBHOOK__ALLOW_PRIVATE_TARGETS", "true");

async fn start(backend: &Backend) -> Server {
    backend.start_with(&[PRIVATE]).await
}

/// Creates a running task with these webhooks, which get no status events.
async fn task_with(client: &Client, webhooks: Value) -> String {
    let mut webhooks = webhooks;
    for webhook in webhooks.as_array_mut().unwrap() {
        if webhook.get("filter").is_none() {
            webhook["filter"] = json!({"includeStatus": false});
        }
    }
    let task = client.create(json!({"webhooks": webhooks})).await;
    let id = task["id"].as_str().unwrap().to_owned();
    client.enter(&id, "running").await;
    id
}

/// A retry with pauses of `pause_ms`.
fn every(pause_ms: u64, retries: u64) -> Value {
    json!({"retries": retries, "backoff": "fixed", "initialDelayMs": pause_ms})
}

fn note(data: impl Into<Value>) -> Value {
    json!({"type": "note", "data": data.into()})
}

async fn deliveries(client: &Client, id: &str) -> Vec<Value> {
    let list = client.get(&format!("/tasks/{id}/webhooks?limit=500")).await.expect(200).json();
    list["deliveries"].as_array().unwrap().clone()
}

/// Waits until no delivery of the task is pending, and returns all of them in
/// the order of events and webhooks.
async fn settled(client: &Client, id: &str) -> Vec<Value> {
    until("every delivery has ended", || async {
        let mut all = deliveries(client, id).await;
        all.reverse();
        let is_over = !all.is_empty() && all.iter().all(|one| one["state"] != "pending");
        is_over.then_some(all)
    })
    .await
}

fn attempts(delivery: &Value) -> u64 {
    number_of(&delivery["attempts"])
}
