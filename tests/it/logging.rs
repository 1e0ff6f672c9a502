//! What a server writes about its requests, and what it must not.

use std::process::Stdio;

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr};

use crate::support::client::Client;
use crate::support::place::Place;
use crate::support::{Backend, until, within};

/// Stands for anything a caller sends.
const CANARY: &str = "canary-7d1f";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_leaves_one_line_that_repeats_nothing_of_it() {
    let server = Backend::Memory.start_with(&[("TASKCAST_LOG_LEVEL", "info")]).await;
    let task =
        json!({"id": CANARY, "type": CANARY, "params": {"secret": CANARY}, "tags": [CANARY]});
    server.post("/tasks", task).await.expect(201);
    server.publish(CANARY, json!({"type": CANARY, "data": CANARY})).await;
    server.get(&format!("/tasks?tag={CANARY}")).await.expect(200);
    server.get(&format!("/tasks/missing-{CANARY}")).await.expect(404);
    server.post(&format!("/tasks/{CANARY}/events"), json!({"level": CANARY})).await.expect(400);

    let lines = until("every request has left its line", || async {
        let about_tasks = |line: &Value| {
            let route = line["http.route"].as_str().unwrap_or_default();
            line["message"] == "request" && route.starts_with("/tasks")
        };
        let lines: Vec<Value> = server.log().entries().into_iter().filter(about_tasks).collect();
        (lines.len() == 5).then_some(lines)
    })
    .await;
    let summary: Vec<(&Value, &Value, &Value)> = lines
        .iter()
        .map(|line| (&line["http.method"], &line["http.route"], &line["http.status"]))
        .collect();
    assert_eq!(
        json!(summary),
        json!([
            ["POST", "/tasks", 201],
            ["POST", "/tasks/{id}/events", 201],
            ["GET", "/tasks", 200],
            ["GET", "/tasks/{id}", 404],
            ["POST", "/tasks/{id}/events", 400]
        ])
    );
    for line in &lines {
        assert!(line["duration_ms"].is_number() && line["request.id"].is_string(), "{line}");
    }
    assert!(!server.log().text().contains(CANARY));
}

/// Starts a server that logs everything, reads its log up to the line with the
/// address, and nothing after.
async fn start_unread() -> (Child, Lines<BufReader<ChildStderr>>, Client) {
    let place = Place::new();
    let mut command = place.command("serve --port 0 --host 127.0.0.1");
    command.env("TASKCAST_LOG_LEVEL", "trace").stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = within("the server says where it listens", async {
        loop {
            let text = lines.next_line().await.unwrap().expect("the server ended");
            let line: Value = serde_json::from_str(&text).unwrap_or_default();
            if let Some(address) = line["address"].as_str() {
                break address.to_owned();
            }
        }
    })
    .await;
    (child, lines, Client::new(&format!("http://{address}")))
}

async fn dropped_lines(client: &Client) -> u64 {
    let text = client.get("/metrics").await.expect(200).text;
    let name = "taskcast_log_lines_dropped_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.parse().unwrap()
}

/// Sends requests until the log cannot keep what it has to say about them.
async fn overflow(client: &Client) {
    until("lines are dropped", || async {
        join_all((0..100).map(|_| client.get("/tasks/none"))).await;
        (dropped_lines(client).await > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_stops_neither_requests_nor_the_signal_to_end() {
    let (mut child, _unread, client) = start_unread().await;
    overflow(&client).await;
    client.new_task().await;
    let id = child.id().unwrap().cast_signed();
    kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
    let status = within("the server ends", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_read_again_says_how_many_lines_it_dropped() {
    let (_child, mut lines, client) = start_unread().await;
    overflow(&client).await;
    let told = within("the log says so", async {
        loop {
            let text = lines.next_line().await.unwrap().expect("the server ended");
            let line: Value = serde_json::from_str(&text).unwrap();
            if let Some(lines) = line["log.dropped"].as_u64() {
                break lines;
            }
        }
    })
    .await;
    assert!(told > 0);
}
