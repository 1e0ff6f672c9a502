//! Deleting tasks.

use futures_util::future::join_all;
use serde_json::json;

use super::{delta, latest, plain};
use crate::support::{Backend, on_every_store};

on_every_store![
    a_deleted_task_is_gone_on_every_route,
    the_id_of_a_deleted_task_is_free_at_once,
    of_concurrent_deletions_exactly_one_succeeds,
];

/// Rules: H57
async fn a_deleted_task_is_gone_on_every_route(backend: Backend) {
    let (first, second) = backend.start_two().await;
    for status in ["pending", "running", "completed"] {
        let id = first.new_task().await;
        if status != "pending" {
            first.enter(&id, "running").await;
        }
        first.publish(&id, json!([plain("a", 1), delta("s", "x")])).await;
        if status == "completed" {
            first.enter(&id, "completed").await;
        }
        let reply = first.delete(&format!("/tasks/{id}")).await;
        assert_eq!((reply.status, reply.text.as_str()), (204, ""));
        for server in [&first, &second] {
            for route in ["", "/events", "/events/history"] {
                server.get(&format!("/tasks/{id}{route}")).await.refused(404, "task_not_found");
            }
            server
                .post(&format!("/tasks/{id}/events"), plain("a", 1))
                .await
                .refused(404, "task_not_found");
            server.post(&format!("/tasks/{id}/events"), "[]").await.refused(404, "task_not_found");
            let body = json!({"status": "cancelled"});
            server.patch(&format!("/tasks/{id}/status"), body).await.refused(404, "task_not_found");
            server.delete(&format!("/tasks/{id}")).await.refused(404, "task_not_found");
            assert_eq!(server.get("/tasks").await.json()["tasks"], json!([]));
        }
    }
}

/// Rules: H58
async fn the_id_of_a_deleted_task_is_free_at_once(backend: Backend) {
    let (first, second) = backend.start_two().await;
    for round in 0..5 {
        let task = second.create(json!({"id": "again", "type": format!("round.{round}")})).await;
        assert_eq!(task["status"], "pending");
        assert!(first.history("again", "").await.is_empty());
        let event = first
            .publish("again", json!([latest("s", round), plain("a", 1), delta("t", "x")]))
            .await;
        assert_eq!(event[0]["index"], 0);
        assert_eq!(second.history("again", "").await.len(), 3);
        assert_eq!(first.task("again").await["type"], format!("round.{round}"));
        first.delete("/tasks/again").await.expect(204);
        second.get("/tasks/again").await.refused(404, "task_not_found");
        // The series of the deleted task bind nothing.
        second.create(json!({"id": "again"})).await;
        second.publish("again", json!([delta("s", "x"), latest("t", 1)])).await;
        second.delete("/tasks/again").await.expect(204);
    }
}

/// Rules: H57
async fn of_concurrent_deletions_exactly_one_succeeds(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let path = format!("/tasks/{}", first.running_task().await);
    let attempts = (0..10).map(|n| {
        let server = if n % 2 == 0 { &first } else { &second };
        server.delete(&path)
    });
    let statuses: Vec<_> = join_all(attempts).await.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 404).count(), 9, "{statuses:?}");
}
