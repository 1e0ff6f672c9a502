//! Time within a run.

use std::time::{Duration, Instant};

/// Counts microseconds from the start of a run, so that an instant fits into
/// an event and comes back comparable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the microseconds since the start.
    pub(super) fn micros(self) -> u64 {
        micros(self.0.elapsed())
    }

    /// Returns the instant that many microseconds after the start.
    pub(super) fn at(self, micros: u64) -> Instant {
        self.0 + Duration::from_micros(micros)
    }
}

/// Returns a duration in microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    // Half a million years fit.
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
