//! Replay, live, and nothing lost or doubled in between.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::super::plain;
use crate::support::client::{column, number_of, text_of};
use crate::support::sse::members;
use crate::support::{Backend, on_every_store};

on_every_store![
    the_stream_of_a_pending_task_replays_and_goes_on,
    the_stream_of_a_running_task_replays_and_goes_on,
    the_stream_of_a_finished_task_replays_and_closes,
    readers_that_join_at_any_time_see_everything_once,
    readers_of_every_instance_see_the_same,
    what_a_stream_has_shown_survives_a_crash,
];

/// Rules: S12
async fn the_stream_of_a_pending_task_replays_and_goes_on(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let mut early = server.stream(&id, "").await;
    server.publish(&id, json!([plain("a", 1), plain("b", 2)])).await;
    let mut late = server.stream(&id, "").await;
    assert_eq!(members(&late.take(2).await, "type"), ["a", "b"]);
    server.publish(&id, plain("c", 3)).await;
    server.enter(&id, "running").await;
    server.publish(&id, plain("d", 4)).await;
    assert_eq!(members(&late.take(3).await, "type"), ["c", "taskcast:status", "d"]);
    assert_eq!(members(&early.take(5).await, "rawIndex"), [0, 1, 2, 3, 4]);
}

/// Rules: S13
async fn the_stream_of_a_running_task_replays_and_goes_on(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    server.publish(&id, plain("a", 1)).await;
    let mut stream = server.stream(&id, "").await;
    assert_eq!(members(&stream.take(2).await, "type"), ["taskcast:status", "a"]);
    for n in 0..5 {
        server.publish(&id, plain("live", n)).await;
        assert_eq!(stream.one().await.get("data"), n);
    }
}

/// Rules: S14
async fn the_stream_of_a_finished_task_replays_and_closes(backend: Backend) {
    let (first, second) = backend.start_two().await;
    for end in ["completed", "failed", "timeout", "cancelled"] {
        let id = first.running_task().await;
        first.publish(&id, plain("a", 1)).await;
        first.enter(&id, end).await;
        for server in [&first, &second] {
            let frames = server.stream(&id, "").await.rest().await;
            assert_eq!(members(&frames[..3], "type"), ["taskcast:status", "a", "taskcast:status"]);
            assert!(frames[3].is_done());
            assert_eq!((frames.len(), frames[3].data()), (4, json!({"reason": end})));
        }
    }
}

/// Rules: S15
async fn readers_that_join_at_any_time_see_everything_once(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let writers = (0..4).map(|writer| {
        let (server, id) = (server.clone(), id.clone());
        tokio::spawn(async move {
            for n in 0..60 {
                server.publish(&id, json!([plain("w", [writer, n]), plain("v", n)])).await;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut readers = Vec::new();
    for _ in 0..12 {
        let mut stream = server.stream(&id, "").await;
        // The next reader joins when this one has come a little further.
        let mut frames = stream.take(10).await;
        readers.push(tokio::spawn(async move {
            frames.extend(stream.rest().await);
            frames
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    server.enter(&id, "completed").await;
    let history = server.history(&id, "").await;
    assert_eq!(history.len(), 482);
    for reader in readers {
        let frames = reader.await.unwrap();
        let (done, events) = frames.split_last().unwrap();
        assert!(done.is_done());
        assert_eq!(members(events, "rawIndex"), (0..482).collect::<Vec<_>>());
        assert_eq!(members(events, "eventId"), column(&history, "id"));
    }
}

/// Rules: S16
async fn readers_of_every_instance_see_the_same(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(first.running_task().await);
    }
    let work = tasks.iter().map(|id| {
        let (first, second) = (&first, &second);
        async move {
            let mut streams = Vec::new();
            for server in [first, second, first, second] {
                streams.push(server.stream(id, "").await);
            }
            let writing = async {
                for n in 0..40 {
                    let server = if n % 2 == 0 { first } else { second };
                    server.publish(id, plain("a", n)).await;
                }
                second.enter(id, "completed").await;
            };
            let reading = join_all(streams.iter_mut().map(crate::support::sse::Stream::rest));
            tokio::join!(writing, reading).1
        }
    });
    for (id, readings) in tasks.iter().zip(join_all(work).await) {
        let ids = column(&first.history(id, "").await, "id");
        for frames in readings {
            let (done, events) = frames.split_last().unwrap();
            assert!(done.is_done());
            assert_eq!(members(events, "eventId"), ids);
        }
    }
}

/// Rules: S17
async fn what_a_stream_has_shown_survives_a_crash(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let id = first.running_task().await;
    let mut stream = second.stream(&id, "").await;
    let writer = {
        let (first, id) = (first.clone(), id.clone());
        tokio::spawn(async move {
            for n in 0.. {
                let request = first.json(
                    reqwest::Method::POST,
                    &format!("/tasks/{id}/events"),
                    plain("a", n),
                );
                if first.try_send(request).await.is_err() {
                    return;
                }
            }
        })
    };
    let mut shown: Vec<Value> = Vec::new();
    for frame in stream.take(100).await {
        shown.push(json!(frame.id));
        let index = number_of(&frame.get("rawIndex"));
        let history = second.history(&id, &format!("?limit={}", index + 1)).await;
        assert_eq!(history.last().unwrap()["id"], frame.get("eventId"));
    }
    let Backend::Postgres(_) = &backend else {
        writer.abort();
        return;
    };
    first.kill();
    writer.await.unwrap();
    let restarted = backend.start().await;
    let history = restarted.history(&id, "").await;
    assert_eq!(column(&history[..100], "id"), shown);
    // The reader on the other instance has exactly what is there.
    let rest = stream.take(history.len() - 100).await;
    assert_eq!(
        rest.last().map(|frame| text_of(&frame.get("eventId"))),
        history.last().map(|event| text_of(&event["id"]))
    );
}
