//! Bad input of every kind: refused in the one shape, at the right place,
//! without a trace, and without harm to whoever writes at the same moment.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{delta, latest, plain};
use crate::support::client::column;
use crate::support::{Backend, on_every_store};

on_every_store![
    bad_events_are_refused_at_their_place,
    bad_changes_are_refused_at_their_place,
    bad_tasks_are_refused_at_their_place,
    bad_requests_do_not_disturb_their_neighbours,
    text_that_is_special_elsewhere_is_just_text,
];

/// A body, the code it is refused with, and where.
type Bad = (&'static str, &'static str, &'static str);

const BAD_EVENTS: [Bad; 24] = [
    ("{}", "invalid_request", "/type"),
    (r#"{"type":null}"#, "invalid_request", "/type"),
    (r#"{"type":1}"#, "invalid_request", "/type"),
    (r#"{"type":[]}"#, "invalid_request", "/type"),
    (r#"{"type":""}"#, "invalid_request", "/type"),
    (r#"{"type":"a,b"}"#, "invalid_request", "/type"),
    (r#"{"type":"a*"}"#, "invalid_request", "/type"),
    (r#"{"type":"\u0000"}"#, "invalid_request", "/type"),
    (r#"{"type":"\ud800"}"#, "invalid_request", "/type"),
    (r#"{"type":"taskcast:status"}"#, "invalid_request", "/type"),
    (r#"{"type":"a","level":""}"#, "invalid_request", "/level"),
    (r#"{"type":"a","level":"INFO"}"#, "invalid_request", "/level"),
    (r#"{"type":"a","level":1}"#, "invalid_request", "/level"),
    (r#"{"type":"a","seriesId":1}"#, "invalid_request", "/seriesId"),
    (r#"{"type":"a","seriesId":""}"#, "invalid_request", "/seriesId"),
    (r#"{"type":"a","seriesId":"\u001f"}"#, "invalid_request", "/seriesId"),
    (r#"{"type":"a","seriesMode":"latest"}"#, "invalid_request", "/seriesMode"),
    (r#"{"type":"a","seriesId":"s","seriesMode":"sum"}"#, "invalid_request", "/seriesMode"),
    (r#"{"type":"a","seriesId":"s","seriesMode":1}"#, "invalid_request", "/seriesMode"),
    (
        r#"{"type":"a","seriesId":"s","seriesMode":"accumulate","seriesAccField":1}"#,
        "invalid_request",
        "/seriesAccField",
    ),
    (r#"{"type":"a","data":"unfinished}"#, "invalid_json", ""),
    (r#"{"type":"a","data":1e}"#, "invalid_json", ""),
    (r#"{"type":"a","data":"\x"}"#, "invalid_json", ""),
    (r#"{"type":"a","data":"\ud8"}"#, "invalid_json", ""),
];

const BAD_CHANGES: [Bad; 12] = [
    ("{}", "invalid_request", "/status"),
    (r#"{"status":null}"#, "invalid_request", "/status"),
    (r#"{"status":1}"#, "invalid_request", "/status"),
    (r#"{"status":"Running"}"#, "invalid_request", "/status"),
    (r#"{"status":"paused"}"#, "invalid_request", "/status"),
    (r#"{"status":"running","result":"x"}"#, "invalid_request", "/result"),
    (r#"{"status":"running","error":"x"}"#, "invalid_request", "/error"),
    (r#"{"status":"running","error":{"code":"x"}}"#, "invalid_request", "/error/message"),
    (r#"{"status":"running","error":{"message":null}}"#, "invalid_request", "/error/message"),
    (r#"{"status":"running","error":{"message":"m","code":1}}"#, "invalid_request", "/error/code"),
    (
        r#"{"status":"running","error":{"message":"m","details":[]}}"#,
        "invalid_request",
        "/error/details",
    ),
    (r#"{"status":"running""#, "invalid_json", ""),
];

const BAD_TASKS: [Bad; 14] = [
    (r#"{"id":"a/b"}"#, "invalid_request", "/id"),
    (r#"{"id":1}"#, "invalid_request", "/id"),
    (r#"{"id":""}"#, "invalid_request", "/id"),
    (r#"{"type":"*"}"#, "invalid_request", "/type"),
    (r#"{"type":{}}"#, "invalid_request", "/type"),
    (r#"{"params":1}"#, "invalid_request", "/params"),
    (r#"{"metadata":"x"}"#, "invalid_request", "/metadata"),
    (r#"{"ttl":0}"#, "invalid_request", "/ttl"),
    (r#"{"ttl":true}"#, "invalid_request", "/ttl"),
    (r#"{"tags":"x"}"#, "invalid_request", "/tags"),
    (r#"{"tags":["a",1]}"#, "invalid_request", "/tags/1"),
    (r#"{"tags":[""]}"#, "invalid_request", "/tags/0"),
    ("[]", "invalid_request", ""),
    (r#"{"params":{"#, "invalid_json", ""),
];

fn check(reply: &crate::support::client::Reply, (body, code, path): Bad, prefix: &str) {
    let refusal = reply.refused(400, code);
    if !path.is_empty() {
        assert_eq!(refusal["path"], format!("{prefix}{path}"), "{body}: {refusal}");
    }
}

/// Rules: H7, H16, H66
async fn bad_events_are_refused_at_their_place(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let events = format!("/tasks/{id}/events");
    for bad in BAD_EVENTS {
        check(&server.post(&events, bad.0).await, bad, "");
        let among_good = format!(r#"[{{"type":"good"}},{{"type":"good"}},{}]"#, bad.0);
        check(&server.post(&events, among_good).await, bad, "/2");
    }
    assert_eq!(server.history(&id, "").await.len(), 1);
}

/// Rules: H7, H16, H51
async fn bad_changes_are_refused_at_their_place(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    for bad in BAD_CHANGES {
        check(&server.patch(&format!("/tasks/{id}/status"), bad.0).await, bad, "");
    }
    assert_eq!(server.task(&id).await["status"], "pending");
    assert!(server.history(&id, "").await.is_empty());
}

/// Rules: H7, H16
async fn bad_tasks_are_refused_at_their_place(backend: Backend) {
    let server = backend.start().await;
    for bad in BAD_TASKS {
        check(&server.post("/tasks", bad.0).await, bad, "");
    }
    assert_eq!(server.get("/tasks").await.json(), json!({"tasks": []}));
}

/// Rules: H66, H69
async fn bad_requests_do_not_disturb_their_neighbours(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let closed = server.running_task().await;
    server.enter(&closed, "completed").await;
    server.publish(&id, delta("s", "0")).await;
    let events = format!("/tasks/{id}/events");
    let bad: Vec<(Method, String, Value, u16)> = vec![
        (Method::POST, events.clone(), json!([plain("bad", 1), latest("s", 1)]), 400),
        (Method::POST, format!("/tasks/{closed}/events"), plain("bad", 1), 400),
        (Method::POST, "/tasks/nobody/events".into(), plain("bad", 1), 404),
        (Method::PATCH, format!("/tasks/{id}/status"), json!({"status": "running"}), 409),
        (Method::PATCH, format!("/tasks/{closed}/status"), json!({"status": "failed"}), 409),
        (Method::POST, events.clone(), json!([plain("bad", 1), {"type": 1}]), 400),
    ];
    let requests = (0..240_usize).map(|n| {
        let (server, events, bad) = (&server, &events, &bad);
        async move {
            if n % 2 == 0 {
                server.post(events, plain("good", n)).await.expect(201);
            } else {
                let (method, path, body, status) = &bad[n / 2 % bad.len()];
                server.send(server.json(method.clone(), path, body)).await.expect(*status);
            }
        }
    });
    join_all(requests).await;
    let history = server.history(&id, "?types=good,bad").await;
    let mut kept: Vec<_> = column(&history, "data").iter().map(|n| n.as_u64().unwrap()).collect();
    kept.sort_unstable();
    assert_eq!(kept, (0..240).step_by(2).collect::<Vec<_>>());
    assert_eq!(column(&server.history(&id, "").await, "index"), (0..122).collect::<Vec<_>>());
    assert_eq!(server.history(&closed, "").await.len(), 2);
}

/// Rules: H19, H21, H62
async fn text_that_is_special_elsewhere_is_just_text(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    for odd in
        ["'; DROP TABLE taskcast.events; --", "{NULL,\"a\"}", "%s%n$1\\", "<script>", "a%b_c"]
    {
        let event = json!({"type": odd.replace(',', ";"), "data": {"text": odd}, "seriesId": odd, "seriesMode": "accumulate"});
        let stored = server.publish(&id, event).await;
        assert_eq!(server.history(&id, "").await.last(), Some(&stored));
        let task = server.create(json!({"type": odd.replace(',', ";"), "tags": [odd]})).await;
        let query = percent_encoding::utf8_percent_encode(odd, percent_encoding::NON_ALPHANUMERIC);
        let listed = server.get(&format!("/tasks?tag={query}")).await.expect(200).json();
        assert_eq!(listed["tasks"][0]["id"], task["id"]);
    }
    let nothing = server.get("/tasks?tag=a%25b%5Fd&type=a%25b%5Fd").await.expect(200).json();
    assert_eq!(nothing, json!({"tasks": []}));
}
