//! A server that breaks one promise, to see whether it is noticed.
//!
//! It spells answers and frames in another way than the real one does, which
//! must make no difference.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch, post};
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// A stream leaves an event out.
    Drop,
    /// A stream sends an event twice.
    Repeat,
    /// A stream sends two events in the wrong order.
    Swap,
    /// A stream sends another event than was published.
    Alter,
    /// A stream ends in the middle.
    End,
    /// A publish is never answered.
    Silence,
    /// A publish is answered with 503.
    Refuse,
    /// Two publishes are told the same index.
    Reuse,
}

/// The index every lie is about.
const ABOUT: usize = 5;

/// A lying server.
pub struct Liar {
    /// Where it is.
    pub url: String,
}

#[derive(Clone)]
struct Shared {
    lie: Lie,
    logs: Arc<Mutex<HashMap<String, watch::Sender<Vec<Value>>>>>,
}

impl Liar {
    /// Starts one on a free port.
    pub async fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/tasks", post(create))
            .route("/tasks/{id}/status", patch(start))
            .route("/tasks/{id}/events", get(stream).post(publish))
            .with_state(Shared { lie, logs: Arc::default() });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url }
    }
}

impl Shared {
    fn log(&self, id: &str) -> watch::Sender<Vec<Value>> {
        let mut logs = self.logs.lock().unwrap();
        logs.entry(id.to_owned()).or_insert_with(|| watch::channel(Vec::new()).0).clone()
    }

    /// Adds an event and returns it as it is answered.
    fn append(&self, id: &str, event: &Value) -> Value {
        let mut answer = Value::Null;
        self.log(id).send_modify(|log| {
            let index = log.len();
            let told = match self.lie {
                Lie::Reuse if index == ABOUT => index - 1,
                _ => index,
            };
            let name = |index: usize| format!("{index:026}");
            let (event_type, data) = (&event["type"], &event["data"]);
            log.push(json!({"eventId": name(index), "rawIndex": index, "type": event_type, "data": data}));
            answer = json!({"id": name(told), "index": told, "type": event_type, "data": data});
        });
        answer
    }

    /// Returns the frames that stand for an event on a stream.
    fn frames(&self, log: &[Value], index: usize) -> String {
        let shown = match (self.lie, index) {
            (Lie::Drop | Lie::Swap, ABOUT) => vec![],
            (Lie::Repeat, ABOUT) => vec![ABOUT, ABOUT],
            (Lie::Swap, index) if index == ABOUT + 1 => vec![ABOUT + 1, ABOUT],
            (_, index) => vec![index],
        };
        let frame = |index: usize| {
            let mut event = log[index].clone();
            if self.lie == Lie::Alter && index == ABOUT {
                event["data"]["n"] = json!(event["data"]["n"].as_u64().unwrap() + 1);
            }
            let id = event["eventId"].as_str().unwrap();
            format!(": next\nid: {id}\nevent: taskcast.event\ndata: {event}\n\n")
        };
        shown.into_iter().map(frame).collect()
    }
}

async fn create() -> Response {
    (StatusCode::CREATED, "{}").into_response()
}

async fn start(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    shared.append(&id, &json!({"type": "taskcast:status", "data": {"status": "running"}}));
    StatusCode::OK.into_response()
}

async fn publish(State(shared): State<Shared>, Path(id): Path<String>, body: String) -> Response {
    match shared.lie {
        Lie::Silence => pending().await,
        Lie::Refuse => (StatusCode::SERVICE_UNAVAILABLE, "not today").into_response(),
        _ => {
            let answer = match serde_json::from_str(&body).unwrap() {
                Value::Array(events) => {
                    events.iter().map(|event| shared.append(&id, event)).collect()
                }
                event => shared.append(&id, &event),
            };
            (StatusCode::CREATED, answer.to_string()).into_response()
        }
    }
}

async fn stream(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let log = shared.log(&id).subscribe();
    let frames = unfold((shared, log, 0), |(shared, mut log, sent)| async move {
        if shared.lie == Lie::End && sent > ABOUT {
            return None;
        }
        let text = {
            let log = log.wait_for(|log| log.len() > sent).await.ok()?;
            shared.frames(&log, sent)
        };
        Some((Ok::<_, Infallible>(text), (shared, log, sent + 1)))
    });
    Body::from_stream(frames).into_response()
}
