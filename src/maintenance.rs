//! Periodic duties: deadlines, cleanup rules, and what is kept for a time only.
//!
//! Every instance ends overdue tasks; the store decides who wins. A timeout is
//! a transition like any other, so of several instances (and of a backend that
//! finishes the task at that moment) one gets it and the others are refused.
//! Cleanup rules are carried out by one instance at a time, which holds a
//! lease. Everything goes in small bites with pauses, so that appends get
//! their turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::{CleanupRules, TaskId, TaskStatus, Transition};
use crate::engine::{Engine, TransitionError, WriteContext};
use crate::metrics::Metrics;
use crate::store::{Cleaned, Store, StoreError};

/// How often overdue tasks are looked for: well within the promised 2 s.
const DEADLINE_INTERVAL: Duration = Duration::from_millis(500);

/// Overdue tasks ended at a time, so that appends get their turn.
const DEADLINE_BATCH: usize = 100;

/// How often remains are looked for.
const PURGE_INTERVAL: Duration = Duration::from_secs(2);

/// Rows of deleted tasks removed at a time, old keys and deliveries removed at
/// a time, and the pause before the next.
const PURGE_BATCH: usize = 5_000;
const PRUNE_BATCH: usize = 2_000;
const PURGE_PAUSE: Duration = Duration::from_millis(20);

/// How often what waits is counted.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(10);

/// Finished tasks looked at, and rows removed, in one bite of cleanup.
const SWEEP_BATCH: usize = 500;
const CLEANUP_BATCH: usize = 2_000;
const CLEANUP_PAUSE: Duration = Duration::from_millis(20);

/// How long the right to clean up lasts without being renewed, in
/// milliseconds: short, because rules act within ten seconds of falling due,
/// also when the instance that has it dies.
const CLEANUP_LEASE_MS: u64 = 5_000;

/// How often keys and deliveries are looked through for those that are old.
const PRUNE_INTERVAL: Duration = Duration::from_mins(1);

/// How long a task is passed over that could not be ended, and how many are:
/// the next ones get their turn meanwhile.
const DEFER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_DEFERRED: usize = 1_000;

/// Ends tasks whose deadline has passed, oldest first, for ever.
pub(crate) async fn enforce_deadlines(
    store: Arc<dyn Store>,
    engine: Engine,
    metrics: Arc<Metrics>,
) {
    let mut deadlines = Deadlines { store, engine, metrics, deferred: HashMap::new() };
    loop {
        let next = Instant::now() + DEADLINE_INTERVAL;
        match deadlines.end_overdue().await {
            // As many as asked for: there may be more.
            Ok(Ended { looked_at: DEADLINE_BATCH, ended: 1.. }) => {}
            // Without any progress the next attempt would be as futile.
            Ok(_) => sleep_until(next).await,
            Err(error) => {
                tracing::debug!(%error, "could not look for overdue tasks");
                sleep_until(next).await;
            }
        }
    }
}

/// What became of a batch of overdue tasks.
struct Ended {
    looked_at: usize,
    ended: usize,
}

/// Ends overdue tasks.
struct Deadlines {
    store: Arc<dyn Store>,
    engine: Engine,
    metrics: Arc<Metrics>,
    /// Tasks that could not be ended, and until when they are passed over.
    deferred: HashMap<TaskId, Instant>,
}

impl Deadlines {
    /// Ends the oldest overdue tasks that are not deferred.
    async fn end_overdue(&mut self) -> Result<Ended, StoreError> {
        let now = Instant::now();
        self.deferred.retain(|_, until| *until > now);
        let mut overdue = self.store.overdue(DEADLINE_BATCH + self.deferred.len()).await?;
        overdue.retain(|id| !self.deferred.contains_key(id));
        overdue.truncate(DEADLINE_BATCH);
        // At once, so that they share the store's batches.
        let timeouts = overdue.iter().map(|id| self.end(id));
        let outcomes = futures_util::future::join_all(timeouts).await;
        let ended = outcomes.iter().filter(|is_ended| **is_ended).count();
        let looked_at = overdue.len();
        let until = Instant::now() + DEFER_TIMEOUT;
        for (id, is_ended) in overdue.into_iter().zip(outcomes) {
            if !is_ended && self.deferred.len() < MAX_DEFERRED {
                self.deferred.insert(id, until);
            }
        }
        Ok(Ended { looked_at, ended })
    }

    /// Ends a task; returns whether this made the transition.
    async fn end(&self, id: &TaskId) -> bool {
        let timeout = Transition { to: TaskStatus::Timeout, result: None, error: None };
        match self.engine.transition(id, timeout, WriteContext::default()).await {
            Ok(_) => {
                self.metrics.deadline_enforced();
                tracing::debug!(task.id = %id, "task timed out");
                return true;
            }
            // It ended, or another instance was first.
            Err(TransitionError::Illegal { .. } | TransitionError::NoSuchTask) => {}
            Err(error) => {
                tracing::debug!(task.id = %id, %error, "could not time a task out");
            }
        }
        false
    }
}

/// Removes what deleted tasks left behind, in small bites, for ever.
pub(crate) async fn purge(store: Arc<dyn Store>) {
    loop {
        match store.purge(PURGE_BATCH).await {
            Ok(0) => sleep(PURGE_INTERVAL).await,
            Ok(_) => sleep(PURGE_PAUSE).await,
            Err(error) => {
                tracing::debug!(%error, "could not purge deleted tasks");
                sleep(PURGE_INTERVAL).await;
            }
        }
    }
}

/// Carries cleanup rules out, for ever.
pub(crate) async fn clean_up(
    store: Arc<dyn Store>,
    rules: Arc<CleanupRules>,
    interval: Duration,
    metrics: Arc<Metrics>,
) {
    let mut cleaner = Cleaner { store, rules, metrics, holder: rand::random(), differed: false };
    loop {
        let next = Instant::now() + interval;
        match cleaner.lead().await {
            Ok(cleaned) if cleaned.more => sleep(CLEANUP_PAUSE).await,
            Ok(_) => sleep_until(next).await,
            Err(error) => {
                cleaner.metrics.cleanup_failed();
                tracing::debug!(%error, "could not clean up");
                sleep_until(next).await;
            }
        }
    }
}

/// Carries out the rules of one instance.
struct Cleaner {
    store: Arc<dyn Store>,
    rules: Arc<CleanupRules>,
    metrics: Arc<Metrics>,
    /// Names the instance.
    holder: u64,
    /// Whether another instance had other rules when last looked at.
    differed: bool,
}

impl Cleaner {
    /// Cleans one chunk, if it is this instance's turn.
    async fn lead(&mut self) -> Result<Cleaned, StoreError> {
        let Self { store, rules, holder, .. } = &*self;
        let lead = store.lead_cleanup(*holder, rules, CLEANUP_LEASE_MS).await?;
        self.tell_of_rules(lead.rules_differ);
        let Self { store, rules, .. } = &*self;
        if !lead.is_ours {
            return Ok(Cleaned::default());
        }
        let scheduled = store.schedule_cleanup(rules, SWEEP_BATCH).await?;
        let mut cleaned = store.clean(rules, CLEANUP_BATCH).await?;
        self.metrics.cleaned(cleaned.tasks, cleaned.events);
        cleaned.more |= scheduled == SWEEP_BATCH;
        if cleaned.tasks > 0 || cleaned.events > 0 {
            tracing::debug!(tasks = cleaned.tasks, events = cleaned.events, "cleaned up");
        }
        Ok(cleaned)
    }

    /// Tells when rules of instances begin to differ, and when they agree
    /// again: only those of one instance are carried out.
    fn tell_of_rules(&mut self, differ: bool) {
        self.metrics.cleanup_rules_differ(differ);
        match (self.differed, differ) {
            (false, true) => tracing::warn!(
                "another instance carries out other cleanup rules than this one has; \
                 give all instances the same `cleanup.rules`"
            ),
            (true, false) => tracing::info!("cleanup rules of all instances agree again"),
            (true, true) | (false, false) => {}
        }
        self.differed = differ;
    }
}

/// Counts what waits to be removed, for ever.
pub(crate) async fn watch_backlog(store: Arc<dyn Store>, metrics: Arc<Metrics>) {
    loop {
        match store.backlog().await {
            Ok(backlog) => metrics.backlog(backlog.deleted_tasks, backlog.due_cleanups),
            Err(error) => tracing::debug!(%error, "could not count what waits for cleanup"),
        }
        sleep(BACKLOG_INTERVAL).await;
    }
}

/// Forgets idempotency keys and ended deliveries that are old, for ever.
pub(crate) async fn prune(store: Arc<dyn Store>) {
    loop {
        let gone = async {
            let keys = store.prune_keys(PRUNE_BATCH).await?;
            Ok::<_, StoreError>(keys.max(store.prune_deliveries(PRUNE_BATCH).await?))
        };
        match gone.await {
            Ok(PRUNE_BATCH..) => sleep(PURGE_PAUSE).await,
            Ok(_) => sleep(PRUNE_INTERVAL).await,
            Err(error) => {
                tracing::debug!(%error, "could not prune keys and deliveries");
                sleep(PRUNE_INTERVAL).await;
            }
        }
    }
}
