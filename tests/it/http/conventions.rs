//! Form of requests and answers that all routes share.

use reqwest::Method;
use serde_json::{Value, json};

use super::{RECENT_MS, plain};
use crate::support::{Backend, on_every_store};

on_every_store![
    answers_are_camel_case_json_without_null,
    times_are_whole_milliseconds,
    unknown_fields_are_ignored_and_null_means_absent,
    a_body_has_to_be_declared_as_json,
    a_compressed_body_is_refused_naming_the_header,
    a_body_has_to_be_json_in_utf8,
    a_broken_rule_is_named_by_its_place_in_the_body,
    a_query_value_that_cannot_be_understood_is_refused,
    unknown_parameters_are_ignored_and_the_last_of_repeated_ones_counts,
    form_is_checked_before_the_task_is_looked_up,
    ids_and_paths_that_name_nothing_are_not_found,
    a_method_a_path_does_not_have_is_refused_with_those_it_has,
    head_answers_as_get_does_without_a_body,
    every_response_carries_a_request_id,
];

/// Tells whether a name is written in camelCase.
fn is_camel_case(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn check_names(value: &Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                assert!(is_camel_case(name), "{name}");
                assert!(!member.is_null() || name == "data", "{name} is null");
                check_names(member);
            }
        }
        Value::Array(items) => items.iter().for_each(check_names),
        _ => {}
    }
}

/// Rules: H1
async fn answers_are_camel_case_json_without_null(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    server.publish(&id, json!([{"type": "a"}, plain("b", 1)])).await;
    server
        .create(json!({"type": "full", "params": {}, "metadata": {}, "ttl": 9, "tags": ["t"]}))
        .await;
    let paths = ["/", "/health", "/health/ready", "/health/detail", "/tasks", "/nowhere"];
    let of_task = ["", "/events/history"].map(|rest| format!("/tasks/{id}{rest}"));
    for path in paths.map(str::to_owned).iter().chain(&of_task) {
        let reply = server.get(path).await;
        assert_eq!(reply.header("content-type"), "application/json", "{path}");
        check_names(&reply.json());
    }
    let history = server.history(&id, "").await;
    assert_eq!(history[1].get("data"), Some(&Value::Null));
}

/// Rules: H2
async fn times_are_whole_milliseconds(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    server.publish(&id, plain("a", 1)).await;
    server.enter(&id, "completed").await;
    let reply = server.get(&format!("/tasks/{id}")).await;
    for name in ["createdAt", "updatedAt", "completedAt"] {
        let at = reply.text.find(&format!("\"{name}\":")).expect(name) + name.len() + 3;
        let written: String = reply.text[at..].chars().take_while(|c| !",}".contains(*c)).collect();
        let time: u64 = written.parse().unwrap_or_else(|_| panic!("{name} is written {written}"));
        assert!(time > RECENT_MS, "{name}");
    }
    for event in server.history(&id, "").await {
        assert!(event["timestamp"].as_u64().unwrap() > RECENT_MS);
    }
}

/// Rules: H3, H4
async fn unknown_fields_are_ignored_and_null_means_absent(backend: Backend) {
    let server = backend.start().await;
    let body = json!({
        "id": null, "type": null, "params": null, "metadata": null, "ttl": null, "tags": null,
        "webhooks": null, "authConfig": null, "cleanup": null, "colour": {"nested": [1]},
    });
    let task = server.create(body).await;
    for name in ["type", "params", "metadata", "ttl", "tags", "colour", "webhooks"] {
        assert!(task.get(name).is_none(), "{name}");
    }
    let id = task["id"].as_str().unwrap();
    let moved = json!({"status": "running", "result": null, "error": null, "colour": 1});
    let task = server.patch(&format!("/tasks/{id}/status"), moved).await.expect(200).json();
    assert!(task.get("result").is_none() && task.get("error").is_none());
    let failed = json!({"status": "failed", "error": {"message": "m", "code": null, "details": null, "more": 1}});
    let event = json!({"type": "a", "level": null, "seriesId": null, "seriesMode": null, "seriesAccField": null, "x": 1});
    let event = server.publish(id, event).await;
    assert_eq!(event["level"], "info");
    assert!(event.get("seriesId").is_none() && event.get("x").is_none());
    let task = server.patch(&format!("/tasks/{id}/status"), failed).await.expect(200).json();
    assert_eq!(task["error"], json!({"message": "m"}));
}

/// Rules: H5
async fn a_body_has_to_be_declared_as_json(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let routes = [
        (Method::POST, "/tasks".to_owned(), r#"{"type":"t"}"#, 201),
        (Method::POST, format!("/tasks/{id}/events"), r#"{"type":"t"}"#, 201),
        (Method::PATCH, format!("/tasks/{id}/status"), r#"{"status":"running"}"#, 200),
    ];
    for (method, path, body, status) in routes {
        for content_type in
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("json")]
        {
            let mut request = server.request(method.clone(), &path).body(body);
            if let Some(content_type) = content_type {
                request = request.header("Content-Type", content_type);
            }
            let refusal = server.send(request).await.refused(415, "unsupported_media_type");
            assert!(refusal["error"].as_str().unwrap().contains("Content-Type"), "{refusal}");
        }
        let declared =
            server.request(method, &path).header("Content-Type", "Application/JSON; charset=utf-8");
        server.send(declared.body(body)).await.expect(status);
    }
}

/// Rules: H23
async fn a_compressed_body_is_refused_naming_the_header(backend: Backend) {
    let server = backend.start().await;
    let request = |encoding: &str| {
        let request = server.json(Method::POST, "/tasks", "{}");
        request.header("Content-Encoding", encoding)
    };
    for encoding in ["gzip", "br", "gzip, identity"] {
        let reply = server.send(request(encoding)).await;
        reply.refused_at(415, "unsupported_media_type", "/headers/Content-Encoding");
    }
    server.send(request("identity")).await.expect(201);
}

/// Rules: H6
async fn a_body_has_to_be_json_in_utf8(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
    let bodies: [&[u8]; 8] = [
        b"{",
        b"{\"type\":\"a\"} x",
        b"{'type':'a'}",
        b"{\"type\":\"a\",}",
        b"\xff\xfe",
        b"{\"type\":\"\xff\"}",
        b"nul",
        b"01",
    ];
    for (method, path) in
        [(Method::POST, "/tasks"), (Method::POST, &events), (Method::PATCH, &status)]
    {
        for body in bodies {
            let request =
                server.request(method.clone(), path).header("Content-Type", "application/json");
            server.send(request.body(body)).await.refused(400, "invalid_json");
        }
    }
    server.post(&events, "").await.refused(400, "invalid_json");
    server.patch(&status, "").await.refused(400, "invalid_json");
}

/// Rules: H7
async fn a_broken_rule_is_named_by_its_place_in_the_body(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
    let tasks = [
        (json!({"ttl": "soon"}), "/ttl"),
        (json!({"type": 1}), "/type"),
        (json!({"params": []}), "/params"),
    ];
    for (body, path) in tasks {
        server.post("/tasks", body).await.refused_at(400, "invalid_request", path);
    }
    let steps = [
        (json!({}), "/status"),
        (json!({"status": "done"}), "/status"),
        (json!({"status": "failed", "error": {"message": 1}}), "/error/message"),
        (json!({"status": "failed", "error": {}}), "/error/message"),
        (json!({"status": "failed", "error": {"message": "m", "details": 1}}), "/error/details"),
        (json!({"status": "running", "result": 1}), "/result"),
    ];
    for (body, path) in steps {
        server.patch(&status, body).await.refused_at(400, "invalid_request", path);
    }
    let publications = [
        (json!({}), "/type"),
        (json!({"type": "a", "level": "loud"}), "/level"),
        (json!([plain("a", 1), plain("a", 1), plain("a", 1), {"type": 7}]), "/3/type"),
        (json!([plain("a", 1), {"type": "a", "level": 1}]), "/1/level"),
        (json!([1]), "/0"),
    ];
    for (body, path) in publications {
        server.post(&events, body).await.refused_at(400, "invalid_request", path);
    }
    for body in ["1", "null", "\"text\""] {
        server.post(&events, body).await.refused(400, "invalid_request");
        server.patch(&status, body).await.refused(400, "invalid_request");
        server.post("/tasks", body).await.refused(400, "invalid_request");
    }
    assert!(server.history(&id, "").await.is_empty());
}

/// Rules: H8
async fn a_query_value_that_cannot_be_understood_is_refused(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let read = [
        "types=a*b",
        "levels=loud",
        "includeStatus=maybe",
        "since.index=x",
        "since.index=-2",
        "since.index=",
        "since.index=1.5",
        "since.timestamp=soon",
        "since.timestamp=-1",
        "limit=0",
        "limit=x",
        "seriesFormat=both",
    ];
    for route in ["events/history", "events"] {
        for query in read {
            let (name, _) = query.split_once('=').unwrap();
            let reply = server.get(&format!("/tasks/{id}/{route}?{query}")).await;
            reply.refused_at(400, "invalid_request", &format!("/query/{name}"));
        }
    }
    let reply = server.get(&format!("/tasks/{id}/events?wrap=yes")).await;
    reply.refused_at(400, "invalid_request", "/query/wrap");
    for query in ["limit=0", "limit=501", "limit=x", "cursor=x", "status=done", "type=a*b"] {
        let (name, _) = query.split_once('=').unwrap();
        let reply = server.get(&format!("/tasks?{query}")).await;
        reply.refused_at(400, "invalid_request", &format!("/query/{name}"));
    }
    for query in ["types=a*b", "levels=loud"] {
        let (name, _) = query.split_once('=').unwrap();
        let reply = server.get(&format!("/events?{query}")).await;
        reply.refused_at(400, "invalid_request", &format!("/query/{name}"));
    }
}

/// Rules: H9
async fn unknown_parameters_are_ignored_and_the_last_of_repeated_ones_counts(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    server.publish(&id, json!([plain("a", 1), plain("b", 2), plain("c", 3)])).await;
    assert_eq!(server.history(&id, "?colour=blue&limit=2&Limit=x").await.len(), 2);
    assert_eq!(server.history(&id, "?limit=1&limit=3").await.len(), 3);
    let events = server.history(&id, "?types=a&types=b").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["type"], "b");
    server.get("/tasks?colour=blue&limit=1&limit=2").await.expect(200);
}

/// Rules: H10
async fn form_is_checked_before_the_task_is_looked_up(backend: Backend) {
    let server = backend.start().await;
    server.post("/tasks/nobody/events", "{").await.refused(400, "invalid_json");
    server.post("/tasks/nobody/events", "{}").await.refused_at(400, "invalid_request", "/type");
    server.patch("/tasks/nobody/status", "{}").await.refused_at(400, "invalid_request", "/status");
    server.get("/tasks/nobody/events/history?limit=x").await.refused(400, "invalid_request");
    server.get("/tasks/nobody/events?wrap=x").await.refused(400, "invalid_request");
    server.post("/tasks/nobody/events", plain("a", 1)).await.refused(404, "task_not_found");
    server
        .patch("/tasks/nobody/status", json!({"status": "running"}))
        .await
        .refused(404, "task_not_found");
}

/// Rules: H11, H12
async fn ids_and_paths_that_name_nothing_are_not_found(backend: Backend) {
    let server = backend.start().await;
    for id in ["nobody", "-x", "a%2Fb", "a%20b", "%C3%A4", "%00", "%FF", &"x".repeat(129), "..%2F"]
    {
        for route in ["", "/events/history", "/events"] {
            server.get(&format!("/tasks/{id}{route}")).await.refused(404, "task_not_found");
        }
        server.delete(&format!("/tasks/{id}")).await.refused(404, "task_not_found");
        server
            .post(&format!("/tasks/{id}/events"), plain("a", 1))
            .await
            .refused(404, "task_not_found");
    }
    let id = server.new_task().await;
    let inside = format!("/tasks/{id}/nothing");
    for path in
        ["/nothing", "/tasks/", "/healthy", "/health/none", "/events/history", "/TASKS", &inside]
    {
        server.get(path).await.refused(404, "not_found");
    }
    server.get(&format!("/tasks/{id}/events/history/")).await.refused(404, "not_found");
}

/// Rules: H13
async fn a_method_a_path_does_not_have_is_refused_with_those_it_has(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let (task, status, events) =
        (format!("/tasks/{id}"), format!("/tasks/{id}/status"), format!("/tasks/{id}/events"));
    let history = format!("/tasks/{id}/events/history");
    let cases: [(Method, &str, &[&str]); 9] = [
        (Method::POST, "/", &["GET"]),
        (Method::POST, "/health", &["GET"]),
        (Method::PUT, "/tasks", &["GET", "POST"]),
        (Method::POST, &task, &["GET", "DELETE"]),
        (Method::GET, &status, &["PATCH"]),
        (Method::DELETE, &events, &["GET", "POST"]),
        (Method::POST, &history, &["GET"]),
        (Method::POST, "/events", &["GET"]),
        (Method::PATCH, &task, &["GET", "DELETE"]),
    ];
    for (method, path, allowed) in cases {
        let reply = server.send(server.json(method, path, "{}")).await;
        reply.refused(405, "method_not_allowed");
        let listed: Vec<_> = reply.header("allow").split(',').map(str::trim).collect();
        for method in allowed {
            assert!(listed.contains(method), "{path}: {listed:?}");
        }
        let known = ["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"];
        assert!(listed.iter().all(|method| known.contains(method)), "{path}: {listed:?}");
        assert_eq!(listed.contains(&"POST"), allowed.contains(&"POST"), "{path}: {listed:?}");
    }
}

/// Rules: H14
async fn head_answers_as_get_does_without_a_body(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let of_task = ["", "/events/history"].map(|rest| format!("/tasks/{id}{rest}"));
    let fixed = ["/", "/health", "/health/ready", "/tasks", "/tasks/nobody"].map(str::to_owned);
    for path in fixed.iter().chain(&of_task) {
        let get = server.get(path).await;
        let head = server.send(server.request(Method::HEAD, path)).await;
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
}

/// Rules: H15
async fn every_response_carries_a_request_id(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let events = format!("/tasks/{id}/events");
    for path in ["/", "/health", "/tasks", "/tasks/nobody", "/nowhere", "/tasks?limit=x"] {
        assert!(!server.get(path).await.header("x-request-id").is_empty(), "{path}");
    }
    let first = server.get("/health").await.header("x-request-id").to_owned();
    assert_ne!(server.get("/health").await.header("x-request-id"), first);
    let longest = "~".repeat(128);
    for sent in ["a", "!/{}\"", &longest] {
        for path in ["/health", "/nowhere", &events] {
            let request = server.request(Method::GET, path).header("X-Request-Id", sent);
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()["x-request-id"], sent, "{path}");
        }
    }
    for sent in ["two words", &"~".repeat(129), "\u{e9}"] {
        let request =
            server.request(Method::GET, "/health").header("X-Request-Id", sent.as_bytes());
        let reply = server.send(request).await;
        let made = reply.header("x-request-id");
        assert!(!made.is_empty() && made.len() <= 128 && made.as_bytes() != sent.as_bytes());
    }
}
