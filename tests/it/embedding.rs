//! The library inside somebody else's program: their bus, their router.

use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use futures_util::StreamExt as _;
use serde_json::Value;
use taskcast::dispatcher::{Entry, FeedRequest, FollowError, HistoryRequest, Item, StreamRequest};
use taskcast::domain::{
    EventDraft, Json, Level, NewTask, SeriesMode, TaskId, TaskStatus, Transition,
};
use taskcast::engine::{WriteContext, fresh_task_id};
use taskcast::http::CorsOptions;
use taskcast::server::{Service, ServiceOptions};
use taskcast::store::memory::MemoryStore;
use taskcast::store::{Bus, BusHealth, Moved, Opened, Wake};
use tower::ServiceExt as _;

use crate::support::server::PROGRAM;
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
        let store = Arc::new(MemoryStore::new(1 << 20, listener));
        Ok::<_, Infallible>(Opened::new("mine", store, bus))
    });
    match started.await {
        Ok(service) => service,
        Err(never) => match never {},
    }
}

fn task(id: &str) -> NewTask {
    NewTask::new(TaskId::parse(id).unwrap())
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
    let router = Router::new().nest("/progress", service.router(&CorsOptions::default()));
    service.engine().create_task(task("t"), None).await.unwrap();

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
    let id = service.engine().create_task(task("t"), None).await.unwrap().outcome.spec.id;
    let stream = service.dispatcher().follow(StreamRequest::new(id.clone())).await.unwrap();

    let (engine, context) = (service.engine(), WriteContext::default);
    engine.transition(&id, Transition::to(TaskStatus::Running), context()).await.unwrap();
    let note = |data| EventDraft::new("note", Json::parse(data).unwrap()).unwrap();
    engine.publish(&id, vec![note("[1, 2]")], context()).await.unwrap();
    engine.transition(&id, Transition::to(TaskStatus::Completed), context()).await.unwrap();

    let items: Vec<_> = within("the stream ends", stream.collect()).await;
    let seen: Vec<String> = items
        .into_iter()
        .map(|item| match item.unwrap() {
            Item::Event(entry) => entry.event().draft.data.as_str().to_owned(),
            Item::Done(status, _) => status.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        seen,
        [r#"{"status":"running"}"#, "[1,2]", r#"{"status":"completed"}"#, "completed"]
    );
    assert_eq!(bus.0.load(Ordering::SeqCst), 3);
    service.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn streams_of_all_tasks_and_histories_are_async_streams_too() {
    let service = start(Arc::default()).await;
    let (engine, context) = (service.engine(), WriteContext::default);
    let feed = service.dispatcher().follow_all(FeedRequest::default()).await.unwrap();
    let id = fresh_task_id();
    engine.create_task(NewTask::new(id.clone()), None).await.unwrap();
    let delta = |text: &str| {
        let data = Json::of(&serde_json::json!({ "text": text })).unwrap();
        let event = EventDraft::new("delta", data).unwrap().at_level(Level::Debug);
        event.in_series("s", SeriesMode::Accumulate)
    };
    engine.publish(&id, vec![delta("a"), delta("b")], context()).await.unwrap();

    let heard: Vec<_> = within("two events arrive", feed.take(2).collect()).await;
    let heard: Vec<_> = heard.into_iter().map(Result::unwrap).collect();
    assert!(heard.iter().all(|item| item.event().task == id));
    assert_eq!(heard[1].filtered_index, 1);

    for (accumulated, expected) in
        [(false, vec![r#"{"text":"a"}"#, r#"{"text":"b"}"#]), (true, vec![r#"{"text":"ab"}"#])]
    {
        let request = HistoryRequest { accumulated, ..HistoryRequest::new(id.clone()) };
        let history = service.dispatcher().stream_history(request).await.unwrap();
        let events: Vec<_> = history.map(Result::unwrap).collect().await;
        let data: Vec<_> = events.iter().map(|found| found.event.draft.data.as_str()).collect();
        assert_eq!(data, expected);
    }
    service.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_reader_that_stops_anywhere_goes_on_from_there_with_nothing_lost() {
    let service = start(Arc::default()).await;
    let (engine, context) = (service.engine(), WriteContext::default);
    let id = fresh_task_id();
    engine.create_task(NewTask::new(id.clone()), None).await.unwrap();
    engine.transition(&id, Transition::to(TaskStatus::Running), context()).await.unwrap();
    for n in 0..12 {
        let data = Json::of(&serde_json::json!({ "text": n.to_string() })).unwrap();
        let event = EventDraft::new("piece", data).unwrap();
        let event = if n % 3 == 0 { event } else { event.in_series("s", SeriesMode::Accumulate) };
        engine.publish(&id, vec![event], context()).await.unwrap();
    }
    engine.transition(&id, Transition::to(TaskStatus::Completed), context()).await.unwrap();

    let follow = async |request| {
        let stream = service.dispatcher().follow(request).await.unwrap();
        let items: Vec<_> = within("the stream ends", stream.collect()).await;
        let entry = |item: Result<Item, _>| match item.unwrap() {
            Item::Event(entry) => Some(entry),
            _ => None,
        };
        items.into_iter().filter_map(entry).collect::<Vec<Entry>>()
    };
    let whole = follow(StreamRequest::new(id.clone())).await;
    let said = |entry: &Entry| (entry.resume_id().to_string(), entry.event().draft.data.clone());
    let expected: Vec<_> = whole.iter().map(said).collect();
    assert!(expected.iter().any(|(id, _)| id.contains('~')), "{expected:?}");
    for cut in 1..=whole.len() {
        let last_event_id = Some(whole[cut - 1].resume_id().to_string());
        let rest = follow(StreamRequest { last_event_id, ..StreamRequest::new(id.clone()) }).await;
        let joined: Vec<_> = whole[..cut].iter().chain(&rest).map(said).collect();
        assert_eq!(joined, expected, "cut after {cut}");
    }
    service.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn what_cannot_be_followed_or_published_says_so() {
    let service = start(Arc::default()).await;
    let request = StreamRequest::new(fresh_task_id());
    let refused = service.dispatcher().follow(request).await.err();
    assert!(matches!(refused, Some(FollowError::NoSuchTask)), "{refused:?}");
    for wrong in ["", "a,b", "a.*", "taskcast:status", "line\nbreak"] {
        assert!(EventDraft::new(wrong, Json::null()).is_err(), "{wrong:?}");
    }
    service.stop(Duration::from_secs(1)).await;
}

#[test]
fn the_example_runs_by_itself() {
    // Examples are built beside the program, and with the tests.
    let example = Path::new(PROGRAM).with_file_name("examples").join("embedded");
    let output = Command::new(&example).env_clear().output().unwrap_or_else(|error| {
        panic!("{}: {error}; build it with: cargo build --example embedded", example.display())
    });
    let written = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{written}{}", String::from_utf8_lossy(&output.stderr));
    for expected in [
        r#"1: report.text {"text":"Sales "}"#,
        r#"4: taskcast:status {"status":"completed","result":{"pages":1}}"#,
        "the task is completed",
        "200 OK for ada",
        r#""data":{"text":"Sales went up."}"#,
        "(hook) report-of-ada is completed",
        "404 Not Found for bob",
        "401 Unauthorized for a stranger",
        "stopped",
    ] {
        assert!(written.contains(expected), "{expected} is missing in:\n{written}");
    }
}
