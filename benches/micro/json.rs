//! Payloads: text that is checked and looked into, never parsed into values.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use taskcast::domain::{Json, json};

use crate::material::{Payload, TOOL_CALL};

/// A payload of about 16 KB, pretty-printed, so that it has whitespace to lose.
fn pretty() -> String {
    let calls = vec![serde_json::from_str::<serde_json::Value>(TOOL_CALL).unwrap(); 40];
    serde_json::to_string_pretty(&calls).unwrap()
}

fn parse(bencher: Bencher<'_, '_>, text: &str) {
    bencher.counter(BytesCount::of_str(text)).bench_local(|| Json::parse(black_box(text)).unwrap());
}

#[divan::bench(args = Payload::ALL)]
fn valid(bencher: Bencher<'_, '_>, payload: Payload) {
    parse(bencher, payload.text());
}

#[divan::bench]
fn valid_and_pretty(bencher: Bencher<'_, '_>) {
    parse(bencher, &pretty());
}

#[divan::bench]
fn invalid_at_the_end(bencher: Bencher<'_, '_>) {
    let broken = format!("{}}}", pretty());
    bencher
        .counter(BytesCount::of_str(&broken))
        .bench_local(|| Json::parse(black_box(&broken)).unwrap_err());
}

#[divan::bench(args = Payload::ALL)]
fn depth(payload: Payload) -> usize {
    json::depth(black_box(payload.text()))
}

#[divan::bench(args = Payload::ALL)]
fn member(payload: Payload) -> usize {
    json::member(black_box(payload.text()), "text").unwrap().len()
}

#[divan::bench]
fn member_is_replaced() -> String {
    json::with_string_member(black_box(TOOL_CALL), "text", black_box("the whole answer"))
}

#[divan::bench]
fn string_is_quoted() -> String {
    let mut out = String::with_capacity(64);
    json::push_string(&mut out, black_box("a \"quoted\" name\nof two lines"));
    out
}
