//! What a stream looks like on the wire.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::super::{delta, is_ulid, latest, plain};
use crate::support::client::text_of;
use crate::support::{Backend, on_every_store, until, within};

on_every_store![
    a_stream_is_an_event_stream_and_refusals_are_json,
    a_stream_is_neither_cached_nor_buffered_nor_compressed,
    a_frame_has_three_lines_in_order,
    an_envelope_has_its_members_in_order,
    unwrapped_data_is_the_event_as_published,
    only_two_event_names_occur,
    silence_is_broken_by_comments,
    a_stream_begins_with_a_comment_at_once,
    a_reader_may_wait_for_its_task,
];

/// Rules: S1
async fn a_stream_is_an_event_stream_and_refusals_are_json(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let stream = server.stream(&id, "").await;
    assert_eq!(
        stream.headers["content-type"].to_str().unwrap().split(';').next(),
        Some("text/event-stream")
    );
    server.get("/tasks/nobody/events").await.refused(404, "task_not_found");
    let reply = server.get(&format!("/tasks/{id}/events?levels=loud")).await;
    reply.refused_at(400, "invalid_request", "/query/levels");
}

/// Rules: S2, S3, S48
async fn a_stream_is_neither_cached_nor_buffered_nor_compressed(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    for path in [format!("/tasks/{id}/events"), "/events".to_owned()] {
        let request =
            server.request(Method::GET, &path).header("Accept-Encoding", "gzip, br, zstd, deflate");
        let mut stream = server.open(request).await;
        assert_eq!(stream.headers["cache-control"], "no-cache, no-transform", "{path}");
        assert_eq!(stream.headers["x-accel-buffering"], "no", "{path}");
        assert!(!stream.headers.contains_key("content-encoding"), "{path}");
        assert!(stream.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        server.publish(&id, plain("a", "x".repeat(5_000))).await;
        assert!(stream.one().await.raw.contains("xxxxx"));
    }
}

/// Rules: S4, S7, S8
async fn a_frame_has_three_lines_in_order(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let published = server.publish(&id, plain("before", json!({"text": "line\nbreak"}))).await;
    let mut stream = server.stream(&id, "").await;
    let mut frames = stream.take(1).await;
    server.enter(&id, "running").await;
    frames.extend(stream.take(1).await);
    let mut ids = Vec::new();
    for frame in &frames {
        let lines: Vec<_> = frame.raw.split('\n').collect();
        assert_eq!(lines.len(), 3, "{:?}", frame.raw);
        assert_eq!(lines[0], "event: taskcast.event");
        assert_eq!(lines[1], format!("data: {}", frame.text));
        assert_eq!(lines[2], format!("id: {}", frame.get("eventId").as_str().unwrap()));
        ids.push(frame.id.clone().unwrap());
    }
    assert_eq!(ids[0], published["id"]);
    assert!(ids.iter().all(|id| is_ulid(id)));
    assert_eq!(frames[1].get("type"), "taskcast:status");
    assert_eq!(frames[1].get("data"), json!({"status": "running"}));
}

/// Returns the names of the members of an object in the order they stand in.
fn names_in_order(text: &str) -> Vec<String> {
    let parsed: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
    let mut names: Vec<_> = parsed.keys().cloned().collect();
    names.sort_by_key(|name| text.find(&format!("\"{name}\":")));
    names
}

/// Rules: S5
async fn an_envelope_has_its_members_in_order(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let mut named = delta("n", "x");
    named["seriesAccField"] = json!("text");
    let published = server
        .publish(
            &id,
            json!([plain("p", 1), latest("l", 1), named, named, {"type": "c", "seriesId": "c"}]),
        )
        .await;
    let base =
        ["filteredIndex", "rawIndex", "eventId", "taskId", "type", "timestamp", "level", "data"];
    let with = |more: &[&str]| base.iter().chain(more).map(ToString::to_string).collect::<Vec<_>>();
    let mut stream = server.stream(&id, "").await;
    let frames = stream.take(4).await;
    // Before a snapshot the `id:` line is longer, and `cursor` repeats it.
    assert_eq!(names_in_order(&frames[0].text), with(&["cursor"]));
    assert_eq!(frames[0].get("cursor"), *frames[0].id.as_ref().unwrap());
    assert_eq!(names_in_order(&frames[1].text), with(&["seriesId", "seriesMode", "cursor"]));
    let snapshot = with(&["seriesId", "seriesMode", "seriesAccField", "seriesSnapshot"]);
    assert_eq!(names_in_order(&frames[2].text), snapshot);
    assert_eq!(names_in_order(&frames[3].text), with(&["seriesId"]));
    let (envelope, event) = (frames[0].data(), &published[0]);
    for (name, member) in [
        ("rawIndex", "index"),
        ("eventId", "id"),
        ("taskId", "taskId"),
        ("type", "type"),
        ("timestamp", "timestamp"),
        ("level", "level"),
        ("data", "data"),
    ] {
        assert_eq!(envelope[name], event[member], "{name}");
    }
    assert_eq!(envelope["filteredIndex"], 0);
    server.publish(&id, named).await;
    let live = stream.one().await;
    assert_eq!(names_in_order(&live.text), with(&["seriesId", "seriesMode", "seriesAccField"]));
}

/// Rules: S6
async fn unwrapped_data_is_the_event_as_published(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let published =
        server.publish(&id, json!([plain("p", 1), delta("s", "a"), delta("s", "b")])).await;
    let mut stream = server.stream(&id, "?wrap=false").await;
    let frames = stream.take(2).await;
    let mut first = frames[0].data();
    assert!(first.as_object_mut().unwrap().remove("cursor").is_some());
    assert_eq!(first, published[0]);
    let mut snapshot = published[2].clone();
    snapshot["data"] = json!({"text": "ab"});
    snapshot["seriesSnapshot"] = json!(true);
    assert_eq!(frames[1].data(), snapshot);
    let event = server.post(&format!("/tasks/{id}/events"), plain("live", [1])).await.expect(201);
    assert_eq!(stream.one().await.text, event.text);
    server.enter(&id, "running").await;
    let status = stream.one().await;
    assert_eq!(status.data(), server.history(&id, "").await[4]);
    assert_eq!(status.id, Some(text_of(&status.get("id"))));
    let mut wrapped = server.stream(&id, "?wrap=true&since.index=2").await;
    assert_eq!(wrapped.one().await.get("filteredIndex"), 3);
    server.get(&format!("/tasks/{id}/events?wrap=")).await.refused_at(
        400,
        "invalid_request",
        "/query/wrap",
    );
}

/// Rules: S9
async fn only_two_event_names_occur(backend: Backend) {
    let server = backend.start_with(&[("TASKCAST_SSE__KEEP_ALIVE_MS", "50")]).await;
    let id = server.running_task().await;
    server.publish(&id, json!([plain("a", 1), delta("s", "a"), latest("l", 1)])).await;
    let mut stream = server.resume(&id, "", "unknown").await;
    let mut frames = stream.take(4).await;
    stream.comment(|comment| comment != "reset").await;
    server
        .publish(&id, json!([plain("taskcast.error", 1), plain("error", 1), plain("message", 1)]))
        .await;
    server.enter(&id, "completed").await;
    frames.extend(stream.rest().await);
    let names: Vec<_> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(names.len(), 9);
    assert!(names[..8].iter().all(|name| *name == "taskcast.event"), "{names:?}");
    assert_eq!(names[8], "taskcast.done");
}

/// Rules: S10
async fn silence_is_broken_by_comments(backend: Backend) {
    let server = backend.start_with(&[("TASKCAST_SSE__KEEP_ALIVE_MS", "100")]).await;
    let id = server.new_task().await;
    for path in [
        format!("/tasks/{id}/events"),
        format!("/tasks/{id}/events?types=never"),
        "/events".to_owned(),
    ] {
        let mut stream = server.open(server.request(Method::GET, &path)).await;
        for _ in 0..3 {
            stream.comments.clear();
            stream.comment(|_| true).await;
        }
    }
    // By default a second of silence is nothing special.
    let patient = backend.start().await;
    let id = patient.new_task().await;
    let mut stream = patient.stream(&id, "").await;
    let opened = Instant::now();
    until("a second passes", || async { (opened.elapsed().as_secs() >= 1).then_some(()) }).await;
    patient.publish(&id, plain("a", 1)).await;
    stream.one().await;
    assert!(stream.comments.is_empty(), "{:?}", stream.comments);
}

/// Rules: S10
async fn a_stream_begins_with_a_comment_at_once(backend: Backend) {
    // Nothing else breaks the silence while the test waits.
    let quiet = ("TASKCAST_SSE__KEEP_ALIVE_MS", "3600000");
    let server = backend.start_with(&[quiet]).await;
    let id = server.new_task().await;
    for path in [format!("/tasks/{id}/events"), "/events".to_owned()] {
        let mut response = server.request(Method::GET, &path).send().await.unwrap();
        let first = within("the first byte", response.chunk()).await.unwrap().unwrap();
        assert!(first.starts_with(b":") && first.ends_with(b"\n\n"), "{path}: {first:?}");
    }
}

/// Rules: S56
async fn a_reader_may_wait_for_its_task(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let waiting = tokio::spawn({
        let server = first.clone();
        async move { server.stream("later", "?wait=25").await.one().await }
    });
    let began = Instant::now();
    first.get("/tasks/nobody/events?wait=1").await.refused(404, "task_not_found");
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(!waiting.is_finished());
    second.create(json!({"id": "later"})).await;
    second.publish("later", plain("a", 1)).await;
    let frame = within("the reader gets its task", waiting).await.unwrap();
    assert_eq!(frame.get("data"), 1);
    for wait in ["26", "-1", "x"] {
        let reply = first.get(&format!("/tasks/later/events?wait={wait}")).await;
        reply.refused_at(400, "invalid_request", "/query/wait");
    }
}
