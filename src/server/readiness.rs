//! Whether this server should get traffic.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::dispatcher::Dispatcher;
use crate::http::{
    Adapter, Dependency, DependencyState, ListenerReport, Readiness, ReadinessReport,
};
use crate::store::{BusHealth, Store, StoreError};
use crate::supervisor::Supervisor;

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at the store and the bus of a server.
pub(super) struct ServerReadiness {
    store: Arc<dyn Store>,
    /// What kind of store it is.
    provider: &'static str,
    dispatcher: Arc<Dispatcher>,
    supervisor: Supervisor,
    draining: CancellationToken,
}

impl ServerReadiness {
    pub(super) fn new(
        store: Arc<dyn Store>,
        provider: &'static str,
        dispatcher: Arc<Dispatcher>,
        supervisor: Supervisor,
        draining: CancellationToken,
    ) -> Self {
        Self { store, provider, dispatcher, supervisor, draining }
    }

    /// Asks the store for nothing, through its own tables, and then whether it
    /// takes writes.
    async fn ask(&self) -> Answer {
        let store = self.store.clone();
        let (answer, answered) = oneshot::channel();
        // In a task of its own, so that running out of patience cuts off the
        // wait and not a query half-way.
        self.supervisor.finish(async move {
            let read = store.heads(&[]).await.map(drop);
            let write = if read.is_ok() { store.check_writable().await } else { Ok(()) };
            // Nobody listens any more when patience ran out.
            let _ = answer.send(Answer { read, write });
        });
        let late = || StoreError::Unavailable("no answer in time".into());
        match timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Answer { read: Err(late()), write: Ok(()) },
        }
    }
}

/// What the store answered.
struct Answer {
    /// Whether its tables can be read.
    read: Result<(), StoreError>,
    /// Whether it takes writes.
    write: Result<(), StoreError>,
}

#[async_trait]
impl Readiness for ServerReadiness {
    async fn check(&self) -> ReadinessReport {
        let is_draining = self.draining.is_cancelled();
        let health = self.dispatcher.bus_health();
        if health == BusHealth::Local {
            // Nothing outside of this process is needed.
            let own = Adapter { provider: self.provider, is_ok: true };
            return ReadinessReport {
                is_draining,
                dependencies: Vec::new(),
                broadcast: own,
                short_term_store: own,
                listener: None,
            };
        }
        let answer = self.ask().await;
        let listens = health == BusHealth::Healthy;
        let state = |is_ok, otherwise| if is_ok { DependencyState::Healthy } else { otherwise };
        let is_there =
            !matches!(answer.read, Err(StoreError::Unavailable(_))) && answer.write.is_ok();
        let is_ok = answer.read.is_ok() && answer.write.is_ok();
        let store = Adapter { provider: self.provider, is_ok };
        ReadinessReport {
            is_draining,
            dependencies: vec![
                Dependency { name: "database", state: state(is_there, DependencyState::Unhealthy) },
                // They were complete at the start; a database that answers,
                // but not through our tables, lost them.
                Dependency {
                    name: "migrations",
                    state: state(answer.read.is_ok(), DependencyState::Unhealthy),
                },
                // Without wakes readers are fed by the poll, only later.
                Dependency { name: "listener", state: state(listens, DependencyState::Degraded) },
            ],
            broadcast: store,
            short_term_store: store,
            listener: Some(ListenerReport { listens, restarts: self.dispatcher.bus_restarts() }),
        }
    }
}
