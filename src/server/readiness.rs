//! Whether this server should get traffic.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::dispatcher::Dispatcher;
use crate::http::{
    Adapter, Dependency, DependencyState, ListenerReport, Readiness, ReadinessReport,
};
use crate::store::{BusHealth, Store};

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at the store and the bus of a server.
pub(super) struct ServerReadiness {
    store: Arc<dyn Store>,
    dispatcher: Arc<Dispatcher>,
    draining: CancellationToken,
    has_database: bool,
}

impl ServerReadiness {
    pub(super) fn new(
        store: Arc<dyn Store>,
        dispatcher: Arc<Dispatcher>,
        draining: CancellationToken,
        has_database: bool,
    ) -> Self {
        Self { store, dispatcher, draining, has_database }
    }

    async fn database_answers(&self) -> bool {
        let store = self.store.clone();
        // In a task of its own, so that running out of patience cuts off the
        // wait and not a query half-way.
        let asked = tokio::spawn(async move { store.heads(&[]).await.is_ok() });
        matches!(timeout(PATIENCE, asked).await, Ok(Ok(true)))
    }
}

#[async_trait]
impl Readiness for ServerReadiness {
    async fn check(&self) -> ReadinessReport {
        let is_draining = self.draining.is_cancelled();
        if !self.has_database {
            let memory = Adapter { provider: "memory", is_ok: true };
            return ReadinessReport {
                is_draining,
                dependencies: Vec::new(),
                broadcast: memory,
                short_term_store: memory,
                listener: None,
            };
        }
        let answers = self.database_answers().await;
        let listens = self.dispatcher.bus_health() == BusHealth::Healthy;
        let state = |is_ok, otherwise| if is_ok { DependencyState::Healthy } else { otherwise };
        let postgres = Adapter { provider: "postgres", is_ok: answers };
        ReadinessReport {
            is_draining,
            dependencies: vec![
                Dependency { name: "postgres", state: state(answers, DependencyState::Unhealthy) },
                // Without wakes readers are fed by the poll, only later.
                Dependency { name: "listener", state: state(listens, DependencyState::Degraded) },
            ],
            broadcast: postgres,
            short_term_store: postgres,
            listener: Some(ListenerReport { listens, restarts: self.dispatcher.bus_restarts() }),
        }
    }
}
