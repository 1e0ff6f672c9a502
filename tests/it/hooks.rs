//! Hooks of an embedding program: what they are told, and that nothing they
//! do does harm.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use taskcast::domain::{Json, NewTask, TaskError, TaskId, TaskStatus, Transition};
use taskcast::engine::WriteContext;
use taskcast::hooks::{
    BroadcastError, ErrorPlace, EventDropped, HookSet, Hooks, SseConnected, SseDisconnected,
    StorageError, TaskCreated, TaskFailed, TaskTimedOut, TaskTransitioned, UnhandledError,
};
use taskcast::http::CorsOptions;
use taskcast::server::{Service, ServiceOptions};
use taskcast::store::memory::MemoryStore;
use taskcast::store::postgres::PostgresOptions;
use taskcast::store::{Bus, BusHealth, Moved, Opened, StorageOptions, Wake};
use tower::ServiceExt as _;

use crate::support::{Backend, until, within};

/// Writes down in a line each what it is told, times apart.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn note(&self, line: String) {
        self.0.lock().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    async fn line(&self, beginning: &str) -> String {
        let find = || self.lines().into_iter().find(|line| line.starts_with(beginning));
        until(&format!("a note of {beginning}"), || async { find() }).await
    }
}

impl Hooks for Notes {
    fn task_created(&self, created: &TaskCreated) {
        assert!(created.at_ms > 1_700_000_000_000);
        let kind = created.task_type.as_deref().unwrap_or("-");
        self.note(format!("created {} {kind}", created.task));
    }

    fn task_transitioned(&self, step: &TaskTransitioned) {
        assert!(step.at_ms > 1_700_000_000_000);
        let from = step.from.map_or("-", TaskStatus::as_str);
        let kind = step.task_type.as_deref().unwrap_or("-");
        self.note(format!("moved {} {kind} {from} {}", step.task, step.to));
    }

    fn task_failed(&self, failed: &TaskFailed) {
        let (code, message) = (failed.code.as_deref(), failed.message.as_deref());
        self.note(format!("failed {} {code:?} {message:?}", failed.task));
    }

    fn task_timed_out(&self, timed_out: &TaskTimedOut) {
        self.note(format!("timed out {} {:?}", timed_out.task, timed_out.from));
    }

    fn event_dropped(&self, dropped: &EventDropped) {
        let task = dropped.task.as_ref().map_or("-", TaskId::as_str);
        self.note(format!("dropped {} {task}", dropped.reason.as_str()));
    }

    fn sse_connected(&self, connected: &SseConnected) {
        let task = connected.stream.task().map_or("-", TaskId::as_str);
        self.note(format!("connected {task} {}", connected.subscribers));
    }

    fn sse_disconnected(&self, gone: &SseDisconnected) {
        let task = gone.stream.task().map_or("-", TaskId::as_str);
        assert!(gone.duration < Duration::from_mins(1));
        self.note(format!("disconnected {task} {} {}", gone.subscribers, gone.reason.as_str()));
    }

    fn unhandled_error(&self, error: &UnhandledError) {
        let place = match &error.place {
            ErrorPlace::Request { method, route, .. } => format!("{method} {route}"),
            ErrorPlace::Loop(name) => format!("loop {name}"),
            _ => "elsewhere".to_owned(),
        };
        self.note(format!("unhandled {place} {} {:?}", error.is_panic, error.summary));
    }

    fn storage_error(&self, error: &StorageError) {
        self.note(format!("storage {} {}", error.part.as_str(), error.problem.as_str()));
    }

    fn broadcast_error(&self, error: &BroadcastError) {
        self.note(format!("broadcast {}", error.problem.as_str()));
    }
}

/// Panics whatever it is told.
struct Clumsy;

impl Hooks for Clumsy {
    fn task_created(&self, _: &TaskCreated) {
        panic!("clumsy");
    }

    fn task_transitioned(&self, _: &TaskTransitioned) {
        panic!("clumsy");
    }

    fn sse_connected(&self, _: &SseConnected) {
        panic!("clumsy");
    }

    fn sse_disconnected(&self, _: &SseDisconnected) {
        panic!("clumsy");
    }
}

/// A bus whose health may not be asked while it is upset.
#[derive(Debug, Default)]
struct MoodyBus(AtomicBool);

#[async_trait]
impl Bus for MoodyBus {
    fn announce(&self, _: &[Moved]) {}

    async fn next(&self) -> Wake {
        std::future::pending().await
    }

    fn health(&self) -> BusHealth {
        assert!(!self.0.load(Ordering::SeqCst), "upset");
        BusHealth::Local
    }

    fn restarts(&self) -> u64 {
        0
    }
}

fn telling(hooks: &Arc<Notes>) -> ServiceOptions {
    let hooks = HookSet::default().with(Arc::new(Clumsy)).with(hooks.clone());
    ServiceOptions { hooks, ..ServiceOptions::default() }
}

async fn on_memory(notes: &Arc<Notes>, max_bytes: usize, bus: Arc<MoodyBus>) -> Service {
    let started = Service::start(telling(notes), async |listener, _supervisor| {
        let store = Arc::new(MemoryStore::new(max_bytes, listener));
        Ok::<_, Infallible>(Opened::new("mine", store, bus))
    });
    match started.await {
        Ok(service) => service,
        Err(never) => match never {},
    }
}

async fn on(backend: &Backend, notes: &Arc<Notes>) -> Service {
    let storage = match backend {
        Backend::Memory => StorageOptions::Memory { max_bytes: 1 << 20 },
        Backend::Postgres(database) => {
            StorageOptions::Postgres(PostgresOptions::new(database.url()))
        }
    };
    Service::open(telling(notes), storage).await.unwrap()
}

async fn create(service: &Service, id: &str) {
    let task = NewTask { task_type: Some("llm".into()), ..NewTask::new(id_of(id)) };
    service.engine().create_task(task, None).await.unwrap();
}

fn id_of(id: &str) -> TaskId {
    TaskId::parse(id).unwrap()
}

async fn enter(service: &Service, id: &str, to: TaskStatus) {
    let step = Transition { to, result: None, error: None };
    service.engine().transition(&id_of(id), step, WriteContext::default()).await.unwrap();
}

fn router(service: &Service) -> Router {
    service.router(&CorsOptions::default())
}

async fn open_stream(router: &Router, path: &str) -> BodyDataStream {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().into_data_stream()
}

async fn a_life_is_told_of(backend: Backend) {
    let notes = Arc::new(Notes::default());
    let service = on(&backend, &notes).await;
    create(&service, "t").await;
    enter(&service, "t", TaskStatus::Running).await;
    let error = TaskError {
        code: Some("E1".into()),
        message: "no model".into(),
        details: Some(Json::from_valid("{\"secret\":1}")),
    };
    let failure = Transition { to: TaskStatus::Failed, result: None, error: Some(error) };
    service.engine().transition(&id_of("t"), failure, WriteContext::default()).await.unwrap();
    create(&service, "u").await;
    enter(&service, "u", TaskStatus::Timeout).await;
    let refused = Transition { to: TaskStatus::Running, result: None, error: None };
    service.engine().transition(&id_of("u"), refused, WriteContext::default()).await.unwrap_err();
    notes.line("timed out u").await;
    assert_eq!(
        notes.lines(),
        [
            "created t llm",
            "moved t llm pending running",
            "moved t llm running failed",
            "failed t Some(\"E1\") Some(\"no model\")",
            "created u llm",
            "moved u llm pending timeout",
            "timed out u Some(Pending)",
        ]
    );
    service.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_store_tells_of_every_step_of_a_life() {
    a_life_is_told_of(Backend::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_tells_of_every_step_of_a_life() {
    a_life_is_told_of(Backend::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_hangs_up_silences_nothing_and_only_the_writer_tells() {
    let backend = Backend::postgres().await;
    let (notes, others) = (Arc::new(Notes::default()), Arc::new(Notes::default()));
    let (service, other) = (on(&backend, &notes).await, on(&backend, &others).await);
    create(&service, "t").await;
    for to in [TaskStatus::Running, TaskStatus::Completed] {
        let step = Transition { to, result: None, error: None };
        let (engine, id) = (service.engine().clone(), id_of("t"));
        let mut call =
            Box::pin(async move { engine.transition(&id, step, WriteContext::default()).await });
        // Asked, and not waited for.
        assert!(futures_util::poll!(&mut call).is_pending());
        drop(call);
        notes
            .line(&format!(
                "moved t llm {} {to}",
                if to.is_terminal() { "running" } else { "pending" }
            ))
            .await;
    }
    create(&other, "u").await;
    others.line("created u").await;
    assert_eq!(others.lines(), ["created u llm"]);
    assert_eq!(notes.lines().len(), 3, "{:?}", notes.lines());
    service.stop(Duration::from_secs(5)).await;
    other.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_told_of_from_beginning_to_end() {
    let notes = Arc::new(Notes::default());
    let service = on(&Backend::Memory, &notes).await;
    let router = router(&service);
    create(&service, "t").await;
    enter(&service, "t", TaskStatus::Running).await;

    let first = open_stream(&router, "/tasks/t/events").await;
    let mut second = open_stream(&router, "/tasks/t/events").await;
    let all = open_stream(&router, "/events").await;
    drop(first);
    drop(all);
    enter(&service, "t", TaskStatus::Completed).await;
    within("the stream ends", async { while second.next().await.is_some() {} }).await;
    drop(second);
    create(&service, "u").await;
    let mut drained = open_stream(&router, "/tasks/u/events").await;
    service.drain();
    within("the stream ends", async { while drained.next().await.is_some() {} }).await;
    drop(drained);
    let told: Vec<_> =
        notes.lines().into_iter().filter(|line| line.contains("connected")).collect();
    assert_eq!(
        told,
        [
            "connected t 1",
            "connected t 2",
            "connected - 1",
            "disconnected t 1 left",
            "disconnected - 0 left",
            "disconnected t 0 done",
            "connected u 1",
            "disconnected u 0 drained",
        ]
    );
    service.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_request_or_a_loop_is_told_of_and_the_service_goes_on() {
    let (notes, bus) = (Arc::new(Notes::default()), Arc::new(MoodyBus::default()));
    let service = on_memory(&notes, 1 << 20, bus.clone()).await;
    let router = router(&service);
    bus.0.store(true, Ordering::SeqCst);
    let request = Request::get("/health/ready").body(Body::empty()).unwrap();
    let status = router.clone().oneshot(request).await.unwrap().status();
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        notes.line("unhandled GET").await,
        "unhandled GET /health/ready true Some(\"upset\")"
    );
    notes.line("unhandled loop pump").await;
    bus.0.store(false, Ordering::SeqCst);
    create(&service, "t").await;
    enter(&service, "t", TaskStatus::Running).await;
    let mut stream = open_stream(&router, "/tasks/t/events").await;
    within("a frame", stream.next()).await.unwrap().unwrap();
    service.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_memory_store_gives_up_or_refuses_is_told_of() {
    let notes = Arc::new(Notes::default());
    let service = on_memory(&notes, 5_000, Arc::default()).await;
    for n in 0..10 {
        let id = format!("t{n}");
        create(&service, &id).await;
        enter(&service, &id, TaskStatus::Running).await;
        enter(&service, &id, TaskStatus::Completed).await;
    }
    assert_eq!(notes.line("dropped").await, "dropped evicted t0");
    for n in 0..20 {
        let task = NewTask::new(id_of(&format!("open{n}")));
        if service.engine().create_task(task, None).await.is_err() {
            break;
        }
    }
    assert_eq!(notes.line("storage").await, "storage writer full");
    service.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone_is_told_of() {
    let notes = Arc::new(Notes::default());
    let backend = Backend::postgres().await;
    let service = on(&backend, &notes).await;
    create(&service, "t").await;
    let Backend::Postgres(database) = &backend else { panic!("it is in Postgres") };
    until("the listener listens", || async {
        (service.dispatcher().bus_health() == BusHealth::Healthy).then_some(())
    })
    .await;
    database.shut_out().await;
    notes.line("broadcast listener_lost").await;
    service.engine().find_task(&id_of("t")).await.unwrap_err();
    notes.line("storage reader unavailable").await;
    let step = Transition { to: TaskStatus::Running, result: None, error: None };
    service.engine().transition(&id_of("t"), step, WriteContext::default()).await.unwrap_err();
    notes.line("storage writer").await;
    database.let_in().await;
    service.stop(Duration::from_secs(5)).await;
}
