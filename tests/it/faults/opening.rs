//! Streams that are opened while the database is away, and connections of a
//! server that drains.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::net::{ALL, Toxic};
use super::{Scenario, Shape};
use crate::support::{Backend, within};

/// How long requests are held in these tests.
const HELD_MS: &str = "1500";

async fn without_database(open_timeout_ms: &str) -> Scenario {
    let shape = Shape::of(1).environment("TASKCAST_SSE__OPEN_TIMEOUT_MS", open_timeout_ms);
    let scenario = Scenario::start(1, shape).await;
    let server = scenario.instance(0).server();
    server.create(json!({"id": "a"})).await;
    scenario.instance(0).wire.set(ALL, Toxic::Refuse);
    scenario
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_accepts_a_stream_is_asked_to_come_back_and_others_get_503() {
    let scenario = without_database(HELD_MS).await;
    let server = scenario.instance(0).server();
    for path in ["/tasks/a/events", "/tasks/a/events?wait=1"] {
        let request = server.request(Method::GET, path).header("Accept", "text/event-stream");
        let began = Instant::now();
        let mut response = within("an answer", request.send()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(began.elapsed() >= Duration::from_secs(1), "it is held");
        let mut text = String::new();
        let cut = loop {
            match within("the stream ends", response.chunk()).await {
                Ok(Some(chunk)) => text.push_str(&String::from_utf8_lossy(&chunk)),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(cut, "an end could be taken for the end of the task");
        assert!(text.contains("\nretry: "), "{text}");
        server.get(path).await.refused(503, "store_unavailable");
    }
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("taskcast_streams_not_opened_total{stream=\"task\"} 4"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_readers_wait_for_the_database_none_waits_longer() {
    let scenario = without_database(HELD_MS).await;
    let server = scenario.instance(0).server();
    let readers = (0..100).map(|_| {
        let request = server.request(Method::GET, "/tasks/a/events");
        let request = request.header("Accept", "text/event-stream");
        tokio::spawn(async move {
            let began = Instant::now();
            let status = within("an answer", request.send()).await.unwrap().status();
            (status, began.elapsed())
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        let (status, waited) = reader.await.unwrap();
        assert_eq!(status, 200);
        assert!(waited < Duration::from_secs(6), "{waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_opened_in_an_outage_begins_when_the_database_is_back() {
    let scenario = without_database("20000").await;
    let server = scenario.instance(0).server();
    let reader = tokio::spawn({
        let server = server.clone();
        async move { server.stream("a", "").await }
    });
    // It was refused more than once by then.
    server.get("/tasks/a").await.refused(503, "store_unavailable");
    assert!(!reader.is_finished());
    scenario.instance(0).wire.heal();
    let mut stream = within("the stream opens", reader).await.unwrap();
    crate::support::until("the server writes again", || async {
        let reply = server.post("/tasks/a/events", json!({"type": "x", "data": 7})).await;
        (reply.status == 201).then_some(())
    })
    .await;
    assert_eq!(stream.one().await.get("data"), 7);
}

/// Reads one answer of a kept connection.
async fn answer(connection: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    within("an answer on the kept connection", async {
        while !text.ends_with(b"}") {
            let read = connection.read(&mut buffer).await.unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&buffer[..read]);
        }
    })
    .await;
    String::from_utf8(text).unwrap().to_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_gets_its_next_request_answered_while_the_server_drains() {
    let server = Backend::Memory.start().await;
    let mut kept = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    kept.write_all(request).await.unwrap();
    assert!(!answer(&mut kept).await.contains("connection: close"));
    server.terminate();
    crate::support::until("the server drains", || async {
        let reply = server.try_send(server.request(Method::GET, "/health/ready")).await;
        reply.is_ok_and(|reply| reply.status == 503).then_some(())
    })
    .await;
    kept.write_all(request).await.unwrap();
    let last = answer(&mut kept).await;
    assert!(last.starts_with("http/1.1 200") && last.contains("connection: close"), "{last}");
}
