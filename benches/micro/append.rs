//! The way of a write, up to where the store takes over.

use std::collections::HashMap;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use taskcast::domain::{AppendRules, Change, EventDraft, TaskState, TaskStatus, Transition, judge};
use taskcast::engine::Limits;

use crate::material::{DELTA, Served, delta, plain};

fn running() -> TaskState {
    TaskState {
        policy: Arc::default(),
        status: TaskStatus::Running,
        next_index: 1_000_000,
        series: HashMap::new(),
    }
}

fn rules() -> AppendRules {
    AppendRules { series_text_limit: Limits::default().series_text_bytes, ..AppendRules::default() }
}

/// Judges a request of these events on a task that had one before, so that the
/// series is open.
fn judged(bencher: Bencher<'_, '_>, events: &[EventDraft]) {
    let (mut state, rules) = (running(), rules());
    judge(&mut state, Change::Publish(events.to_vec()), &rules, None).unwrap();
    bencher
        .counter(ItemsCount::new(events.len()))
        .with_inputs(|| (state.clone(), Change::Publish(events.to_vec())))
        .bench_local_values(|(mut state, change)| judge(&mut state, change, &rules, None).unwrap());
}

#[divan::bench(args = [1, 50])]
fn judge_events(bencher: Bencher<'_, '_>, count: usize) {
    judged(bencher, &vec![plain(DELTA); count]);
}

#[divan::bench(args = [1, 50])]
fn judge_deltas(bencher: Bencher<'_, '_>, count: usize) {
    judged(bencher, &vec![delta(); count]);
}

#[divan::bench]
fn judge_a_transition(bencher: Bencher<'_, '_>) {
    let rules = rules();
    bencher
        .with_inputs(|| (running(), Change::Transition(Transition::to(TaskStatus::Completed))))
        .bench_local_values(|(mut state, change)| judge(&mut state, change, &rules, None).unwrap());
}

/// The memory store: what a publish costs without HTTP and without a database.
#[divan::bench(args = [1, 50], sample_count = 50, sample_size = 20)]
fn publish_into_memory(bencher: Bencher<'_, '_>, count: usize) {
    let served = Served::new();
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| vec![plain(DELTA); count])
        .bench_local_values(|events| served.publish(events));
}

/// The same by way of the router: the body is read, checked and turned into
/// events, and the answer is written.
#[divan::bench(args = [1, 50], sample_count = 50, sample_size = 20)]
fn post_into_memory(bencher: Bencher<'_, '_>, count: usize) {
    let served = Served::new();
    let event = format!(r#"{{"type":"llm.delta","level":"info","data":{DELTA}}}"#);
    let body = match count {
        1 => event,
        _ => format!("[{}]", vec![event; count].join(",")),
    };
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| body.clone())
        .bench_local_values(|body| served.post(body));
}
