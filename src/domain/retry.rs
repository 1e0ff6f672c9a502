//! How often and how fast a delivery is tried again.

use std::ops::RangeInclusive;

use super::{Backoff, RetryOverrides};

/// How deliveries are retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries: u32,
    /// How pauses grow.
    pub backoff: Backoff,
    /// First pause, in milliseconds.
    pub initial_delay_ms: u64,
    /// Longest pause, in milliseconds.
    pub max_delay_ms: u64,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 3,
            backoff: Backoff::Exponential,
            initial_delay_ms: 1_000,
            max_delay_ms: 30_000,
            timeout_ms: 5_000,
        }
    }
}

impl From<RetryPolicy> for RetryOverrides {
    /// Says everything.
    fn from(policy: RetryPolicy) -> Self {
        let RetryPolicy { retries, backoff, initial_delay_ms, max_delay_ms, timeout_ms } = policy;
        Self {
            retries: Some(retries),
            backoff: Some(backoff),
            initial_delay_ms: Some(initial_delay_ms),
            max_delay_ms: Some(max_delay_ms),
            timeout_ms: Some(timeout_ms),
        }
    }
}

/// Shortest pause of a task's webhook, in milliseconds.
const LEAST_DELAY_MS: u64 = 100;

/// Shortest and longest time for an attempt of one, in milliseconds.
const LEAST_TIMEOUT_MS: u64 = 1_000;
const MOST_TIMEOUT_MS: u64 = 30_000;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// Part of a pause by which it may be shorter or longer, so that deliveries
/// that failed together do not come back together.
const SPREAD: f64 = 0.2;

impl RetryPolicy {
    /// Allowed numbers of retries.
    pub const RETRIES: RangeInclusive<u64> = 0..=100;
    /// Allowed first pauses, in milliseconds.
    pub const INITIAL_DELAY_MS: RangeInclusive<u64> = 0..=HOUR_MS;
    /// Allowed longest pauses, in milliseconds.
    pub const MAX_DELAY_MS: RangeInclusive<u64> = 0..=24 * HOUR_MS;
    /// Allowed times for an attempt, in milliseconds.
    pub const TIMEOUT_MS: RangeInclusive<u64> = 1..=5 * MINUTE_MS;

    /// Returns the policy with what a hook says of its own.
    #[must_use]
    pub fn with(self, overrides: &RetryOverrides) -> Self {
        Self {
            retries: overrides.retries.unwrap_or(self.retries),
            backoff: overrides.backoff.unwrap_or(self.backoff),
            initial_delay_ms: overrides.initial_delay_ms.unwrap_or(self.initial_delay_ms),
            max_delay_ms: overrides.max_delay_ms.unwrap_or(self.max_delay_ms),
            timeout_ms: overrides.timeout_ms.unwrap_or(self.timeout_ms),
        }
    }

    /// Returns the policy as it holds for webhooks of tasks, whose creators must
    /// not turn one event into a flood of requests, or hold slots for minutes.
    #[must_use]
    pub fn within_bounds(self) -> Self {
        Self {
            initial_delay_ms: self.initial_delay_ms.max(LEAST_DELAY_MS),
            max_delay_ms: self.max_delay_ms.max(LEAST_DELAY_MS),
            timeout_ms: self.timeout_ms.clamp(LEAST_TIMEOUT_MS, MOST_TIMEOUT_MS),
            ..self
        }
    }

    /// Returns the milliseconds between the end of `attempt`, counted from 1,
    /// and the next one; `None` when there is no next one.
    ///
    /// `asked_ms` is the pause the receiver asked for; a shorter one is not
    /// made. `chance`, from 0 to 1, spreads pauses by up to a fifth either
    /// way. Nothing makes a pause longer than the longest allowed.
    pub fn pause_ms(&self, attempt: u32, asked_ms: Option<u64>, chance: f64) -> Option<u64> {
        if attempt > self.retries {
            return None;
        }
        let first = self.initial_delay_ms;
        let planned = match self.backoff {
            Backoff::Fixed => first,
            Backoff::Linear => first.saturating_mul(u64::from(attempt)),
            Backoff::Exponential => {
                let doublings = attempt.saturating_sub(1);
                2_u64.checked_pow(doublings).map_or(u64::MAX, |times| first.saturating_mul(times))
            }
        };
        let planned = planned.min(self.max_delay_ms);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a pause of at most a day in milliseconds is exact, and a factor of at least 0.8 keeps it positive"
        )]
        let spread = (planned as f64 * (1.0 - SPREAD + 2.0 * SPREAD * chance)) as u64;
        Some(spread.max(asked_ms.unwrap_or(0)).min(self.max_delay_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(backoff: Backoff, chance: f64) -> Vec<Option<u64>> {
        let policy = RetryPolicy {
            retries: 5,
            backoff,
            initial_delay_ms: 200,
            max_delay_ms: 1_000,
            ..RetryPolicy::default()
        };
        (1..=6).map(|attempt| policy.pause_ms(attempt, None, chance)).collect()
    }

    #[test]
    fn pauses_grow_as_the_backoff_says_and_never_past_the_longest() {
        let expected =
            |pauses: [u64; 5]| pauses.into_iter().map(Some).chain([None]).collect::<Vec<_>>();
        assert_eq!(pauses(Backoff::Fixed, 0.5), expected([200; 5]));
        assert_eq!(pauses(Backoff::Linear, 0.5), expected([200, 400, 600, 800, 1_000]));
        assert_eq!(pauses(Backoff::Exponential, 0.5), expected([200, 400, 800, 1_000, 1_000]));
        assert_eq!(pauses(Backoff::Fixed, 0.0), expected([160; 5]));
        assert_eq!(pauses(Backoff::Fixed, 1.0), expected([240; 5]));
        assert_eq!(pauses(Backoff::Exponential, 1.0), expected([240, 480, 960, 1_000, 1_000]));
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_up_to_the_longest_pause() {
        let policy = RetryPolicy { retries: 100, ..RetryPolicy::default() };
        assert_eq!(policy.pause_ms(1, Some(5_000), 0.5), Some(5_000));
        assert_eq!(policy.pause_ms(1, Some(10), 0.5), Some(1_000));
        assert_eq!(policy.pause_ms(1, Some(u64::MAX), 0.5), Some(30_000));
        assert_eq!(policy.pause_ms(100, None, 0.5), Some(30_000));
    }

    #[test]
    fn times_of_a_task_s_webhook_are_kept_within_bounds() {
        let least = RetryPolicy {
            initial_delay_ms: 0,
            max_delay_ms: 0,
            timeout_ms: 1,
            ..RetryPolicy::default()
        };
        let bounded = least.within_bounds();
        assert_eq!(bounded.pause_ms(1, None, 0.5), Some(100));
        assert_eq!(bounded.timeout_ms, 1_000);
        assert_eq!(least.pause_ms(1, None, 0.5), Some(0));
        let most = RetryPolicy { timeout_ms: 300_000, ..RetryPolicy::default() };
        assert_eq!(most.within_bounds().timeout_ms, 30_000);
        assert_eq!(RetryPolicy::default().within_bounds(), RetryPolicy::default());
    }

    #[test]
    fn what_a_hook_does_not_say_is_as_configured() {
        let overrides = RetryOverrides { retries: Some(0), ..RetryOverrides::default() };
        let policy = RetryPolicy::default().with(&overrides);
        assert_eq!(policy, RetryPolicy { retries: 0, ..RetryPolicy::default() });
        assert_eq!(policy.pause_ms(1, None, 0.5), None);
    }
}
