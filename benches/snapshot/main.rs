//! What publishing costs while another session holds an old snapshot.
//!
//! `pg_dump`, an analyst's REPEATABLE READ and a stale replication slot all keep
//! row versions from being vacuumed. `cargo bench --bench snapshot` holds such a
//! snapshot for five minutes, while events are published at a steady rate to 20
//! tasks, and deltas of `accumulate` series to 20 others. It prints rate and
//! latency of each minute, and fails when the last minute has less than 0.9 of
//! the first one's rate or more than 1.5 times its p50.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

#[path = "../support/rig.rs"]
#[expect(dead_code, reason = "what the benches share is more than this one needs")]
mod rig;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use futures_util::future::try_join_all;
use sqlx::Executor as _;
use taskcast::domain::{
    Append, AppendRules, Change, EventDraft, Json, Level, NewTask, SeriesMode, SeriesTag, TaskId,
    TaskStatus, Transition,
};
use taskcast::local_postgres::Durability;
use taskcast::store::Store;
use tokio::time::{MissedTickBehavior, interval};

use crate::rig::{Database, Instance};

/// Tasks of each kind, each with a producer.
const TASKS: u32 = 20;

/// Lowest rate of the last part, as a share of the first one's.
const LEAST_RATE: f64 = 0.9;

/// Highest p50 of the last part, as a multiple of the first one's.
const MOST_P50: f64 = 1.5;

/// What to run.
#[derive(Debug, Parser)]
struct Options {
    /// Parts of equal length.
    #[arg(long, default_value_t = 5)]
    parts: usize,
    /// Seconds of each part.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Events per second of each kind, over all its tasks.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Passed by cargo to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Delta,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let database = Database::prepare(None, Durability::Durable).await?;
    // The private server is stopped and removed however the run ends.
    let outcome = tokio::select! {
        outcome = measure(&database, &options) => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("the interrupt signal cannot be awaited")
                .and_then(|()| bail!("interrupted"))
        }
    };
    database.remove().await?;
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Publishes under a held snapshot; tells whether it stayed as it was.
async fn measure(database: &Database, options: &Options) -> anyhow::Result<bool> {
    let instance = Instance::open(database.storage()).await?;
    let mut holder = database.connect().await?;
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    holder.execute("SELECT count(*) FROM taskcast.event").await?;
    let length = Duration::from_secs(options.seconds);
    let pace = Duration::from_secs(1) * TASKS / options.rate;
    let begin = Instant::now();
    let mut producers = Vec::new();
    for kind in [Kind::Plain, Kind::Delta] {
        for _ in 0..TASKS {
            let store = instance.store.clone();
            let parts = options.parts;
            producers.push(tokio::spawn(async move {
                Ok::<_, anyhow::Error>((
                    kind,
                    produce(&*store, kind, pace, begin, length, parts).await?,
                ))
            }));
        }
    }
    let mut times: Vec<[Vec<Duration>; 2]> = vec![Default::default(); options.parts];
    for produced in try_join_all(producers).await? {
        let (kind, parts) = produced?;
        for (sum, part) in times.iter_mut().zip(parts) {
            sum[kind as usize].extend(part);
        }
    }
    holder.execute("ROLLBACK").await?;
    instance.close().await;
    Ok(report(&mut times, length))
}

fn report(times: &mut [[Vec<Duration>; 2]], length: Duration) -> bool {
    println!("{:<8} {:>5} {:>10} {:>9} {:>9}", "kind", "part", "events/s", "p50", "p99");
    let mut is_good = true;
    for kind in [Kind::Plain, Kind::Delta] {
        let mut found = Vec::new();
        for (part, times) in times.iter_mut().enumerate() {
            let times = &mut times[kind as usize];
            times.sort_unstable();
            let at = |share: usize| {
                times.get(times.len() * share / 100).copied().unwrap_or_default().as_secs_f64()
            };
            let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
            let rate = f64::from(count) / length.as_secs_f64();
            let (p50, p99) = (at(50), at(99));
            let name = format!("{kind:?}").to_lowercase();
            println!(
                "{name:<8} {:>5} {rate:>10.0} {:>6.2} ms {:>6.2} ms",
                part + 1,
                p50 * 1e3,
                p99 * 1e3
            );
            found.push((rate, p50));
        }
        if let (Some(first), Some(last)) = (found.first(), found.last()) {
            is_good &= last.0 >= LEAST_RATE * first.0 && last.1 <= MOST_P50 * first.1;
        }
    }
    is_good
}

/// Publishes to one task at a steady pace; returns how long each event took, by part.
async fn produce(
    store: &dyn Store,
    kind: Kind,
    pace: Duration,
    begin: Instant,
    length: Duration,
    parts: usize,
) -> anyhow::Result<Vec<Vec<Duration>>> {
    let id = TaskId::from_parts(0, rand::random());
    store.create(NewTask::new(id.clone()), None).await?;
    append(store, &id, Change::Transition(Transition::to(TaskStatus::Running))).await?;
    let mut times = vec![Vec::new(); parts];
    let mut tick = interval(pace);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let part = (begin.elapsed().as_millis() / length.as_millis()) as usize;
        let Some(part) = times.get_mut(part) else { return Ok(times) };
        let began = Instant::now();
        append(store, &id, Change::Publish(vec![event(kind)])).await?;
        part.push(began.elapsed());
    }
}

fn event(kind: Kind) -> EventDraft {
    let series = (kind == Kind::Delta).then(|| SeriesTag {
        id: "answer".into(),
        mode: Some(SeriesMode::Accumulate),
        field: None,
    });
    let data = Json::from_valid(r#"{"text":"a token or two"}"#);
    EventDraft { event_type: "llm.delta".into(), level: Level::Info, data, series }
}

async fn append(store: &dyn Store, task: &TaskId, change: Change) -> anyhow::Result<()> {
    let rules = Arc::new(AppendRules { series_text_limit: 1 << 30, ..AppendRules::default() });
    let append = Append { task: task.clone(), change, rules, guard: None, key: None };
    let appended = store.append(append).await?;
    ensure!(appended.is_stored(), "an append came to {appended:?}");
    Ok(())
}
