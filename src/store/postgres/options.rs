//! How to use a database, and why one cannot be used.

use std::net::IpAddr;
use std::num::NonZero;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use super::migrate;
use super::rollup::{LANE_STATEMENT_TIMEOUT, REMOVAL_DELAY};
use super::session::Route;
use super::settings::Settings;

/// Most lanes that are used unasked.
const MOST_DEFAULT_LANES: usize = 4;

/// Returns how many lanes to use when nobody says: half the processors, from
/// one to four.
///
/// Few lanes write large groups, and a group costs little more than a single
/// write. On two processors that also run Postgres, one lane takes a fifth
/// more single events than two.
pub fn default_lanes() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors / 2).clamp(1, MOST_DEFAULT_LANES)
}

/// Tells whether a database is on this machine, as far as its URL shows.
pub fn is_on_this_machine(url: &str) -> bool {
    PgConnectOptions::from_str(url).is_ok_and(|options| {
        let host = options.get_host().trim_matches(['[', ']']);
        let is_loopback = |address: IpAddr| address.is_loopback();
        options.get_socket().is_some() || host == "localhost" || host.parse().is_ok_and(is_loopback)
    })
}

/// How to use a database.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Where it is; a transaction pooler may stand in between.
    pub url: String,
    /// Where it is without a pooler, when `url` leads to one.
    pub direct_url: Option<String>,
    /// Writer lanes, each with a connection.
    pub lanes: usize,
    /// Most connections for reading.
    pub read_connections: u32,
    /// Bytes of writes that may wait for one lane.
    pub lane_bytes: usize,
    /// How long a write is tried before its caller hears that it failed.
    pub write_timeout: Duration,
    /// Whether to send and listen for wakes; without, instances poll.
    pub listen: bool,
    /// How long rows stay in a log after what exposes them to removal was
    /// committed. An append that began before must be over by then: with less
    /// than [`PostgresOptions::MIN_REMOVAL_DELAY`] events can be lost where
    /// several instances write.
    pub removal_delay: Duration,
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // URLs hold passwords.
        f.debug_struct("PostgresOptions").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// Shortest [`removal_delay`](Self::removal_delay) that is safe: Postgres
    /// ends the statement of a lane after this time.
    pub const MIN_REMOVAL_DELAY: Duration = LANE_STATEMENT_TIMEOUT;

    /// Returns options for the database at `url`, everything else as by default.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            direct_url: None,
            lanes: default_lanes(),
            read_connections: 6,
            lane_bytes: 16 << 20,
            write_timeout: Duration::from_secs(5),
            listen: true,
            removal_delay: REMOVAL_DELAY,
        }
    }

    /// Says how `url` leads to Postgres: with a direct URL beside it that
    /// differs, through a pooler.
    pub(super) fn route(&self) -> Route {
        match &self.direct_url {
            Some(direct) if *direct != self.url => Route::Pooled,
            Some(_) | None => Route::Direct,
        }
    }

    /// Returns how to connect for `purpose`, which Postgres shows as a name, with
    /// the settings its sessions rely on.
    fn connect(&self, purpose: &str, settings: Settings) -> Result<PgConnectOptions, ConnectError> {
        let options = Self::parse(&self.url)?.application_name(&format!("taskcast-{purpose}"));
        if self.route() == Route::Pooled {
            // The session behind a pooler is anybody's: no named statements, no
            // parameters that poolers refuse, and settings for a transaction only.
            return Ok(options.statement_cache_capacity(0).extra_float_digits(None));
        }
        Ok(options.options(settings.values()))
    }

    /// Returns how to connect for reading.
    pub(super) fn connect_reads(&self) -> Result<PgConnectOptions, ConnectError> {
        self.connect("read", Settings::Read)
    }

    /// Returns how the notifier connects.
    pub(super) fn connect_notifier(&self) -> Result<PgConnectOptions, ConnectError> {
        self.connect("notifier", Settings::Read)
    }

    /// Returns how a lane connects.
    pub(crate) fn connect_lane(&self) -> Result<PgConnectOptions, ConnectError> {
        self.connect("lane", Settings::Lane)
    }

    /// Returns how the listener connects: never through a pooler.
    pub(super) fn connect_listener(&self) -> Result<PgConnectOptions, ConnectError> {
        let url = self.direct_url.as_ref().unwrap_or(&self.url);
        let options = Self::parse(url)?.application_name("taskcast-listener");
        Ok(options.options(Settings::Listener.values()))
    }

    fn parse(url: &str) -> Result<PgConnectOptions, ConnectError> {
        // The driver's message may quote the URL, password included.
        PgConnectOptions::from_str(url).map_err(|_| ConnectError::InvalidUrl)
    }
}

/// A database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error(
        "the Postgres URL does not parse; expected postgres://user:password@host:port/database"
    )]
    InvalidUrl,
    /// It cannot be reached.
    #[error("cannot connect to Postgres: {0}")]
    Unreachable(String),
    /// It is too old.
    #[error("Postgres {found} is too old; 14 or newer is needed")]
    TooOld {
        /// Version found.
        found: i32,
    },
    /// It does not store UTF-8.
    #[error("the database is encoded in {0}; UTF8 is needed")]
    Encoding(String),
    /// Commits are acknowledged before they are durable.
    #[error(
        "synchronous_commit is off; acknowledged events could be lost. \
         Turn it on for this database: ALTER DATABASE … SET synchronous_commit = on"
    )]
    NotDurable,
    /// It is a standby.
    #[error("the database is a standby; connect to the primary")]
    Standby,
    /// It takes no writes.
    #[error(
        "the database is read-only: default_transaction_read_only is on for the server, the \
         database or the role. Managed services do this when a disk is full. Turn it off, or \
         connect to the primary"
    )]
    ReadOnly,
    /// Its schema is not this version's.
    #[error("the database is not migrated ({0} migrations pending); run: taskcast migrate")]
    NotMigrated(usize),
    /// Its schema could not be looked at.
    #[error(transparent)]
    Migrations(#[from] migrate::MigrateError),
}
