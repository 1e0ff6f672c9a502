//! The checker against made-up histories: each fault is found, and nothing else.

use std::time::{Duration, Instant};

use super::checker::{Counts, check};
use super::history::{
    Connection, Ending, History, Label, Outcome, Place, Publication, Reader, Seen, Stored, Truth,
};

/// A run without a fault: two producers, one subscriber who resumed once.
fn clean() -> (History, Truth) {
    let began = Instant::now();
    let at = |ms: u64| began + Duration::from_millis(ms);
    let publish = |producer: u32, number: u64, index: u64, count: u64, asked: u64| Publication {
        task: 0,
        labels: (number..number + count).map(|number| Label { producer, number }).collect(),
        places: (index..index + count).map(place).collect(),
        asked: at(asked),
        asked_last: at(asked),
        answered: at(asked + 5),
        outcome: Outcome::Acknowledged,
    };
    let publications =
        vec![publish(1, 0, 1, 2, 10), publish(2, 0, 3, 1, 20), publish(1, 2, 4, 1, 30)];
    let labels = [(1, Some((1, 0))), (2, Some((1, 1))), (3, Some((2, 0))), (4, Some((1, 2)))];
    let mut log = vec![stored(0, None)];
    log.extend(labels.map(|(index, label)| stored(index, label)));
    log.push(Stored { end: Some("completed".to_owned()), ..stored(5, None) });
    let see = |indexes: std::ops::RangeInclusive<u64>| Connection {
        opened: began,
        seen: indexes.map(|index| Seen { place: place(index), at: at(100) }).collect(),
    };
    let reader =
        Reader { connections: vec![see(0..=2), see(3..=5)], is_done: true, ..Reader::default() };
    let ending = |status, outcome| Ending { task: 0, status, outcome };
    let refused = Outcome::Refused(409, "invalid_transition".to_owned());
    let endings = vec![ending("completed", Outcome::Acknowledged), ending("failed", refused)];
    (History { publications, endings, readers: vec![reader] }, vec![log])
}

fn place(index: u64) -> Place {
    Place { index, id: format!("id-{index}"), content: index }
}

fn stored(index: u64, label: Option<(u32, u64)>) -> Stored {
    let label = label.map(|(producer, number)| Label { producer, number });
    Stored { place: place(index), label, end: None }
}

/// Checks that what `spoil` does to a clean run is counted as `expected`.
#[track_caller]
fn finds(expected: Counts, spoil: impl FnOnce(&mut History, &mut Truth)) {
    let (mut history, mut truth) = clean();
    spoil(&mut history, &mut truth);
    let findings = check(&history, &truth);
    assert_eq!(findings.counts, expected, "{:?}", findings.offences);
    assert_eq!(findings.offences.is_empty(), expected == Counts::default());
}

#[test]
fn a_clean_run_has_no_findings() {
    finds(Counts::default(), |_, _| {});
}

#[test]
fn an_acknowledged_event_that_is_not_stored_is_lost() {
    finds(Counts { lost: 1, phantoms: 1, gaps: 1, ..Counts::default() }, |_, truth| {
        truth[0].remove(3);
    });
    // At the end of a log its number is free again.
    finds(Counts { lost: 1, ..Counts::default() }, |history, _| {
        let mut one = history.publications[1].clone();
        one.labels = vec![Label { producer: 9, number: 0 }];
        one.places = vec![place(6)];
        history.publications.push(one);
    });
}

#[test]
fn a_number_that_is_left_out_is_a_gap() {
    finds(Counts { gaps: 1, ..Counts::default() }, |history, truth| {
        truth[0][5].place = place(6);
        history.readers[0].connections[1].seen[2].place = place(6);
    });
}

#[test]
fn a_number_with_other_content_is_reused() {
    finds(Counts { reused: 1, ..Counts::default() }, |history, _| {
        history.publications[1].places[0].content = 77;
    });
    finds(Counts { reused: 1, ..Counts::default() }, |history, _| {
        history.readers[0].connections[0].seen[1].place.id = "id-of-another".to_owned();
    });
    finds(Counts { reused: 1, ..Counts::default() }, |_, truth| {
        let again = Stored { label: None, ..truth[0][3].clone() };
        truth[0].insert(4, again);
    });
}

#[test]
fn a_frame_after_a_later_one_is_misordered() {
    finds(Counts { misordered: 1, ..Counts::default() }, |history, _| {
        history.readers[0].connections[1].seen.swap(0, 1);
    });
}

#[test]
fn an_event_a_reader_never_saw_is_a_hole() {
    finds(Counts { holes: 1, ..Counts::default() }, |history, _| {
        history.readers[0].connections[1].seen.remove(1);
    });
    finds(Counts { holes: 3, unfinished: 1, ..Counts::default() }, |history, _| {
        history.readers[0].connections.pop();
        history.readers[0].is_done = false;
    });
}

#[test]
fn a_frame_that_comes_twice_is_repeated() {
    finds(Counts { repeated: 1, ..Counts::default() }, |history, _| {
        let seen = &mut history.readers[0].connections[0].seen;
        seen.push(seen[2].clone());
    });
    finds(Counts { repeated_on_resume: 1, ..Counts::default() }, |history, _| {
        let again = history.readers[0].connections[0].seen[2].clone();
        history.readers[0].connections[1].seen.insert(0, again);
    });
}

#[test]
fn an_event_before_one_that_was_answered_before_it_was_sent_is_overtaken() {
    finds(Counts { overtaken: 1, ..Counts::default() }, |history, truth| {
        let (one, other) = (truth[0][3].label, truth[0][4].label);
        (truth[0][3].label, truth[0][4].label) = (other, one);
        history.publications[1].places = vec![place(4)];
        history.publications[2].places = vec![place(3)];
    });
    // Nobody knew of the one when the other was sent: either order is right.
    finds(Counts::default(), |history, truth| {
        let (one, other) = (truth[0][3].label, truth[0][4].label);
        (truth[0][3].label, truth[0][4].label) = (other, one);
        history.publications[1].outcome = Outcome::Unknown;
        history.publications[2].places = vec![place(3)];
    });
}

#[test]
fn a_task_ends_once_and_as_the_winner_was_told() {
    finds(Counts { wrong_ends: 1, after_end: 1, ..Counts::default() }, |_, truth| {
        truth[0][4].end = Some("failed".to_owned());
    });
    finds(Counts { wrong_ends: 1, ..Counts::default() }, |_, truth| truth[0][5].end = None);
    finds(Counts { wrong_ends: 1, ..Counts::default() }, |history, _| {
        history.endings[1].outcome = Outcome::Acknowledged;
    });
}

#[test]
fn what_stands_behind_the_end_is_found() {
    finds(Counts { after_end: 1, holes: 1, ..Counts::default() }, |_, truth| {
        truth[0].push(stored(6, None));
    });
}

#[test]
fn an_event_that_is_stored_twice_is_doubled() {
    finds(Counts { doubled: 1, ..Counts::default() }, |history, truth| {
        // A producer that does not know may not find it twice either.
        history.publications[1].outcome = Outcome::Unknown;
        history.publications.remove(2);
        truth[0][4].label = truth[0][3].label;
    });
}

#[test]
fn a_part_of_a_publication_is_torn() {
    finds(Counts { torn: 1, ..Counts::default() }, |history, truth| {
        history.publications[0].outcome = Outcome::Unknown;
        truth[0][2].label = None;
    });
}

#[test]
fn a_frame_of_an_event_that_is_not_there_is_a_phantom() {
    finds(Counts { phantoms: 1, ..Counts::default() }, |history, _| {
        let seen = Seen { place: place(6), at: Instant::now() };
        history.readers[0].connections[1].seen.push(seen);
    });
}

#[test]
fn what_was_refused_may_not_be_stored() {
    finds(Counts { refused_yet_stored: 1, ..Counts::default() }, |history, _| {
        history.publications[1].outcome = Outcome::Refused(503, "store_unavailable".to_owned());
    });
}

#[test]
fn an_answer_no_reader_should_get_is_told() {
    finds(Counts { surprises: 1, ..Counts::default() }, |history, _| {
        history.readers[0].surprises.push("status 404".to_owned());
    });
}

#[test]
fn two_servers_that_tell_two_logs_are_found() {
    let (history, truth) = clean();
    let mut findings = check(&history, &truth);
    findings.compare(&truth, &truth);
    assert_eq!(findings.counts, Counts::default());
    let mut other = truth.clone();
    other[0].pop();
    findings.compare(&truth, &other);
    assert_eq!(findings.counts, Counts { reused: 1, ..Counts::default() });
}
