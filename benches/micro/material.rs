//! What is measured with: events as a language model sends them, and a service
//! in memory.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use taskcast::domain::{
    Event, EventDraft, Json, NewTask, SeriesMode, TaskId, TaskNumber, TaskStatus, Transition,
};
use taskcast::engine::WriteContext;
use taskcast::http::CorsOptions;
use taskcast::server::{Service, ServiceOptions};
use taskcast::store::StorageOptions;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

/// When every event here happened, in Unix milliseconds.
pub(crate) const TIMESTAMP_MS: u64 = 1_790_000_000_000;

/// A piece of text in an object, as models stream it.
pub(crate) const DELTA: &str = r#"{"text":" and then the next few words"}"#;

/// A tool call: nested, with numbers and an escape.
pub(crate) const TOOL_CALL: &str = r#"{"call":{"name":"search","id":"call_0193","arguments":{"query":"rows \"per\" second","limit":20,"site":["a.example","b.example"],"exact":true}},"usage":{"input":1042,"output":37,"cost":0.00231},"text":null}"#;

/// Payloads that a measurement is repeated for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload {
    Delta,
    ToolCall,
}

impl Payload {
    pub(crate) const ALL: [Self; 2] = [Self::Delta, Self::ToolCall];

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Delta => DELTA,
            Self::ToolCall => TOOL_CALL,
        }
    }
}

/// Bytes the memory store may hold; nothing here comes near it.
const MEMORY_BYTES: usize = 8 << 30;

/// Largest answer that is read.
const ANSWER_BYTES: usize = 64 << 20;

/// Makes an event of no series.
pub(crate) fn plain(data: &str) -> EventDraft {
    EventDraft::new("llm.delta", Json::from_valid(data)).unwrap()
}

/// Makes a delta of the one `accumulate` series.
pub(crate) fn delta() -> EventDraft {
    plain(DELTA).in_series("answer", SeriesMode::Accumulate)
}

/// Puts an event into a log.
pub(crate) fn logged(index: u64, draft: EventDraft) -> Event {
    Event {
        task: TaskId::from_parts(TIMESTAMP_MS, 77),
        number: TaskNumber::new(4_211).unwrap(),
        index,
        timestamp_ms: TIMESTAMP_MS,
        draft,
    }
}

/// A service in memory with one running task.
pub(crate) struct Served {
    runtime: Runtime,
    service: Service,
    router: Router,
    task: TaskId,
}

impl Served {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let storage = StorageOptions::Memory { max_bytes: MEMORY_BYTES };
        let service = runtime.block_on(Service::open(ServiceOptions::default(), storage)).unwrap();
        let router = service.router(&CorsOptions::default());
        let task = TaskId::from_parts(TIMESTAMP_MS, 1);
        let served = Self { runtime, service, router, task };
        let new = NewTask::new(served.task.clone());
        served.runtime.block_on(served.service.engine().create_task(new, None)).unwrap();
        served.enter(TaskStatus::Running);
        served
    }

    /// Moves the task to a state.
    pub(crate) fn enter(&self, status: TaskStatus) {
        let engine = self.service.engine();
        let moved = engine.transition(&self.task, Transition::to(status), WriteContext::default());
        self.runtime.block_on(moved).unwrap();
    }

    /// Publishes events as an embedding program does.
    pub(crate) fn publish(&self, events: Vec<EventDraft>) {
        let published = self.service.engine().publish(&self.task, events, WriteContext::default());
        self.runtime.block_on(published).unwrap();
    }

    /// Sends a body to the task's events, as a backend does.
    pub(crate) fn post(&self, body: String) {
        let request = Request::post(self.events())
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap();
        let response = self.runtime.block_on(self.router.clone().oneshot(request)).unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
    }

    /// Reads the task's stream to its end; returns its bytes.
    pub(crate) fn stream(&self, query: &str) -> usize {
        let request =
            Request::get(format!("{}{query}", self.events())).body(Body::empty()).unwrap();
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            to_bytes(response.into_body(), ANSWER_BYTES).await.unwrap().len()
        })
    }

    fn events(&self) -> String {
        format!("/tasks/{}/events", self.task)
    }
}
