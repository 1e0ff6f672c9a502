//! Circuit breakers: a URL that keeps failing is asked less often.
//!
//! After some failures in a row the circuit of a URL opens. Then one attempt
//! at a time is let through, after pauses that double up to a minute, and the
//! first answer that is no failure closes it. A circuit is that of one URL
//! without its query, so that one path of a receiver does not speak for
//! another.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open a circuit.
const FAILURES: u32 = 10;

/// First and longest pause of an open circuit.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Most circuits to remember; the older half is forgotten.
const MOST_CIRCUITS: usize = 16_384;

#[derive(Debug, Clone, Copy)]
struct Circuit {
    receiver: u64,
    failures: u32,
    /// The pause that is made, and the one to make after the next failure.
    pause: Duration,
    next_pause: Duration,
    /// While open: when the next attempt is let through.
    next_at: Option<Instant>,
    /// Whether it is under way.
    is_probed: bool,
    used_at: Instant,
}

/// What to do with a delivery that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// Attempt it.
    Open,
    /// Put it off.
    PutOff {
        /// For at least so long.
        pause: Duration,
        /// Whether that uses up one of its attempts, as it does once the
        /// pauses are the longest: nothing is owed for ever.
        counts: bool,
    },
}

/// The circuits of this instance.
#[derive(Debug, Default)]
pub(super) struct Circuits(HashMap<u64, Circuit>);

impl Circuits {
    /// Tells whether a URL may be asked now.
    pub(super) fn look(&self, url: u64, now: Instant) -> Passage {
        let Some(circuit) = self.0.get(&url) else { return Passage::Open };
        let Some(next_at) = circuit.next_at else { return Passage::Open };
        if now >= next_at && !circuit.is_probed {
            return Passage::Open;
        }
        let pause = next_at.saturating_duration_since(now).max(circuit.pause / 2);
        Passage::PutOff { pause, counts: circuit.pause >= LONGEST_PAUSE }
    }

    /// Decides whether a URL is asked now; if so, somebody has to tell how that
    /// ended.
    pub(super) fn pass(&mut self, url: u64, now: Instant) -> Passage {
        let passage = self.look(url, now);
        if let Some(circuit) = self.0.get_mut(&url) {
            circuit.used_at = now;
            circuit.is_probed |= circuit.next_at.is_some() && passage == Passage::Open;
        }
        passage
    }

    /// Returns the receivers that have a URL with an open circuit.
    pub(super) fn open_at(&self) -> HashSet<u64> {
        let open = self.0.values().filter(|circuit| circuit.next_at.is_some());
        open.map(|circuit| circuit.receiver).collect()
    }

    /// Notes that a URL answered and did not fail.
    pub(super) fn succeeded(&mut self, url: u64) {
        self.0.remove(&url);
    }

    /// Notes that a URL of a receiver failed.
    pub(super) fn failed(&mut self, url: u64, receiver: u64, now: Instant) {
        if self.0.len() >= MOST_CIRCUITS && !self.0.contains_key(&url) {
            self.forget();
        }
        let circuit = self.0.entry(url).or_insert(Circuit {
            receiver,
            failures: 0,
            pause: FIRST_PAUSE,
            next_pause: FIRST_PAUSE,
            next_at: None,
            is_probed: false,
            used_at: now,
        });
        circuit.failures = circuit.failures.saturating_add(1);
        circuit.used_at = now;
        if circuit.failures < FAILURES {
            return;
        }
        // Attempts that began before it opened say nothing new.
        if circuit.next_at.is_none() || circuit.is_probed {
            circuit.pause = circuit.next_pause;
            circuit.next_at = Some(now + circuit.pause);
            circuit.next_pause = (circuit.pause * 2).min(LONGEST_PAUSE);
            circuit.is_probed = false;
        }
    }

    /// Notes that an attempt ended without telling anything of the URL.
    pub(super) fn abandoned(&mut self, url: u64) {
        if let Some(circuit) = self.0.get_mut(&url) {
            circuit.is_probed = false;
        }
    }

    fn forget(&mut self) {
        let mut times: Vec<Instant> = self.0.values().map(|circuit| circuit.used_at).collect();
        times.sort_unstable();
        let Some(middle) = times.get(times.len() / 2).copied() else { return };
        self.0.retain(|_, circuit| circuit.used_at > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn is_put_off(passage: Passage) -> bool {
        matches!(passage, Passage::PutOff { .. })
    }

    #[test]
    fn a_circuit_opens_after_failures_in_a_row_and_closes_with_an_answer() {
        let (mut circuits, now) = (Circuits::default(), Instant::now());
        for _ in 0..2 {
            for _ in 1..FAILURES {
                circuits.failed(1, 7, now);
            }
            assert_eq!(circuits.pass(1, now), Passage::Open);
            circuits.succeeded(1);
        }
        for _ in 0..FAILURES {
            circuits.failed(1, 7, now);
        }
        assert!(is_put_off(circuits.pass(1, now)));
        assert_eq!(circuits.open_at(), HashSet::from([7]));
        assert_eq!(circuits.pass(2, now), Passage::Open, "another URL");
        let later = now + FIRST_PAUSE;
        assert_eq!(circuits.pass(1, later), Passage::Open);
        assert!(is_put_off(circuits.pass(1, later)), "one at a time");
        circuits.abandoned(1);
        assert_eq!(circuits.pass(1, later), Passage::Open);
        circuits.succeeded(1);
        assert_eq!(circuits.pass(1, later), Passage::Open);
        assert!(circuits.open_at().is_empty());
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_then_use_up_attempts() {
        let (mut circuits, mut now) = (Circuits::default(), Instant::now());
        for _ in 0..FAILURES {
            circuits.failed(1, 7, now);
        }
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let Passage::PutOff { pause, counts } = circuits.pass(1, now) else { panic!("open") };
            pauses.push((pause.as_secs(), counts));
            now += pause;
            assert_eq!(circuits.pass(1, now), Passage::Open);
            circuits.failed(1, 7, now);
        }
        let seconds: Vec<u64> = pauses.iter().map(|(seconds, _)| *seconds).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let counted = pauses.iter().position(|(_, counts)| *counts).unwrap();
        assert!(pauses[..counted].iter().all(|(seconds, _)| *seconds < 60), "{pauses:?}");
    }

    #[test]
    fn attempts_that_began_before_it_opened_make_no_pause_longer() {
        let (mut circuits, now) = (Circuits::default(), Instant::now());
        for _ in 0..FAILURES + 7 {
            circuits.failed(1, 7, now);
        }
        assert_eq!(circuits.pass(1, now + FIRST_PAUSE), Passage::Open);
    }

    #[test]
    fn what_is_remembered_of_urls_is_bounded() {
        let (mut circuits, now) = (Circuits::default(), Instant::now());
        for url in 0..2 * MOST_CIRCUITS as u64 {
            circuits.failed(url, 7, now + Duration::from_millis(url));
            assert!(circuits.0.len() <= MOST_CIRCUITS);
        }
    }
}
