//! When streams leave a server that is about to stop.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Readers are asked to come back after this, give or take the same again.
const RETRY: Duration = Duration::from_secs(1);

/// The end of a server, as its streams see it. All times count from its
/// beginning, so that a reader that comes back meanwhile is not given the
/// whole window again.
#[derive(Debug, Clone)]
pub struct Drain {
    began: Arc<OnceLock<Instant>>,
    token: CancellationToken,
    /// How long streams take to end, spread at random.
    window: Duration,
    /// When nobody is there any more to come back to.
    gone_after: Duration,
}

impl Drain {
    /// Makes the drain of a server whose streams end over `window`, and that
    /// is gone after `gone_after`.
    pub fn new(window: Duration, gone_after: Duration) -> Self {
        let token = CancellationToken::new();
        Self { began: Arc::default(), token, window, gone_after: gone_after.max(window) }
    }

    /// Begins it; a second time changes nothing.
    pub fn begin(&self) {
        self.began.get_or_init(Instant::now);
        self.token.cancel();
    }

    /// Says whether it began.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns a token that is cancelled when it begins.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Picks when a stream leaves; `None` before the drain begins.
    ///
    /// Streams that were open leave at random over the window, since they will
    /// all come back somewhere else. One that was opened meanwhile, by a reader
    /// that was sent away already, stays until the window is over.
    pub(super) fn leave_at(&self, opened: Instant) -> Option<Instant> {
        let began = *self.began.get()?;
        let share = if opened < began { rand::random_range(0.0..1.0) } else { 1.0 };
        Some(began + self.window.mul_f64(share))
    }

    /// Picks after how many milliseconds a reader is asked to come back: soon,
    /// or, if it came during the drain, when this server is gone.
    pub(super) fn retry_ms(&self, opened: Instant) -> u64 {
        let jitter = rand::random_range(0.0..1.0);
        let gone = self.began.get().filter(|began| opened >= **began);
        let wait = gone.map_or(RETRY, |began| {
            (*began + self.gone_after).saturating_duration_since(Instant::now())
        });
        let wait = wait + RETRY.mul_f64(jitter);
        u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_sent_away_at_most_twice() {
        let drain = Drain::new(Duration::from_secs(5), Duration::from_secs(8));
        let opened = Instant::now();
        assert_eq!(drain.leave_at(opened), None);
        advance(Duration::from_secs(10)).await;
        drain.begin();
        let began = Instant::now();
        for _ in 0..100 {
            let leave_at = drain.leave_at(opened).unwrap();
            assert!(leave_at >= began && leave_at <= began + Duration::from_secs(5));
            assert!((1_000..=2_000).contains(&drain.retry_ms(opened)));
        }
        // It comes back two seconds later: the times did not begin anew, and
        // when it comes back once more nobody is there.
        advance(Duration::from_secs(2)).await;
        let again = Instant::now();
        assert_eq!(drain.leave_at(again), Some(began + Duration::from_secs(5)));
        advance(Duration::from_secs(3)).await;
        for _ in 0..100 {
            assert!((3_000..=4_000).contains(&drain.retry_ms(again)));
        }
    }
}
