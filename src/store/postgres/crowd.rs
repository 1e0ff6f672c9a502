//! Guessing whether those who were just answered come back at once.
//!
//! Producers that send the next event when the last is answered fall into two
//! halves by themselves: one waits while the other's batch is under way. For a
//! large crowd that is as it should be, since everybody has something to do all
//! the time. For a small one it doubles the number of batches, and a batch
//! costs Postgres more than what is in it: so a lane that has seen the same
//! few come back a number of times waits until all of them are there.
//!
//! A guess that was wrong costs a moment, and makes the next one rarer.

/// Largest crowd that is waited for; beyond it two halves are better.
const MOST: usize = 16;

/// Batches that must look alike before a crowd is waited for.
const ALIKE: u32 = 8;

/// Batches without a guess after the first wrong one; doubles with each.
const FIRST_REST: u32 = 64;

/// Most batches without a guess.
const LONGEST_REST: u32 = 4096;

/// What a lane has seen of those it answers.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    size: usize,
    alike: u32,
    rest: u32,
    last_rest: u32,
}

impl Crowd {
    /// Returns how many jobs to wait for, after a batch of `answered` jobs and
    /// with `waiting` jobs there already; `None` when there is no telling.
    pub(super) fn expected(&mut self, answered: usize, waiting: usize) -> Option<usize> {
        let size = answered + waiting;
        if size == self.size {
            self.alike = self.alike.saturating_add(1);
        } else {
            (self.size, self.alike) = (size, 0);
        }
        self.rest = self.rest.saturating_sub(1);
        let is_small = (2..=MOST).contains(&size);
        (is_small && self.rest == 0 && self.alike >= ALIKE).then_some(size)
    }

    /// Notes whether they came.
    pub(super) fn note(&mut self, came: bool) {
        if came {
            self.last_rest /= 2;
            return;
        }
        self.alike = 0;
        self.last_rest = (self.last_rest * 2).clamp(FIRST_REST, LONGEST_REST);
        self.rest = self.last_rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_who_keep_coming_back_are_waited_for() {
        let mut crowd = Crowd::default();
        let halves = [(4, 6), (6, 4)].into_iter().cycle();
        let first = halves.map(|(answered, waiting)| crowd.expected(answered, waiting));
        assert_eq!(first.take(20).flatten().next(), Some(10));
        assert_eq!(crowd.expected(10, 0), Some(10));
    }

    #[test]
    fn those_who_come_as_they_like_are_not_waited_for() {
        let mut crowd = Crowd::default();
        for number in 0..1000 {
            assert_eq!(crowd.expected(1 + number % 3, 0), None);
        }
    }

    #[test]
    fn many_are_not_waited_for_and_one_alone_neither() {
        let mut crowd = Crowd::default();
        for _ in 0..100 {
            assert_eq!(crowd.expected(MOST, 1), None);
        }
        for _ in 0..100 {
            assert_eq!(crowd.expected(1, 0), None);
        }
    }

    #[test]
    fn guesses_become_rare_when_they_are_wrong() {
        let mut crowd = Crowd::default();
        let mut guesses = 0;
        for _ in 0..100_000 {
            if crowd.expected(3, 0).is_some() {
                guesses += 1;
                crowd.note(false);
            }
        }
        assert!((5..50).contains(&guesses), "{guesses}");
    }
}
