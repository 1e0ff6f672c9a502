//! Ids of tasks and events.

use divan::black_box;
use taskcast::domain::{EventId, TaskId, TaskNumber};

use crate::material::TIMESTAMP_MS;

const CANONICAL: &str = "01M31Q2V008003YV7B0009Q7G0";

#[divan::bench]
fn event_id_is_made_and_written() -> usize {
    let id =
        EventId::new(black_box(TIMESTAMP_MS), black_box(TaskNumber::MAX), black_box(1_000_000));
    black_box(id.encode(&mut [0; 26])).len()
}

#[divan::bench]
fn event_id_is_parsed() -> Option<EventId> {
    let id = EventId::parse(black_box(CANONICAL));
    assert!(id.is_some());
    id
}

#[divan::bench]
fn task_id_is_made() -> TaskId {
    TaskId::from_parts(black_box(TIMESTAMP_MS), black_box(0x0123_4567_89ab_cdef))
}

#[divan::bench(args = ["report-7", "01M31Q2V008003YV7B0009Q7G0:eu-central-1.tenant~42"])]
fn task_id_is_parsed(text: &str) -> TaskId {
    TaskId::parse(black_box(text)).unwrap()
}
