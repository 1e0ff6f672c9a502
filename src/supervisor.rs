//! Starts the background loops of a server and stops them in order.
//!
//! Every loop has a name, belongs to one [`Supervisor`], and ends when its
//! token is cancelled. A loop that panics is logged and started anew after a
//! pause, so that no failure silences a part of the service for good.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hooks::{ErrorPlace, HookSet, Hooks as _, UnhandledError};

/// Pause before a loop that panicked starts anew.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Owns the background loops of one server.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    stop: CancellationToken,
    loops: TaskTracker,
    hooks: HookSet,
}

impl Supervisor {
    /// Makes a supervisor without loops.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a supervisor without loops that tells `hooks` of panics.
    pub fn observed(hooks: HookSet) -> Self {
        Self { hooks, ..Self::default() }
    }

    /// Returns the token that is cancelled when loops shall end.
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs the loop `start` makes until it ends or the supervisor stops it.
    pub fn run<F, L>(&self, name: &'static str, start: F)
    where
        F: Fn() -> L + Send + 'static,
        L: Future<Output = ()> + Send + 'static,
    {
        let (stop, hooks) = (self.stop.clone(), self.hooks.clone());
        self.loops.spawn(async move {
            loop {
                let outcome = std::panic::AssertUnwindSafe(start()).catch_unwind();
                let panic = tokio::select! {
                    outcome = outcome => outcome.err(),
                    () = stop.cancelled() => return,
                };
                let Some(panic) = panic else { return };
                tracing::error!(loop.name = name, "background loop panicked, starting it anew");
                hooks.unhandled_error(&UnhandledError::of_panic(ErrorPlace::Loop(name), &*panic));
                tokio::time::sleep(RESTART_PAUSE).await;
            }
        });
    }

    /// Runs work that ends by itself and is waited for, but not cut short.
    pub fn finish<L>(&self, work: L)
    where
        L: Future<Output = ()> + Send + 'static,
    {
        self.loops.spawn(work);
    }

    /// Stops every loop and waits until all have ended.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.loops.close();
        self.loops.wait().await;
    }
}
