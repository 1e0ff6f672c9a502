//! Creating and reading tasks.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{RECENT_MS, is_ulid, plain};
use crate::support::client::{number_of, text_of};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    a_created_task_is_pending_and_shows_what_was_sent,
    every_field_is_optional_and_so_is_the_body,
    the_server_makes_an_id_or_takes_one_of_the_documented_form,
    a_taken_id_is_a_conflict_and_its_task_unchanged,
    of_many_creators_of_one_id_exactly_one_succeeds,
    a_time_to_live_has_its_bounds,
    creating_a_task_writes_no_event,
    a_task_is_read_as_the_last_answered_change_left_it,
    reading_a_task_tells_how_many_streams_are_open,
];

/// Rules: H42
async fn a_created_task_is_pending_and_shows_what_was_sent(backend: Backend) {
    let server = backend.start().await;
    let sent = json!({
        "id": "my:task~1", "type": "llm.chat", "params": {"prompt": "Hi"}, "metadata": {"user": 7},
        "ttl": 3600, "tags": ["b", "a", "b"],
    });
    let task = server.create(sent.clone()).await;
    for (name, value) in sent.as_object().unwrap() {
        assert_eq!(&task[name], value, "{name}");
    }
    assert_eq!(task["status"], "pending");
    assert_eq!(task["createdAt"], task["updatedAt"]);
    assert!(number_of(&task["createdAt"]) > RECENT_MS);
    for name in ["completedAt", "result", "error"] {
        assert!(task.get(name).is_none(), "{name}");
    }
    let read = server.task("my:task~1").await;
    for (name, value) in task.as_object().unwrap() {
        assert_eq!(&read[name], value, "{name}");
    }
}

/// Rules: H43
async fn every_field_is_optional_and_so_is_the_body(backend: Backend) {
    let server = backend.start().await;
    let bare = server.request(Method::POST, "/tasks");
    let declared =
        server.request(Method::POST, "/tasks").header("Content-Type", "application/json");
    let otherwise = server.request(Method::POST, "/tasks").header("Content-Type", "text/plain");
    for request in [bare, declared, otherwise, server.json(Method::POST, "/tasks", "{}")] {
        let task = server.send(request).await.expect(201).json();
        let mut members: Vec<_> = task.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["createdAt", "id", "status", "updatedAt"]);
    }
}

/// Rules: H44
async fn the_server_makes_an_id_or_takes_one_of_the_documented_form(backend: Backend) {
    let server = backend.start().await;
    let (first, second) = (server.new_task().await, server.new_task().await);
    assert!(is_ulid(&first) && is_ulid(&second) && first != second, "{first} {second}");
    for good in ["0", "A", "a_b.c:d~e-f", &"x".repeat(128)] {
        assert_eq!(server.create(json!({"id": good})).await["id"], good);
        server.get(&format!("/tasks/{good}")).await.expect(200);
    }
    for bad in
        ["", ".a", "~a", ":a", "a/b", "a b", "a%2Fb", "\u{e4}", "a\n", "a*", &"x".repeat(129)]
    {
        server.post("/tasks", json!({"id": bad})).await.refused_at(400, "invalid_request", "/id");
    }
    server.post("/tasks", json!({"id": 7})).await.refused_at(400, "invalid_request", "/id");
}

/// Rules: H45
async fn a_taken_id_is_a_conflict_and_its_task_unchanged(backend: Backend) {
    let (server, other) = backend.start_two().await;
    server.create(json!({"id": "taken", "type": "first", "tags": ["t"]})).await;
    for server in [&server, &other] {
        let second = json!({"id": "taken", "type": "second", "params": {"p": 1}});
        server.post("/tasks", second).await.refused(409, "task_exists");
    }
    let task = other.task("taken").await;
    assert_eq!(
        (&task["type"], &task["tags"], task.get("params")),
        (&json!("first"), &json!(["t"]), None)
    );
}

/// Rules: H45
async fn of_many_creators_of_one_id_exactly_one_succeeds(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let attempts =
        (0..24).map(|n| {
            let server = if n % 2 == 0 { &first } else { &second };
            async move {
                server.post("/tasks", json!({"id": "wanted", "type": format!("by.{n}")})).await
            }
        });
    let (mut created, mut refused) = (Vec::new(), 0);
    for reply in join_all(attempts).await {
        if reply.status == 201 {
            created.push(reply.json());
        } else {
            reply.refused(409, "task_exists");
            refused += 1;
        }
    }
    assert_eq!((created.len(), refused), (1, 23));
    assert_eq!(first.task("wanted").await["type"], created[0]["type"]);
}

/// Rules: H46
async fn a_time_to_live_has_its_bounds(backend: Backend) {
    let server = backend.start().await;
    for ttl in [1_u64, 315_360_000] {
        assert_eq!(server.create(json!({"ttl": ttl})).await["ttl"], ttl);
    }
    for ttl in ["0", "315360001", "-1", "1.5", "1e400", "\"60\"", "[]", "99999999999999999999"] {
        let reply = server.post("/tasks", format!(r#"{{"ttl":{ttl}}}"#)).await;
        reply.refused_at(400, "invalid_request", "/ttl");
    }
}

/// Rules: H47
async fn creating_a_task_writes_no_event(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    assert_eq!(server.get(&format!("/tasks/{id}/events/history")).await.expect(200).text, "[]");
}

/// Rules: H48
async fn a_task_is_read_as_the_last_answered_change_left_it(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let id = first.new_task().await;
    for server in [&first, &second] {
        assert_eq!(server.task(&id).await["status"], "pending");
    }
    second.enter(&id, "running").await;
    assert_eq!(first.task(&id).await["status"], "running");
    let body = json!({"status": "completed", "result": {"answer": 42}});
    let changed = first.patch(&format!("/tasks/{id}/status"), body).await.expect(200).json();
    let read = second.task(&id).await;
    for (name, value) in changed.as_object().unwrap() {
        assert_eq!(&read[name], value, "{name}");
    }
    first.get("/tasks/nobody").await.refused(404, "task_not_found");
}

/// Rules: H49
async fn reading_a_task_tells_how_many_streams_are_open(backend: Backend) {
    let server = backend.start().await;
    let created = server.create("{}").await;
    let id = text_of(&created["id"]);
    let changed = server.enter(&id, "running").await;
    for answer in [&created, &changed] {
        assert!(answer.get("hot").is_none() && answer.get("subscriberCount").is_none(), "{answer}");
    }
    let listed =
        async || -> Value { server.get("/tasks").await.expect(200).json()["tasks"][0].clone() };
    for read in [server.task(&id).await, listed().await] {
        assert_eq!((&read["hot"], &read["subscriberCount"]), (&json!(false), &json!(0)));
    }
    let (first, second) = (server.stream(&id, "").await, server.stream(&id, "?types=a").await);
    for read in [server.task(&id).await, listed().await] {
        assert_eq!((&read["hot"], &read["subscriberCount"]), (&json!(true), &json!(2)));
    }
    drop(first);
    server.publish(&id, plain("a", 1)).await;
    until("one stream is left", || async {
        (server.task(&id).await["subscriberCount"] == 1).then_some(())
    })
    .await;
    drop(second);
    until("no stream is left", || async { (server.task(&id).await["hot"] == false).then_some(()) })
        .await;
}
