//! A service inside another program.
//!
//! The program has a web server, users and a notion of who they are. It mounts
//! the routes under `/progress`, lets its own code say who is calling, hears of
//! what happens, and creates, moves and follows tasks as Rust calls. Everything is in memory:
//! `cargo run --example embedded` needs nothing else.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use futures_util::stream::{BoxStream, StreamExt as _};
use serde_json::{Map, json};
use taskcast::auth::{AuthError, AuthMode, Authenticate, Credentials};
use taskcast::dispatcher::{Item, StreamRequest};
use taskcast::domain::{
    EventDraft, Json, NewTask, Principal, Scope, SeriesMode, TaskGrant, TaskId, TaskStatus,
    Transition,
};
use taskcast::engine::{Engine, WriteContext, fresh_task_id};
use taskcast::hooks::{HookSet, Hooks, TaskTransitioned};
use taskcast::http::CorsOptions;
use taskcast::server::{Service, ServiceOptions};
use taskcast::store::{StorageOptions, StoreError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How this program knows its users: by a session cookie, say. Here a header
/// stands for it.
#[derive(Debug)]
struct Sessions;

#[async_trait]
impl Authenticate for Sessions {
    fn mode(&self) -> AuthMode {
        AuthMode::Custom
    }

    async fn authenticate(&self, request: &Credentials<'_>) -> Result<Arc<Principal>, AuthError> {
        let user = request.headers.get("x-user").ok_or(AuthError::Missing)?;
        let user = user.to_str().map_err(|_| AuthError::Malformed)?;
        // Users may watch their own task, and nothing else.
        let task = TaskId::parse(&format!("report-of-{user}")).map_err(|_| AuthError::Invalid)?;
        Ok(Arc::new(Principal {
            subject: Some(user.into()),
            scopes: vec![Scope::EventSubscribe],
            tasks: TaskGrant::Only(vec![task]),
            claims: Map::new(),
            expires_at_ms: None,
        }))
    }

    fn recheck_every(&self) -> Option<Duration> {
        Some(Duration::from_mins(1))
    }
}

/// How this program hears of what happens, with HTTP or without.
struct Printer;

impl Hooks for Printer {
    fn task_transitioned(&self, transitioned: &TaskTransitioned) {
        println!("  (hook) {} is {}", transitioned.task, transitioned.to);
    }
}

/// What this program does for a living: something that takes a while.
async fn write_report(engine: Engine, id: TaskId) -> Result<(), Box<dyn Error + Send + Sync>> {
    engine.transition(&id, Transition::to(TaskStatus::Running), WriteContext::default()).await?;
    for piece in ["Sales ", "went ", "up."] {
        let event = EventDraft::new("report.text", Json::of(&json!({ "text": piece }))?)?
            .in_series("text", SeriesMode::Accumulate);
        engine.publish(&id, vec![event], WriteContext::default()).await?;
    }
    let done = Transition::to(TaskStatus::Completed).with_result(Json::of(&json!({"pages": 1}))?);
    engine.transition(&id, done, WriteContext::default()).await?;
    Ok(())
}

/// Prints what a reader inside of this program is told.
async fn watch(mut stream: BoxStream<'static, Result<Item, StoreError>>) -> Result<(), StoreError> {
    while let Some(item) = stream.next().await {
        match item? {
            Item::Event(entry) => {
                let (event, number) = (&entry.event().draft, entry.filtered_index);
                println!("  {number}: {} {}", event.event_type, event.data.as_str());
            }
            Item::Done(status, _) => println!("  the task is {status}"),
            Item::Deleted => println!("  the task is gone"),
            Item::Reset => {}
        }
    }
    Ok(())
}

/// Asks this program's own server, and prints what it answers.
async fn ask(server: SocketAddr, path: &str, user: Option<&str>) -> io::Result<()> {
    let header = user.map(|user| format!("x-user: {user}\r\n")).unwrap_or_default();
    let mut socket = TcpStream::connect(server).await?;
    socket.write_all(format!("GET {path} HTTP/1.0\r\n{header}\r\n").as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or_default();
    println!("  {status} for {}", user.unwrap_or("a stranger"));
    // Of a stream the data lines, of anything else nothing.
    for line in answer.lines().filter(|line| line.starts_with("data:")) {
        println!("    {line}");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let options = ServiceOptions {
        authenticator: Arc::new(Sessions),
        hooks: HookSet::default().with(Arc::new(Printer)),
        ..ServiceOptions::default()
    };
    let storage = StorageOptions::Memory { max_bytes: 64 << 20 };
    let service = Service::open(options, storage).await?;

    // The routes of the service, beside those the program has anyway.
    let router = Router::new()
        .route("/", get(|| async { "the program itself" }))
        .nest("/progress", service.router(&CorsOptions::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let server =
        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());

    println!("a task without HTTP, and a reader who was there from the start");
    let id = fresh_task_id();
    service.engine().create_task(NewTask::new(id.clone()), None).await?;
    let stream = service.dispatcher().follow(StreamRequest::new(id.clone())).await?;
    let work = tokio::spawn(write_report(service.engine().clone(), id));
    watch(stream).await?;
    work.await??;

    println!("ada's task over HTTP, for readers who come late");
    let id = TaskId::parse("report-of-ada")?;
    service.engine().create_task(NewTask::new(id.clone()), None).await?;
    write_report(service.engine().clone(), id).await?;
    let stream = "/progress/tasks/report-of-ada/events?types=report.*";
    for user in [Some("ada"), Some("bob"), None] {
        ask(address, stream, user).await?;
    }

    // Streams end, then connections, then the loops behind them.
    service.drain();
    stop.cancel();
    server.await??;
    service.stop(Duration::from_secs(5)).await;
    println!("stopped");
    Ok(())
}
