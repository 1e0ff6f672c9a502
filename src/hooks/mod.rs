//! What a service tells its embedder about what happens inside of it.
//!
//! A program that embeds the service implements [`Hooks`] and hands it over
//! in [`ServiceOptions`](crate::server::ServiceOptions). The service calls a
//! hook where the thing happens and goes on; nothing depends on it. Reports
//! to Sentry are one such implementation.
//!
//! Arguments hold what operators need to find the place and never a payload:
//! no `params`, `result`, `data` or error `details`. A hook that panics is
//! caught and logged, and changes nothing else.

mod arguments;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub(crate) use arguments::words_of;
pub use arguments::{
    BroadcastError, BroadcastProblem, DropReason, ErrorPlace, EventDropped, SseConnected,
    SseDisconnected, SseEnd, SseStream, StorageError, StoragePart, StorageProblem, TaskCreated,
    TaskFailed, TaskTimedOut, TaskTransitioned, UnhandledError, WebhookFailure,
};

/// Hears what happens inside a service.
///
/// Every method is called once for what it is about, on the instance where it
/// happened, right where it happened: inside a writer, a stream, a request.
/// So a method **must not wait** and should return within microseconds; work
/// that takes longer belongs behind a bounded queue. Methods may be called
/// from several threads at once.
///
/// What is about a task is called after the change became durable, whether
/// its caller still waits or not. A process that dies in between calls
/// nothing, and a write whose outcome could not be found out is not reported.
pub trait Hooks: Send + Sync {
    /// A task was created.
    fn task_created(&self, created: &TaskCreated) {
        let _ = created;
    }

    /// A task entered another state; also called for those that failed or
    /// timed out, before the method that is about these alone.
    fn task_transitioned(&self, transitioned: &TaskTransitioned) {
        let _ = transitioned;
    }

    /// A task failed.
    fn task_failed(&self, failed: &TaskFailed) {
        let _ = failed;
    }

    /// A task was ended because its time to live had passed, or by a backend
    /// that said so.
    fn task_timed_out(&self, timed_out: &TaskTimedOut) {
        let _ = timed_out;
    }

    /// Events were given up, or a reader was cut off before it had them.
    fn event_dropped(&self, dropped: &EventDropped) {
        let _ = dropped;
    }

    /// A webhook delivery was given up.
    fn webhook_failed(&self, failure: &WebhookFailure) {
        let _ = failure;
    }

    /// A stream was opened.
    fn sse_connected(&self, connected: &SseConnected) {
        let _ = connected;
    }

    /// A stream ended, however it did.
    fn sse_disconnected(&self, disconnected: &SseDisconnected) {
        let _ = disconnected;
    }

    /// Something failed that nobody foresaw: a panic, or an answer of 500.
    fn unhandled_error(&self, error: &UnhandledError) {
        let _ = error;
    }

    /// The store failed or refused for want of room.
    fn storage_error(&self, error: &StorageError) {
        let _ = error;
    }

    /// Wakes between instances could not be sent or heard; readers are fed by
    /// the poll meanwhile.
    fn broadcast_error(&self, error: &BroadcastError) {
        let _ = error;
    }
}

/// Several hooks as one: each is called, in order, and none can harm another.
#[derive(Clone, Default)]
pub struct HookSet(Arc<[Arc<dyn Hooks>]>);

impl fmt::Debug for HookSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookSet").field("hooks", &self.0.len()).finish()
    }
}

impl From<Vec<Arc<dyn Hooks>>> for HookSet {
    fn from(hooks: Vec<Arc<dyn Hooks>>) -> Self {
        Self(hooks.into())
    }
}

impl HookSet {
    /// Tells whether there is nobody to call.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the set with one more hook, called last.
    #[must_use]
    pub fn with(self, hook: Arc<dyn Hooks>) -> Self {
        Self(self.0.iter().cloned().chain([hook]).collect())
    }

    fn each(&self, method: &'static str, call: impl Fn(&dyn Hooks)) {
        for hook in self.0.iter() {
            // Whatever state a hook leaves behind is its own.
            if catch_unwind(AssertUnwindSafe(|| call(&**hook))).is_err() {
                tracing::error!(hook = method, "a hook panicked");
            }
        }
    }
}

impl Hooks for HookSet {
    fn task_created(&self, created: &TaskCreated) {
        self.each("task_created", |hook| hook.task_created(created));
    }

    fn task_transitioned(&self, transitioned: &TaskTransitioned) {
        self.each("task_transitioned", |hook| hook.task_transitioned(transitioned));
    }

    fn task_failed(&self, failed: &TaskFailed) {
        self.each("task_failed", |hook| hook.task_failed(failed));
    }

    fn task_timed_out(&self, timed_out: &TaskTimedOut) {
        self.each("task_timed_out", |hook| hook.task_timed_out(timed_out));
    }

    fn event_dropped(&self, dropped: &EventDropped) {
        self.each("event_dropped", |hook| hook.event_dropped(dropped));
    }

    fn webhook_failed(&self, failure: &WebhookFailure) {
        self.each("webhook_failed", |hook| hook.webhook_failed(failure));
    }

    fn sse_connected(&self, connected: &SseConnected) {
        self.each("sse_connected", |hook| hook.sse_connected(connected));
    }

    fn sse_disconnected(&self, disconnected: &SseDisconnected) {
        self.each("sse_disconnected", |hook| hook.sse_disconnected(disconnected));
    }

    fn unhandled_error(&self, error: &UnhandledError) {
        self.each("unhandled_error", |hook| hook.unhandled_error(error));
    }

    fn storage_error(&self, error: &StorageError) {
        self.each("storage_error", |hook| hook.storage_error(error));
    }

    fn broadcast_error(&self, error: &BroadcastError) {
        self.each("broadcast_error", |hook| hook.broadcast_error(error));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Panics;

    impl Hooks for Panics {
        fn broadcast_error(&self, _: &BroadcastError) {
            panic!("a bug of the embedder");
        }
    }

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Hooks for Counts {
        fn broadcast_error(&self, _: &BroadcastError) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_hook_that_panics_keeps_nobody_from_being_called() {
        let counts = Arc::new(Counts::default());
        let set = HookSet::default().with(Arc::new(Panics)).with(counts.clone());
        let error = BroadcastError::new(BroadcastProblem::ListenerLost, "gone");
        set.broadcast_error(&error);
        set.broadcast_error(&error);
        assert_eq!(counts.0.load(Ordering::Relaxed), 2);
        assert!(!set.is_empty() && HookSet::default().is_empty());
    }
}
