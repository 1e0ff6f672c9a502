//! A service without a socket: its loops, its use cases, its routes.
//!
//! This is what a program embeds that has a server of its own.
//! [`Service::open`] takes a store that comes with the crate,
//! [`Service::start`] whatever the program brings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;

use super::readiness::ServerReadiness;
use crate::auth::{Authenticate, Open};
use crate::dispatcher::{Dispatcher, DispatcherOptions, pump};
use crate::domain::{CleanupRule, CleanupRules, Task};
use crate::engine::{Engine, Limits};
use crate::hooks::HookSet;
use crate::http::{AppState, BodyBudget, CorsOptions, Drain, MetricsAccess, StreamSettings};
use crate::maintenance;
use crate::observer::Observer;
use crate::store::{self, Commit, CommitListener, OpenError, Opened, Report, StorageOptions};
use crate::supervisor::Supervisor;
use crate::webhooks::{Bell, WebhookOptions, Worker, endpoint_keys};

/// How a service treats its callers.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// What requests must keep to.
    pub limits: Limits,
    /// What is kept for readers.
    pub dispatcher: DispatcherOptions,
    /// How webhooks are sent.
    pub webhooks: WebhookOptions,
    /// Longest silence on a stream.
    pub keep_alive: Duration,
    /// How long a request for a stream is held while the store, or who checks
    /// credentials, cannot be reached.
    pub open_timeout: Duration,
    /// Bytes of request bodies that may be under way at a time.
    pub body_bytes: usize,
    /// How long streams take to end, spread at random, after [`Service::drain`].
    pub drain_window: Duration,
    /// Who is told of what happens.
    pub hooks: HookSet,
    /// Whether and to whom the numbers are shown over HTTP.
    pub metrics: MetricsAccess,
    /// What goes of finished tasks, beside what tasks say themselves.
    pub cleanup: Vec<CleanupRule>,
    /// Time between two looks for what has fallen due.
    pub cleanup_interval: Duration,
    /// Finds out who is calling; [`Open`] asks nobody.
    pub authenticator: Arc<dyn Authenticate>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            dispatcher: DispatcherOptions::default(),
            webhooks: WebhookOptions::default(),
            keep_alive: Duration::from_secs(8),
            open_timeout: Duration::from_secs(10),
            body_bytes: 64 << 20,
            drain_window: Duration::from_secs(5),
            hooks: HookSet::default(),
            metrics: MetricsAccess::default(),
            cleanup: Vec::new(),
            cleanup_interval: Duration::from_secs(2),
            authenticator: Arc::new(Open::default()),
        }
    }
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    app: AppState,
    opened: Opened,
    supervisor: Supervisor,
    deliveries: Worker,
    drain: Drain,
}

/// Tells several of each commit and each report, in order.
struct Listeners(Vec<Arc<dyn CommitListener>>);

impl CommitListener for Listeners {
    fn committed(&self, commits: &[Commit]) {
        self.0.iter().for_each(|listener| listener.committed(commits));
    }

    fn created(&self, task: &Task) {
        self.0.iter().for_each(|listener| listener.created(task));
    }

    fn reported(&self, report: &Report<'_>) {
        self.0.iter().for_each(|listener| listener.reported(report));
    }
}

/// How long after its streams ended nobody is there any more to come back to.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// What is left of the time for stopping when webhooks had theirs.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

impl Service {
    /// Starts a service over a store that comes with the crate.
    ///
    /// A Postgres database must have been migrated; see
    /// [`migrate`](crate::store::postgres::migrate).
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened; the message says what to do.
    pub async fn open(options: ServiceOptions, storage: StorageOptions) -> Result<Self, OpenError> {
        Self::start(options, async |listener, supervisor| {
            store::open(storage, listener, &supervisor).await
        })
        .await
    }

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
        let observer = Observer::new(options.hooks);
        let supervisor = Supervisor::observed(observer.hooks.clone());
        let dispatcher = Dispatcher::observed(options.dispatcher, observer.clone());
        let bell = Arc::new(Bell::default());
        // Readers first: nothing that is told of a commit keeps them waiting.
        let listeners =
            Listeners(vec![dispatcher.clone(), bell.clone(), Arc::new(observer.clone())]);
        let opened = open(Arc::new(listeners), supervisor.clone()).await?;
        dispatcher.attach(opened.store.clone(), opened.bus.clone());
        let WebhookOptions { endpoints, targets, .. } = &options.webhooks;
        let keys = endpoint_keys(endpoints).into_iter();
        let hooks = keys.zip(endpoints).map(|(key, endpoint)| endpoint.hook(key)).collect();
        let engine = Engine::new(opened.store.clone(), options.limits, hooks)
            .counted_by(observer.metrics.clone());
        let mut webhooks = options.webhooks.clone();
        webhooks.listeners.push(Arc::new(observer.clone()));
        let deliveries = Worker::new(opened.store.clone(), &webhooks, bell);
        let drain = Drain::new(options.drain_window, options.drain_window + GONE_AFTER);
        let readiness = ServerReadiness::new(
            opened.store.clone(),
            opened.provider,
            dispatcher.clone(),
            supervisor.clone(),
            drain.token().clone(),
        );
        let app = AppState {
            engine,
            dispatcher,
            authenticator: options.authenticator,
            targets: Arc::new(targets.clone()),
            readiness: Arc::new(readiness),
            streams: StreamSettings {
                keep_alive: options.keep_alive,
                open_timeout: options.open_timeout,
                drain: drain.clone(),
            },
            bodies: Arc::new(BodyBudget::new(options.body_bytes)),
            started: Instant::now(),
            observer: Arc::new(observer),
            metrics: options.metrics,
        };
        let service = Self { app, opened, supervisor, deliveries, drain };
        service.start_loops(options.cleanup, options.cleanup_interval);
        Ok(service)
    }

    fn start_loops(&self, cleanup: Vec<CleanupRule>, cleanup_interval: Duration) {
        let (dispatcher, poll) = (self.app.dispatcher.clone(), self.opened.poll_interval);
        self.supervisor.run("pump", move || pump::run(dispatcher.clone(), poll));
        let (store, engine) = (self.opened.store.clone(), self.app.engine.clone());
        let metrics = self.app.observer.metrics.clone();
        self.supervisor.run("deadlines", move || {
            maintenance::enforce_deadlines(store.clone(), engine.clone(), metrics.clone())
        });
        let store = self.opened.store.clone();
        self.supervisor.run("purge", move || maintenance::purge(store.clone()));
        let (store, metrics) = (self.opened.store.clone(), self.app.observer.metrics.clone());
        self.supervisor
            .run("backlog", move || maintenance::watch_backlog(store.clone(), metrics.clone()));
        let (store, rules) = (self.opened.store.clone(), Arc::new(CleanupRules::new(cleanup)));
        let metrics = self.app.observer.metrics.clone();
        self.supervisor.run("cleanup", move || {
            let (store, rules, metrics) = (store.clone(), rules.clone(), metrics.clone());
            maintenance::clean_up(store, rules, cleanup_interval, metrics)
        });
        let store = self.opened.store.clone();
        self.supervisor.run("prune", move || maintenance::prune(store.clone()));
        let deliveries = self.deliveries.clone();
        self.supervisor.run("webhooks", move || deliveries.clone().run());
    }

    /// Returns the use cases, for calls without HTTP.
    pub fn engine(&self) -> &Engine {
        &self.app.engine
    }

    /// Returns what feeds readers, for streams without HTTP.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.app.dispatcher
    }

    /// Returns the hooks and the numbers of the service.
    pub fn observer(&self) -> &Observer {
        &self.app.observer
    }

    /// Returns every route; it may be nested under a prefix.
    ///
    /// The paths are those of the service (`/tasks`, `/events`, `/health`, …)
    /// and answer as documented; what the embedding program layers on top of
    /// the router applies to them as to any other route.
    pub fn router(&self, cors: &CorsOptions) -> Router {
        crate::http::router(self.app.clone(), cors)
    }

    /// Reports not ready from now on, ends open streams over the window and
    /// begins no more attempts at webhooks.
    pub fn drain(&self) {
        self.drain.begin();
        self.deliveries.drain();
    }

    /// Finishes attempts at webhooks and accepted writes for up to `patience`,
    /// then ends every loop.
    ///
    /// Open streams end over [`ServiceOptions::drain_window`] once
    /// [`Self::drain`] was called; a program that wants them to end in order
    /// calls it, lets its server finish its connections, and then this.
    pub async fn stop(self, patience: Duration) {
        self.drain();
        let deadline = Instant::now() + patience;
        self.deliveries.finish(patience.saturating_sub(CLOSE_WITHIN)).await;
        let patience = deadline.saturating_duration_since(Instant::now());
        // Past its time a write is as if the process had died: safe, but unanswered.
        if tokio::time::timeout(patience, (self.opened.closer)()).await.is_err() {
            tracing::warn!("stopped before every write was finished");
        }
        self.supervisor.stop().await;
    }
}
