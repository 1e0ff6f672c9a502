//! The composition root: a configuration in, a running service out.
//!
//! # Shutdown
//!
//! When asked to stop, the server reports not ready, accepts no more
//! connections, lets requests finish and streams end over a window, finishes
//! attempts at webhooks and the writes it accepted, stops its loops, sends the
//! reports that wait, and returns: all within `STOP_WITHIN`.

mod authenticator;
mod connections;
mod descriptors;
mod idle;
mod readiness;
mod reporting;
mod service;
mod stall;

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::HeaderValue;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::authenticator::{authenticator, jwt_algorithm, jwt_auth};
use self::connections::ConnectionOptions;
use self::reporting::{REPORT_WITHIN, Reporting};
pub use self::service::{Service, ServiceOptions};
use crate::auth::Authenticate;
use crate::config::{self, AuthSettings, Config, Storage};
use crate::dispatcher::DispatcherOptions;
use crate::domain::{TargetPolicy, WebhookSecret};
use crate::engine::Limits;
use crate::hooks::HookSet;
use crate::http::{CorsOptions, CorsOrigins, MetricsAccess};
use crate::store::StorageOptions;
use crate::store::postgres::{PostgresOptions, default_lanes, is_on_this_machine};
use crate::webhooks::{Endpoint, WebhookOptions};

/// How long stopping may take in all.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What is kept of that for finishing writes and attempts at webhooks after
/// the last connection.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// Returns how many threads serve when nobody says: one for each processor, or
/// for every other one when the database is here and takes its share of them.
///
/// Threads that outnumber the processors left to them interrupt each other and
/// Postgres: on two processors that also run Postgres and the load, one thread
/// takes a tenth to a fifth more events than two.
pub fn default_workers(storage: &Storage) -> usize {
    let processors = available_parallelism().map_or(1, NonZero::get);
    let shares = storage.direct_url().is_some_and(|url| is_on_this_machine(url.expose()));
    if shares { (processors / 2).max(1) } else { processors }
}

/// Serves on `listener` until `shutdown` is cancelled and everything ended.
///
/// # Errors
///
/// Fails when the store cannot be opened or the configuration asks for what
/// the server does not do yet; the message says what to do.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut cors = cors(&config)?;
    let reporting = Reporting::start(&config)?;
    let storage = storage_options(&config);
    let authenticator = authenticator(&config)?;
    let options = service_options(&config, authenticator, reporting.hooks());
    let service = Service::open(options, storage).await.context("the store could not be opened")?;
    let options = ConnectionOptions {
        stall_timeout: milliseconds(config.sse.stall_timeout_ms),
        keep_alive: milliseconds(config.http.keep_alive_ms),
        max_connections: descriptors::max_connections(),
    };
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    if is_local && matches!(config.auth, AuthSettings::None) {
        cors.loopback_names = Some(config.http.allowed_hosts.clone());
    }
    let router = service.router(&cors);
    let mut deadline = None;
    let stop_by = async {
        shutdown.cancelled().await;
        tracing::info!("stopping");
        service.drain();
        *deadline.insert(Instant::now() + STOP_WITHIN - REPORT_WITHIN) - FINISH_WITHIN
    };
    connections::serve(listener, router, options, stop_by).await;
    // Connections may have ended early; attempts at webhooks use what they left.
    let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    service.stop(rest.unwrap_or(FINISH_WITHIN)).await;
    reporting.finish().await;
    tracing::info!("stopped");
    Ok(())
}

fn milliseconds(number: usize) -> Duration {
    Duration::from_millis(number as u64)
}

fn service_options(
    config: &Config,
    authenticator: Arc<dyn Authenticate>,
    hooks: HookSet,
) -> ServiceOptions {
    let sse = &config.sse;
    ServiceOptions {
        limits: limits(&config.limits),
        webhooks: webhooks(&config.webhook),
        dispatcher: DispatcherOptions {
            ring_events: sse.ring_events,
            ring_bytes: sse.ring_bytes,
            feed_bytes: sse.global_backlog_bytes,
        },
        keep_alive: milliseconds(sse.keep_alive_ms),
        open_timeout: milliseconds(sse.open_timeout_ms),
        body_bytes: config.http.body_bytes,
        drain_window: milliseconds(sse.drain_ms),
        cleanup: config.cleanup.rules.clone(),
        cleanup_interval: Duration::from_millis(config.cleanup.interval_ms),
        authenticator,
        hooks,
        metrics: metrics_access(&config.metrics),
    }
}

fn metrics_access(settings: &config::MetricsSettings) -> MetricsAccess {
    match &settings.token {
        _ if !settings.enabled => MetricsAccess::off(),
        Some(token) => MetricsAccess::with_token(token.expose()),
        None => MetricsAccess::default(),
    }
}

fn webhooks(settings: &config::WebhookSettings) -> WebhookOptions {
    let endpoint = |endpoint: &config::WebhookEndpoint| Endpoint {
        url: endpoint.url.expose().into(),
        filter: endpoint.filter.clone(),
        secret: endpoint.secret.as_ref().map(|secret| WebhookSecret::new(secret.expose())),
        wrap: endpoint.wrap,
        retry: endpoint.retry.into(),
        task_types: endpoint.task_types.clone(),
    };
    let allowed = settings.allow_targets.clone();
    WebhookOptions {
        default_retry: settings.default_retry,
        endpoints: settings.endpoints.iter().map(endpoint).collect(),
        targets: TargetPolicy::new(settings.allow_private_targets, allowed),
        concurrency: settings.concurrency,
        ..WebhookOptions::default()
    }
}

fn storage_options(config: &Config) -> StorageOptions {
    match &config.storage {
        Storage::Memory => StorageOptions::Memory { max_bytes: config.memory.max_bytes },
        Storage::Postgres { url, direct_url } => {
            let settings = &config.postgres;
            StorageOptions::Postgres(PostgresOptions {
                direct_url: direct_url.as_ref().map(|url| url.expose().to_owned()),
                lanes: settings.lanes.unwrap_or_else(default_lanes),
                read_connections: u32::try_from(settings.read_connections).unwrap_or(u32::MAX),
                lane_bytes: settings.lane_bytes,
                write_timeout: milliseconds(settings.write_timeout_ms),
                listen: settings.listen,
                ..PostgresOptions::new(url.expose())
            })
        }
    }
}

fn limits(limits: &config::Limits) -> Limits {
    Limits {
        body_bytes: limits.body_bytes,
        event_data_bytes: limits.event_data_bytes,
        outcome_bytes: limits.outcome_bytes,
        task_bytes: limits.task_bytes,
        series_text_bytes: limits.series_text_bytes as u64,
        events_per_request: limits.events_per_request,
        nesting: limits.nesting,
        tags: limits.tags,
        webhooks_per_task: limits.webhooks_per_task,
        history_events: limits.history_limit,
        list_tasks: limits.list_limit,
        list_page_bytes: limits.list_page_bytes,
    }
}

fn cors(config: &Config) -> anyhow::Result<CorsOptions> {
    let origins = match &config.cors {
        config::CorsOrigins::Off => CorsOrigins::None,
        config::CorsOrigins::Localhost => CorsOrigins::Localhost,
        config::CorsOrigins::Any => CorsOrigins::Any,
        config::CorsOrigins::List(origins) => {
            let parse = |origin: &String| {
                HeaderValue::from_str(origin).with_context(|| format!("cors.origins: {origin:?}"))
            };
            CorsOrigins::List(origins.iter().map(parse).collect::<anyhow::Result<_>>()?)
        }
    };
    Ok(CorsOptions { origins, credentials: config.cors_credentials, loopback_names: None })
}
