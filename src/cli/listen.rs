//! What the commands that listen have in common: the socket, the signals that
//! end them, and the line that says what was started.

use std::io;
use std::net::SocketAddr;

use anyhow::anyhow;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{AuthSettings, Config, Storage};

/// Opens the socket of a configuration.
pub(super) async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    // Written like in a URL, an IPv6 address has brackets.
    let host = config.host.trim_start_matches('[').trim_end_matches(']');
    TcpListener::bind((host, config.port)).await.map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there; choose another port with -p".to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                "this user may not; choose a port above 1023 with -p".to_owned()
            }
            _ => error.to_string(),
        };
        let (port, source) = (config.port, &config.sources.port);
        anyhow!("cannot listen on {host} port {port} ({source}): {reason}")
    })
}

/// Returns a token that is cancelled by the first SIGTERM or SIGINT.
///
/// Must be called within the runtime that is to be told.
pub(super) fn stop_on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    // Ends with the process: a second signal finds the stop already under way.
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "told to stop");
        stopping.cancel();
    });
    Ok(stop)
}

/// Logs what is being started and what an operator may not expect of it.
/// `database` says where the database comes from, if there is one.
pub(super) fn announce(config: &Config, address: SocketAddr, database: &str) {
    let version = env!("CARGO_PKG_VERSION");
    let port_source = &config.sources.port;
    match &config.storage {
        Storage::Memory => {
            tracing::info!(
                version,
                %address,
                storage = "memory",
                port.source = %port_source,
                "taskcast {version} starts on {address} (port: {port_source}), storage: memory",
            );
            tracing::warn!(
                "tasks and events are kept in memory and are lost when this process ends; \
                 a Postgres URL in TASKCAST_POSTGRES_URL keeps them"
            );
        }
        Storage::Postgres { url, .. } => tracing::info!(
            version,
            %address,
            storage = "postgres",
            port.source = %port_source,
            database = %url,
            database.source = database,
            "taskcast {version} starts on {address} (port: {port_source}), \
             storage: {url} ({database})",
        ),
    }
    match config.auth {
        AuthSettings::None if !address.ip().is_loopback() => tracing::warn!(
            %address,
            "authentication is off: whoever reaches {address} may read and change every task"
        ),
        AuthSettings::None | AuthSettings::Jwt(_) | AuthSettings::Custom(_) => {}
    }
}
