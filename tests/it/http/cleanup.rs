//! A task's own cleanup rules, as far as the request goes.

use serde_json::json;

use crate::support::{Backend, on_every_store};

on_every_store![a_task_says_what_goes_of_it];

/// Rules: H81
async fn a_task_says_what_goes_of_it(backend: Backend) {
    let server = backend.start().await;
    let cleanup = json!({"rules": [
        {"target": "task", "trigger": {"afterMs": 3_600_000}},
        {
            "name": "noise",
            "match": {"taskTypes": ["llm.*"], "status": ["completed", "failed"]},
            "target": "events",
            "eventFilter": {"levels": ["debug"], "types": ["a.*"], "olderThanMs": 60_000, "seriesMode": "latest"}
        }
    ]});
    let task = server.create(json!({"id": "kept", "cleanup": cleanup})).await;
    assert_eq!(task["cleanup"], cleanup);
    assert_eq!(server.task("kept").await["cleanup"], cleanup);
    for (rule, path) in [
        (json!({}), "/cleanup/rules/1/target"),
        (json!({"target": "everything"}), "/cleanup/rules/1/target"),
        (
            json!({"target": "all", "eventFilter": {"levels": ["debug"]}}),
            "/cleanup/rules/1/eventFilter",
        ),
        (
            json!({"target": "all", "match": {"status": ["running"]}}),
            "/cleanup/rules/1/match/status/0",
        ),
        (json!({"target": "all", "trigger": {"afterMs": "5"}}), "/cleanup/rules/1/trigger/afterMs"),
    ] {
        let body = json!({"id": "refused", "cleanup": {"rules": [{"target": "task"}, rule]}});
        server.post("/tasks", body).await.refused_at(400, "invalid_request", path);
    }
    let many = vec![json!({"target": "task"}); 21];
    let many = json!({"id": "refused", "cleanup": {"rules": many}});
    server.post("/tasks", many).await.refused_at(400, "limit_exceeded", "/cleanup/rules");
    server.get("/tasks/refused").await.refused(404, "task_not_found");
}
