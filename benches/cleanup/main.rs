//! What writers notice of cleanup.
//!
//! Writers publish single events to tasks of their own at a steady pace, first
//! while nothing else happens, then while cleanup rules remove the logs of
//! finished tasks, then while they remove whole tasks. The table shows how long
//! a publish took in each phase and what was removed meanwhile. On Postgres, the
//! same follows for many small tasks, which shows how many tasks a second are
//! cleaned, deleted and purged; it fails below [`SMALL_RATE`].
//!
//! `cargo bench --bench cleanup [-- --events N]` prints it for the memory store
//! and for Postgres. A private Postgres that flushes like any other is made of
//! the binaries of this machine and removed afterwards;
//! `TASKCAST_BENCH_POSTGRES_URL` names another database to use. It fails when
//! something that is due was not removed.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

#[path = "../support/rig.rs"]
#[expect(dead_code, reason = "what the benches share is more than this one needs")]
mod rig;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use futures_util::future::{join_all, try_join_all};
use sqlx::Connection as _;
use taskcast::dispatcher::{HistoryRequest, OpenedHistory};
use taskcast::domain::{
    CleanupRule, Cursor, EventDraft, Filter, Json, Level, NewTask, TaskId, TaskStatus, Transition,
};
use taskcast::engine::{Engine, WriteContext};
use taskcast::local_postgres::Durability;
use taskcast::server::{Service, ServiceOptions};
use taskcast::store::StorageOptions;
use tokio::time::MissedTickBehavior;

use crate::rig::Database;

/// Writers, each with a task of its own.
const WRITERS: usize = 16;

/// Time from one publish of a writer to its next. Writers that go as fast as
/// they can would measure the store at its limit, and fill the one in memory.
const PACE: Duration = Duration::from_millis(5);

/// Events of each finished task.
const EVENTS_PER_TASK: usize = 1_000;

/// Events of each small task, its two changes of status apart.
const SMALL_EVENTS: usize = 3;

/// Small tasks that are cleaned or purged in a second, at least.
const SMALL_RATE: f64 = 2_000.0;

/// How long the phase without cleanup lasts.
const QUIET: Duration = Duration::from_secs(5);

/// Longest wait for cleanup to be done.
const PATIENCE: Duration = Duration::from_mins(3);

/// Bytes the memory store may hold; nothing here comes near it.
const MEMORY_BYTES: usize = 4 << 30;

/// What to run.
#[derive(Debug, Parser)]
struct Options {
    /// Events of finished tasks that cleanup removes, in all.
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    /// Small tasks that cleanup removes; 0 for none.
    #[arg(long, default_value_t = 20_000)]
    small_tasks: usize,
    /// A database to use instead of a private one.
    #[arg(long, env = "TASKCAST_BENCH_POSTGRES_URL", hide_env_values = true)]
    postgres_url: Option<String>,
    /// Passed by cargo to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    println!(
        "{WRITERS} writers, one event each {PACE:?}, {} events of finished tasks to remove\n",
        options.events
    );
    println!(
        "{:<9} {:<18} {:>9} {:>9} {:>9} {:>9}   {:>8} {:>7}",
        "store", "phase", "publishes", "p50", "p99", "slowest", "removed", "within"
    );
    let memory = StorageOptions::Memory { max_bytes: MEMORY_BYTES };
    measure("memory", &memory, options.events).await?;
    let database = Database::prepare(options.postgres_url.as_deref(), Durability::Durable).await?;
    // The private server is stopped and removed however the run ends.
    let storage = database.storage();
    let measured = async {
        measure("postgres", &storage, options.events).await?;
        measure_small(&database, options.small_tasks).await
    };
    let outcome = tokio::select! {
        outcome = measured => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("the interrupt signal cannot be awaited")
                .and_then(|()| bail!("interrupted"))
        }
    };
    database.remove().await?;
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rule(text: &str) -> anyhow::Result<CleanupRule> {
    Ok(serde_json::from_str(text)?)
}

/// Runs the three phases on one store.
async fn measure(name: &str, storage: &StorageOptions, events: usize) -> anyhow::Result<()> {
    let options = ServiceOptions {
        cleanup: vec![
            rule(r#"{"target":"events","match":{"taskTypes":["events"]}}"#)?,
            rule(r#"{"target":"task","match":{"taskTypes":["task"]}}"#)?,
        ],
        ..ServiceOptions::default()
    };
    let service = Service::open(options, storage.clone()).await?;
    let engine = service.engine().clone();
    let quiet = write_while(&engine, tokio::time::sleep(QUIET)).await?;
    report(name, "no cleanup", quiet.0, 0, QUIET);
    for (phase, task_type) in [("removing events", "events"), ("removing tasks", "task")] {
        let ids = fill(&engine, task_type, events / EVENTS_PER_TASK).await?;
        let began = Instant::now();
        let cleaned = async {
            finish(&engine, &ids).await?;
            wait_until_cleaned(&service, &ids, task_type).await
        };
        let (times, outcome) = write_while(&engine, cleaned).await?;
        outcome?;
        report(name, phase, times, ids.len() * EVENTS_PER_TASK, began.elapsed());
    }
    service.stop(Duration::from_secs(5)).await;
    Ok(())
}

async fn create(engine: &Engine, task_type: &str) -> anyhow::Result<TaskId> {
    let id = TaskId::from_parts(0, rand::random());
    let task = NewTask { task_type: Some(task_type.into()), ..NewTask::new(id.clone()) };
    engine.create_task(task, None).await?;
    enter(engine, &id, TaskStatus::Running).await?;
    Ok(id)
}

async fn enter(engine: &Engine, id: &TaskId, to: TaskStatus) -> anyhow::Result<()> {
    let step = Transition { to, result: None, error: None };
    engine.transition(id, step, WriteContext::default()).await?;
    Ok(())
}

fn event() -> EventDraft {
    EventDraft {
        event_type: "llm.delta".into(),
        level: Level::Info,
        data: Json::from_valid(r#"{"text":"some words of an answer"}"#),
        series: None,
    }
}

/// Makes running tasks with full logs.
async fn fill(engine: &Engine, task_type: &str, tasks: usize) -> anyhow::Result<Vec<TaskId>> {
    let mut ids = Vec::with_capacity(tasks);
    for _ in 0..tasks {
        let id = create(engine, task_type).await?;
        let events = vec![event(); EVENTS_PER_TASK];
        engine.publish(&id, events, WriteContext::default()).await?;
        ids.push(id);
    }
    Ok(ids)
}

async fn finish(engine: &Engine, ids: &[TaskId]) -> anyhow::Result<()> {
    try_join_all(ids.iter().map(|id| enter(engine, id, TaskStatus::Completed))).await?;
    Ok(())
}

/// Waits until nothing is left that the rules name.
async fn wait_until_cleaned(
    service: &Service,
    ids: &[TaskId],
    task_type: &str,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for id in ids {
        while !is_cleaned(service, id, task_type).await? {
            ensure!(Instant::now() < deadline, "cleanup was not done in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

async fn is_cleaned(service: &Service, id: &TaskId, task_type: &str) -> anyhow::Result<bool> {
    if task_type == "task" {
        return Ok(service.engine().find_task(id).await?.is_none());
    }
    let request = HistoryRequest {
        task: id.clone(),
        filter: Filter::default(),
        cursor: Cursor::default(),
        limit: 1,
        accumulated: false,
        guard: None,
    };
    match service.dispatcher().history(request).await? {
        Some(OpenedHistory::History(mut history)) => Ok(history.read().await?.is_empty()),
        Some(OpenedHistory::Denied(_)) | None => bail!("a finished task is gone"),
    }
}

/// Publishes from every writer until `work` is done; returns how long each took.
async fn write_while<T>(
    engine: &Engine,
    work: impl Future<Output = T>,
) -> anyhow::Result<(Vec<Duration>, T)> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::with_capacity(WRITERS);
    for _ in 0..WRITERS {
        let (engine, stop) = (engine.clone(), stop.clone());
        let id = create(&engine, "writer").await?;
        writers.push(tokio::spawn(async move {
            let mut times = Vec::new();
            let mut pace = tokio::time::interval(PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !stop.load(Ordering::Relaxed) {
                pace.tick().await;
                let began = Instant::now();
                engine.publish(&id, vec![event()], WriteContext::default()).await?;
                times.push(began.elapsed());
            }
            Ok::<_, anyhow::Error>(times)
        }));
    }
    let outcome = work.await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for writer in join_all(writers).await {
        times.extend(writer??);
    }
    Ok((times, outcome))
}

fn report(store: &str, phase: &str, mut times: Vec<Duration>, removed: usize, took: Duration) {
    times.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "positions in a list of a few million"
        )]
        let position = (times.len() as f64 * share) as usize;
        let time = times.get(position.min(times.len().saturating_sub(1)));
        time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    println!(
        "{store:<9} {phase:<18} {:>9} {:>6.2} ms {:>6.2} ms {:>6.1} ms   {removed:>8} {:>5.1} s",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        took.as_secs_f64()
    );
}

/// Counts what is left of small tasks.
async fn count(database: &Database, statement: &'static str) -> anyhow::Result<i64> {
    let mut connection = database.connect().await?;
    let count = sqlx::query_scalar(statement).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(count)
}

/// Waits until `statement` counts nothing any more; returns how many went in a
/// second, from when the first of them did.
async fn rate(database: &Database, statement: &'static str) -> anyhow::Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    let all = count(database, statement).await?;
    let (mut began, mut before) = (Instant::now(), all);
    loop {
        ensure!(Instant::now() < deadline, "cleanup was not done in time: {statement}");
        let left = count(database, statement).await?;
        if left == 0 {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand tasks")]
            return Ok(before as f64 / began.elapsed().as_secs_f64());
        }
        if left == all {
            (began, before) = (Instant::now(), left);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const WITH_EVENTS: &str = "SELECT count(*) FROM taskcast.cleanup";
const NOT_DELETED: &str =
    "SELECT count(*) FROM taskcast.task WHERE type = 'small-task' AND deleted_at IS NULL";
const NOT_PURGED: &str = "SELECT count(*) FROM taskcast.task WHERE deleted_at IS NOT NULL";

/// Cleans, deletes and purges small tasks; tells whether that was fast enough.
async fn measure_small(database: &Database, tasks: usize) -> anyhow::Result<bool> {
    if tasks == 0 {
        return Ok(true);
    }
    let options = ServiceOptions {
        cleanup: vec![
            rule(r#"{"target":"events","match":{"taskTypes":["small-events"]}}"#)?,
            rule(r#"{"target":"task","match":{"taskTypes":["small-task"]}}"#)?,
        ],
        ..ServiceOptions::default()
    };
    let service = Service::open(options, database.storage()).await?;
    let engine = service.engine().clone();
    println!("\n{tasks} small tasks of {} events", SMALL_EVENTS + 2);
    let mut is_fast = true;
    let phases: [(&str, &[(&str, &'static str)]); 2] = [
        ("small-events", &[("events removed", WITH_EVENTS)]),
        ("small-task", &[("tasks deleted", NOT_DELETED), ("tasks purged", NOT_PURGED)]),
    ];
    for (task_type, steps) in phases {
        for chunk in vec![(); tasks].chunks(200) {
            let small = async |()| {
                let id = create(&engine, task_type).await?;
                let events = vec![event(); SMALL_EVENTS];
                engine.publish(&id, events, WriteContext::default()).await?;
                enter(&engine, &id, TaskStatus::Completed).await
            };
            try_join_all(chunk.iter().map(|()| small(()))).await?;
        }
        let rates = async {
            let mut rates = Vec::new();
            for (name, statement) in steps {
                rates.push((*name, rate(database, statement).await?));
            }
            anyhow::Ok(rates)
        };
        let (times, rates) = write_while(&engine, rates).await?;
        for (name, rate) in rates? {
            is_fast &= rate >= SMALL_RATE;
            println!("{name:<18} {rate:>9.0} tasks/s (at least {SMALL_RATE})");
        }
        report("postgres", task_type, times, tasks, Duration::ZERO);
    }
    service.stop(Duration::from_secs(5)).await;
    Ok(is_fast)
}
