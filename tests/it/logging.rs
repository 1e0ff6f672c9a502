//! What a server writes about its requests, and what it must not.

use serde_json::{Value, json};

use crate::support::{Backend, until};

/// Stands for anything a caller sends.
const CANARY: &str = "canary-7d1f";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_leaves_one_line_that_repeats_nothing_of_it() {
    let server = Backend::Memory.start_with(&[("TASKCAST_LOG_LEVEL", "info")]).await;
    let task =
        json!({"id": CANARY, "type": CANARY, "params": {"secret": CANARY}, "tags": [CANARY]});
    server.post("/tasks", task).await.expect(201);
    server.publish(CANARY, json!({"type": CANARY, "data": CANARY})).await;
    server.get(&format!("/tasks?tag={CANARY}")).await.expect(200);
    server.get(&format!("/tasks/missing-{CANARY}")).await.expect(404);
    server.post(&format!("/tasks/{CANARY}/events"), json!({"level": CANARY})).await.expect(400);

    let lines = until("every request has left its line", || async {
        let about_tasks = |line: &Value| {
            let route = line["http.route"].as_str().unwrap_or_default();
            line["message"] == "request" && route.starts_with("/tasks")
        };
        let lines: Vec<Value> = server.log().entries().into_iter().filter(about_tasks).collect();
        (lines.len() == 5).then_some(lines)
    })
    .await;
    let summary: Vec<(&Value, &Value, &Value)> = lines
        .iter()
        .map(|line| (&line["http.method"], &line["http.route"], &line["http.status"]))
        .collect();
    assert_eq!(
        json!(summary),
        json!([
            ["POST", "/tasks", 201],
            ["POST", "/tasks/{id}/events", 201],
            ["GET", "/tasks", 200],
            ["GET", "/tasks/{id}", 404],
            ["POST", "/tasks/{id}/events", 400]
        ])
    );
    for line in &lines {
        assert!(line["duration_ms"].is_number() && line["request.id"].is_string(), "{line}");
    }
    assert!(!server.log().text().contains(CANARY));
}
