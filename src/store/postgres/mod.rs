//! The store in Postgres: system of record and fan-out bus.
//!
//! Everything is in schema `taskcast`. Four rooms: `write` (lanes, group
//! commit), `read` (a pool), `rollup` (full blocks of a log, summed up in
//! the background) and `wake` (NOTIFY and LISTEN). Nothing relies on session
//! state, so a transaction pooler may stand in between; the listener and
//! migrations then need a direct URL.

mod cleanup;
mod columns;
mod deliveries;
mod error;
pub mod migrate;
mod options;
mod primary;
mod query;
mod read;
mod rollup;
mod rows;
mod session;
mod settings;
mod short_logs;
mod snapshots;
mod wake;
mod write;

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::{Semaphore, oneshot};

pub use self::options::{ConnectError, PostgresOptions, default_lanes, is_on_this_machine};
use self::primary::Primary;
use self::rollup::RollupQueue;
use self::session::{Reads, Session};
use self::wake::PostgresBus;
use self::write::{Lane, LaneQueue, PostCommit, Request};
use super::report::Reporter;
use super::{CommitListener, Opened, Probe, Report, StoreError, StoreGauges, StorePart};
use crate::domain::TaskId;
use crate::supervisor::Supervisor;

/// Oldest Postgres that is supported, as it numbers itself.
const OLDEST_VERSION: i32 = 140_000;

/// Connections for reading, for each list that may be under way beside the
/// first: lists never keep readiness, streams and webhooks waiting.
const CONNECTIONS_PER_LIST: usize = 4;

/// How long a read waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// The store in Postgres.
pub(super) struct PostgresStore {
    reads: Reads,
    lanes: Vec<Arc<LaneQueue>>,
    hasher: BuildHasherDefault<DefaultHasher>,
    write_timeout: Duration,
    removal_delay: Duration,
    pruned: Pruned,
    /// Lists under way: fewer than there are connections.
    lists: Semaphore,
    reporter: Reporter,
    primary: Arc<Primary>,
}

/// Up to which time old rows are removed, Unix milliseconds: where the next
/// removal begins.
#[derive(Debug, Default)]
struct Pruned {
    keys: AtomicI64,
    /// By the code of the state.
    deliveries: [AtomicI64; 4],
}

impl PostgresStore {
    /// Returns when a caller stops waiting for a write.
    fn deadline(&self) -> Instant {
        Instant::now() + self.write_timeout
    }

    /// Hands a request to the lane of its task and waits for the answer.
    async fn submit<R>(
        &self,
        id: &TaskId,
        request: Request,
        answer: oneshot::Receiver<Result<R, StoreError>>,
    ) -> Result<R, StoreError> {
        // Lanes are few; the hash spreads tasks over them for good.
        let lane = self.hasher.hash_one(id) as usize % self.lanes.len();
        let pushed = self.lanes[lane].push(request);
        pushed.inspect_err(|error| self.reporter.failed(StorePart::Writer, error))?;
        let died = || StoreError::OutcomeUnknown("the writer ended".into());
        answer.await.unwrap_or_else(|_| Err(died()))
    }
}

/// Checks that a database can be used as it is.
async fn check(options: &PostgresOptions) -> Result<(), ConnectError> {
    let unreachable = |error: sqlx::Error| ConnectError::Unreachable(error.to_string());
    let (connect, route) = (options.connect_reads()?, options.route());
    let mut session = Session::connect_anywhere(&connect, route).await.map_err(unreachable)?;
    let server = sqlx::query_file!("sql/checks/server.sql")
        .fetch_one(&mut session)
        .await
        .map_err(unreachable)?;
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
    if server.is_read_only {
        return Err(ConnectError::ReadOnly);
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
    check(&options).await?;
    let (reporter, primary) = (Reporter::new(&listener), Arc::<Primary>::default());
    let reads = open_reads(&options, &reporter, &primary).await?;
    let full_blocks = Arc::new(RollupQueue::default());
    let post_commit = PostCommit::new(listener, full_blocks.clone());
    let lanes: Vec<_> =
        (0..options.lanes.max(1)).map(|_| LaneQueue::new(options.lane_bytes)).collect();
    for queue in &lanes {
        let (queue, post_commit, primary) = (queue.clone(), post_commit.clone(), primary.clone());
        let (connect, timeout) = (options.connect_lane()?, options.write_timeout);
        supervisor.run("lane", move || {
            let (post_commit, primary) = (post_commit.clone(), primary.clone());
            Lane::new(queue.clone(), connect.clone(), post_commit, timeout, route, primary).run()
        });
    }
    let (queue, rolling) = (full_blocks, reads.clone());
    supervisor.run("roll-up", move || rollup::run(queue.clone(), rolling.clone()));
    let (removing, delay) = (reads.clone(), options.removal_delay);
    supervisor.run("remove-superseded", move || rollup::run_removals(removing.clone(), delay));
    let (watching, watcher) = (reads.clone(), reporter.clone());
    supervisor.run("watch-snapshots", move || snapshots::watch(watching.clone(), watcher.clone()));
    let (connect, watched, asking) = (options.connect_reads()?, primary.clone(), reads.clone());
    supervisor.run("watch-primary", move || watched.clone().watch(asking.clone(), connect.clone()));
    let bus = open_bus(&options, supervisor, reporter.clone(), primary.clone())?;
    let (keeper, rescan) = (reads.clone(), bus.clone());
    supervisor.run("keep-lanes", move || {
        write::keep_lanes(post_commit.clone(), keeper.clone(), rescan.clone())
    });
    let pool = reads.pool().clone();
    let (queues, closing) = (lanes.clone(), pool.clone());
    reporter.report(&Report::Opened(Probe::new(move || look(&pool, &queues))));
    let store = PostgresStore {
        reads,
        lanes: lanes.clone(),
        hasher: BuildHasherDefault::default(),
        write_timeout: options.write_timeout,
        removal_delay: options.removal_delay,
        pruned: Pruned::default(),
        lists: Semaphore::new(options.read_connections as usize / CONNECTIONS_PER_LIST + 1),
        reporter,
        primary,
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

/// Opens the pool.
async fn open_reads(
    options: &PostgresOptions,
    reporter: &Reporter,
    primary: &Arc<Primary>,
) -> Result<Reads, ConnectError> {
    let pool = PgPoolOptions::new()
        .max_connections(options.read_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT);
    let (connect, route) = (options.connect_reads()?, options.route());
    Reads::connect(pool, connect, route, reporter.clone(), primary.clone())
        .await
        .map_err(|error| ConnectError::Unreachable(error.to_string()))
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
    primary: Arc<Primary>,
) -> Result<Arc<PostgresBus>, ConnectError> {
    let (bus, route) = (PostgresBus::new(reporter, primary), options.route());
    if options.listen {
        let (notifier, connect) = (bus.clone(), options.connect_notifier()?);
        supervisor.run("notifier", move || notifier.clone().notify_loop(connect.clone(), route));
        let (hearer, connect) = (bus.clone(), options.connect_listener()?);
        supervisor.run("listener", move || hearer.clone().listen_loop(connect.clone()));
    }
    Ok(bus)
}
