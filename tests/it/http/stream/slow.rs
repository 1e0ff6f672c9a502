//! Readers that are slow or take nothing at all.

use reqwest::Method;
use serde_json::json;

use super::super::plain;
use crate::support::client::text_of;
use crate::support::server::Server;
use crate::support::sse::members;
use crate::support::{Backend, on_every_store, until};

on_every_store![
    a_slow_reader_gets_everything_at_its_own_pace,
    a_reader_that_takes_nothing_is_disconnected_and_can_resume,
    a_reader_of_all_tasks_that_falls_far_behind_is_disconnected,
];

/// More than the buffers of any socket between server and reader.
const EVENTS: usize = 40;
const EVENT_BYTES: usize = 500_000;

async fn publish_much(server: &Server, id: &str) {
    let payload = "x".repeat(EVENT_BYTES);
    for n in 0..EVENTS {
        server.publish(id, plain("big", json!([n, payload]))).await;
    }
}

/// Rules: S18
async fn a_slow_reader_gets_everything_at_its_own_pace(backend: Backend) {
    let server = backend.start_with(&[("TASKCAST_SSE__RING_EVENTS", "4")]).await;
    let id = server.running_task().await;
    let mut slow = server.stream(&id, "").await;
    slow.one().await;
    publish_much(&server, &id).await;
    for n in 0..500 {
        server.publish(&id, plain("small", n)).await;
    }
    server.enter(&id, "completed").await;
    let mut frames = slow.rest().await;
    assert!(frames.pop().unwrap().is_done());
    assert_eq!(members(&frames, "rawIndex"), (1..=541).collect::<Vec<_>>());
    assert_eq!(members(&frames, "filteredIndex"), (1..=541).collect::<Vec<_>>());
}

/// Rules: S18
async fn a_reader_that_takes_nothing_is_disconnected_and_can_resume(backend: Backend) {
    let server = backend.start_with(&[("TASKCAST_SSE__STALL_TIMEOUT_MS", "300")]).await;
    let id = server.running_task().await;
    let mut stalled = server.stream(&id, "").await;
    stalled.one().await;
    publish_much(&server, &id).await;
    until("the stalled reader is disconnected", || async {
        (server.task(&id).await["subscriberCount"] == 0).then_some(())
    })
    .await;
    let mut frames = stalled.rest().await;
    assert!(frames.len() < EVENTS, "what was not taken was not sent");
    assert!(frames.iter().all(|frame| !frame.is_done()));
    let cursor = stalled.last_event_id.clone().unwrap();
    server.enter(&id, "completed").await;
    frames.extend(server.resume(&id, "", &cursor).await.rest().await);
    assert!(frames.pop().unwrap().is_done());
    assert_eq!(members(&frames, "rawIndex"), (1..=EVENTS + 1).collect::<Vec<_>>());
}

/// Rules: S54
async fn a_reader_of_all_tasks_that_falls_far_behind_is_disconnected(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let mut slow = server.open(server.request(Method::GET, "/events")).await;
    let mut quick = server.open(server.request(Method::GET, "/events")).await;
    let payload = "x".repeat(EVENT_BYTES);
    for n in 1..=EVENTS {
        server.publish(&id, plain("big", json!([n, payload]))).await;
        assert_eq!(quick.one().await.get("rawIndex"), n, "who keeps up misses nothing");
    }
    let frames = slow.rest().await;
    assert!(frames.len() < EVENTS, "{} frames", frames.len());
    // What it did get is a beginning without holes.
    assert_eq!(members(&frames, "rawIndex"), (1..=frames.len()).collect::<Vec<_>>());
    let mut patient = server.open(server.request(Method::GET, "/events")).await;
    let mut last = json!(null);
    for _ in 0..4 {
        last = server.publish(&id, plain("big", payload.as_str())).await;
    }
    let frames = patient.take(4).await;
    assert_eq!(text_of(&frames[3].get("eventId")), text_of(&last["id"]));
}
