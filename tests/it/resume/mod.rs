//! A property: however a stream is cut and resumed, its reader ends up with
//! the log.
//!
//! Each round plays a random log: several writers, series of every mode mixed
//! with plain events, readers that join when they like, with random filters,
//! and are cut at random frames. After every cut they resume by a random kind
//! of cursor, on a random instance. Then what they collected is compared with
//! what was published. A failure names its seed; `TASKCAST_TEST_SEED` repeats it.

mod reader;
mod truth;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::support::client::text_of;
use crate::support::server::Server;
use crate::support::{Backend, environment_variable, on_every_store};
use reader::Reader;
use truth::Truth;

on_every_store![a_reader_that_is_cut_anywhere_ends_up_with_the_log];

const ROUNDS: u64 = 8;
const WRITERS: u64 = 3;
const READERS: u64 = 10;
const REQUESTS: u32 = 40;

async fn a_reader_that_is_cut_anywhere_ends_up_with_the_log(backend: Backend) {
    let seed = match environment_variable("TASKCAST_TEST_SEED") {
        Some(seed) => seed.parse().expect("TASKCAST_TEST_SEED is a number"),
        None => u64::from(rand::random::<u32>()),
    };
    // Small rings make readers fall back on the store often.
    let environment = [("TASKCAST_SSE__RING_EVENTS", "16")];
    let first = backend.start_with(&environment).await;
    let second = match &backend {
        Backend::Memory => first.clone(),
        Backend::Postgres(_) => backend.start_with(&environment).await,
    };
    for round in 0..ROUNDS {
        play(&[first.clone(), second.clone()], seed + round).await;
    }
}

/// Plays one log and checks every reader of it.
async fn play(servers: &[Server; 2], seed: u64) {
    let id = servers[0].running_task().await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let (servers, id, rng) =
                (servers.clone(), id.clone(), StdRng::seed_from_u64(seed * 1_000 + n));
            tokio::spawn(write(servers, id, rng))
        })
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|n| {
            let reader = Reader::new(servers.clone(), id.clone(), seed, n);
            tokio::spawn(reader.read_to_the_end())
        })
        .collect();
    let mut published: Vec<Value> = Vec::new();
    for writer in writers {
        published.extend(writer.await.unwrap());
    }
    servers[0].enter(&id, "completed").await;
    let history = servers[1].history(&id, "").await;
    let truth = Truth::new(published, history);
    for reader in readers {
        let reader = reader.await.unwrap();
        truth.check(&reader, seed);
    }
}

/// Publishes random requests; returns the events as they were answered.
async fn write(servers: [Server; 2], id: String, mut rng: StdRng) -> Vec<Value> {
    let mut published = Vec::new();
    for request in 0..REQUESTS {
        let server = &servers[rng.random_range(0..2)];
        let events: Vec<Value> =
            (0..rng.random_range(1..6)).map(|n| event(&mut rng, request * 10 + n)).collect();
        match server.publish(&id, json!(events)).await {
            Value::Array(events) => published.extend(events),
            other => panic!("{other} should be an array"),
        }
    }
    published
}

/// Makes a random event.
fn event(rng: &mut StdRng, n: u32) -> Value {
    let level = ["debug", "info", "warn", "error"][rng.random_range(0..4)];
    match rng.random_range(0..10) {
        0..=2 => {
            let series = ["a", "b", "c"][rng.random_range(0..3)];
            let kind = if series == "c" { "note.part" } else { "llm.delta" };
            let data = match rng.random_range(0..8) {
                0 => json!({"other": n}),
                1 => json!(n),
                _ => {
                    json!({"n": n, "text": format!("{n}\n\u{e9}\"{}|", "x".repeat(rng.random_range(0..5)))})
                }
            };
            json!({"type": kind, "data": data, "seriesId": series, "seriesMode": "accumulate"})
        }
        3 | 4 => {
            let (kind, series) = (
                ["progress", "llm.progress"][rng.random_range(0..2)],
                ["l", "m"][rng.random_range(0..2)],
            );
            json!({"type": kind, "level": level, "data": n, "seriesId": series, "seriesMode": "latest"})
        }
        5 => {
            json!({"type": "llm.kept", "level": level, "data": {"text": n}, "seriesId": "k", "seriesMode": "keep-all"})
        }
        6 => json!({"type": "note", "level": level, "data": n, "seriesId": "carried"}),
        _ => {
            let kind = ["note", "llm.note", "tool.call"][rng.random_range(0..3)];
            json!({"type": kind, "level": level, "data": [n]})
        }
    }
}

/// Returns the text an `accumulate` event adds to its series.
fn text_in(event: &Value) -> String {
    event["data"].get("text").map(text_of).unwrap_or_default()
}
