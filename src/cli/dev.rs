//! `taskcast dev`: a server to try things out on, with one command.
//!
//! The database is the one configured for taskcast, else a private one made
//! from the Postgres programs of this machine, else memory. A `DATABASE_URL`
//! is left alone: it belongs to the application under work.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{CommonArguments, ListenArguments, listen, load, migrate, print, runtime};
use crate::config::{Config, Environment, Purpose, SecretUrl, Source, Storage};
use crate::local_postgres::{
    self, LocalPostgres, Options, Origin, Stopped, find_binaries, install_command,
};
use crate::server;

/// The database within the private cluster.
const DATABASE: &str = "taskcast";

/// Options of `taskcast dev`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    listen: ListenArguments,
    #[command(flatten)]
    common: CommonArguments,
}

/// Serves until told to stop, then stops the private database if one was used.
pub(super) fn run(arguments: Arguments, environment: Environment) -> anyhow::Result<()> {
    let config = load(Purpose::Dev, arguments.common, Some(arguments.listen), environment.clone())?;
    runtime::serve_on(&config.clone(), try_out(config, environment))
}

async fn try_out(mut config: Config, environment: Environment) -> anyhow::Result<()> {
    let stop = listen::stop_on_signal()?;
    // The socket comes first: a taken port is the likely mistake, and cheap to
    // find before a database is started.
    let listener = listen::bind(&config).await?;
    let private = tokio::select! {
        private = private_database(&mut config, &environment) => private?,
        () = stop.cancelled() => return Ok(()),
    };
    let served = serve(config, listener, stop, private.as_ref()).await;
    let stopped = match private {
        None => Ok(()),
        Some(postgres) => stop_private(postgres).await,
    };
    served.and(stopped)
}

/// Migrates, announces and serves.
async fn serve(
    config: Config,
    listener: TcpListener,
    stop: CancellationToken,
    private: Option<&LocalPostgres>,
) -> anyhow::Result<()> {
    if let Some(url) = config.storage.direct_url() {
        migrate::apply(url).await?;
    }
    let address = listener.local_addr()?;
    let database = match private {
        None => config.sources.storage.to_string(),
        Some(postgres) => format!("private, in {}", postgres.directory().display()),
    };
    listen::announce(&config, address, &database);
    print(&welcome(address, &task_id()))?;
    server::run(config, listener, stop).await
}

/// Gives the configuration a private database unless it says where tasks go.
async fn private_database(
    config: &mut Config,
    environment: &Environment,
) -> anyhow::Result<Option<LocalPostgres>> {
    let is_decided = match config.storage {
        Storage::Postgres { .. } => true,
        Storage::Memory => config.sources.storage != Source::Default,
    };
    if is_decided {
        return Ok(None);
    }
    let variable = |name| environment.get(name).map(OsStr::new);
    let search_path = variable("PATH");
    let binaries = find_binaries(search_path);
    if binaries.is_empty() {
        print(&without_postgres(install_command(search_path)))?;
        return Ok(None);
    }
    let directory = local_postgres::default_directory(variable("XDG_DATA_HOME"), variable("HOME"))
        .context("there is no place for a private database; set XDG_DATA_HOME or HOME")?;
    let postgres = LocalPostgres::start(Options::persistent(directory, binaries)).await?;
    postgres.ensure_database(DATABASE).await?;
    let (place, port) = (postgres.directory().display(), postgres.port());
    let what = match postgres.origin() {
        Origin::Created => "made a private Postgres",
        Origin::Started => "started the private Postgres",
        Origin::Adopted => "uses the private Postgres that is already running",
    };
    tracing::info!(port, "{what} in {place}");
    config.storage = Storage::Postgres {
        url: SecretUrl::parse(&postgres.url(DATABASE))
            .context("the private database has no URL")?,
        direct_url: None,
    };
    Ok(Some(postgres))
}

async fn stop_private(postgres: LocalPostgres) -> anyhow::Result<()> {
    match postgres.stop().await? {
        Stopped::ShutDown => tracing::info!("stopped the private Postgres"),
        Stopped::LeftRunning => {
            tracing::info!("left the private Postgres running for another `taskcast dev`");
        }
    }
    Ok(())
}

fn without_postgres(install: Option<String>) -> String {
    let how = install.map_or_else(
        || "install PostgreSQL 14 or newer".to_owned(),
        |command| format!("run\n\n    {command}\n"),
    );
    format!(
        "No Postgres was found on this machine, so tasks are kept in memory and are lost when this \
         ends.\nTo keep them, {how}\nand start `taskcast dev` again."
    )
}

/// Returns an id that no earlier start printed, so that the printed requests
/// work again and again.
fn task_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("demo-{}", now.as_millis())
}

/// Writes the URL and three requests, each of which is one line to paste: one
/// creates a task, one takes it from its beginning to its end, and one reads
/// its stream, which is over then.
fn welcome(address: SocketAddr, task: &str) -> String {
    let base = format!("http://{}", reachable(address));
    let json = "-H 'Content-Type: application/json' -d";
    let status = format!("curl -s -X PATCH {base}/tasks/{task}/status {json}");
    let delta = |text: &str| {
        format!(
            r#"{{"type":"llm.delta","data":{{"text":"{text}"}},"seriesId":"answer","seriesMode":"accumulate"}}"#
        )
    };
    let events = format!("[{},{}]", delta("Hello, "), delta("world"));
    format!(
        r#"taskcast is ready at {base}. Try these, one after the other:

curl -s {base}/tasks {json} '{{"id":"{task}","type":"llm.chat"}}'

{status} '{{"status":"running"}}' && curl -s {base}/tasks/{task}/events {json} '{events}' && {status} '{{"status":"completed"}}'

curl -sN {base}/tasks/{task}/events
"#
    )
}

/// Returns the address under which this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_welcome_has_three_lines_to_paste() {
        let text = welcome("0.0.0.0:3721".parse().unwrap(), "demo-1");
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("curl ")).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("curl -s http://127.0.0.1:3721/tasks "), "{text}");
        assert!(lines[2].ends_with("/tasks/demo-1/events"), "{text}");
    }

    #[test]
    fn without_postgres_the_command_that_installs_it_is_printed() {
        let text = without_postgres(Some("apt-get install -y postgresql".to_owned()));
        assert!(text.contains("    apt-get install -y postgresql\n"), "{text}");
        assert!(without_postgres(None).contains("14 or newer"));
    }
}
