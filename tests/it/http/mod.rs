//! Black-box tests: the real program over a real socket, in memory and on
//! Postgres.
//!
//! Every numbered rule of `docs/http.md` and `docs/sse.md` has a case here
//! whose doc comment names it on a line `Rules: H1, H2`. `tests/it/rules.rs`
//! compares both.

mod bad_input;
mod cleanup;
mod conventions;
mod cors;
mod delete;
mod errors;
mod health;
mod history;
mod idempotency;
mod limits;
mod list;
mod payloads;
mod publish;
mod series;
mod status;
mod stream;
mod tasks;

use serde_json::{Value, json};

/// A time no test of today lies before: start of 2024, in milliseconds.
const RECENT_MS: u64 = 1_704_067_200_000;

/// A delta of an `accumulate` series.
fn delta(series: &str, text: &str) -> Value {
    json!({"type": "llm.delta", "data": {"text": text}, "seriesId": series, "seriesMode": "accumulate"})
}

/// A value of a `latest` series.
fn latest(series: &str, value: impl Into<Value>) -> Value {
    json!({"type": "progress", "data": value.into(), "seriesId": series, "seriesMode": "latest"})
}

/// A plain event.
fn plain(event_type: &str, data: impl Into<Value>) -> Value {
    json!({"type": event_type, "data": data.into()})
}

/// Tells whether a text looks like a ULID.
fn is_ulid(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|byte| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&byte))
}
