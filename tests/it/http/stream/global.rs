//! All tasks in one stream.

use std::collections::HashMap;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::super::{delta, plain};
use crate::support::client::{number_of, text_of};
use crate::support::server::Server;
use crate::support::sse::{Stream, members};
use crate::support::{Backend, on_every_store};

on_every_store![
    the_events_of_all_tasks_arrive_in_envelopes,
    only_what_is_published_after_connecting_arrives,
    events_of_every_instance_arrive_once_and_in_order,
    filters_apply_and_are_refused_alike,
    numbers_count_the_frames_of_the_connection,
    frames_have_no_id_and_nothing_is_done,
];

async fn open(server: &Server, query: &str) -> Stream {
    server.open(server.request(Method::GET, &format!("/events{query}"))).await
}

/// Rules: S48
async fn the_events_of_all_tasks_arrive_in_envelopes(backend: Backend) {
    let server = backend.start().await;
    let mut stream = open(&server, "").await;
    let (a, b) = (server.new_task().await, server.new_task().await);
    let published = server.publish(&a, delta("s", "x")).await;
    server.enter(&b, "running").await;
    server.publish(&b, plain("p", 1)).await;
    server.publish(&a, delta("s", "y")).await;
    let frames = stream.take(4).await;
    // Order is kept within a task, not between tasks.
    let of = |id: &str| {
        frames.iter().filter(|frame| frame.get("taskId") == id).cloned().collect::<Vec<_>>()
    };
    assert_eq!(members(&of(&b), "type"), ["taskcast:status", "p"]);
    assert_eq!(members(&of(&a), "data"), [json!({"text": "x"}), json!({"text": "y"})]);
    let envelope = of(&a)[0].data();
    assert_eq!((&envelope["eventId"], &envelope["rawIndex"]), (&published["id"], &json!(0)));
    assert_eq!(
        (&envelope["timestamp"], &envelope["level"], &envelope["type"]),
        (&published["timestamp"], &json!("info"), &json!("llm.delta"))
    );
    assert!(frames.iter().all(|frame| frame.event == "taskcast.event"));
}

/// Rules: S49
async fn only_what_is_published_after_connecting_arrives(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let id = first.running_task().await;
    first.publish(&id, plain("old", 1)).await;
    for round in 0..5 {
        let (mut here, mut there) = (open(&first, "").await, open(&second, "").await);
        first.publish(&id, plain("new", round)).await;
        second.publish(&id, plain("newer", round)).await;
        for stream in [&mut here, &mut there] {
            let frames = stream.take(2).await;
            assert_eq!(members(&frames, "type"), ["new", "newer"], "round {round}");
            assert_eq!(members(&frames, "data"), [round, round]);
        }
    }
}

/// Rules: S50, S49
async fn events_of_every_instance_arrive_once_and_in_order(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let mut streams = [open(&first, "").await, open(&second, "").await];
    let mut tasks = Vec::new();
    for n in 0..10 {
        tasks.push(if n % 2 == 0 { first.new_task().await } else { second.new_task().await });
    }
    let writing = join_all(tasks.iter().enumerate().flat_map(|(n, id)| {
        let (a, b) = if n % 2 == 0 { (&first, &second) } else { (&second, &first) };
        [a, b].map(|server| async move {
            for n in 0..20 {
                server.publish(id, json!([plain("p", n), plain("q", n)])).await;
            }
        })
    }));
    let reading = join_all(streams.iter_mut().map(|stream| stream.take(800)));
    let (_, readings) = tokio::join!(writing, reading);
    for frames in readings {
        let mut next: HashMap<String, u64> = HashMap::new();
        for frame in &frames {
            let next = next.entry(text_of(&frame.get("taskId"))).or_default();
            assert_eq!(number_of(&frame.get("rawIndex")), *next);
            *next += 1;
        }
        assert!(next.values().all(|end| *end == 80), "{next:?}");
    }
}

/// Rules: S51
async fn filters_apply_and_are_refused_alike(backend: Backend) {
    let server = backend.start().await;
    let queries = [
        "?types=llm.*,p",
        "?levels=warn,error",
        "?types=p&levels=warn",
        "?types=&levels=",
        "?types=*",
    ];
    let mut streams = Vec::new();
    for query in queries {
        streams.push(open(&server, query).await);
    }
    let id = server.running_task().await;
    let body = json!([plain("p", 1), plain("q", 2), {"type": "p", "level": "warn", "data": 3}, delta("s", "x"), {"type": "q", "level": "error", "data": 5}]);
    server.publish(&id, body).await;
    let expected: [&[u64]; 5] =
        [&[1, 3, 4], &[3, 5], &[3], &[0, 1, 2, 3, 4, 5], &[0, 1, 2, 3, 4, 5]];
    for ((stream, expected), query) in streams.iter_mut().zip(expected).zip(queries) {
        let frames = stream.take(expected.len()).await;
        assert_eq!(members(&frames, "rawIndex"), expected, "{query}");
    }
    for bad in ["types=l*m", "types=*.x", "levels=loud", "levels=info,x"] {
        let (name, _) = bad.split_once('=').unwrap();
        let reply = server.get(&format!("/events?{bad}")).await;
        reply.refused_at(400, "invalid_request", &format!("/query/{name}"));
    }
}

/// Rules: S52
async fn numbers_count_the_frames_of_the_connection(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let (mut all, mut some) = (open(&server, "").await, open(&server, "?types=p").await);
    server.publish(&id, json!([plain("q", 1), plain("p", 2), plain("q", 3), plain("p", 4)])).await;
    assert_eq!(members(&all.take(4).await, "filteredIndex"), [0, 1, 2, 3]);
    assert_eq!(members(&some.take(2).await, "filteredIndex"), [0, 1]);
    let mut late = open(&server, "").await;
    server.publish(&id, plain("p", 5)).await;
    assert_eq!(late.one().await.get("filteredIndex"), 0);
    assert_eq!(all.one().await.get("filteredIndex"), 4);
    assert_eq!(some.one().await.get("filteredIndex"), 2);
}

/// Rules: S53
async fn frames_have_no_id_and_nothing_is_done(backend: Backend) {
    let server = backend.start().await;
    let mut stream = open(&server, "").await;
    let id = server.running_task().await;
    server.publish(&id, plain("p", 1)).await;
    server.enter(&id, "completed").await;
    let other = server.new_task().await;
    server.publish(&other, plain("p", 2)).await;
    let mut frames = stream.up_to(|frame| frame.get("data") == 2).await;
    server.delete(&format!("/tasks/{other}")).await.expect(204);
    let last = server.new_task().await;
    server.publish(&last, plain("p", "last")).await;
    frames.extend(stream.up_to(|frame| frame.get("data") == "last").await);
    assert_eq!(frames.len(), 5);
    for frame in &frames {
        assert_eq!((frame.event.as_str(), &frame.id), ("taskcast.event", &None));
        assert!(!frame.raw.contains("\nid:"));
    }
    // A cursor means nothing here: it neither replays nor is refused.
    let request = server
        .request(Method::GET, "/events")
        .header("Last-Event-ID", text_of(&frames[0].get("eventId")));
    let mut resumed = server.open(request).await;
    server.publish(&last, plain("p", "after")).await;
    assert_eq!(resumed.one().await.get("data"), Value::from("after"));
}
