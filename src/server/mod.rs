//! The composition root: a configuration in, a running service out.
//!
//! # Shutdown
//!
//! When asked to stop, the server reports not ready, accepts no more
//! connections, lets requests finish and streams end over a window, finishes
//! the writes it accepted, stops its loops, and returns: all within
//! `STOP_WITHIN`.

mod connections;
mod readiness;
mod service;
mod stall;

use std::time::Duration;

use anyhow::Context as _;
use axum::http::HeaderValue;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::connections::ConnectionOptions;
pub use self::service::{Service, ServiceOptions};
use crate::config::{self, Config};
use crate::dispatcher::DispatcherOptions;
use crate::engine::Limits;
use crate::http::{CorsOptions, CorsOrigins};
use crate::store::postgres::PostgresOptions;
use crate::store::{self, StorageOptions};

/// How long stopping may take in all.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What is kept of that for finishing writes after the last connection.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// Serves on `listener` until `shutdown` is cancelled and everything ended.
///
/// # Errors
///
/// Fails when the store cannot be opened; the message says what to do.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let cors = cors(&config.cors)?;
    let storage = storage_options(&config);
    let service = Service::start(service_options(&config), async |listener, supervisor| {
        store::open(storage, listener, &supervisor).await
    })
    .await
    .context("the store could not be opened")?;
    let options = ConnectionOptions { stall_timeout: milliseconds(config.sse.stall_timeout_ms) };
    let stop_by = async {
        shutdown.cancelled().await;
        tracing::info!("stopping");
        service.drain();
        tokio::time::Instant::now() + STOP_WITHIN - FINISH_WITHIN
    };
    connections::serve(listener, service.router(&cors), options, stop_by).await;
    service.stop(FINISH_WITHIN).await;
    tracing::info!("stopped");
    Ok(())
}

fn milliseconds(number: usize) -> Duration {
    Duration::from_millis(number as u64)
}

fn service_options(config: &Config) -> ServiceOptions {
    let sse = &config.sse;
    ServiceOptions {
        limits: limits(&config.limits),
        dispatcher: DispatcherOptions {
            ring_events: sse.ring_events,
            ring_bytes: sse.ring_bytes,
            feed_bytes: sse.global_backlog_bytes,
        },
        keep_alive: milliseconds(sse.keep_alive_ms),
        drain_window: milliseconds(sse.drain_ms),
    }
}

fn storage_options(config: &Config) -> StorageOptions {
    match &config.storage {
        config::Storage::Memory => StorageOptions::Memory { max_bytes: config.memory.max_bytes },
        config::Storage::Postgres { url, direct_url } => {
            let settings = &config.postgres;
            StorageOptions::Postgres(PostgresOptions {
                url: url.expose().to_owned(),
                direct_url: direct_url.as_ref().map(|url| url.expose().to_owned()),
                lanes: settings.lanes,
                read_connections: u32::try_from(settings.read_connections).unwrap_or(u32::MAX),
                lane_bytes: settings.lane_bytes,
                write_timeout: milliseconds(settings.write_timeout_ms),
                listen: settings.listen,
            })
        }
    }
}

fn limits(limits: &config::Limits) -> Limits {
    Limits {
        body_bytes: limits.body_bytes,
        event_data_bytes: limits.event_data_bytes,
        outcome_bytes: limits.outcome_bytes,
        series_text_bytes: limits.series_text_bytes as u64,
        events_per_request: limits.events_per_request,
        nesting: limits.nesting,
        tags: limits.tags,
        history_events: limits.history_limit,
        list_tasks: limits.list_limit,
        list_page_bytes: limits.list_page_bytes,
    }
}

fn cors(origins: &config::CorsOrigins) -> anyhow::Result<CorsOptions> {
    let origins = match origins {
        config::CorsOrigins::Off => CorsOrigins::None,
        config::CorsOrigins::Any => CorsOrigins::Any,
        config::CorsOrigins::List(origins) => {
            let parse = |origin: &String| {
                HeaderValue::from_str(origin).with_context(|| format!("cors.origins: {origin:?}"))
            };
            CorsOrigins::List(origins.iter().map(parse).collect::<anyhow::Result<_>>()?)
        }
    };
    Ok(CorsOptions { origins })
}
