//! Writing what readers get.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use taskcast::domain::{TaskStatus, write_envelope, write_event, write_snapshot};

use crate::material::{DELTA, Payload, Served, delta, logged, plain};

const BYTES: usize = 1_024;

/// The envelope of one event: the text of a frame, less `event:` and `id:`.
#[divan::bench(args = Payload::ALL)]
fn envelope(bencher: Bencher<'_, '_>, payload: Payload) {
    let event = logged(1_000_000, plain(payload.text()));
    bencher.bench_local(|| {
        let mut out = String::with_capacity(BYTES);
        write_envelope(&mut out, black_box(&event), Some(999_999), false);
        out
    });
}

#[divan::bench]
fn envelope_in_a_series(bencher: Bencher<'_, '_>) {
    let event = logged(1_000_000, delta());
    bencher.bench_local(|| {
        let mut out = String::with_capacity(BYTES);
        write_envelope(&mut out, black_box(&event), Some(999_999), false);
        out
    });
}

#[divan::bench]
fn event(bencher: Bencher<'_, '_>) {
    let event = logged(1_000_000, plain(DELTA));
    bencher.bench_local(|| {
        let mut out = String::with_capacity(BYTES);
        write_event(&mut out, black_box(&event));
        out
    });
}

#[divan::bench(args = [1_000, 100_000])]
fn snapshot(bencher: Bencher<'_, '_>, characters: usize) {
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(characters));
    let event = logged(1_000_000, plain(&text));
    bencher.bench_local(|| {
        let mut out = String::with_capacity(BYTES + characters);
        write_snapshot(&mut out, black_box(&event));
        out
    });
}

/// A whole stream of a finished task by way of the router: reading the log,
/// frames with their ids, chunks.
#[divan::bench(args = ["?wrap=true", "?types=llm.*", "?wrap=false"], sample_count = 50, sample_size = 1)]
fn replayed_stream(bencher: Bencher<'_, '_>, query: &str) {
    const EVENTS: usize = 1_000;
    let served = Served::new();
    served.publish(vec![plain(DELTA); EVENTS]);
    served.enter(TaskStatus::Completed);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| served.stream(query));
}
