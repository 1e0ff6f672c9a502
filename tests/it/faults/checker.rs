//! The one judge of all histories.
//!
//! It compares what those who took part saw with the log as it was read back,
//! and counts what must not have happened. Which fault was at work does not
//! matter to it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Instant;

use super::history::{
    Connection, History, Label, Outcome, Place, Publication, Reader, Stored, Truth,
};

/// Offences that are told in words; all are counted.
const TOLD: usize = 12;

/// What must not happen, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events acknowledged to their producer that the log does not hold.
    pub lost: usize,
    /// Numbers a log leaves out.
    pub gaps: usize,
    /// Places at which somebody saw something else than the log holds.
    pub reused: usize,
    /// Frames that came after one with a higher index, on one connection.
    pub misordered: usize,
    /// Events of the log that a subscriber never saw.
    pub holes: usize,
    /// Frames that came twice on one connection.
    pub repeated: usize,
    /// Frames that came again after resuming by the id of the last one.
    pub repeated_on_resume: usize,
    /// Events that stand before one acknowledged before they were sent.
    pub overtaken: usize,
    /// Tasks that did not end exactly once, or not as the winner was told.
    pub wrong_ends: usize,
    /// Events that stand after the end of their task.
    pub after_end: usize,
    /// Events that stand in a log more than once.
    pub doubled: usize,
    /// Publications of which the log holds a part, or not in one piece.
    pub torn: usize,
    /// Frames that show an event the log does not hold.
    pub phantoms: usize,
    /// Events the log holds though their producer was told that nothing was done.
    pub refused_yet_stored: usize,
    /// Subscribers that were never told of the end of their stream.
    pub unfinished: usize,
    /// Answers no subscriber should get.
    pub surprises: usize,
}

impl Counts {
    /// Returns every count with its name.
    pub fn named(&self) -> [(&'static str, usize); 16] {
        [
            ("lost", self.lost),
            ("gaps", self.gaps),
            ("reused", self.reused),
            ("misordered", self.misordered),
            ("holes", self.holes),
            ("repeated", self.repeated),
            ("repeated on resume", self.repeated_on_resume),
            ("overtaken", self.overtaken),
            ("wrong ends", self.wrong_ends),
            ("after the end", self.after_end),
            ("doubled", self.doubled),
            ("torn", self.torn),
            ("phantoms", self.phantoms),
            ("refused yet stored", self.refused_yet_stored),
            ("unfinished", self.unfinished),
            ("surprises", self.surprises),
        ]
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.named().iter().map(|(name, count)| format!("{name} {count}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// What the checker found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// The counts.
    pub counts: Counts,
    /// The first offences, in words.
    pub offences: Vec<String>,
}

impl Findings {
    /// Compares two readings of the same logs, by way of two servers.
    pub fn compare(&mut self, one: &Truth, other: &Truth) {
        for (task, (one, other)) in one.iter().zip(other).enumerate() {
            if one != other {
                self.note(
                    |c| &mut c.reused,
                    || format!("two servers tell two logs of task {task}"),
                );
            }
        }
    }

    fn note(&mut self, count: fn(&mut Counts) -> &mut usize, offence: impl FnOnce() -> String) {
        *count(&mut self.counts) += 1;
        if self.offences.len() < TOLD {
            self.offences.push(offence());
        }
    }
}

/// Judges a run.
pub fn check(history: &History, truth: &Truth) -> Findings {
    let mut findings = Findings::default();
    for (task, log) in truth.iter().enumerate() {
        check_log(&mut findings, task, log);
        check_end(&mut findings, history, task, log);
    }
    let places = Places::of(truth);
    for publication in &history.publications {
        check_publication(&mut findings, &places, publication);
    }
    for task in 0..truth.len() {
        check_order(&mut findings, history, &places, task);
    }
    for reader in &history.readers {
        check_reader(&mut findings, &truth[reader.task], &places, reader);
    }
    findings
}

/// The log by place and by label.
struct Places<'t> {
    at: HashMap<(usize, u64), &'t Place>,
    of: HashMap<(usize, Label), u64>,
}

impl<'t> Places<'t> {
    fn of(truth: &'t Truth) -> Self {
        let (mut at, mut of) = (HashMap::new(), HashMap::new());
        for (task, log) in truth.iter().enumerate() {
            for stored in log {
                at.insert((task, stored.place.index), &stored.place);
                if let Some(label) = stored.label {
                    of.entry((task, label)).or_insert(stored.place.index);
                }
            }
        }
        Self { at, of }
    }
}

fn check_log(findings: &mut Findings, task: usize, log: &[Stored]) {
    let mut labels = HashSet::new();
    let mut expected = 0;
    let mut ended = false;
    for stored in log {
        let index = stored.place.index;
        for missing in expected..index {
            findings.note(|c| &mut c.gaps, || format!("task {task} has no event {missing}"));
        }
        if index < expected {
            findings.note(|c| &mut c.reused, || format!("task {task} tells event {index} twice"));
        }
        expected = expected.max(index + 1);
        if stored.label.is_some_and(|label| !labels.insert(label)) {
            findings.note(
                |c| &mut c.doubled,
                || format!("task {task} holds {:?} again at {index}", stored.label),
            );
        }
        if ended {
            findings.note(|c| &mut c.after_end, || format!("task {task} goes on at {index}"));
        }
        ended |= stored.end.is_some();
    }
}

fn check_end(findings: &mut Findings, history: &History, task: usize, log: &[Stored]) {
    let stored: Vec<&str> = log.iter().filter_map(|stored| stored.end.as_deref()).collect();
    let of_task = history.endings.iter().filter(|ending| ending.task == task);
    let won: Vec<&str> = of_task
        .filter(|ending| ending.outcome == Outcome::Acknowledged)
        .map(|ending| ending.status)
        .collect();
    if stored.len() != 1 || won.len() > 1 || won.iter().any(|status| *status != stored[0]) {
        findings.note(
            |c| &mut c.wrong_ends,
            || format!("task {task} ended as {stored:?}, told as {won:?}"),
        );
    }
}

fn check_publication(findings: &mut Findings, places: &Places<'_>, publication: &Publication) {
    let task = publication.task;
    let stored: Vec<Option<u64>> =
        publication.labels.iter().map(|label| places.of.get(&(task, *label)).copied()).collect();
    let together = stored.windows(2).all(|pair| match (pair[0], pair[1]) {
        (Some(one), Some(next)) => next == one + 1,
        (one, next) => one == next,
    });
    if !together {
        findings.note(
            |c| &mut c.torn,
            || format!("task {task} holds {:?} at {stored:?}", publication.labels),
        );
    }
    for (position, (label, stored)) in publication.labels.iter().zip(stored).enumerate() {
        match (&publication.outcome, stored) {
            (Outcome::Acknowledged, None) => findings.note(
                |c| &mut c.lost,
                || format!("task {task} lost {label:?}, told {:?}", publication.places[position]),
            ),
            (Outcome::Acknowledged, Some(index)) => {
                let (told, there) = (&publication.places[position], places.at[&(task, index)]);
                if told != there {
                    findings.note(
                        |c| &mut c.reused,
                        || format!("task {task}: answered {told:?}, stored {there:?}"),
                    );
                }
            }
            (Outcome::Refused(status, code), Some(index)) => findings.note(
                |c| &mut c.refused_yet_stored,
                || format!("task {task} holds {label:?} at {index} after {status} {code}"),
            ),
            (Outcome::Refused(..), None) | (Outcome::Unknown, _) => {}
        }
    }
}

/// Whoever sends after another was answered stands behind it.
fn check_order(findings: &mut Findings, history: &History, places: &Places<'_>, task: usize) {
    let mut sent: Vec<(Instant, u64)> = Vec::new();
    let mut answered: Vec<(Instant, u64)> = Vec::new();
    for publication in history.publications.iter().filter(|one| one.task == task) {
        for label in &publication.labels {
            let Some(index) = places.of.get(&(task, *label)) else { continue };
            sent.push((publication.asked, *index));
            if publication.outcome == Outcome::Acknowledged {
                answered.push((publication.answered, *index));
            }
        }
    }
    sent.sort_unstable();
    answered.sort_unstable();
    let mut before = answered.into_iter().peekable();
    let mut highest = None;
    for (asked, index) in sent {
        while let Some((_, other)) = before.next_if(|(answered, _)| *answered < asked) {
            highest = highest.max(Some(other));
        }
        if highest > Some(index) {
            findings.note(
                |c| &mut c.overtaken,
                || format!("task {task}: event {index} was sent after {highest:?} was answered"),
            );
        }
    }
}

fn check_reader(findings: &mut Findings, log: &[Stored], places: &Places<'_>, reader: &Reader) {
    let task = reader.task;
    let mut seen_before: HashSet<u64> = HashSet::new();
    for connection in &reader.connections {
        check_connection(findings, places, task, connection, &seen_before);
        seen_before.extend(connection.seen.iter().map(|seen| seen.place.index));
    }
    for stored in log.iter().filter(|stored| !seen_before.contains(&stored.place.index)) {
        findings.note(
            |c| &mut c.holes,
            || format!("a reader of task {task} never saw event {}", stored.place.index),
        );
    }
    if !reader.is_done {
        findings.note(|c| &mut c.unfinished, || format!("a reader of task {task} waits for ever"));
    }
    for surprise in &reader.surprises {
        findings.note(|c| &mut c.surprises, || format!("a reader of task {task} met: {surprise}"));
    }
}

fn check_connection(
    findings: &mut Findings,
    places: &Places<'_>,
    task: usize,
    connection: &Connection,
    seen_before: &HashSet<u64>,
) {
    let mut newest = None;
    let mut here = HashSet::new();
    for seen in &connection.seen {
        let index = seen.place.index;
        match places.at.get(&(task, index)) {
            None => findings.note(
                |c| &mut c.phantoms,
                || format!("a reader of task {task} saw event {index}, which is not there"),
            ),
            Some(there) if **there != seen.place => findings.note(
                |c| &mut c.reused,
                || format!("task {task}: a reader saw {:?}, stored {there:?}", seen.place),
            ),
            Some(_) => {}
        }
        if !here.insert(index) {
            findings.note(
                |c| &mut c.repeated,
                || format!("a connection to task {task} saw event {index} again"),
            );
        } else if newest > Some(index) {
            findings.note(
                |c| &mut c.misordered,
                || format!("a connection to task {task} saw event {index} after {newest:?}"),
            );
        }
        newest = newest.max(Some(index));
        if seen_before.contains(&index) {
            findings.note(
                |c| &mut c.repeated_on_resume,
                || format!("a reader of task {task} saw event {index} again after resuming"),
            );
        }
    }
}
