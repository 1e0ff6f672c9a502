//! Publishing events.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{RECENT_MS, delta, is_ulid, latest, plain};
use crate::support::client::{column, number_of, text_of};
use crate::support::{Backend, on_every_store};

on_every_store![
    an_event_is_answered_as_stored_and_an_array_as_an_array,
    a_request_is_stored_whole_or_not_at_all,
    reserved_types_are_refused,
    events_are_taken_until_the_task_ends,
    indexes_have_no_gap_and_requests_stay_together,
    ids_and_times_rise,
    what_was_answered_is_read_afterwards_everywhere,
];

/// Rules: H65
async fn an_event_is_answered_as_stored_and_an_array_as_an_array(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let event = server.publish(&id, json!({"type": "bare"})).await;
    let mut members: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["data", "id", "index", "level", "taskId", "timestamp", "type"]);
    assert_eq!((&event["level"], &event["data"]), (&json!("info"), &Value::Null));
    assert_eq!((&event["taskId"], &event["index"]), (&json!(id), &json!(0)));
    assert!(number_of(&event["timestamp"]) > RECENT_MS);
    let full = json!({
        "type": "full", "level": "error", "data": {"out": "b"}, "seriesId": "s", "seriesMode": "accumulate", "seriesAccField": "out",
    });
    server.publish(&id, full.clone()).await;
    // The second piece is answered as sent, without the text of the first.
    let events = server.publish(&id, json!([full, plain("p", [1, 2]), latest("l", 1)])).await;
    for (name, value) in full.as_object().unwrap() {
        assert_eq!(&events[0][name], value, "{name}");
    }
    assert!(events[0].get("seriesSnapshot").is_none());
    assert_eq!(column(events.as_array().unwrap(), "type"), ["full", "p", "progress"]);
    assert_eq!(server.post(&format!("/tasks/{id}/events"), "[]").await.expect(201).text, "[]");
    for level in ["debug", "info", "warn", "error"] {
        assert_eq!(server.publish(&id, json!({"type": "l", "level": level})).await["level"], level);
    }
    let one = server.publish(&id, json!([plain("one", 1)])).await;
    assert_eq!(one.as_array().unwrap().len(), 1);
    server.post(&format!("/tasks/{id}/events"), json!({"data": 1})).await.refused_at(
        400,
        "invalid_request",
        "/type",
    );
}

/// Rules: H66
async fn a_request_is_stored_whole_or_not_at_all(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let events = format!("/tasks/{id}/events");
    server.publish(&id, delta("s", "x")).await;
    let bad = [
        (json!([plain("good", 1), {"data": 1}]), "invalid_request"),
        (json!([{"type": "taskcast:x"}, plain("good", 1)]), "invalid_request"),
        (json!([plain("good", 1), delta("new", "x"), latest("s", 1)]), "series_conflict"),
        (json!([delta("other", "x"), latest("other", 1)]), "series_conflict"),
    ];
    for (body, code) in bad {
        server.post(&events, body).await.refused(400, code);
    }
    assert_eq!(column(&server.history(&id, "").await, "type"), ["taskcast:status", "llm.delta"]);
    // Nothing of the refused requests began a series either.
    server.publish(&id, json!([latest("new", 1), latest("other", 1)])).await;
}

/// Rules: H67
async fn reserved_types_are_refused(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let events = format!("/tasks/{id}/events");
    for reserved in ["taskcast:status", "taskcast:", "taskcast:anything.else"] {
        server.post(&events, plain(reserved, 1)).await.refused_at(400, "invalid_request", "/type");
        let body = json!([plain("a", 1), plain(reserved, 1)]);
        server.post(&events, body).await.refused_at(400, "invalid_request", "/1/type");
    }
    for free in ["taskcast", "taskcast.status", "Taskcast:status", "my.taskcast:status"] {
        server.publish(&id, plain(free, 1)).await;
    }
    assert_eq!(server.history(&id, "").await.len(), 4);
}

/// Rules: H68
async fn events_are_taken_until_the_task_ends(backend: Backend) {
    let server = backend.start().await;
    for end in ["completed", "failed", "timeout", "cancelled"] {
        let id = server.new_task().await;
        server.publish(&id, plain("pending", 1)).await;
        server.enter(&id, "running").await;
        server.publish(&id, plain("running", 1)).await;
        server.enter(&id, end).await;
        for body in [plain("late", 1), json!([plain("late", 1)]), json!([])] {
            server.post(&format!("/tasks/{id}/events"), body).await.refused(400, "task_closed");
        }
        assert_eq!(server.history(&id, "").await.len(), 4);
    }
}

/// Rules: H69
async fn indexes_have_no_gap_and_requests_stay_together(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let id = first.running_task().await;
    let writers = (0..12).map(|writer| {
        let (server, id) = (if writer % 2 == 0 { &first } else { &second }, &id);
        async move {
            for request in 0..8 {
                let body: Vec<_> = (0..3).map(|n| plain("w", [writer, request, n])).collect();
                let events = server.publish(id, json!(body)).await;
                let from = number_of(&events[0]["index"]);
                assert_eq!(column(events.as_array().unwrap(), "index"), [from, from + 1, from + 2]);
            }
        }
    });
    join_all(writers).await;
    let history = second.history(&id, "").await;
    assert_eq!(column(&history, "index"), (0..=288).collect::<Vec<_>>());
    for request in history[1..].chunks(3) {
        for (n, event) in request.iter().enumerate() {
            assert_eq!(event["data"], json!([request[0]["data"][0], request[0]["data"][1], n]));
        }
    }
}

/// Rules: H70
async fn ids_and_times_rise(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let mut ids = HashSet::new();
    for _ in 0..3 {
        let id = first.running_task().await;
        for n in 0..10 {
            let server = if n % 2 == 0 { &first } else { &second };
            server.publish(&id, json!([plain("a", n), latest("l", n)])).await;
        }
        let history = second.history(&id, "").await;
        let times: Vec<_> = column(&history, "timestamp").iter().map(number_of).collect();
        assert!(times.is_sorted(), "{times:?}");
        let of_task: Vec<_> = column(&history, "id").iter().map(text_of).collect();
        assert!(of_task.is_sorted_by(|a, b| a < b), "{of_task:?}");
        for id in of_task {
            assert!(is_ulid(&id), "{id}");
            assert!(ids.insert(id), "an id occurs twice");
        }
    }
}

/// Rules: H71
async fn what_was_answered_is_read_afterwards_everywhere(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let id = first.new_task().await;
    for n in 0..20 {
        let (writer, reader) = if n % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let event = writer.publish(&id, plain("a", n)).await;
        assert_eq!(reader.history(&id, "").await.last(), Some(&event));
    }
}
