//! Listing tasks.

use serde_json::{Value, json};

use crate::support::client::{column, text_of};
use crate::support::server::Server;
use crate::support::{Backend, on_every_store};

on_every_store![
    a_list_is_newest_first_and_says_when_there_is_more,
    a_page_has_a_size_within_bounds,
    a_cursor_leads_through_everything_once_whatever_changes,
    a_list_keeps_tasks_of_the_wanted_status_and_type,
    a_list_keeps_tasks_that_have_every_tag,
    a_page_of_large_tasks_ends_early,
    short_pages_lead_to_everything_that_filters_match_together,
];

async fn page(server: &Server, query: &str) -> (Vec<Value>, Option<String>) {
    let page = server.get(&format!("/tasks{query}")).await.expect(200).json();
    let next = page.get("nextCursor").map(text_of);
    (page["tasks"].as_array().unwrap().clone(), next)
}

async fn ids(server: &Server, query: &str) -> Vec<Value> {
    let (tasks, next) = page(server, query).await;
    assert_eq!(next, None);
    column(&tasks, "id")
}

/// Rules: H59
async fn a_list_is_newest_first_and_says_when_there_is_more(backend: Backend) {
    let (first, second) = backend.start_two().await;
    assert_eq!(first.get("/tasks").await.expect(200).json(), json!({"tasks": []}));
    for n in 0..7 {
        let server = if n % 2 == 0 { &first } else { &second };
        server.create(json!({"id": format!("task-{n}"), "params": {"n": n}})).await;
    }
    let (tasks, next) = page(&second, "").await;
    assert_eq!(next, None);
    assert_eq!(
        column(&tasks, "id"),
        ["task-6", "task-5", "task-4", "task-3", "task-2", "task-1", "task-0"]
    );
    assert_eq!(tasks[0]["params"], json!({"n": 6}));
    let (tasks, next) = page(&first, "?limit=3").await;
    assert_eq!(column(&tasks, "id"), ["task-6", "task-5", "task-4"]);
    let (tasks, next) = page(&second, &format!("?limit=3&cursor={}", next.unwrap())).await;
    assert_eq!(column(&tasks, "id"), ["task-3", "task-2", "task-1"]);
    let (tasks, next) = page(&first, &format!("?limit=3&cursor={}", next.unwrap())).await;
    assert_eq!((column(&tasks, "id"), next), (vec![json!("task-0")], None));
}

/// Rules: H60
async fn a_page_has_a_size_within_bounds(backend: Backend) {
    let server = backend.start().await;
    for _ in 0..51 {
        server.new_task().await;
    }
    let (tasks, next) = page(&server, "").await;
    assert_eq!((tasks.len(), next), (51, None));
    assert_eq!(page(&server, "?limit=1").await.0.len(), 1);
    assert_eq!(page(&server, "?limit=500").await.0.len(), 51);
    for limit in ["0", "501", "-1", "1.5", "x", ""] {
        let reply = server.get(&format!("/tasks?limit={limit}")).await;
        reply.refused_at(400, "invalid_request", "/query/limit");
    }
}

/// Rules: H61
async fn a_cursor_leads_through_everything_once_whatever_changes(backend: Backend) {
    let server = backend.start().await;
    for n in 0..30 {
        server.create(json!({"id": format!("task-{n}")})).await;
    }
    let mut seen = Vec::new();
    let mut query = "?limit=4".to_owned();
    for round in 0.. {
        let (tasks, next) = page(&server, &query).await;
        seen.extend(column(&tasks, "id").iter().map(text_of));
        let Some(next) = next else { break };
        query = format!("?limit=4&cursor={next}");
        server.create(json!({"id": format!("new-{round}")})).await;
        server.delete(&format!("/tasks/task-{}", round * 3)).await.expect(204);
    }
    let deleted: Vec<_> = (0..7).map(|round| format!("task-{}", round * 3)).collect();
    for n in 0..30 {
        let id = format!("task-{n}");
        let times = seen.iter().filter(|seen| **seen == id).count();
        assert!(
            times == 1 || (times == 0 && deleted.contains(&id)),
            "{id} was shown {times} times"
        );
    }
    for cursor in ["x", "", "-1", "%00", "99999999999999999999999999"] {
        let reply = server.get(&format!("/tasks?cursor={cursor}")).await;
        reply.refused_at(400, "invalid_request", "/query/cursor");
    }
}

/// Rules: H62, H63
async fn a_list_keeps_tasks_of_the_wanted_status_and_type(backend: Backend) {
    let server = backend.start().await;
    for (id, body) in [
        ("none", json!({})),
        ("llm", json!({"type": "llm"})),
        ("chat", json!({"type": "llm.chat"})),
        ("tool", json!({"type": "tool"})),
    ] {
        let mut body = body;
        body["id"] = json!(id);
        server.create(body).await;
    }
    server.enter("chat", "running").await;
    server.enter("tool", "cancelled").await;
    let cases: [(&str, &[&str]); 12] = [
        ("?status=pending", &["llm", "none"]),
        ("?status=pending,cancelled", &["tool", "llm", "none"]),
        ("?status=failed", &[]),
        ("?status=", &["tool", "chat", "llm", "none"]),
        ("?type=llm", &["llm"]),
        ("?type=llm.*", &["chat"]),
        ("?type=llm.*,tool", &["tool", "chat"]),
        ("?type=*", &["tool", "chat", "llm", "none"]),
        ("?type=nothing", &[]),
        ("?type=", &["tool", "chat", "llm", "none"]),
        ("?type=llm,llm.*&status=running", &["chat"]),
        ("?type=tool&status=pending", &[]),
    ];
    for (query, expected) in cases {
        assert_eq!(ids(&server, query).await, expected, "{query}");
    }
    for query in ["status=done", "status=pending,done", "status=Pending"] {
        server.get(&format!("/tasks?{query}")).await.refused_at(
            400,
            "invalid_request",
            "/query/status",
        );
    }
    for query in ["type=a*", "type=*.a", "type=llm.*,**"] {
        server.get(&format!("/tasks?{query}")).await.refused_at(
            400,
            "invalid_request",
            "/query/type",
        );
    }
}

/// Rules: H63
async fn a_list_keeps_tasks_that_have_every_tag(backend: Backend) {
    let server = backend.start().await;
    server.create(json!({"id": "none"})).await;
    server.create(json!({"id": "a", "tags": ["a"], "type": "t"})).await;
    server.create(json!({"id": "ab", "tags": ["b", "a"]})).await;
    server.create(json!({"id": "odd", "tags": ["a,b", "\u{e9} %"]})).await;
    let cases: [(&str, &[&str]); 7] = [
        ("?tag=a", &["ab", "a"]),
        ("?tag=a&tag=b", &["ab"]),
        ("?tag=b&tag=a&tag=a", &["ab"]),
        ("?tag=a,b", &["odd"]),
        ("?tag=%C3%A9%20%25", &["odd"]),
        ("?tag=c", &[]),
        ("?tag=a&type=t&status=pending", &["a"]),
    ];
    for (query, expected) in cases {
        assert_eq!(ids(&server, query).await, expected, "{query}");
    }
    server.enter("a", "running").await;
    assert_eq!(ids(&server, "?tag=a&status=pending").await, ["ab"]);
}

/// Rules: H64
async fn a_page_of_large_tasks_ends_early(backend: Backend) {
    let server = backend.start().await;
    let params = "x".repeat(900_000);
    for n in 0..6 {
        server.create(json!({"id": format!("task-{n}"), "params": {"p": params}})).await;
    }
    let reply = server.get("/tasks").await.expect(200);
    assert!(reply.text.len() <= 4 << 20, "{} bytes", reply.text.len());
    let tasks = reply.json()["tasks"].as_array().unwrap().clone();
    assert!((1..6).contains(&tasks.len()), "{}", tasks.len());
    let next = text_of(&reply.json()["nextCursor"]);
    let rest = ids(&server, &format!("?cursor={next}")).await;
    let mut all = column(&tasks, "id");
    all.extend(rest);
    assert_eq!(all, ["task-5", "task-4", "task-3", "task-2", "task-1", "task-0"]);
}

/// Rules: H89
async fn short_pages_lead_to_everything_that_filters_match_together(backend: Backend) {
    let server = backend.start().await;
    for n in 0..60 {
        let task = json!({
            "id": format!("task-{n}"),
            "type": if n % 3 == 0 { "llm.chat" } else { "tool" },
            "tags": if n % 20 == 6 { vec!["rare"] } else { vec!["common"] },
        });
        server.create(task).await;
    }
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = format!("?type=llm.*&tag=rare&status=pending&limit=2{cursor}");
        let (tasks, next) = page(&server, &query).await;
        assert!(tasks.len() <= 2);
        found.extend(column(&tasks, "id"));
        match next {
            None => break,
            Some(next) => cursor = format!("&cursor={next}"),
        }
    }
    // Of 6, 26 and 46 only the first is divisible by three.
    assert_eq!(found, ["task-6"]);
}
