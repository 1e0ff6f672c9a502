//! The library inside somebody else's program: their bus, their router.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::Value;
use taskcast::dispatcher::{Item, OpenedStream, StreamRequest};
use taskcast::domain::{
    Cursor, EventDraft, Filter, Json, Level, NewTask, TaskId, TaskStatus, Transition,
};
use taskcast::http::{CorsOptions, CorsOrigins};
use taskcast::server::{Service, ServiceOptions};
use taskcast::store::memory::MemoryStore;
use taskcast::store::{Bus, BusHealth, Moved, Opened, Wake};
use tower::ServiceExt as _;

use crate::support::within;

/// A bus of the embedding program: it counts what it is told.
#[derive(Debug, Default)]
struct CountingBus(AtomicU64);

#[async_trait]
impl Bus for CountingBus {
    fn announce(&self, moved: &[Moved]) {
        self.0.fetch_add(moved.len() as u64, Ordering::SeqCst);
    }

    async fn next(&self) -> Wake {
        std::future::pending().await
    }

    fn health(&self) -> BusHealth {
        BusHealth::Local
    }

    fn restarts(&self) -> u64 {
        0
    }
}

async fn start(bus: Arc<CountingBus>) -> Service {
    let started = Service::start(ServiceOptions::default(), async |listener, _supervisor| {
        Ok::<_, Infallible>(Opened {
            provider: "mine",
            store: Arc::new(MemoryStore::new(1 << 20, listener)),
            bus,
            poll_interval: Duration::from_secs(1),
            closer: Box::new(|| Box::pin(std::future::ready(()))),
        })
    });
    match started.await {
        Ok(service) => service,
        Err(never) => match never {},
    }
}

fn task(id: &str) -> NewTask {
    let (task_type, params, metadata, tags, ttl_seconds) = (None, None, None, None, None);
    NewTask { id: TaskId::parse(id).unwrap(), task_type, params, metadata, tags, ttl_seconds }
}

async fn ask(router: &Router, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_program_mounts_the_routes_under_its_own_prefix() {
    let service = start(Arc::default()).await;
    let cors = CorsOptions { origins: CorsOrigins::None };
    let router = Router::new().nest("/progress", service.router(&cors));
    service.engine().create_task(task("t")).await.unwrap();

    let (status, found) = ask(&router, "/progress/tasks/t").await;
    assert_eq!((status, &found["status"]), (StatusCode::OK, &Value::from("pending")));
    let (status, _) = ask(&router, "/progress/tasks/none").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, detail) = ask(&router, "/progress/health/detail").await;
    assert_eq!(detail["adapters"]["shortTermStore"]["provider"], "mine");
    service.stop(Duration::from_secs(1)).await;
    let (status, _) = ask(&router, "/progress/health/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn tasks_are_run_and_followed_without_http_and_a_bus_of_ones_own_hears_of_it() {
    let bus = Arc::new(CountingBus::default());
    let service = start(bus.clone()).await;
    let id = service.engine().create_task(task("t")).await.unwrap().spec.id;
    let request = StreamRequest {
        task: id.clone(),
        filter: Filter::default(),
        last_event_id: None,
        cursor: Cursor::default(),
        limit: None,
        accumulated: false,
    };
    let opened = service.dispatcher().subscribe(request).await.unwrap().unwrap();
    let OpenedStream::Stream(mut stream) = opened else { panic!("the task has not ended") };

    let step = |to| Transition { to, result: None, error: None };
    service.engine().transition(&id, step(TaskStatus::Running)).await.unwrap();
    let event = EventDraft {
        event_type: "note".into(),
        level: Level::Info,
        data: Json::from_valid("[1, 2]"),
        series: None,
    };
    service.engine().publish(&id, vec![event]).await.unwrap();
    service.engine().transition(&id, step(TaskStatus::Completed)).await.unwrap();

    let mut seen = Vec::new();
    within("the stream ends", async {
        loop {
            let batch = stream.read().await.unwrap();
            for item in batch.items {
                seen.push(match item {
                    Item::Event(entry) => entry.slot.event.draft.data.as_str().to_owned(),
                    Item::Done(status, _) => status.to_string(),
                    other => panic!("{other:?}"),
                });
            }
            if batch.is_last {
                return;
            }
            if batch.is_caught_up {
                stream.wait().await;
            }
        }
    })
    .await;
    assert_eq!(
        seen,
        [r#"{"status":"running"}"#, "[1,2]", r#"{"status":"completed"}"#, "completed"]
    );
    assert_eq!(bus.0.load(Ordering::SeqCst), 3);
    service.stop(Duration::from_secs(1)).await;
}
