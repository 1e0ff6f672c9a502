//! Streams end with their credentials.

use reqwest::Method;
use serde_json::{Value, json};

use super::JWT;
use super::tokens::{now, root, with};
use crate::support::client::Client;
use crate::support::sse::Stream;
use crate::support::{Backend, on_every_store};

on_every_store![
    streams_end_when_their_token_expires,
    a_busy_stream_ends_too,
    the_leeway_opens_no_stream,
];

fn until(exp: i64) -> String {
    with(json!({"taskIds": "*", "scope": ["event:subscribe"], "exp": exp}))
}

async fn open(client: &Client, path: &str) -> Stream {
    client.open(client.request(Method::GET, path)).await
}

async fn ends_expired(stream: &mut Stream) -> Vec<Value> {
    let frames = stream.rest().await;
    assert!(frames.iter().all(|frame| !frame.is_done()), "{frames:?}");
    assert_eq!(stream.comments.last().unwrap(), "token expired");
    frames.iter().map(|frame| frame.get("data")).collect()
}

/// Rules: A18
async fn streams_end_when_their_token_expires(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let good = server.bearing(root());
    let id = good.running_task().await;
    let exp = now() + 3;
    let client = server.bearing(until(exp));
    let mut streams = Vec::new();
    for path in [format!("/tasks/{id}/events"), "/events".to_owned()] {
        streams.push(open(&client, &path).await);
    }
    let mut other = open(&good, &format!("/tasks/{id}/events?since.index=0")).await;
    good.publish(&id, json!({"type": "a", "data": 1})).await;
    for stream in &mut streams {
        let seen = ends_expired(stream).await;
        assert!(now() >= exp);
        assert_eq!(seen.last().unwrap(), 1);
    }
    good.publish(&id, json!({"type": "a", "data": 2})).await;
    assert_eq!(other.take(2).await[1].get("data"), 2);
}

/// Rules: A18
async fn a_busy_stream_ends_too(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let good = server.bearing(root());
    let id = good.running_task().await;
    let mut stream = open(&server.bearing(until(now() + 2)), &format!("/tasks/{id}/events")).await;
    let (writer, task) = (good.clone(), id.clone());
    let writing = tokio::spawn(async move {
        loop {
            writer.publish(&task, json!({"type": "a"})).await;
        }
    });
    ends_expired(&mut stream).await;
    writing.abort();
}

/// Rules: A18, A12
async fn the_leeway_opens_no_stream(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let id = server.bearing(root()).running_task().await;
    let late = server.bearing(until(now() - 2));
    late.get(&format!("/tasks/{id}")).await.expect(200);
    // A stream would end at once, and its reader come back again and again.
    for path in [format!("/tasks/{id}/events"), "/events".to_owned()] {
        late.get(&path).await.refused(401, "unauthorized");
    }
}
