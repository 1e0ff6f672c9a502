//! The store in Postgres: system of record and fan-out bus.
//!
//! Everything is in schema `taskcast`. Writes go through lanes (see
//! `lane`), reads through a pool, wakes through a notifier and a listener
//! (see `bus`). Nothing relies on session state, so a transaction pooler may
//! stand in between; the listener and migrations then need a direct URL.

mod births;
mod bus;
mod cleanup;
mod codes;
mod crowd;
mod deliveries;
mod error;
mod events;
mod inbox;
mod keys;
mod known;
mod lane;
mod locked;
pub mod migrate;
mod parked;
mod plan;
mod queue;
mod rows;
mod seal;
mod session;
mod tallies;
mod tasks;
mod write;

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;
use std::num::NonZero;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use self::bus::PostgresBus;
use self::lane::Lane;
use self::queue::{Job, LaneQueue, Work};
use self::seal::SealQueue;
use self::session::{Reads, Route};
use super::report::Reporter;
use super::{
    Bus, Commit, CommitListener, Opened, Probe, Report, StoreError, StoreGauges, StorePart,
};
use crate::domain::{BLOCK_LEN, Task, TaskId};
use crate::supervisor::Supervisor;

/// Oldest Postgres that is supported, as it numbers itself.
const OLDEST_VERSION: i32 = 140_000;

/// How long a read waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often lanes say that they are alive, and dead ones are looked for.
const LANE_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A lane silent this long is dead, in milliseconds; far past any retry.
const LANE_LIFE_MS: i64 = 600_000;

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
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // URLs hold passwords.
        f.debug_struct("PostgresOptions").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl PostgresOptions {
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
        }
    }

    /// Says how `url` leads to Postgres: with a direct URL beside it that
    /// differs, through a pooler.
    fn route(&self) -> Route {
        match &self.direct_url {
            Some(direct) if *direct != self.url => Route::Pooled,
            Some(_) | None => Route::Direct,
        }
    }

    /// Returns how to connect for `purpose`, which Postgres shows as a name.
    fn connect(&self, purpose: &str) -> Result<PgConnectOptions, ConnectError> {
        let options = Self::parse(&self.url)?.application_name(&format!("taskcast-{purpose}"));
        if self.route() == Route::Pooled {
            // The session behind a pooler is anybody's: no settings, no named
            // statements, none of the parameters poolers refuse.
            return Ok(options.statement_cache_capacity(0).extra_float_digits(None));
        }
        // Every statement has an index to go by. While a table is small the
        // planner would rather read all of it, for each row of another.
        let settings = [("jit", "off"), ("statement_timeout", "30s"), ("enable_seqscan", "off")];
        Ok(options.options(settings))
    }

    /// Returns how a lane connects.
    pub(crate) fn connect_lane(&self) -> Result<PgConnectOptions, ConnectError> {
        let options = self.connect("lane")?;
        if self.route() == Route::Pooled {
            return Ok(options);
        }
        // The append is planned once: batches differ in size, not in plan.
        Ok(options.options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_mergejoin", "off"),
            ("random_page_cost", "1.1"),
            ("lock_timeout", "1s"),
        ]))
    }

    fn connect_directly(&self, purpose: &str) -> Result<PgConnectOptions, ConnectError> {
        let url = self.direct_url.as_ref().unwrap_or(&self.url);
        Ok(Self::parse(url)?.application_name(&format!("taskcast-{purpose}")))
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
    /// Its schema is not this version's.
    #[error("the database is not migrated ({0} migrations pending); run: taskcast migrate")]
    NotMigrated(usize),
    /// Its schema could not be looked at.
    #[error(transparent)]
    Migrations(#[from] migrate::MigrateError),
}

/// The store in Postgres.
pub(super) struct PostgresStore {
    reads: Reads,
    lanes: Vec<Arc<LaneQueue>>,
    hasher: BuildHasherDefault<DefaultHasher>,
    write_timeout: Duration,
    reporter: Reporter,
}

impl PostgresStore {
    /// Hands work to the lane of its task.
    fn submit(&self, id: &TaskId, work: Work) -> Result<(), StoreError> {
        // Lanes are few; the hash spreads tasks over them for good.
        let lane = self.hasher.hash_one(id) as usize % self.lanes.len();
        let pushed = self.lanes[lane].push(Job::new(work, Instant::now() + self.write_timeout));
        pushed.inspect_err(|error| self.reporter.failed(StorePart::Writer, error))
    }
}

/// What to say when a lane ended without an answer.
fn lane_died() -> StoreError {
    StoreError::OutcomeUnknown("the writer ended".into())
}

/// What happens after a commit.
pub(super) struct After {
    listener: Arc<dyn CommitListener>,
    seal: Arc<SealQueue>,
    lanes: Mutex<Vec<i64>>,
}

impl After {
    fn committed(&self, commits: &[Commit]) {
        self.listener.committed(commits);
        for commit in commits {
            let (Some(first), Some(last)) = (commit.events.first(), commit.events.last()) else {
                continue;
            };
            let next_index = last.index + 1;
            if first.index / BLOCK_LEN != next_index / BLOCK_LEN {
                self.seal.push(codes::of_number(commit.task.number), next_index);
            }
        }
    }

    fn created(&self, task: &Task) {
        self.listener.created(task);
    }

    fn report(&self, report: &Report<'_>) {
        self.listener.reported(report);
    }

    fn failed(&self, error: &StoreError) {
        self.report(&Report::Failed(StorePart::Writer, error));
    }

    fn add_lane(&self, lane: i64) {
        self.lanes.lock().push(lane);
    }
}

/// Checks that a database can be used as it is.
async fn check(reads: &Reads, options: &PostgresOptions) -> Result<(), ConnectError> {
    let server = sqlx::query_file!("sql/checks/server.sql")
        .fetch_one(reads)
        .await
        .map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    if server.version < OLDEST_VERSION {
        return Err(ConnectError::TooOld { found: server.version / 10_000 });
    }
    if server.encoding != "UTF8" {
        return Err(ConnectError::Encoding(server.encoding));
    }
    if server.synchronous_commit == "off" {
        return Err(ConnectError::NotDurable);
    }
    if server.is_standby {
        return Err(ConnectError::Standby);
    }
    let direct = options.direct_url.as_ref().unwrap_or(&options.url);
    let pending = migrate::connect(direct).await?.pending().await?;
    if !pending.is_empty() {
        return Err(ConnectError::NotMigrated(pending.len()));
    }
    Ok(())
}

/// Opens the store and starts its loops.
pub(super) async fn open(
    options: PostgresOptions,
    listener: Arc<dyn CommitListener>,
    supervisor: &Supervisor,
) -> Result<Opened, ConnectError> {
    let route = options.route();
    let pool = PgPoolOptions::new()
        .max_connections(options.read_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_with(options.connect("read")?)
        .await
        .map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    let reporter = Reporter::new(&listener);
    let reads = Reads::new(pool.clone(), route, reporter.clone());
    check(&reads, &options).await?;
    let seal = Arc::new(SealQueue::default());
    let after = Arc::new(After { listener, seal: seal.clone(), lanes: Mutex::default() });
    let lanes: Vec<_> =
        (0..options.lanes.max(1)).map(|_| LaneQueue::new(options.lane_bytes)).collect();
    for queue in &lanes {
        let (queue, after) = (queue.clone(), after.clone());
        let (connect, timeout) = (options.connect_lane()?, options.write_timeout);
        supervisor.run("lane", move || {
            Lane::new(queue.clone(), connect.clone(), after.clone(), timeout, route).run()
        });
    }
    let (queue, sealer) = (seal, reads.clone());
    supervisor.run("seal", move || seal::run(queue.clone(), sealer.clone()));
    let keeper = reads.clone();
    supervisor.run("keep-lanes", move || keep_lanes(after.clone(), keeper.clone()));
    let bus = open_bus(&options, supervisor, reporter.clone())?;
    let (queues, closing) = (lanes.clone(), pool.clone());
    reporter.report(&Report::Opened(Probe::new(move || look(&pool, &queues))));
    let store = PostgresStore {
        reads,
        lanes: lanes.clone(),
        hasher: BuildHasherDefault::default(),
        write_timeout: options.write_timeout,
        reporter,
    };
    Ok(Opened {
        provider: "postgres",
        store: Arc::new(store),
        bus,
        poll_interval: Duration::from_secs(1),
        closer: Box::new(move || {
            let (lanes, pool) = (lanes.clone(), closing.clone());
            Box::pin(async move {
                for lane in lanes {
                    lane.close().await;
                }
                // Whoever still holds the store, its connections end here.
                pool.close().await;
            })
        }),
    })
}

/// Looks how full the pool and the lanes are.
fn look(pool: &PgPool, lanes: &[Arc<LaneQueue>]) -> StoreGauges {
    let idle = pool.num_idle() as u64;
    StoreGauges {
        queue_bytes: lanes.iter().map(|lane| lane.waiting_bytes() as u64).sum(),
        connections_in_use: u64::from(pool.size()).saturating_sub(idle),
        connections_idle: idle,
    }
}

fn open_bus(
    options: &PostgresOptions,
    supervisor: &Supervisor,
    reporter: Reporter,
) -> Result<Arc<dyn Bus>, ConnectError> {
    let (bus, route) = (PostgresBus::new(reporter), options.route());
    if options.listen {
        let (notifier, connect) = (bus.clone(), options.connect("notifier")?);
        supervisor.run("notifier", move || notifier.clone().notify_loop(connect.clone(), route));
        let (hearer, connect) = (bus.clone(), options.connect_directly("listener")?);
        supervisor.run("listener", move || hearer.clone().listen_loop(connect.clone()));
    }
    Ok(bus)
}

/// Says that our lanes are alive and removes those of processes that are gone.
async fn keep_lanes(after: Arc<After>, pool: Reads) {
    loop {
        tokio::time::sleep(LANE_KEEP_ALIVE).await;
        let lanes = after.lanes.lock().clone();
        let kept = sqlx::query_file!("sql/lanes/keep.sql", &lanes).execute(&pool).await;
        if kept.is_ok() {
            let retired = sqlx::query_file!("sql/lanes/retire.sql", LANE_LIFE_MS);
            if let Err(error) = retired.execute(&pool).await {
                tracing::debug!(%error, "could not retire lanes");
            }
        }
    }
}
