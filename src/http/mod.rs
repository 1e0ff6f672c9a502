//! The HTTP surface: what a request may say, and how it is answered.
//!
//! Handlers read a request to domain types, ask [`domain`](crate::domain)
//! whether the caller may, hand the work to the [`engine`](crate::engine) or
//! the [`dispatcher`](crate::dispatcher), and write the answer. They never
//! see a store, and every refusal, panics included, leaves in the shape of
//! [`ApiError`]. Listening, TLS and shutdown are the server's business.

mod auth;
mod bodies;
mod error;
mod events;
mod extract;
mod fresh;
mod health;
mod metrics;
mod middleware;
mod origin;
mod stream;
mod tasks;
mod webhooks;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::http::HeaderValue;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, patch, post};
use tower_http::catch_panic::CatchPanicLayer;

pub use bodies::BodyBudget;
pub use error::{ApiError, ErrorCode};
pub use extract::{Query, TaskPath};
pub use health::{
    Adapter, Dependency, DependencyState, ListenerReport, Readiness, ReadinessReport,
};
pub use metrics::MetricsAccess;
pub use stream::{Drain, Stalled, StreamSettings};

use self::origin::OriginRules;
use crate::auth::Authenticate;
use crate::dispatcher::Dispatcher;
use crate::domain::TargetPolicy;
use crate::engine::Engine;
use crate::observer::Observer;

/// What handlers work with.
#[derive(Clone)]
pub struct AppState {
    /// Writes tasks and events.
    pub engine: Engine,
    /// Feeds streams.
    pub dispatcher: Arc<Dispatcher>,
    /// Finds out who is calling.
    pub authenticator: Arc<dyn Authenticate>,
    /// Says where webhooks of tasks may lead.
    pub targets: Arc<TargetPolicy>,
    /// Looks at what the server depends on.
    pub readiness: Arc<dyn Readiness>,
    /// How streams are kept open and ended.
    pub streams: StreamSettings,
    /// What request bodies may take while they come in.
    pub bodies: Arc<BodyBudget>,
    /// When the server started.
    pub started: Instant,
    /// The hooks and the numbers.
    pub observer: Arc<Observer>,
    /// Whether and to whom the numbers are shown.
    pub metrics: MetricsAccess,
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState").finish_non_exhaustive()
    }
}

/// Which pages of other origins may read answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CorsOptions {
    /// Origins to let in.
    pub origins: CorsOrigins,
    /// Whether their requests may carry cookies; counts for listed origins only.
    pub credentials: bool,
    /// When given, only names of loopback and these are answered to (`Host`);
    /// for a server on loopback that asks nobody who they are.
    pub loopback_names: Option<Vec<String>>,
}

/// Origins of pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CorsOrigins {
    /// None but the server's own.
    #[default]
    None,
    /// Pages of this machine.
    Localhost,
    /// Every origin.
    Any,
    /// These, each spelled as a browser sends it: `https://app.example`.
    List(Vec<HeaderValue>),
}

/// Returns the service with every route.
///
/// It may be nested under a prefix in another router.
pub fn router(app: AppState, cors: &CorsOptions) -> Router {
    let (observer, mode) = (app.observer.clone(), app.authenticator.mode());
    let mut router = Router::new()
        .route("/", get(health::describe_server))
        .route("/health", get(health::report_alive))
        .route("/health/ready", get(health::report_ready))
        .route("/health/detail", get(health::report_detail))
        .route("/tasks", post(tasks::create_task).get(tasks::list_tasks))
        .route("/tasks/{id}", get(tasks::find_task).delete(tasks::delete_task))
        .route("/tasks/{id}/status", patch(tasks::transition_task))
        .route("/tasks/{id}/events", post(events::publish_events).get(stream::stream_task))
        .route("/tasks/{id}/events/history", get(stream::read_history))
        .route("/tasks/{id}/webhooks", get(webhooks::list_deliveries))
        .route("/tasks/{id}/webhooks/{deliveryId}/redeliver", post(webhooks::redeliver))
        .route("/events", get(stream::stream_all))
        .route("/metrics", get(metrics::show_metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
        .layer(from_fn(middleware::name_missing_task))
        .layer(CatchPanicLayer::custom(middleware::answer_panic));
    let rules = Arc::new(OriginRules { cors: cors.clone(), mode });
    router = router.layer(from_fn_with_state(rules, origin::check));
    if let Some(cors) = middleware::cors(cors) {
        router = router.layer(cors);
    }
    router.layer(from_fn_with_state(observer, middleware::observe))
}

async fn no_route() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is no such route")
}

async fn no_method() -> ApiError {
    let message = "this route does not have that method; the Allow header lists those it has";
    ApiError::new(ErrorCode::MethodNotAllowed, message)
}
