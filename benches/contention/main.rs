//! Two instances that write to the same tasks, and a cancel from afar.
//!
//! `cargo bench --bench contention` measures, on a private Postgres that flushes
//! like any other: one instance whose producers publish single events to 50
//! tasks as fast as they can; two instances that do so to the same 50 tasks; and
//! how long it takes to cancel a task that one instance writes to flat out from
//! another whose every reply of the database takes 5 ms. It checks that every
//! log holds what was accepted without a gap, and fails when two instances
//! together do less than half of one, one of them less than a third of both, or
//! a cancel takes longer than 100 ms.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

mod delay;
#[path = "../support/rig.rs"]
#[expect(dead_code, reason = "what the benches share is more than this one needs")]
mod rig;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use futures_util::future::try_join_all;
use taskcast::domain::{
    Append, AppendRules, Change, EventDraft, Json, Level, NewTask, TaskId, TaskStatus, Transition,
};
use taskcast::local_postgres::Durability;
use taskcast::store::postgres::PostgresOptions;
use taskcast::store::{Appended, StorageOptions, Store};

use crate::delay::Delay;
use crate::rig::{Database, Instance};

/// Tasks that everybody writes to.
const TASKS: usize = 50;

/// Producers of each instance, each on the tasks in turn.
const PRODUCERS: usize = 50;

/// How much later each reply of the database arrives at the far instance.
const DISTANCE: Duration = Duration::from_millis(5);

/// Longest time that a cancel from afar may take.
const CANCEL: Duration = Duration::from_millis(100);

/// Cancels that are measured.
const CANCELS: usize = 20;

/// What to run.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds that each load lasts.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Passed by cargo to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let database = Database::prepare(None, Durability::Durable).await?;
    // The private server is stopped and removed however the run ends.
    let outcome = tokio::select! {
        outcome = measure(&database, Duration::from_secs(options.seconds)) => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("the interrupt signal cannot be awaited")
                .and_then(|()| bail!("interrupted"))
        }
    };
    database.remove().await?;
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs everything; tells whether all of it is within its bounds.
async fn measure(database: &Database, time: Duration) -> anyhow::Result<bool> {
    let alone = load(database, 1, time).await?[0];
    let both = load(database, 2, time).await?;
    let together: f64 = both.iter().sum();
    let least = both.iter().copied().fold(f64::INFINITY, f64::min);
    println!("one instance alone      {alone:>9.0} events/s");
    println!(
        "two on the same tasks   {together:>9.0} events/s, {:.2} of one alone (at least 0.50)",
        together / alone
    );
    println!("  the slower of the two {least:>9.0} events/s, {:.2} of both", least / together);
    let mut cancels = cancels(database).await?;
    cancels.sort_unstable();
    let (p50, slowest) = (cancels[CANCELS / 2], cancels[CANCELS - 1]);
    println!(
        "cancel from {DISTANCE:?} away  p50 {:.1} ms, slowest {:.1} ms (at most {CANCEL:?})",
        p50.as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3
    );
    Ok(together >= alone / 2.0 && least >= together / 3.0 && slowest <= CANCEL)
}

fn event() -> EventDraft {
    let data = Json::from_valid(r#"{"text":"an event of some forty bytes"}"#);
    EventDraft { event_type: "n".into(), level: Level::Info, data, series: None }
}

async fn append(store: &dyn Store, task: &TaskId, change: Change) -> anyhow::Result<Appended> {
    let rules = Arc::new(AppendRules::default());
    let append = Append { task: task.clone(), change, rules, guard: None, key: None };
    Ok(store.append(append).await?)
}

async fn running_task(store: &dyn Store) -> anyhow::Result<TaskId> {
    let id = TaskId::from_parts(0, rand::random());
    store.create(NewTask::new(id.clone()), None).await?;
    append(store, &id, Change::Transition(Transition::to(TaskStatus::Running))).await?;
    Ok(id)
}

/// Publishes from so many instances to the same tasks; returns the rate of each.
async fn load(database: &Database, count: usize, time: Duration) -> anyhow::Result<Vec<f64>> {
    let mut instances = Vec::new();
    for _ in 0..count {
        instances.push(Instance::open(database.storage()).await?);
    }
    let tasks: Vec<TaskId> =
        try_join_all((0..TASKS).map(|_| running_task(&*instances[0].store))).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let counts: Vec<Arc<AtomicU64>> = (0..count).map(|_| Arc::default()).collect();
    let mut producers = Vec::new();
    for (instance, stored) in instances.iter().zip(&counts) {
        for producer in 0..PRODUCERS {
            let (store, stored, stop) = (instance.store.clone(), stored.clone(), stop.clone());
            let tasks = tasks.clone();
            producers.push(tokio::spawn(async move {
                let mut turn = producer;
                while !stop.load(Ordering::Relaxed) {
                    let task = &tasks[turn % tasks.len()];
                    turn += 1;
                    let appended = append(&*store, task, Change::Publish(vec![event()])).await?;
                    ensure!(appended.is_stored(), "an append came to {appended:?}");
                    stored.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let began = Instant::now();
    tokio::time::sleep(time).await;
    let took = began.elapsed().as_secs_f64();
    let after: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    stop.store(true, Ordering::Relaxed);
    for producer in try_join_all(producers).await? {
        producer?;
    }
    let stored: u64 = counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    check_logs(database, &tasks, stored).await?;
    for instance in instances {
        instance.close().await;
    }
    let rate = |before: &u64, after: u64| {
        f64::from(u32::try_from(after - before).unwrap_or(u32::MAX)) / took
    };
    Ok(before.iter().zip(after).map(|(before, after)| rate(before, after)).collect())
}

/// Checks that the logs hold `stored` events and the starts, without a gap.
async fn check_logs(database: &Database, tasks: &[TaskId], stored: u64) -> anyhow::Result<()> {
    let ids: Vec<String> = tasks.iter().map(ToString::to_string).collect();
    let (rows, ends): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(l.rows), 0)::bigint, coalesce(sum(l.ends), 0)::bigint FROM (
             SELECT count(*) AS rows, max(e.index) + 1 AS ends
             FROM taskcast.task t JOIN taskcast.event e ON e.task = t.number
             WHERE t.id = ANY ($1) GROUP BY t.number
         ) l",
    )
    .bind(&ids)
    .fetch_one(&mut database.connect().await?)
    .await?;
    let expected = i64::try_from(stored)? + i64::try_from(tasks.len())?;
    ensure!(rows == expected && ends == expected, "{rows} rows, {ends} indexes, {expected} stored");
    Ok(())
}

/// Cancels tasks from afar that are written to flat out; returns how long each took.
async fn cancels(database: &Database) -> anyhow::Result<Vec<Duration>> {
    let near = Instance::open(database.storage()).await?;
    let delay = Delay::start(database.url(), DISTANCE).await?;
    let far = Instance::open(StorageOptions::Postgres(PostgresOptions::new(delay.url()))).await?;
    let mut times = Vec::new();
    // One more than counts: the far instance has connected and prepared its
    // statements before.
    for _ in 0..=CANCELS {
        let id = running_task(&*near.store).await?;
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let (store, id) = (near.store.clone(), id.clone());
                tokio::spawn(async move {
                    loop {
                        let change = Change::Publish(vec![event()]);
                        if !append(&*store, &id, change).await?.is_stored() {
                            return anyhow::Ok(());
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        let cancel = Change::Transition(Transition::to(TaskStatus::Cancelled));
        let appended = append(&*far.store, &id, cancel).await?;
        times.push(began.elapsed());
        ensure!(appended.is_stored(), "the cancel came to {appended:?}");
        for writer in try_join_all(writers).await? {
            writer?;
        }
    }
    near.close().await;
    far.close().await;
    times.remove(0);
    Ok(times)
}
