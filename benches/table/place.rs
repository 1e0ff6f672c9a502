//! A Postgres of this run's own, servers on it, and the program that loads them.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use taskcast::local_postgres::{
    Durability, LocalPostgres, Options, find_binaries, install_command,
};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::lines::{Line, Storage};

/// The program that is measured, built like a release.
const PROGRAM: &str = env!("CARGO_BIN_EXE_taskcast");

/// Longest a server may take to be ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pause between two looks at something that was asked for.
const PAUSE: Duration = Duration::from_millis(20);

/// Length of the measurements of the database by itself, in seconds.
const RAW_SECONDS: &str = "3";

/// How Postgres is set up, beside its defaults; it flushes as it should.
pub(crate) const SETTINGS: [(&str, &str); 4] = [
    ("shared_buffers", "512MB"),
    ("max_wal_size", "4GB"),
    // Log files are used again, as in a database that is not new.
    ("min_wal_size", "1GB"),
    ("max_connections", "300"),
];

/// Room of the memory store, in bytes: more than a line fills.
const MEMORY: &str = "8589934592";

/// Where everything happens.
pub(crate) struct Place {
    postgres: LocalPostgres,
    directory: PathBuf,
    databases: AtomicU32,
}

/// A running server.
struct Server {
    child: Child,
    url: String,
}

impl Place {
    /// Starts a Postgres.
    pub(crate) async fn prepare() -> anyhow::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "a bench has no configuration to read it in")]
        let search_path: Option<OsString> = std::env::var_os("PATH");
        let binaries = find_binaries(search_path.as_deref());
        let directory = std::env::temp_dir().join(format!("taskcast-table-{}", std::process::id()));
        let mut options = Options {
            durability: Durability::Durable,
            ..Options::persistent(&directory, binaries)
        };
        for (name, value) in SETTINGS {
            options = options.setting(name, value);
        }
        let postgres = LocalPostgres::start(options).await.with_context(|| {
            let install = install_command(search_path.as_deref()).unwrap_or_default();
            format!("no private Postgres; run: {install}")
        })?;
        Ok(Self { postgres, directory, databases: AtomicU32::new(0) })
    }

    /// Stops Postgres and removes all that it kept.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        self.postgres.stop().await?;
        std::fs::remove_dir_all(self.directory)?;
        Ok(())
    }

    /// Writes out what is in memory, and drops `database`, so that no line pays
    /// for what the one before it left to do.
    async fn clear(&self, database: Option<&str>) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.postgres.url("postgres")).await?;
        if let Some(name) = database {
            let drop = format!("DROP DATABASE {name} WITH (FORCE)");
            connection.execute(AssertSqlSafe(drop)).await?;
        }
        connection.execute("CHECKPOINT").await?;
        connection.close().await?;
        Ok(())
    }

    /// Measures the database by itself.
    pub(crate) async fn measure_postgres(&self) -> anyhow::Result<Value> {
        self.clear(None).await?;
        let mut command = program("bench postgres --json");
        command
            .args(["--duration", RAW_SECONDS])
            .env("TASKCAST_POSTGRES_URL", self.postgres.url("postgres"));
        report_of(command).await
    }

    /// Runs a line on fresh servers; returns the report of its last run.
    pub(crate) async fn run(&self, line: &Line) -> anyhow::Result<Value> {
        let database = match line.storage {
            Storage::Memory => None,
            Storage::Postgres | Storage::PostgresTwice => Some(self.make_database().await?),
        };
        let url = database.as_deref().map(|name| self.postgres.url(name));
        self.clear(None).await?;
        let server = Server::start(url.as_deref()).await?;
        let second = match line.storage {
            Storage::PostgresTwice => Some(Server::start(url.as_deref()).await?),
            Storage::Memory | Storage::Postgres => None,
        };
        let mut report = Value::Null;
        for run in line.runs {
            let mut command = program("bench");
            command.args(run.split_whitespace()).args(["--json", "--url", &server.url]);
            if let Some(second) = &second {
                command.args(["--read-url", &second.url]);
            }
            report = report_of(command).await?;
        }
        for server in [Some(server), second].into_iter().flatten() {
            server.stop().await?;
        }
        self.clear(database.as_deref()).await?;
        Ok(report)
    }

    /// Makes a migrated database; returns its name.
    async fn make_database(&self) -> anyhow::Result<String> {
        let name = format!("line_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.postgres.ensure_database(&name).await?;
        let mut command = program("migrate");
        command.env("TASKCAST_POSTGRES_URL", self.postgres.url(&name));
        output_of(command).await?;
        Ok(name)
    }
}

impl Server {
    /// Starts one on the database at a URL, or in memory, and waits until it is ready.
    async fn start(database: Option<&str>) -> anyhow::Result<Self> {
        // Free a moment ago; nobody else asks for ports here.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("http://127.0.0.1:{port}");
        let mut command = program("serve --host 127.0.0.1 --port");
        // A line for every request is for operators, and costs what it costs.
        command.arg(port.to_string()).env("TASKCAST_LOG_LEVEL", "error");
        match database {
            Some(url) => command.env("TASKCAST_POSTGRES_URL", url),
            None => command.env("TASKCAST_MEMORY__MAX_BYTES", MEMORY),
        };
        let child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
        let mut server = Self { child, url };
        let give_up = Instant::now() + PATIENCE;
        let ready = format!("{}/health/ready", server.url);
        loop {
            if reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("a server ended with {status} before it was ready");
            }
            ensure!(Instant::now() < give_up, "a server was not ready in {PATIENCE:?}");
            sleep(PAUSE).await;
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        // What it keeps is thrown away, so there is nothing to do in peace.
        self.child.start_kill()?;
        timeout(PATIENCE, self.child.wait()).await.context("a server does not end")??;
        Ok(())
    }
}

/// Returns the program with arguments and none of the caller's environment.
fn program(arguments: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments.split_whitespace())
        .env_clear()
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command that prints a report.
async fn report_of(command: Command) -> anyhow::Result<Value> {
    let printed = output_of(command).await?;
    serde_json::from_str(&printed).with_context(|| format!("no report: {printed}"))
}

async fn output_of(mut command: Command) -> anyhow::Result<String> {
    let output = command.output().await?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {}", command.as_std().get_args(), complaint.trim());
    Ok(String::from_utf8(output.stdout)?)
}
