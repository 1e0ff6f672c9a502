//! The stretch of a run that is measured: a warm-up, a window, and an end that
//! lets what is under way finish.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Run;
use super::clock::{Clock, micros};
use super::report::{milliseconds, per_second};

/// How often progress is shown to move.
const TICK: Duration = Duration::from_millis(50);

/// What a sleeping task may oversleep without anybody's fault.
const TIMER_SLACK_MICROS: u64 = 2_000;

/// What ends a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Until {
    /// The time is up.
    Elapsed(Duration),
    /// So many events were published, or tasks run.
    Count(u64),
}

/// How long a scenario is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Period {
    /// How long the load runs before anything counts.
    pub warmup: Duration,
    /// What ends it.
    pub until: Until,
}

impl Period {
    pub(super) fn parameters(self) -> (f64, Option<f64>, Option<u64>) {
        let warmup = self.warmup.as_secs_f64();
        match self.until {
            Until::Elapsed(duration) => (warmup, Some(duration.as_secs_f64()), None),
            Until::Count(count) => (warmup, None, Some(count)),
        }
    }
}

/// Shared by those who make a load and the one who measures it.
#[derive(Debug)]
pub(super) struct Stage {
    clock: Clock,
    period: Period,
    /// In microseconds of the clock; not yet, as long as they are the largest.
    window_begins: AtomicU64,
    window_ends: AtomicU64,
    /// Steps begun in the window, when their count ends it.
    begun: AtomicU64,
    /// When the first turn was, in microseconds of the clock.
    began: AtomicU64,
    stop: CancellationToken,
}

/// What a window came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// How long it was, in microseconds.
    pub(super) micros: u64,
    /// By how much each of the two counters rose.
    pub(super) counts: [u64; 2],
}

impl Measured {
    /// Returns the rates of both counters per second.
    pub(super) fn rates(&self) -> [f64; 2] {
        self.counts.map(|count| per_second(count, self.micros))
    }

    pub(super) fn seconds(&self) -> f64 {
        milliseconds(self.micros) / 1_000.0
    }
}

impl Stage {
    pub(super) fn new(run: &Run, period: Period) -> Self {
        Self {
            clock: run.clock,
            period,
            window_begins: AtomicU64::new(u64::MAX),
            window_ends: AtomicU64::new(u64::MAX),
            begun: AtomicU64::new(0),
            began: AtomicU64::new(0),
            stop: CancellationToken::new(),
        }
    }

    /// Starts the time that turns are counted from.
    pub(super) fn begin(&self) {
        let now = self.clock.micros();
        self.began.store(now, Ordering::Relaxed);
        if self.period.warmup.is_zero() {
            // Workers may be faster than whoever measures them.
            self.window_begins.store(now, Ordering::Relaxed);
        }
    }

    /// Tells whether a moment lies within the window.
    pub(super) fn counts(&self, micros: u64) -> bool {
        micros >= self.window_begins.load(Ordering::Relaxed)
            && micros < self.window_ends.load(Ordering::Relaxed)
    }

    /// Tells whether another so many steps may be begun.
    pub(super) fn may_begin(&self, steps: usize) -> bool {
        if self.stop.is_cancelled() {
            return false;
        }
        let Until::Count(count) = self.period.until else { return true };
        if self.window_begins.load(Ordering::Relaxed) == u64::MAX {
            return true;
        }
        self.begun.fetch_add(steps as u64, Ordering::Relaxed) < count
    }

    /// Waits for the turn after so many seconds, or for the end. Returns the
    /// moment the turn counts from: the planned one when it was missed, since a
    /// server that holds up the load must not look better for it.
    pub(super) async fn turn(&self, after_seconds: f64) -> Option<u64> {
        let planned =
            self.began.load(Ordering::Relaxed) + micros(Duration::from_secs_f64(after_seconds));
        let now = self.clock.micros();
        if now < planned {
            tokio::select! {
                () = sleep_until(self.clock.at(planned).into()) => {}
                () = self.stop.cancelled() => return None,
            }
        }
        let now = self.clock.micros();
        Some(if now > planned + TIMER_SLACK_MICROS { planned } else { now })
    }

    /// Lets the workers work, counts what they do in the window, and waits for
    /// them to finish.
    pub(super) async fn measure(
        &self,
        run: &Run,
        mut workers: JoinSet<()>,
        counters: impl Fn() -> [u64; 2] + Send + Sync,
    ) -> Measured {
        run.progress.begin("warming up", milliseconds_of(self.period.warmup));
        self.pass(run, Some(self.period.warmup), &mut workers, || 0).await;
        let before = counters();
        let begins = self.clock.micros();
        self.window_begins.store(begins, Ordering::Relaxed);
        let limit = match self.period.until {
            Until::Elapsed(duration) => {
                run.progress.begin("measuring", milliseconds_of(duration));
                Some(duration)
            }
            Until::Count(count) => {
                run.progress.begin("measuring", usize::try_from(count).unwrap_or(usize::MAX));
                None
            }
        };
        self.pass(run, limit, &mut workers, || counters()[0]).await;
        let after = counters();
        let ends = self.clock.micros();
        self.window_ends.store(ends, Ordering::Relaxed);
        self.stop.cancel();
        while workers.join_next().await.is_some() {}
        let counts = [0, 1].map(|counter: usize| after[counter] - before[counter]);
        Measured { micros: ends - begins, counts }
    }

    /// Waits until the time is up or no worker is left.
    async fn pass(
        &self,
        run: &Run,
        limit: Option<Duration>,
        workers: &mut JoinSet<()>,
        counter: impl Fn() -> u64 + Send + Sync,
    ) {
        let began = tokio::time::Instant::now();
        let mut shown = counter();
        loop {
            let left = limit.map_or(TICK, |limit| limit.saturating_sub(began.elapsed()).min(TICK));
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left) => {}
                joined = workers.join_next() => if workers.is_empty() || joined.is_none() { return },
            }
            let step = if limit.is_some() {
                left.as_millis() as u64
            } else {
                let counted = counter();
                counted - std::mem::replace(&mut shown, counted)
            };
            run.progress.advance(step);
        }
    }
}

fn milliseconds_of(duration: Duration) -> usize {
    usize::try_from(duration.as_millis()).unwrap_or(usize::MAX)
}
