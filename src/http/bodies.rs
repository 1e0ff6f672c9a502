//! Bounds on request bodies while they come in: how much of them is held at a
//! time, and how slow they may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::{ApiError, ErrorCode};

/// How long a body may bring nothing.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// Slowest rate of a body, in bytes a second, once [`PROGRESS_TIMEOUT`] has
/// passed: trickling must not hold a connection for ever.
const MIN_RATE: u64 = 1024;

/// Bytes of all request bodies under way.
#[derive(Debug)]
pub struct BodyBudget {
    limit: usize,
    used: AtomicUsize,
}

impl BodyBudget {
    /// Makes a budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }
}

/// What one body holds of the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct HeldBytes {
    budget: Arc<BodyBudget>,
    bytes: usize,
}

impl HeldBytes {
    pub(super) fn none(budget: &Arc<BodyBudget>) -> Self {
        Self { budget: budget.clone(), bytes: 0 }
    }

    pub(super) fn budget(&self) -> &Arc<BodyBudget> {
        &self.budget
    }

    /// Takes so many bytes more.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), ApiError> {
        let used = self.budget.used.fetch_add(bytes, Ordering::AcqRel);
        let by_others = used.saturating_sub(self.bytes);
        self.bytes += bytes;
        // The only body under way always fits; its own limit is another.
        if by_others > 0 && used + bytes > self.budget.limit {
            return Err(ApiError::new(
                ErrorCode::Overloaded,
                "too many bytes of requests are under way; nothing was stored, so repeat the \
                 request later",
            ));
        }
        Ok(())
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Bounds how slow a body is.
#[derive(Debug)]
pub(super) struct BodyPace {
    began: Instant,
    received: u64,
}

impl BodyPace {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), received: 0 }
    }

    /// Notes bytes that came.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// Waits for the next piece of the body, but not too long.
    pub(super) async fn next<T>(
        &self,
        piece: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let allowed = PROGRESS_TIMEOUT + Duration::from_secs(self.received / MIN_RATE);
        let left = (self.began + allowed).saturating_duration_since(Instant::now());
        timeout(left.min(PROGRESS_TIMEOUT), piece).await.unwrap_or_else(|_| {
            Err(ApiError::new(
                ErrorCode::RequestTimeout,
                "the body made no progress for 30 seconds, or came slower than 1 KiB a second; \
                 nothing was stored, so send the request again",
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::advance;

    use super::*;

    #[test]
    fn bodies_under_way_are_counted_and_given_back() {
        let budget = Arc::new(BodyBudget::new(100));
        let mut first = HeldBytes::none(&budget);
        first.take(90).unwrap();
        first.take(60).unwrap();
        let mut second = HeldBytes::none(&budget);
        assert_eq!(second.take(1).unwrap_err().code(), ErrorCode::Overloaded);
        drop(first);
        drop(second);
        let mut third = HeldBytes::none(&budget);
        third.take(60).unwrap();
        let mut fourth = HeldBytes::none(&budget);
        fourth.take(40).unwrap();
        assert!(fourth.take(1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_progress_or_below_the_rate_is_given_up() {
        let mut pace = BodyPace::begin();
        let began = Instant::now();
        let error = pace.next(pending::<Result<(), _>>()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::RequestTimeout);
        assert_eq!(began.elapsed(), PROGRESS_TIMEOUT);
        // A byte every ten seconds is progress, and too slow.
        let mut pace_of_trickle = BodyPace::begin();
        for _ in 0..3 {
            advance(Duration::from_secs(9)).await;
            pace_of_trickle.next(ready(Ok(()))).await.unwrap();
            pace_of_trickle.received(1);
        }
        assert!(pace_of_trickle.next(pending::<Result<(), _>>()).await.is_err());
        assert!(began.elapsed() < Duration::from_secs(65));
        pace.received(1 << 20);
        assert!(pace.next(ready(Ok(()))).await.is_ok());
    }
}
