//! Lists of many tasks, and readers with long filters.
//!
//! `cargo bench --bench lists [-- --tasks N]` fills a private Postgres with a
//! million tasks. Eight clients then ask for pages of 50 by every filter, alone
//! and combined, at the top of the list and far down. The table shows p50 and
//! p99, how many tasks a page held, and fails where p99 is over [`P99`].
//!
//! Then it publishes at a steady pace, in turns alone and beside readers of all
//! tasks with filters of 100 names that nothing matches, who list by such
//! filters as well. It fails when publishing beside them takes more than
//! [`SLOWER`] times as long at the median of all turns, or readiness fails.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

#[path = "../support/rig.rs"]
#[expect(dead_code, reason = "what the benches share is more than this one needs")]
mod rig;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use clap::Parser;
use futures_util::future::join_all;
use sqlx::Connection as _;
use taskcast::dispatcher::{Dispatcher, FeedRequest};
use taskcast::domain::{EventDraft, Filter, Json, NewTask, TaskId, TypePattern};
use taskcast::engine::{Engine, WriteContext};
use taskcast::http::CorsOptions;
use taskcast::local_postgres::Durability;
use taskcast::server::{Service, ServiceOptions};
use tower::ServiceExt as _;

use crate::rig::Database;

/// Clients that list at the same time.
const CLIENTS: usize = 8;

/// Pages that each of them asks for, of each list.
const PAGES: usize = 60;

/// Longest time in which 99 of 100 pages are answered.
const P99: Duration = Duration::from_millis(50);

/// Readers with hostile filters.
const HOSTILE: usize = 100;

/// Turns of publishing, each without them and beside them.
const TURNS: usize = 9;

/// Publishes of one turn, and the time from one to the next.
const PUBLISHES: usize = 400;
const PACE: Duration = Duration::from_millis(2);

/// How much longer a publish may take beside hostile readers.
const SLOWER: f64 = 1.1;

/// What to run.
#[derive(Debug, Parser)]
struct Options {
    /// Tasks to list.
    #[arg(long, default_value_t = 1_000_000)]
    tasks: i64,
    /// A database to use instead of a private one.
    #[arg(long, env = "TASKCAST_BENCH_POSTGRES_URL", hide_env_values = true)]
    postgres_url: Option<String>,
    /// Passed by cargo to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Types of several kinds, tags, and states as a service that runs for long has
/// them: most tasks are done.
const FILL: &str = "
    WITH fresh AS (
        INSERT INTO taskcast.task (id, nonce, type, tags, params, created_at)
        SELECT
            'task-' || n, n,
            CASE
                WHEN n % 50000 = 7 THEN 'rare'
                WHEN n % 5 = 0 THEN 'order.' || n
                WHEN n % 5 = 1 THEN NULL
                ELSE 'llm.' || n % 7
            END,
            CASE
                WHEN n % 4 = 0 THEN NULL
                WHEN n % 50000 = 9 THEN ARRAY['rare']
                ELSE ARRAY['tenant-' || n % 1000, 'half-' || n % 2]
            END,
            '{\"prompt\":\"' || repeat('some words of a question ', 10) || '\"}',
            n
        FROM generate_series(1, $1::bigint) n
        RETURNING number, tags, created_at
    ),
    tagged AS (
        INSERT INTO taskcast.task_tag (tag, task)
        SELECT unnest(f.tags), f.number FROM fresh f
    )
    INSERT INTO taskcast.head (task, status, updated_at)
    SELECT
        f.number,
        CASE WHEN f.created_at % 1000 = 3 THEN 1 WHEN f.created_at % 50 = 11 THEN 3 ELSE 2 END,
        0
    FROM fresh f";

/// Lists, by what they are asked for.
const LISTS: [&str; 16] = [
    "",
    "status=completed",
    "status=running",
    "status=failed,running",
    "status=cancelled",
    "type=llm.3",
    "type=rare",
    "type=llm.*",
    "type=order.*",
    "tag=tenant-77",
    "tag=half-1",
    "tag=rare",
    "tag=tenant-77&tag=half-1",
    "status=failed&type=llm.*",
    "type=llm.*&tag=half-1",
    "status=failed&type=llm.*&tag=half-1",
];

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let database = Database::prepare(options.postgres_url.as_deref(), Durability::Durable).await?;
    // The private server is stopped and removed however the run ends.
    let outcome = tokio::select! {
        outcome = measure(&database, options.tasks) => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("the interrupt signal cannot be awaited")
                .and_then(|()| bail!("interrupted"))
        }
    };
    database.remove().await?;
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs everything; tells whether all of it is within its bounds.
async fn measure(database: &Database, tasks: i64) -> anyhow::Result<bool> {
    let mut connection = database.connect().await?;
    let began = Instant::now();
    sqlx::query(FILL).bind(tasks).execute(&mut connection).await?;
    sqlx::query("VACUUM ANALYZE").execute(&mut connection).await?;
    connection.close().await?;
    println!("{tasks} tasks in {:.0} s\n", began.elapsed().as_secs_f64());
    let service = Service::open(ServiceOptions::default(), database.storage()).await?;
    let router = service.router(&CorsOptions::default());
    println!(
        "{:<40} {:>10} {:>10} {:>12}",
        "list, at the top and far down", "p50", "p99", "tasks/page"
    );
    let mut is_within = true;
    for list in LISTS {
        is_within &= measure_list(&router, list, tasks).await?;
    }
    is_within &= publish_beside_hostile(&service, &router).await?;
    service.stop(Duration::from_secs(5)).await;
    Ok(is_within)
}

async fn get(router: &Router, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let request = Request::get(path).body(Body::empty())?;
    let response = router.clone().oneshot(request).await?;
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await?;
    Ok((status, String::from_utf8(body.to_vec())?))
}

fn milliseconds(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "positions in a list of a few thousand"
    )]
    let position = (times.len() as f64 * share) as usize;
    let time = times.get(position.min(times.len().saturating_sub(1)));
    time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// Lists by one client, every other page far down the list; returns how long
/// each page took, and how many tasks there were.
async fn list_pages(
    router: Router,
    list: String,
    client: usize,
    tasks: i64,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    let (mut times, mut found) = (Vec::with_capacity(PAGES), 0);
    for page in 0..PAGES {
        let tenths = i64::try_from(page % 2 * (client + 1))?;
        let below = tasks - tenths * (tasks / 10) + 1;
        let path = format!("/tasks?limit=50&cursor=a{below:x}&{list}");
        let began = Instant::now();
        let (status, body) = get(&router, &path).await?;
        times.push(began.elapsed());
        ensure!(status == StatusCode::OK, "{path}: {status} {body}");
        found += body.matches("\"createdAt\"").count();
    }
    Ok((times, found))
}

/// Lists by all clients.
async fn measure_list(router: &Router, list: &str, tasks: i64) -> anyhow::Result<bool> {
    let client = |client: usize| {
        let (router, list) = (router.clone(), list.to_owned());
        tokio::spawn(list_pages(router, list, client, tasks))
    };
    let mut all = Vec::with_capacity(CLIENTS);
    for client in (0..CLIENTS).map(client).collect::<Vec<_>>() {
        all.push(client.await??);
    }
    let found: usize = all.iter().map(|(_, found)| found).sum();
    let mut times: Vec<Duration> = all.into_iter().flat_map(|(times, _)| times).collect();
    let (p50, p99) = (milliseconds(&mut times, 0.5), milliseconds(&mut times, 0.99));
    println!("{list:<40} {p50:>7.2} ms {p99:>7.2} ms {:>12}", found / times.len());
    Ok(p99 <= P99.as_secs_f64() * 1e3)
}

fn event() -> anyhow::Result<EventDraft> {
    Ok(EventDraft::new("llm.delta", Json::from_valid(r#"{"text":"some words"}"#))?)
}

/// Publishes for one turn; returns how long each took.
async fn publish(engine: &Engine, task: &TaskId) -> anyhow::Result<Vec<Duration>> {
    let mut pace = tokio::time::interval(PACE);
    let mut times = Vec::with_capacity(PUBLISHES);
    for _ in 0..PUBLISHES {
        pace.tick().await;
        let began = Instant::now();
        engine.publish(task, vec![event()?], WriteContext::default()).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Reads all tasks by a filter of 100 names, and now and then lists by them,
/// until told to stop.
async fn hostile(
    dispatcher: Arc<Dispatcher>,
    router: Router,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let names: Vec<String> = (0..100).map(|n| format!("{}{n}.*", "x".repeat(200))).collect();
    let types = names.iter().map(|name| TypePattern::parse(name)).collect::<Result<_, _>>()?;
    let filter = Filter { types, ..Filter::default() };
    let request = FeedRequest { filter, guard: None };
    let mut reader = dispatcher.subscribe_all(request).await?;
    let path = format!("/tasks?type={}", names.join(","));
    let mut listed = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let waited = tokio::time::timeout(Duration::from_millis(100), reader.wait()).await;
        if waited.is_ok() {
            let items = reader.read(64 << 10)?;
            ensure!(items.is_empty(), "nothing has such a type");
        }
        if listed.elapsed() > Duration::from_secs(10) {
            listed = Instant::now();
            let (status, _) = get(&router, &path).await?;
            let is_told = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
            ensure!(is_told, "{status}");
        }
    }
    Ok(())
}

async fn publish_beside_hostile(service: &Service, router: &Router) -> anyhow::Result<bool> {
    let engine = service.engine();
    let task = engine.create_task(NewTask::new(TaskId::from_parts(0, rand::random())), None);
    let task = task.await?.outcome.spec.id;
    let (mut ratios, mut not_ready) = (Vec::with_capacity(TURNS), 0);
    for _ in 0..TURNS {
        let mut alone = publish(engine, &task).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let reader = |_| {
            let dispatcher = service.dispatcher().clone();
            tokio::spawn(hostile(dispatcher, router.clone(), stop.clone()))
        };
        let readers: Vec<_> = (0..HOSTILE).map(reader).collect();
        let times = publish(engine, &task).await;
        let ready = get(router, "/health/ready").await;
        stop.store(true, Ordering::Relaxed);
        for reader in join_all(readers).await {
            reader??;
        }
        let (mut beside, ready) = (times?, ready?.0);
        not_ready += usize::from(ready != StatusCode::OK);
        ratios.push(milliseconds(&mut beside, 0.5) / milliseconds(&mut alone, 0.5));
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[TURNS / 2];
    println!(
        "\npublishing beside {HOSTILE} hostile readers: {median:.2} times as long \
         (at most {SLOWER}), not ready {not_ready} of {TURNS} times"
    );
    Ok(median <= SLOWER && not_ready == 0)
}
