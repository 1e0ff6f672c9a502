//! A service without a socket: its loops, its use cases, its routes.
//!
//! This is what a program embeds that has a server of its own. The store and
//! the bus are whatever it opens; [`store::open`](crate::store::open()) opens
//! those that come with the crate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio_util::sync::CancellationToken;

use super::readiness::ServerReadiness;
use crate::dispatcher::{Dispatcher, DispatcherOptions, pump};
use crate::engine::{Engine, Limits};
use crate::http::{AppState, CorsOptions, StreamSettings};
use crate::maintenance;
use crate::store::{CommitListener, Opened};
use crate::supervisor::Supervisor;

/// How a service treats its callers.
#[derive(Debug, Clone, Copy)]
pub struct ServiceOptions {
    /// What requests must keep to.
    pub limits: Limits,
    /// What is kept for readers.
    pub dispatcher: DispatcherOptions,
    /// Longest silence on a stream.
    pub keep_alive: Duration,
    /// How long streams take to end, spread at random, after [`Service::drain`].
    pub drain_window: Duration,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            dispatcher: DispatcherOptions::default(),
            keep_alive: Duration::from_secs(15),
            drain_window: Duration::from_secs(5),
        }
    }
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    app: AppState,
    opened: Opened,
    supervisor: Supervisor,
    draining: CancellationToken,
}

impl Service {
    /// Starts a service over the store and the bus that `open` opens.
    ///
    /// The store must report every commit to the listener it is given; loops
    /// it needs may run under the supervisor.
    ///
    /// # Errors
    ///
    /// Fails when `open` does.
    pub async fn start<Open, Opening, E>(options: ServiceOptions, open: Open) -> Result<Self, E>
    where
        Open: FnOnce(Arc<dyn CommitListener>, Supervisor) -> Opening,
        Opening: Future<Output = Result<Opened, E>>,
    {
        let supervisor = Supervisor::new();
        let dispatcher = Dispatcher::new(options.dispatcher);
        let opened = open(dispatcher.clone(), supervisor.clone()).await?;
        dispatcher.attach(opened.store.clone(), opened.bus.clone());
        let engine = Engine::new(opened.store.clone(), options.limits);
        let draining = CancellationToken::new();
        let readiness = ServerReadiness::new(
            opened.store.clone(),
            opened.provider,
            dispatcher.clone(),
            supervisor.clone(),
            draining.clone(),
        );
        let app = AppState {
            engine,
            dispatcher,
            readiness: Arc::new(readiness),
            streams: StreamSettings {
                keep_alive: options.keep_alive,
                drain_window: options.drain_window,
                draining: draining.clone(),
            },
            started: Instant::now(),
        };
        let service = Self { app, opened, supervisor, draining };
        service.start_loops();
        Ok(service)
    }

    fn start_loops(&self) {
        let (dispatcher, poll) = (self.app.dispatcher.clone(), self.opened.poll_interval);
        self.supervisor.run("pump", move || pump::run(dispatcher.clone(), poll));
        let (store, engine) = (self.opened.store.clone(), self.app.engine.clone());
        self.supervisor.run("deadlines", move || {
            maintenance::enforce_deadlines(store.clone(), engine.clone())
        });
        let store = self.opened.store.clone();
        self.supervisor.run("purge", move || maintenance::purge(store.clone()));
    }

    /// Returns the use cases, for calls without HTTP.
    pub fn engine(&self) -> &Engine {
        &self.app.engine
    }

    /// Returns what feeds readers, for streams without HTTP.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.app.dispatcher
    }

    /// Returns every route; it may be nested under a prefix.
    pub fn router(&self, cors: &CorsOptions) -> Router {
        crate::http::router(self.app.clone(), cors)
    }

    /// Reports not ready from now on and ends open streams over the window.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Finishes accepted writes for up to `patience`, then ends every loop.
    pub async fn stop(self, patience: Duration) {
        self.drain();
        // Past its time a write is as if the process had died: safe, but unanswered.
        if tokio::time::timeout(patience, (self.opened.closer)()).await.is_err() {
            tracing::warn!("stopped before every write was finished");
        }
        self.supervisor.stop().await;
    }
}
