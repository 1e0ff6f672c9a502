//! A private Postgres cluster made from the binaries on this machine.
//!
//! `taskcast dev` keeps its data in one, and the test harness runs a throwaway
//! one. A cluster listens on loopback only, on a port of its own, behind a
//! random password that only its owner can read.
//!
//! Invariant: at most one server runs on a directory, however many processes
//! ask for it at once and however they die. The first one starts it, later
//! ones adopt it, and the last one to stop cleanly shuts it down. Advisory
//! file locks carry this, because the kernel drops them for a killed process.
//!
//! Left out on purpose: upgrades between major versions, backups and tuning.
//! This is a convenience for one machine, not a way to run a database.

mod account;
mod binaries;
mod directory;
mod error;
mod server;

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::time::{Instant, timeout_at};

use account::Account;
pub use binaries::{Binaries, find_binaries, install_command};
use directory::Directory;
pub use error::LocalPostgresError;
use server::Server;

/// The superuser of every private cluster.
const SUPERUSER: &str = "taskcast";

/// How often a condition that cannot be awaited is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// Tells what a cluster may lose when the machine crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Commits are flushed as in any Postgres.
    Durable,
    /// Nothing is flushed: fast, and fit for tests only.
    Disposable,
}

/// What [`LocalPostgres::start`] needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds the cluster, its log, its password and its locks. It is created
    /// when missing. A root user hands it over to an unprivileged account,
    /// so its parents must be passable for everyone in that case.
    pub directory: PathBuf,
    /// The installations to choose from, the preferred one first.
    pub binaries: Vec<Binaries>,
    /// What a crash of the machine may cost.
    pub durability: Durability,
    /// Server settings by name, applied to a server that is started, not to
    /// one that is adopted.
    pub settings: Vec<(String, String)>,
    /// How long to wait in all, first initialisation included.
    pub timeout: Duration,
}

impl Options {
    /// Describes a durable cluster with the default settings.
    pub fn persistent(directory: impl Into<PathBuf>, binaries: Vec<Binaries>) -> Self {
        Self {
            directory: directory.into(),
            binaries,
            durability: Durability::Durable,
            settings: Vec::new(),
            timeout: Duration::from_mins(1),
        }
    }

    /// Adds a server setting, such as `("max_connections", "300")`.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// Tells how a cluster came to be running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was initialised and started just now.
    Created,
    /// It existed and was started just now.
    Started,
    /// Its server was already running.
    Adopted,
}

/// Tells what [`LocalPostgres::stop`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The server was shut down.
    ShutDown,
    /// Another process uses the server, so it was left running.
    LeftRunning,
}

/// A running private cluster.
///
/// The server outlives the handle and the process, so that one that is killed
/// can be followed by one that adopts it; [`LocalPostgres::stop`] is the clean
/// end.
pub struct LocalPostgres {
    directory: Directory,
    server: Server,
    password: String,
    origin: Origin,
    /// Shared lock that marks the server as used by this process.
    in_use: File,
}

impl LocalPostgres {
    /// Starts the cluster of a directory, or adopts the server that already
    /// runs on it, and waits until it takes connections.
    ///
    /// # Errors
    ///
    /// Returns a [`LocalPostgresError`] when no suitable binaries exist, the
    /// directory cannot be prepared, or the server does not come up in time.
    pub async fn start(options: Options) -> Result<Self, LocalPostgresError> {
        let deadline = Instant::now() + options.timeout;
        let account = Account::for_server()?;
        let directory = Directory::prepare(&options.directory, account)?;
        let starting = directory.lock_start(deadline).await?;
        let in_use = directory.mark_in_use()?;
        let password = directory.password()?;

        let (server, origin) = match directory.running_server() {
            Some(running) => {
                let mut server = Server::adopt(running);
                server.await_ready(&directory, &password, deadline).await?;
                (server, Origin::Adopted)
            }
            None => start_server(&directory, &options, &password, deadline).await?,
        };
        drop(starting);

        Ok(Self { directory, server, password, origin, in_use })
    }

    /// Returns the connection URL of a database in this cluster. The name is
    /// taken as it is: letters, digits and underscores.
    pub fn url(&self, database: &str) -> String {
        server::url(self.server.port(), &self.password, database)
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Returns how the server came to be running.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Returns the directory that holds the cluster.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Creates a database unless it exists.
    ///
    /// # Errors
    ///
    /// Returns [`LocalPostgresError::Database`] when the server refuses.
    pub async fn ensure_database(&self, database: &str) -> Result<(), LocalPostgresError> {
        // "duplicate_database", and the "unique_violation" of one that appeared
        // just now: trying is the only check without a race.
        const EXISTS: [&str; 2] = ["42P04", "23505"];
        let refused =
            |reason| LocalPostgresError::Database { database: database.to_owned(), reason };
        let mut connection = PgConnection::connect(&self.url("postgres")).await.map_err(refused)?;
        let quoted = database.replace('"', "\"\"");
        let created =
            connection.execute(AssertSqlSafe(format!("CREATE DATABASE \"{quoted}\""))).await;
        let created = match created {
            Err(sqlx::Error::Database(error))
                if error.code().is_some_and(|code| EXISTS.contains(&&*code)) =>
            {
                Ok(())
            }
            other => other.map(drop),
        };
        created.map_err(refused)?;
        connection.close().await.map_err(refused)
    }

    /// Shuts the server down unless another process uses it.
    ///
    /// # Errors
    ///
    /// Returns a [`LocalPostgresError`] when the server does not stop.
    pub async fn stop(mut self) -> Result<Stopped, LocalPostgresError> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let _starting = self.directory.lock_start(deadline).await?;
        // Nobody can begin to use the server while the start lock is held, so
        // a shared lock that turns exclusive proves that this was the last user.
        if self.in_use.try_lock().is_err() {
            return Ok(Stopped::LeftRunning);
        }
        self.server.shut_down(&self.directory, deadline).await?;
        Ok(Stopped::ShutDown)
    }
}

impl fmt::Debug for LocalPostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPostgres")
            .field("directory", &self.directory.path())
            .field("port", &self.server.port())
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Starts a server on the directory, initialising it first when it is empty.
async fn start_server(
    directory: &Directory,
    options: &Options,
    password: &str,
    deadline: Instant,
) -> Result<(Server, Origin), LocalPostgresError> {
    // A free port can be taken between the look and the bind.
    const ATTEMPTS: u32 = 3;

    let binaries = binaries::choose(&options.binaries, directory.major_version()?, directory)?;
    let origin = if directory.is_initialised() {
        Origin::Started
    } else {
        timeout_at(deadline, directory.initialise(binaries)).await.map_err(|_| {
            LocalPostgresError::Timeout { directory: directory.path().to_owned() }
        })??;
        Origin::Created
    };
    let mut attempt = 1;
    loop {
        let port = directory.choose_port(attempt == 1)?;
        let mut server = server::spawn(directory, binaries, port, options)?;
        match server.await_ready(directory, password, deadline).await {
            Ok(()) => return Ok((server, origin)),
            Err(LocalPostgresError::Exited { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => {
                server.abandon(directory).await;
                return Err(error);
            }
        }
    }
}

/// Returns where `taskcast dev` keeps its cluster.
///
/// An ordinary user gets `$XDG_DATA_HOME/taskcast`, which defaults to
/// `~/.local/share/taskcast`. Root gets `/var/lib/taskcast`, because the
/// account the server runs as cannot reach into root's home; an
/// `XDG_DATA_HOME` that the account can reach is honoured.
pub fn default_directory(xdg_data_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let absolute = |path: &&OsStr| Path::new(path).is_absolute();
    let data_home = xdg_data_home.filter(absolute).map(PathBuf::from);
    if account::is_root() {
        let reachable = data_home.filter(|path| account::everyone_can_enter(path));
        return Some(reachable.unwrap_or_else(|| PathBuf::from("/var/lib")).join("taskcast"));
    }
    let fallback = || home.filter(absolute).map(|home| Path::new(home).join(".local/share"));
    Some(data_home.or_else(fallback)?.join("taskcast"))
}
