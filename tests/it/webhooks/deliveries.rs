//! Seeing deliveries, sending them again, and their end with the task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use super::{attempts, deliveries, every, note, settled, start, task_with};
use crate::support::client::{Client, column, number_of, text_of};
use crate::support::receiver::{Receiver, Reply};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    a_delivery_shows_how_far_it_has_come,
    deliveries_are_paged,
    a_delivery_can_be_sent_again,
    a_failed_delivery_can_be_sent_again_after_its_event_is_gone,
    deleting_a_task_cancels_what_it_owes,
];

/// A receiver that answers with a status that can be changed.
async fn changing(first: u16) -> (Receiver, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(first));
    let shown = status.clone();
    let receiver = Receiver::behaving(move |_| Reply::Status(shown.load(Ordering::SeqCst))).await;
    (receiver, status)
}

/// Rules: W22
async fn a_delivery_shows_how_far_it_has_come(backend: Backend) {
    let server = start(&backend).await;
    let (receiver, status) = changing(503).await;
    let url = receiver.url("/x");
    let id = task_with(&server, json!([{"url": url, "retry": every(60_000, 3)}])).await;
    let event = server.publish(&id, note(1)).await;
    let pending = until("the first attempt is noted", || async {
        let mut all = deliveries(&server, &id).await;
        all.pop().filter(|one| one.get("lastStatus").is_some())
    })
    .await;
    let next_at = number_of(&pending["nextAttemptAt"]);
    let updated_at = number_of(&pending["updatedAt"]);
    assert!((24_000..=36_100).contains(&(next_at - updated_at)), "{pending}");
    assert_eq!(
        pending,
        json!({
            "id": format!("{}-0", text_of(&event["id"])),
            "eventId": event["id"],
            "index": event["index"],
            "hook": 0,
            "url": url,
            "state": "pending",
            "attempts": 1,
            "lastStatus": 503,
            "lastError": "answered with 503",
            "nextAttemptAt": next_at,
            "updatedAt": updated_at
        })
    );
    status.store(200, Ordering::SeqCst);
    redeliver(&server, &id, &pending).await;
    let delivered = settled(&server, &id).await.remove(0);
    assert_eq!((&delivered["state"], &delivered["lastStatus"]), (&json!("delivered"), &json!(200)));
    assert!(delivered.get("lastError").is_none() && delivered.get("nextAttemptAt").is_none());

    let plain = server.new_task().await;
    assert!(deliveries(&server, &plain).await.is_empty());
    server.get("/tasks/none/webhooks").await.refused(404, "task_not_found");
}

async fn redeliver(client: &Client, task: &str, delivery: &Value) -> Value {
    let path = format!("/tasks/{task}/webhooks/{}/redeliver", text_of(&delivery["id"]));
    client.send(client.request(reqwest::Method::POST, &path)).await.expect(202).json()
}

/// Rules: W23
async fn deliveries_are_paged(backend: Backend) {
    let (server, receiver) = (start(&backend).await, Receiver::start().await);
    let url = receiver.url("/");
    let id = task_with(&server, json!([{"url": url}, {"url": url}, {"url": url}])).await;
    server.publish(&id, json!((0..5).map(note).collect::<Vec<_>>())).await;
    let all = column(&settled(&server, &id).await, "id");
    assert_eq!(all.len(), 15);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/tasks/{id}/webhooks?limit=4{cursor}")).await.json();
        let rows = page["deliveries"].as_array().unwrap();
        assert!(
            rows.len() <= 4 && rows.is_sorted_by_key(|row| u64::MAX - number_of(&row["index"]))
        );
        seen.extend(column(rows, "id"));
        let Some(next) = page.get("nextCursor") else { break };
        cursor = format!("&cursor={}", text_of(next));
    }
    seen.reverse();
    assert_eq!(seen, all);
    let whole = server.get(&format!("/tasks/{id}/webhooks?limit=15")).await.json();
    assert!(whole.get("nextCursor").is_none());
    for (query, path) in [
        ("limit=0", "/query/limit"),
        ("limit=501", "/query/limit"),
        ("cursor=", "/query/cursor"),
        ("cursor=no-cursor", "/query/cursor"),
    ] {
        let reply = server.get(&format!("/tasks/{id}/webhooks?{query}")).await;
        reply.refused_at(400, "invalid_request", path);
    }
}

/// Rules: W24
async fn a_delivery_can_be_sent_again(backend: Backend) {
    let server = start(&backend).await;
    let (receiver, status) = changing(500).await;
    let id = task_with(&server, json!([{"url": receiver.url("/"), "retry": every(1, 1)}])).await;
    server.publish(&id, note("kept")).await;
    let failed = settled(&server, &id).await.remove(0);
    assert_eq!((&failed["state"], attempts(&failed)), (&json!("failed"), 2));

    let again = redeliver(&server, &id, &failed).await;
    assert_eq!((&again["id"], &again["state"]), (&failed["id"], &json!("pending")));
    assert_eq!(attempts(&again), 0);
    let failed = settled(&server, &id).await.remove(0);
    assert_eq!((&failed["state"], attempts(&failed)), (&json!("failed"), 2));

    status.store(204, Ordering::SeqCst);
    redeliver(&server, &id, &failed).await;
    let delivered = settled(&server, &id).await.remove(0);
    assert_eq!((&delivered["state"], attempts(&delivered)), (&json!("delivered"), 1));
    // Also what was delivered.
    redeliver(&server, &id, &delivered).await;
    let received = receiver.wait_for(6).await;
    assert!(received.iter().all(|one| one.header("webhook-id") == text_of(&failed["id"])));
    assert!(received.iter().all(|one| one.body == received[0].body));

    let other = task_with(&server, json!([{"url": receiver.url("/")}])).await;
    for (task, delivery) in [
        (&id, "nonsense"),
        (&id, "01JD4ZK9Q80000000000G0000A-0"),
        (&id, &text_of(&failed["id"]).replace("-0", "-1")),
        (&other, &text_of(&failed["id"])),
    ] {
        let path = format!("/tasks/{task}/webhooks/{delivery}/redeliver");
        let reply = server.send(server.request(reqwest::Method::POST, &path)).await;
        reply.refused(404, "delivery_not_found");
    }
    let path = format!("/tasks/none/webhooks/{}/redeliver", text_of(&failed["id"]));
    let reply = server.send(server.request(reqwest::Method::POST, &path)).await;
    reply.refused(404, "task_not_found");
}

/// Rules: W25
async fn a_failed_delivery_can_be_sent_again_after_its_event_is_gone(backend: Backend) {
    let server = start(&backend).await;
    let (receiver, status) = changing(400).await;
    let task = server
        .create(json!({
            "webhooks": [{"url": receiver.url("/"), "filter": {"types": ["note"]}}],
            "cleanup": {"rules": [{"target": "events", "eventFilter": {"types": ["note"]}}]}
        }))
        .await;
    let id = text_of(&task["id"]);
    server.publish(&id, note("remembered")).await;
    let failed = settled(&server, &id).await.remove(0);
    server.enter(&id, "cancelled").await;
    until("the event is cleaned up", || async {
        let left = server.history(&id, "").await;
        left.iter().all(|event| event["type"] != "note").then_some(())
    })
    .await;
    status.store(200, Ordering::SeqCst);
    redeliver(&server, &id, &failed).await;
    settled(&server, &id).await;
    let received = receiver.wait_for(2).await;
    assert_eq!(received[1].json()["data"], "remembered");
    assert_eq!(received[1].body, received[0].body);
}

/// Rules: W26
async fn deleting_a_task_cancels_what_it_owes(backend: Backend) {
    let server = start(&backend).await;
    let receiver = Receiver::behaving(|_| Reply::Status(500)).await;
    let slow = json!([{"url": receiver.url("/deleted"), "retry": every(3_000, 10)}]);
    let deleted = task_with(&server, slow).await;
    server.publish(&deleted, note(1)).await;
    receiver.wait_for(1).await;
    server.delete(&format!("/tasks/{deleted}")).await.expect(204);
    server.get(&format!("/tasks/{deleted}/webhooks")).await.refused(404, "task_not_found");

    // Time enough for the next attempt, measured by another task's.
    let quick = json!([{"url": receiver.url("/measure"), "retry": every(500, 10)}]);
    let measure = task_with(&server, quick).await;
    server.publish(&measure, note(1)).await;
    settled(&server, &measure).await;
    let lines: Vec<String> = receiver.received().into_iter().map(|one| one.line).collect();
    assert_eq!(lines.iter().filter(|line| line.ends_with("/measure")).count(), 11);
    assert_eq!(lines.iter().filter(|line| line.ends_with("/deleted")).count(), 1);
}
