//! Limits, just below and just above.

use serde_json::{Value, json};

use super::{delta, plain};
use crate::support::client::Reply;
use crate::support::{Backend, on_every_store};

on_every_store![
    a_body_has_a_largest_size,
    the_data_of_an_event_has_a_largest_size,
    result_and_error_have_a_largest_size_together,
    the_text_of_a_series_has_a_largest_size,
    a_request_has_a_largest_number_of_events,
    payloads_nest_only_so_deep,
    a_task_has_a_largest_number_of_tags,
    configured_limits_replace_the_defaults,
    the_text_of_a_task_is_limited,
    a_list_in_a_query_string_has_at_most_100_entries,
];

const MIB: usize = 1 << 20;

fn says(refusal: &Value, limit: usize) {
    let sentence = refusal["error"].as_str().unwrap();
    assert!(sentence.contains(&limit.to_string()), "no {limit} in {sentence:?}");
}

fn too_large(reply: &Reply, limit: usize) -> Value {
    let refusal = reply.refused(413, "payload_too_large");
    says(&refusal, limit);
    refusal
}

/// Rules: H22, H30
async fn a_body_has_a_largest_size(backend: Backend) {
    let server = backend.start().await;
    let body = |size: usize| format!(r#"{{"params":{{"p":"{}"}}}}"#, "x".repeat(size - 19));
    assert_eq!(body(100).len(), 100);
    server.post("/tasks", body(2 * MIB)).await.expect(201);
    too_large(&server.post("/tasks", body(2 * MIB + 1)).await, 2 * MIB);
    let id = server.new_task().await;
    too_large(&server.post(&format!("/tasks/{id}/events"), body(2 * MIB + 1)).await, 2 * MIB);
    too_large(&server.patch(&format!("/tasks/{id}/status"), body(2 * MIB + 1)).await, 2 * MIB);
    // Sent in pieces, so that no Content-Length announces the size.
    let pieces = (0..3).map(|_| Ok::<_, std::io::Error>(vec![b' '; MIB]));
    let unannounced = server
        .request(reqwest::Method::POST, "/tasks")
        .header("Content-Type", "application/json")
        .body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)));
    too_large(&server.send(unannounced).await, 2 * MIB);
}

/// Rules: H24, H30
async fn the_data_of_an_event_has_a_largest_size(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let events = format!("/tasks/{id}/events");
    server.post(&events, plain("a", "x".repeat(MIB - 2))).await.expect(201);
    let refusal = too_large(&server.post(&events, plain("a", "x".repeat(MIB - 1))).await, MIB);
    assert_eq!(refusal["path"], "/data");
    let several = json!([plain("a", 1), plain("a", "x".repeat(MIB))]);
    assert_eq!(too_large(&server.post(&events, several).await, MIB)["path"], "/1/data");
    assert_eq!(server.history(&id, "").await.len(), 1);
}

/// Rules: H25, H30
async fn result_and_error_have_a_largest_size_together(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let half = "x".repeat(MIB / 2);
    let body = json!({"status": "failed", "result": {"r": half}, "error": {"message": half}});
    too_large(&server.patch(&format!("/tasks/{id}/status"), body).await, MIB);
    let body = json!({"status": "failed", "result": {"r": half}, "error": {"message": "m"}});
    server.patch(&format!("/tasks/{id}/status"), body).await.expect(200);
}

/// Rules: H26, H30
async fn the_text_of_a_series_has_a_largest_size(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let events = format!("/tasks/{id}/events");
    // 32 pieces of half a MiB.
    for _ in 0..32 {
        server.post(&events, delta("s", &"x".repeat(MIB / 2))).await.expect(201);
    }
    too_large(&server.post(&events, delta("s", "y")).await, 16 * MIB);
    too_large(&server.post(&events, json!([plain("a", 1), delta("s", "y")])).await, 16 * MIB);
    server.post(&events, json!([delta("s", ""), delta("other", "y")])).await.expect(201);
    let history = server.history(&id, "?seriesFormat=accumulated&types=llm.*").await;
    assert_eq!(history.len(), 2);
    assert_eq!(history[0]["data"]["text"].as_str().unwrap().len(), 16 * MIB);
}

/// Rules: H27, H30
async fn a_request_has_a_largest_number_of_events(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let events = format!("/tasks/{id}/events");
    let refusal = server
        .post(&events, json!(vec![plain("a", 1); 1_001]))
        .await
        .refused(400, "limit_exceeded");
    says(&refusal, 1_000);
    assert!(server.history(&id, "").await.is_empty());
    server.post(&events, json!(vec![plain("a", 1); 1_000])).await.expect(201);
}

/// Rules: H28, H30
async fn payloads_nest_only_so_deep(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let object = |depth: usize| format!(r#"{{"a":{}}}"#, nested(depth - 1));
    server.post(&events, format!(r#"{{"type":"a","data":{}}}"#, nested(64))).await.expect(201);
    server
        .post("/tasks", format!(r#"{{"params":{},"metadata":{}}}"#, object(64), object(64)))
        .await
        .expect(201);
    let refusals = [
        server.post(&events, format!(r#"{{"type":"a","data":{}}}"#, nested(65))).await,
        server.post(&events, format!(r#"[{{"type":"a","data":{}}}]"#, nested(65))).await,
        server.post("/tasks", format!(r#"{{"params":{}}}"#, object(65))).await,
        server.post("/tasks", format!(r#"{{"metadata":{}}}"#, object(65))).await,
        server.patch(&status, format!(r#"{{"status":"failed","result":{}}}"#, object(65))).await,
        server
            .patch(
                &status,
                format!(
                    r#"{{"status":"failed","error":{{"message":"m","details":{}}}}}"#,
                    object(65)
                ),
            )
            .await,
    ];
    for refusal in refusals {
        says(&refusal.refused(400, "limit_exceeded"), 64);
    }
    // Far deeper than any stack.
    let abyss = server.post(&events, format!(r#"{{"type":"a","data":{}}}"#, nested(200_000))).await;
    assert_eq!(abyss.status, 400, "{}", abyss.text);
    server
        .patch(&status, format!(r#"{{"status":"completed","result":{}}}"#, object(64)))
        .await
        .expect(200);
}

/// Rules: H29, H30
async fn a_task_has_a_largest_number_of_tags(backend: Backend) {
    let server = backend.start().await;
    let tags = |count: u32| (0..count).map(|n| format!("tag-{n}")).collect::<Vec<_>>();
    let task = server.create(json!({"tags": tags(100)})).await;
    assert_eq!(task["tags"], json!(tags(100)));
    let refusal = server.post("/tasks", json!({"tags": tags(101)})).await.refused_at(
        400,
        "limit_exceeded",
        "/tags",
    );
    says(&refusal, 100);
}

/// Rules: H22, H24, H25, H26, H27, H28, H29, H30
async fn configured_limits_replace_the_defaults(backend: Backend) {
    let server = backend
        .start_with(&[
            ("TASKCAST_LIMITS__BODY_BYTES", "1001"),
            ("TASKCAST_LIMITS__EVENT_DATA_BYTES", "502"),
            ("TASKCAST_LIMITS__OUTCOME_BYTES", "203"),
            ("TASKCAST_LIMITS__SERIES_TEXT_BYTES", "14"),
            ("TASKCAST_LIMITS__EVENTS_PER_REQUEST", "5"),
            ("TASKCAST_LIMITS__NESTING", "6"),
            ("TASKCAST_LIMITS__TAGS", "7"),
        ])
        .await;
    let id = server.running_task().await;
    let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
    too_large(&server.post("/tasks", json!({"metadata": {"m": "x".repeat(1_001)}})).await, 1_001);
    too_large(&server.post(&events, plain("a", "x".repeat(502))).await, 502);
    let body = json!({"status": "failed", "result": {"r": "x".repeat(203)}});
    too_large(&server.patch(&status, body).await, 203);
    server.post(&events, delta("s", "12345678901234")).await.expect(201);
    too_large(&server.post(&events, delta("s", "5")).await, 14);
    let refusals = [
        (server.post(&events, json!(vec![plain("a", 1); 6])).await, 5),
        (server.post(&events, r#"{"type":"a","data":[[[[[[[]]]]]]]}"#).await, 6),
        (server.post("/tasks", json!({"tags": ["1", "2", "3", "4", "5", "6", "7", "8"]})).await, 7),
    ];
    for (refusal, limit) in refusals {
        says(&refusal.refused(400, "limit_exceeded"), limit);
    }
}

/// Rules: H87, H30
async fn the_text_of_a_task_is_limited(backend: Backend) {
    let server = backend.start_with(&[("TASKCAST_LIMITS__TASK_BYTES", "5003")]).await;
    let long = "x".repeat(5_003);
    let cleanup = json!({"rules": [{"name": "x".repeat(200), "target": "all"}, {"name": "x".repeat(200), "target": "all"}]});
    for task in [
        json!({"params": {"p": long}}),
        json!({"metadata": {"m": long}}),
        json!({"tags": (0..40).map(|n| format!("{n}{}", "x".repeat(200))).collect::<Vec<_>>()}),
        json!({"cleanup": cleanup, "params": {"p": "x".repeat(4_700)}}),
    ] {
        too_large(&server.post("/tasks", task).await, 5_003);
    }
    server.create(json!({"params": {"p": "x".repeat(4_500)}})).await;
}

/// Rules: H88, H30
async fn a_list_in_a_query_string_has_at_most_100_entries(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let list =
        |name: &str, count: usize, entry: &str| format!("{name}={}", vec![entry; count].join(","));
    let tags = |count: usize| vec!["tag=a"; count].join("&");
    for (query, path) in [
        (list("type", 101, "a"), "/query/type"),
        (list("status", 101, "running"), "/query/status"),
        (tags(101), "/query/tag"),
    ] {
        let refusal = server.get(&format!("/tasks?{query}")).await;
        says(&refusal.refused_at(400, "limit_exceeded", path), 100);
    }
    for query in [list("type", 100, "a"), list("status", 100, "running"), tags(100)] {
        server.get(&format!("/tasks?{query}")).await.expect(200);
    }
    let history = format!("/tasks/{id}/events/history");
    for route in [format!("/tasks/{id}/events"), history.clone(), "/events".to_owned()] {
        for (query, path) in [
            (list("types", 101, "a"), "/query/types"),
            (list("levels", 101, "info"), "/query/levels"),
        ] {
            let refusal = server.get(&format!("{route}?{query}")).await;
            says(&refusal.refused_at(400, "limit_exceeded", path), 100);
        }
    }
    server.get(&format!("{history}?{}", list("types", 100, "a"))).await.expect(200);
}
