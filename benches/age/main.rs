//! Whether a task that grows old grows slow.
//!
//! For every series mode, in memory and in Postgres, this compares how long a
//! single append takes on a running task of ten events and on the same task
//! when it holds a million. Then it opens streams near the end of the old
//! tasks and lets Postgres count the rows it read for them.
//!
//! `cargo bench --bench age [-- --events N]` prints two tables and fails when
//! an append takes more than [`MAX_RATIO`] times as long on the old task as on
//! the young one, or a stream reads more than [`MAX_ROWS`] rows.
//!
//! A private Postgres is made of the binaries of this machine and removed
//! afterwards. It flushes nothing, because waiting for a disk would hide the
//! very cost that is looked for. `TASKCAST_BENCH_POSTGRES_URL` names another
//! database to use, one that nobody else works in: it is migrated, and the
//! tasks made here stay in it.
//!
//! Machines are not equally fast all the time. So each append to the task
//! under test is followed by one to a task that was just made; the medians of
//! those are the control. A machine that slowed down shows in their drift and
//! is not excused; one that sped up hides nothing, because the old task is
//! held to [`MAX_RATIO`] against its control as well.
#![expect(clippy::print_stdout, reason = "the tables are what this program is for")]

#[path = "../support/rig.rs"]
#[expect(dead_code, reason = "what the benches share is more than this one needs")]
mod rig;
mod rows;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use taskcast::domain::{
    Append, AppendRules, BLOCK_LEN, Change, EventDraft, FAN_OUT, Json, Level, NewTask, SeriesMode,
    SeriesTag, TaskId, TaskStatus, Transition,
};
use taskcast::engine::Limits;
use taskcast::local_postgres::Durability;
use taskcast::store::{Created, StorageOptions, Store, TaskRef};

use crate::rig::{Database, Instance};
use crate::rows::StreamReads;

/// How many times longer an append may take on the old task.
const MAX_RATIO: f64 = 1.5;

/// Most rows one stream may read to catch up, whatever the age of its task.
///
/// The end of the log that is not summed up yet is shorter than a block. A
/// stream reads it as a page, looks up the series of each of its events where
/// the mode is `latest`, and reads it once more to count what its filter
/// passes. All that is summed up costs it less than a fan-out of nodes or
/// pieces per height, and a few rows say where task and series stand.
const MAX_ROWS: i64 = (3 * BLOCK_LEN + 4 * FAN_OUT).cast_signed();

/// Events of the task under test when it is young.
const YOUNG: u64 = 10;

/// Single appends of one measurement.
const APPENDS: u64 = 1_000;

/// Events of one request while the task grows.
const REQUEST: u64 = 500;

/// Bytes the memory store may hold; nothing here comes near it.
const MEMORY_BYTES: usize = 16 << 30;

/// The kinds of task: what series its events belong to, if any.
const MODES: [Option<SeriesMode>; 4] =
    [None, Some(SeriesMode::KeepAll), Some(SeriesMode::Latest), Some(SeriesMode::Accumulate)];

/// What to run.
#[derive(Debug, Parser)]
struct Options {
    /// Events of each task when it is old.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(5_000..))]
    events: u64,
    /// A database to use instead of a private one.
    #[arg(long, env = "TASKCAST_BENCH_POSTGRES_URL", hide_env_values = true)]
    postgres_url: Option<String>,
    /// Passed by cargo to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn name_of(mode: Option<SeriesMode>) -> &'static str {
    mode.map_or("no series", SeriesMode::as_str)
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let database =
        Database::prepare(options.postgres_url.as_deref(), Durability::Disposable).await?;
    // The private server is stopped and removed however the run ends.
    let outcome = tokio::select! {
        outcome = run(options.events, &database) => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("the interrupt signal cannot be awaited")
                .and_then(|()| bail!("interrupted"))
        }
    };
    database.remove().await?;
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures everything; tells whether it stayed within bounds.
async fn run(events: u64, database: &Database) -> anyhow::Result<bool> {
    println!("median of {APPENDS} single appends, young at {YOUNG} events, old at {events}\n");
    println!(
        "{:<9} {:<11} {:>9} {:>9} {:>6}   {:>9} {:>9} {:>6}",
        "store", "mode", "young", "old", "ratio", "control", "control", "drift"
    );
    let memory = Instance::open(StorageOptions::Memory { max_bytes: MEMORY_BYTES }).await?;
    let mut is_good = true;
    for mode in MODES {
        is_good &= measure_age("memory", &memory, None, mode, events).await?.1;
    }
    memory.close().await;

    let postgres = Instance::open(database.storage()).await?;
    let mut tasks = Vec::new();
    for mode in MODES {
        let (task, is_steady) =
            measure_age("postgres", &postgres, Some(database), mode, events).await?;
        is_good &= is_steady;
        tasks.push((mode, task));
    }
    postgres.close().await;

    println!("\nrows read to catch up at {events} events, at most {MAX_ROWS}\n");
    println!(
        "{:<16} {:<11} {:>6} {:>6} {:>8}   rows by table",
        "stream", "mode", "events", "rows", "entries"
    );
    for (mode, task) in tasks {
        // Of the other modes every event is left, and a late join reads them all.
        if matches!(mode, Some(SeriesMode::Accumulate | SeriesMode::Latest)) {
            let reads = rows::late_join(database, &task, mode).await?;
            is_good &= report_reads("late join", mode, &reads);
        }
        let reads = rows::filtered_resume(database, &task, mode).await?;
        is_good &= report_reads("filtered resume", mode, &reads);
    }
    println!("\n{}", if is_good { "within bounds" } else { "out of bounds" });
    Ok(is_good)
}

/// Prints what a stream read; tells whether it was little.
fn report_reads(stream: &str, mode: Option<SeriesMode>, reads: &StreamReads) -> bool {
    let (rows, entries) = (reads.rows(), reads.entries());
    // Entries of replaced events are passed over until Postgres has removed
    // them, which it does in its own time; those of other modes all count.
    let is_good = rows <= MAX_ROWS && (mode == Some(SeriesMode::Latest) || entries <= MAX_ROWS);
    println!(
        "{stream:<16} {:<11} {:>6} {rows:>6} {entries:>8}   {}{}",
        name_of(mode),
        reads.events,
        reads.by_table(),
        if is_good { "" } else { "   TOO MANY" }
    );
    is_good
}

/// Measures one mode on one store; returns the old task and whether its
/// appends took about as long as the young one's.
async fn measure_age(
    store_name: &str,
    instance: &Instance,
    database: Option<&Database>,
    mode: Option<SeriesMode>,
    events: u64,
) -> anyhow::Result<(TaskRef, bool)> {
    let store = &*instance.store;
    warm_up(store, mode).await?;
    let mut task = Writer::create(store, mode).await?;
    task.publish(YOUNG).await?;
    let young = measure(&mut task, &mut Writer::create(store, mode).await?).await?;
    while task.published < events {
        task.publish(REQUEST.min(events - task.published)).await?;
    }
    // The work of the fill is done before the end is measured.
    task.await_sums(database).await?;
    let old = measure(&mut task, &mut Writer::create(store, mode).await?).await?;
    task.await_sums(database).await?;

    let ratio = old.task.as_secs_f64() / young.task.as_secs_f64();
    let drift = old.control.as_secs_f64() / young.control.as_secs_f64();
    let beside_control = old.task.as_secs_f64() / old.control.as_secs_f64();
    let is_steady = ratio.max(beside_control) <= MAX_RATIO;
    println!(
        "{store_name:<9} {:<11} {} {} {ratio:>6.2}   {} {} {drift:>6.2}{}",
        name_of(mode),
        micros(young.task),
        micros(old.task),
        micros(young.control),
        micros(old.control),
        if is_steady { "" } else { "   TOO SLOW" }
    );
    Ok((task.task, is_steady))
}

fn micros(time: Duration) -> String {
    format!("{:>6.1} µs", time.as_secs_f64() * 1e6)
}

/// Appends to tasks nobody looks at, so that connections, plans and caches of
/// every writer lane are there before anything is timed.
async fn warm_up(store: &dyn Store, mode: Option<SeriesMode>) -> anyhow::Result<()> {
    for _ in 0..8 {
        let mut task = Writer::create(store, mode).await?;
        for _ in 0..100 {
            task.publish(1).await?;
        }
    }
    Ok(())
}

/// Medians of one measurement.
struct Medians {
    task: Duration,
    control: Duration,
}

/// Times single appends to a task and, in turn, to its control.
async fn measure(task: &mut Writer<'_>, control: &mut Writer<'_>) -> anyhow::Result<Medians> {
    let (mut of_task, mut of_control) = (Vec::new(), Vec::new());
    for _ in 0..APPENDS {
        of_task.push(task.publish(1).await?);
        of_control.push(control.publish(1).await?);
    }
    Ok(Medians { task: median(of_task), control: median(of_control) })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Publishes to one running task.
struct Writer<'a> {
    store: &'a dyn Store,
    mode: Option<SeriesMode>,
    task: TaskRef,
    published: u64,
}

impl<'a> Writer<'a> {
    async fn create(store: &'a dyn Store, mode: Option<SeriesMode>) -> anyhow::Result<Self> {
        let task = NewTask::new(TaskId::from_parts(0, rand::random()));
        let Created::New(task) = store.create(task, None).await? else {
            bail!("an id was made twice")
        };
        let task = TaskRef { id: task.spec.id, number: task.number };
        let writer = Self { store, mode, task, published: 0 };
        let start = Transition { to: TaskStatus::Running, result: None, error: None };
        writer.append(Change::Transition(start)).await?;
        Ok(writer)
    }

    /// Publishes events in one request; returns how long it took.
    async fn publish(&mut self, count: u64) -> anyhow::Result<Duration> {
        let numbers = self.published..self.published + count;
        let events = numbers.map(|number| event(self.mode, number)).collect();
        let began = Instant::now();
        self.append(Change::Publish(events)).await?;
        self.published += count;
        Ok(began.elapsed())
    }

    async fn append(&self, change: Change) -> anyhow::Result<()> {
        let series_text_limit = Limits::default().series_text_bytes;
        let rules = Arc::new(AppendRules { series_text_limit, ..AppendRules::default() });
        let append = Append { task: self.task.id.clone(), change, rules, guard: None, key: None };
        let appended = self.store.append(append).await?;
        ensure!(appended.is_stored(), "an append came to {appended:?}");
        Ok(())
    }

    /// Waits until every full block of the log is summed up, where that is
    /// done in the background.
    async fn await_sums(&self, database: Option<&Database>) -> anyhow::Result<()> {
        let Some(database) = database else { return Ok(()) };
        // The status event that started the task counts too.
        let blocks = (self.published + 1) / BLOCK_LEN;
        rows::await_blocks(database, self.task.number, blocks).await
    }
}

/// Makes an event of a mode; all of them are of one size.
fn event(mode: Option<SeriesMode>, number: u64) -> EventDraft {
    let tag = |mode| SeriesTag { id: "answer".into(), mode: Some(mode), field: None };
    EventDraft {
        event_type: "llm.delta".into(),
        level: Level::Info,
        data: Json::from_valid(&format!(r#"{{"text":"{}"}}"#, text_of(number))),
        series: mode.map(tag),
    }
}

/// Returns the text of an event.
fn text_of(number: u64) -> String {
    format!("{:04}", number % 10_000)
}
