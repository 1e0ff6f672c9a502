//! How streams end.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::super::{latest, plain};
use crate::support::client::text_of;
use crate::support::sse::{Stream, members};
use crate::support::{Backend, on_every_store};

on_every_store![
    the_terminal_event_and_done_arrive_together_as_the_last,
    done_comes_with_the_terminal_id_also_when_its_event_is_hidden,
    deleting_a_task_ends_its_streams_everywhere,
    a_stream_does_not_go_on_with_a_new_task_of_the_same_id,
    resuming_at_the_end_tells_a_browser_to_stop,
    a_server_that_stops_cuts_its_streams_without_done,
];

/// Rules: S19
async fn the_terminal_event_and_done_arrive_together_as_the_last(backend: Backend) {
    let (first, second) = backend.start_two().await;
    for end in ["completed", "failed", "timeout", "cancelled"] {
        let id = first.running_task().await;
        let mut streams = vec![first.stream(&id, "").await, second.stream(&id, "").await];
        for stream in &mut streams {
            stream.one().await;
        }
        first.publish(&id, plain("a", 1)).await;
        let body = json!({"status": end, "result": {"r": 1}});
        first.patch(&format!("/tasks/{id}/status"), body).await.expect(200);
        for stream in &mut streams {
            let frames = stream.take(2).await;
            assert_eq!(frames[1].get("data"), json!({"status": end, "result": {"r": 1}}));
            assert!(stream.holds("event: taskcast.done"), "done comes with the status frame");
            let rest = stream.rest().await;
            assert_eq!((rest.len(), rest[0].data()), (1, json!({"reason": end})));
            assert!(rest[0].is_done());
        }
    }
}

/// Rules: S20
async fn done_comes_with_the_terminal_id_also_when_its_event_is_hidden(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let hiding = ["?includeStatus=false", "?types=a", "?levels=warn", "?wrap=false&types=nothing"];
    let mut live = Vec::new();
    for query in hiding {
        live.push(server.stream(&id, query).await);
    }
    server.publish(&id, plain("a", 1)).await;
    server.enter(&id, "completed").await;
    let terminal = text_of(&server.history(&id, "").await[2]["id"]);
    for (query, stream) in hiding.iter().zip(&mut live) {
        for frames in [stream.rest().await, server.stream(&id, query).await.rest().await] {
            let (done, events) = frames.split_last().unwrap();
            assert!(done.is_done());
            assert_eq!(
                done.raw,
                format!("event: taskcast.done\ndata: {{\"reason\":\"completed\"}}\nid: {terminal}")
            );
            assert!(
                members(events, "type").iter().all(|name| name != "taskcast:status"),
                "{query}"
            );
        }
    }
    let all = server.stream(&id, "").await.rest().await;
    assert_eq!(all.last().unwrap().id, Some(terminal));
}

/// Rules: S21, H57
async fn deleting_a_task_ends_its_streams_everywhere(backend: Backend) {
    let (first, second) = backend.start_two().await;
    for status in ["pending", "running"] {
        let id = first.new_task().await;
        if status == "running" {
            first.enter(&id, "running").await;
        }
        first.publish(&id, plain("a", 1)).await;
        let mut streams = Vec::new();
        for server in [&first, &second] {
            for query in ["", "?types=never", "?since.index=0"] {
                streams.push(server.stream(&id, query).await);
            }
        }
        second.delete(&format!("/tasks/{id}")).await.expect(204);
        for frames in join_all(streams.iter_mut().map(Stream::rest)).await {
            let done = frames.last().expect("done");
            assert!(done.is_done());
            assert_eq!((done.data(), &done.id), (json!({"reason": "deleted"}), &None));
            assert!(frames[..frames.len() - 1].iter().all(|frame| !frame.is_done()));
        }
    }
}

/// Rules: S21
async fn a_stream_does_not_go_on_with_a_new_task_of_the_same_id(backend: Backend) {
    let (first, second) = backend.start_two().await;
    for round in 0..5 {
        first.create(json!({"id": "again"})).await;
        first.publish("again", json!([plain("old", round), latest("l", 1)])).await;
        let mut streams = vec![first.stream("again", "").await, second.stream("again", "").await];
        let mut cursor = String::new();
        for stream in &mut streams {
            stream.take(2).await;
            cursor = stream.last_event_id.clone().unwrap();
        }
        first.delete("/tasks/again").await.expect(204);
        first.create(json!({"id": "again"})).await;
        first.publish("again", json!([plain("new", 1), plain("new", 2), plain("new", 3)])).await;
        for stream in &mut streams {
            let rest = stream.rest().await;
            assert_eq!((rest.len(), rest[0].data()), (1, json!({"reason": "deleted"})));
        }
        // A cursor of the old task names nothing in the new one.
        let mut resumed = second.resume("again", "", &cursor).await;
        assert_eq!(members(&resumed.take(3).await, "rawIndex"), [0, 1, 2]);
        assert_eq!(resumed.comments, ["reset"]);
        first.delete("/tasks/again").await.expect(204);
    }
}

/// Rules: S22
async fn resuming_at_the_end_tells_a_browser_to_stop(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    server.publish(&id, plain("a", 1)).await;
    let before_end = text_of(&server.history(&id, "").await[1]["id"]);
    server.enter(&id, "completed").await;
    let mut stream = server.stream(&id, "?includeStatus=false").await;
    stream.rest().await;
    let end = stream.last_event_id.clone().unwrap();
    for query in ["", "?types=a", "?since.index=0", "?wrap=false"] {
        let request = server.request(Method::GET, &format!("/tasks/{id}/events{query}"));
        let reply = server.send(request.header("Last-Event-ID", &end)).await;
        assert_eq!((reply.status, reply.text.as_str()), (204, ""), "{query}");
    }
    let frames = server.stream(&id, &format!("?since.id={end}")).await.rest().await;
    assert_eq!(frames.len(), 1);
    assert!(frames[0].is_done());
    let frames = server.resume(&id, "", &before_end).await.rest().await;
    assert_eq!(frames.len(), 2);
    let running = server.running_task().await;
    let newest = text_of(&server.history(&running, "").await[0]["id"]);
    // The newest event of a running task is no end.
    let mut open = server.resume(&running, "", &newest).await;
    server.publish(&running, plain("a", 1)).await;
    assert_eq!(open.one().await.get("rawIndex"), 1);
}

/// Rules: S9, S19
async fn a_server_that_stops_cuts_its_streams_without_done(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let mut streams = vec![server.stream(&id, "").await, server.stream(&id, "?types=a").await];
    streams[0].one().await;
    server.terminate();
    for stream in &mut streams {
        assert!(stream.rest().await.is_empty());
        let wait: u64 = stream.retry.as_deref().expect("a retry field").parse().unwrap();
        assert!(wait > 0);
    }
    assert!(server.ended().await.success());
    if let Backend::Postgres(_) = backend {
        let restarted = backend.start().await;
        let cursor = streams[0].last_event_id.clone().unwrap();
        let mut resumed = restarted.resume(&id, "", &cursor).await;
        restarted.publish(&id, plain("a", 1)).await;
        assert_eq!(resumed.one().await.get("rawIndex"), 1);
    }
}
