//! F18: what a store could choke on, among what it must take.
//!
//! Writers publish payloads that no parsing and writing again would preserve,
//! while others send what must be refused, at the same moment, to the same
//! lanes and in part to the same tasks. What is accepted comes back byte for
//! byte; what is refused is refused at its place; neither harms a neighbour.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::seeds;
use crate::support::client::Reply;
use crate::support::server::Server;
use crate::support::sse::Stream;
use crate::support::{Backend, on_every_store};

on_every_store![poison_is_kept_or_refused_and_harms_no_neighbour];

const WRITERS: u64 = 6;
const POISONERS: u64 = 3;
const REQUESTS: u32 = 40;

/// Values that are JSON and nothing a careless store could keep.
const ODD: [&str; 14] = [
    r#""\u0000""#,
    r#""a\u0000b\u0000""#,
    r#""\ud800""#,
    r#""\udc00\ud800\udbff""#,
    r#""\ud83d\ude00 \/ \u00e9""#,
    "1e400000",
    "-1E-400000",
    "-0",
    "123456789012345678901234567890.10",
    r#"{"\u0000":1,"\ud800":2}"#,
    r#"{"k":1,"k":2,"k":{"k":3,"k":4}}"#,
    r#"{"":[[],{},""]}"#,
    r#""'; DROP TABLE taskcast.event; -- \\x00 {NULL} %s""#,
    "[\"\u{feff}\u{202e}\u{10ffff}\"]",
];

/// What a request is refused for: its body, the status, the code and the place.
struct Bad {
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    path: Option<&'static str>,
}

fn bad(body: impl Into<Vec<u8>>, code: &'static str, path: &'static str) -> Bad {
    Bad { body: body.into(), status: 400, code, path: Some(path) }
}

/// Events that are refused.
fn bad_events() -> Vec<Bad> {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut not_utf8 = br#"[{"type":"good"},{"type":"a","data":""#.to_vec();
    not_utf8.extend_from_slice(b"\xff\xfe\"}]");
    vec![
        bad(r#"{"type":"a\u0000"}"#, "invalid_request", "/type"),
        bad(r#"{"type":"\ud800"}"#, "invalid_request", "/type"),
        bad(r#"{"type":1e400000}"#, "invalid_request", "/type"),
        bad(r#"{"type":"good","type":"\u0000"}"#, "invalid_request", "/type"),
        bad(r#"[{"type":"good"},{"type":"\ud800"}]"#, "invalid_request", "/1/type"),
        bad(r#"{"type":"a","seriesId":"\u0000"}"#, "invalid_request", "/seriesId"),
        bad(
            r#"[{"type":"good"},{"type":"a","seriesId":"\udfff"}]"#,
            "invalid_request",
            "/1/seriesId",
        ),
        bad(r#"{"type":"a","seriesId":1e400000}"#, "invalid_request", "/seriesId"),
        bad(format!(r#"{{"type":"a","data":{}}}"#, nested(10_000)), "limit_exceeded", "/data"),
        bad(
            format!(r#"[{{"type":"good"}},{{"type":"a","data":{}}}]"#, nested(65)),
            "limit_exceeded",
            "/1/data",
        ),
        Bad {
            body: format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(3 << 20)).into_bytes(),
            status: 413,
            code: "payload_too_large",
            path: None,
        },
        Bad {
            body: format!(r#"[{{"type":"good"}},{{"type":"a","data":"{}"}}]"#, "x".repeat(3 << 19))
                .into_bytes(),
            status: 413,
            code: "payload_too_large",
            path: Some("/1/data"),
        },
        Bad { body: not_utf8, status: 400, code: "invalid_json", path: None },
        Bad {
            body: br#"{"type":"a","data":"\u00"}"#.to_vec(),
            status: 400,
            code: "invalid_json",
            path: None,
        },
    ]
}

/// New tasks that are refused.
fn bad_tasks() -> Vec<Bad> {
    vec![
        bad(r#"{"id":"a\u0000"}"#, "invalid_request", "/id"),
        bad(r#"{"id":"\ud800"}"#, "invalid_request", "/id"),
        bad(r#"{"id":1e400000}"#, "invalid_request", "/id"),
        bad(r#"{"type":"\u0000"}"#, "invalid_request", "/type"),
        bad(r#"{"tags":["good","\udc00"]}"#, "invalid_request", "/tags/1"),
        bad(r#"{"ttl":1e400000}"#, "invalid_request", "/ttl"),
    ]
}

/// Changes of status that are refused.
fn bad_changes() -> Vec<Bad> {
    let failed = |error: &str| format!(r#"{{"status":"failed","error":{error}}}"#);
    vec![
        bad(failed(r#"{"message":"\u0000"}"#), "invalid_request", "/error/message"),
        bad(failed(r#"{"message":"\ud800"}"#), "invalid_request", "/error/message"),
        bad(failed(r#"{"message":1e400000}"#), "invalid_request", "/error/message"),
        bad(failed(r#"{"message":"m","code":"\u0000"}"#), "invalid_request", "/error/code"),
    ]
}

fn check(reply: &Reply, bad: &Bad, context: &str) {
    let refusal = reply.refused(bad.status, bad.code);
    if let Some(path) = bad.path {
        assert_eq!(refusal["path"], path, "{context}");
    }
}

/// Rules: H19, H21, H22, H24, H28, H53, H66
async fn poison_is_kept_or_refused_and_harms_no_neighbour(backend: Backend) {
    for seed in seeds() {
        let (first, second) = backend.start_two().await;
        play(&[first, second], seed).await;
    }
}

async fn play(servers: &[Server; 2], seed: u64) {
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let id = servers[0].running_task().await;
        let live = servers[1].stream(&id, "?includeStatus=false").await;
        let rng = StdRng::seed_from_u64(seed * 1_000 + writer);
        let texts = tokio::spawn(write(servers.clone(), id.clone(), rng));
        tasks.push((id, live, texts));
    }
    let ids: Vec<String> = tasks.iter().map(|(id, ..)| id.clone()).collect();
    let (stop, stopped) = watch::channel(false);
    let poisoners: Vec<JoinHandle<u32>> = (0..POISONERS)
        .map(|n| {
            let rng = StdRng::seed_from_u64(seed * 1_000 + 500 + n);
            tokio::spawn(poison(servers.clone(), ids.clone(), rng, stopped.clone()))
        })
        .collect();
    let mut finished = Vec::new();
    for (id, live, texts) in tasks {
        finished.push((id, live, texts.await.unwrap()));
    }
    stop.send_replace(true);
    for poisoner in poisoners {
        assert!(poisoner.await.unwrap() > 0, "nothing was refused; seed {seed}");
    }
    for (id, live, texts) in finished {
        let end = oddly_ended(&servers[0], &id).await;
        check_task(servers, &id, live, &texts, &end, seed).await;
    }
}

/// Publishes odd payloads; returns them in the order of the log.
async fn write(servers: [Server; 2], id: String, mut rng: StdRng) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..REQUESTS {
        let sent: Vec<String> = (0..rng.random_range(1..4)).map(|_| odd(&mut rng)).collect();
        let events: Vec<String> =
            sent.iter().map(|text| format!(r#"{{"type":"odd","data":{text}}}"#)).collect();
        let body = format!("[{}]", events.join(","));
        let server = &servers[rng.random_range(0..2)];
        server.post(&format!("/tasks/{id}/events"), body).await.expect(201);
        texts.extend(sent);
    }
    texts
}

/// Makes a random odd payload.
fn odd(rng: &mut StdRng) -> String {
    let pick = |rng: &mut StdRng| (*ODD.choose(rng).expect("there are some")).to_owned();
    match rng.random_range(0..4) {
        0 => format!("{}{}{}", "[".repeat(61), pick(rng), "]".repeat(61)),
        1 => format!("[{},{}]", pick(rng), pick(rng)),
        2 => format!(r#"{{"a":{},"a":{}}}"#, pick(rng), pick(rng)),
        _ => pick(rng),
    }
}

/// Sends what must be refused until it is told to stop; returns how often.
async fn poison(
    servers: [Server; 2],
    ids: Vec<String>,
    mut rng: StdRng,
    stopped: watch::Receiver<bool>,
) -> u32 {
    let (events, tasks, changes) = (bad_events(), bad_tasks(), bad_changes());
    let mut refused = 0;
    while !*stopped.borrow() {
        let server = &servers[rng.random_range(0..2)];
        let id = ids.choose(&mut rng).expect("there are some");
        let (method, path, bad) = match rng.random_range(0..4) {
            0 => (reqwest::Method::POST, "/tasks".to_owned(), tasks.choose(&mut rng)),
            1 => (reqwest::Method::PATCH, format!("/tasks/{id}/status"), changes.choose(&mut rng)),
            _ => (reqwest::Method::POST, format!("/tasks/{id}/events"), events.choose(&mut rng)),
        };
        let bad = bad.expect("there are some");
        let request = server.json(method, &path, "").body(bad.body.clone());
        let shown: String = String::from_utf8_lossy(&bad.body).chars().take(80).collect();
        check(&server.send(request).await, bad, &shown);
        refused += 1;
    }
    refused
}

/// Ends a task with odd payloads; returns the data of its last event.
async fn oddly_ended(server: &Server, id: &str) -> String {
    let odd = r#"{"k":"\u0000\ud800","k":1e400000}"#;
    let error = format!(r#"{{"message":"m","details":{odd}}}"#);
    let body = format!(r#"{{"status":"failed","result":{odd},"error":{error}}}"#);
    let ended = server.patch(&format!("/tasks/{id}/status"), &body).await.expect(200);
    assert!(ended.text.contains(&format!("\"result\":{odd}")), "{}", ended.text);
    body
}

/// An event of a history, its data as it came.
#[derive(Deserialize)]
struct Row<'a> {
    index: u64,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// A frame of a stream, its data as it came.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

async fn check_task(
    servers: &[Server; 2],
    id: &str,
    live: Stream,
    texts: &[String],
    end: &str,
    seed: u64,
) {
    for server in servers {
        let history = server.get(&format!("/tasks/{id}/events/history")).await.expect(200);
        let rows: Vec<Row<'_>> = serde_json::from_str(&history.text).unwrap();
        let indexes: Vec<u64> = rows.iter().map(|row| row.index).collect();
        assert_eq!(indexes, (0..texts.len() as u64 + 2).collect::<Vec<_>>(), "seed {seed}");
        let kept: Vec<&str> = rows.iter().map(|row| row.data.get()).collect();
        assert_eq!(kept[1..=texts.len()], *texts, "seed {seed}");
        assert_eq!(kept.last(), Some(&end), "seed {seed}");
        let replayed = server.stream(id, "?includeStatus=false").await;
        check_stream(replayed, texts, seed).await;
    }
    check_stream(live, texts, seed).await;
}

async fn check_stream(mut stream: Stream, texts: &[String], seed: u64) {
    let mut frames = stream.rest().await;
    let done = frames.pop().expect("a finished task ends its streams");
    assert_eq!(done.data(), json!({"reason": "failed"}), "seed {seed}");
    let kept: Vec<String> = frames
        .iter()
        .map(|frame| {
            serde_json::from_str::<Envelope<'_>>(&frame.text).unwrap().data.get().to_owned()
        })
        .collect();
    assert_eq!(kept, *texts, "seed {seed}");
}
