//! Periodic duties: deadlines, and purging what deleted tasks left behind.
//!
//! Every instance does them; the store decides who wins. A timeout is a
//! transition like any other, so of several instances (and of a backend that
//! finishes the task at that moment) one gets it and the others are refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::{TaskStatus, Transition};
use crate::engine::{Engine, TransitionError};
use crate::store::Store;

/// How often overdue tasks are looked for: well within the promised 2 s.
const DEADLINE_INTERVAL: Duration = Duration::from_millis(500);

/// Overdue tasks ended at a time, so that appends get their turn.
const DEADLINE_BATCH: usize = 100;

/// How often remains are looked for.
const PURGE_INTERVAL: Duration = Duration::from_secs(2);

/// Rows removed at a time, and the pause before the next.
const PURGE_BATCH: usize = 2_000;
const PURGE_PAUSE: Duration = Duration::from_millis(50);

/// Ends tasks whose deadline has passed, oldest first, for ever.
pub(crate) async fn enforce_deadlines(store: Arc<dyn Store>, engine: Engine) {
    loop {
        let next = Instant::now() + DEADLINE_INTERVAL;
        match end_overdue(&*store, &engine).await {
            // As many as asked for: there may be more.
            Ok(DEADLINE_BATCH) => {}
            Ok(_) => sleep_until(next).await,
            Err(error) => {
                tracing::debug!(%error, "could not look for overdue tasks");
                sleep_until(next).await;
            }
        }
    }
}

async fn end_overdue(
    store: &dyn Store,
    engine: &Engine,
) -> Result<usize, crate::store::StoreError> {
    let overdue = store.overdue(DEADLINE_BATCH).await?;
    let count = overdue.len();
    let timeouts = overdue.into_iter().map(|id| async move {
        let timeout = Transition { to: TaskStatus::Timeout, result: None, error: None };
        match engine.transition(&id, timeout).await {
            Ok(_) => tracing::debug!(task.id = %id, "task timed out"),
            // It ended, or another instance was first.
            Err(TransitionError::Illegal { .. } | TransitionError::NoSuchTask) => {}
            Err(TransitionError::Store(error)) => {
                tracing::debug!(task.id = %id, %error, "could not time a task out");
            }
        }
    });
    // At once, so that they share the store's batches.
    futures_util::future::join_all(timeouts).await;
    Ok(count)
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
