//! Adaptive batching: when a lane lingers for more requests.
//!
//! Producers that send the next event when the last one is answered split into
//! two alternating halves by themselves: one waits while the batch of the
//! other is in flight. With many producers that is best, since everybody
//! always has something to do. With a few it doubles the number of batches,
//! and a batch costs Postgres more than what is in it. So when a small, stable
//! set of producers publishes in lockstep, the lane lingers for all of them.
//!
//! Lingering in vain costs up to a millisecond, and makes the next time rarer.

/// Largest number of producers that is waited for; beyond it two halves are better.
const MAX_PRODUCERS: usize = 16;

/// Rounds of the same size before the lane lingers.
const STABLE_ROUNDS: u32 = 8;

/// Batches without lingering after the first time in vain; doubles with each.
const MIN_BACKOFF: u32 = 64;

/// Most batches without lingering.
const MAX_BACKOFF: u32 = 4096;

/// What a lane has seen of the producers it answers.
#[derive(Debug, Default)]
pub(super) struct LingerPolicy {
    producers: usize,
    stable_rounds: u32,
    backoff_left: u32,
    last_backoff: u32,
}

impl LingerPolicy {
    /// Returns how many requests to wait for, after a batch of `answered`
    /// requests and with `waiting` requests queued; `None` when not to linger.
    pub(super) fn expected(&mut self, answered: usize, waiting: usize) -> Option<usize> {
        let producers = answered + waiting;
        if producers == self.producers {
            self.stable_rounds = self.stable_rounds.saturating_add(1);
        } else {
            (self.producers, self.stable_rounds) = (producers, 0);
        }
        self.backoff_left = self.backoff_left.saturating_sub(1);
        let is_small = (2..=MAX_PRODUCERS).contains(&producers);
        let is_stable = self.stable_rounds >= STABLE_ROUNDS;
        (is_small && is_stable && self.backoff_left == 0).then_some(producers)
    }

    /// Notes whether they came.
    pub(super) fn note(&mut self, came: bool) {
        if came {
            self.last_backoff /= 2;
            return;
        }
        self.stable_rounds = 0;
        self.last_backoff = (self.last_backoff * 2).clamp(MIN_BACKOFF, MAX_BACKOFF);
        self.backoff_left = self.last_backoff;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_stable_set_of_producers_is_waited_for() {
        let mut policy = LingerPolicy::default();
        let halves = [(4, 6), (6, 4)].into_iter().cycle();
        let first = halves.map(|(answered, waiting)| policy.expected(answered, waiting));
        assert_eq!(first.take(20).flatten().next(), Some(10));
        assert_eq!(policy.expected(10, 0), Some(10));
    }

    #[test]
    fn producers_without_a_rhythm_are_not_waited_for() {
        let mut policy = LingerPolicy::default();
        for number in 0..1000 {
            assert_eq!(policy.expected(1 + number % 3, 0), None);
        }
    }

    #[test]
    fn many_producers_are_not_waited_for_and_a_single_one_neither() {
        let mut policy = LingerPolicy::default();
        for _ in 0..100 {
            assert_eq!(policy.expected(MAX_PRODUCERS, 1), None);
        }
        for _ in 0..100 {
            assert_eq!(policy.expected(1, 0), None);
        }
    }

    #[test]
    fn lingering_in_vain_becomes_rare() {
        let mut policy = LingerPolicy::default();
        let mut lingers = 0;
        for _ in 0..100_000 {
            if policy.expected(3, 0).is_some() {
                lingers += 1;
                policy.note(false);
            }
        }
        assert!((5..50).contains(&lingers), "{lingers}");
    }
}
