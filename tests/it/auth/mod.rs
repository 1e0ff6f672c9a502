//! Black-box tests of `docs/authentication.md`: who is let in, to what, and
//! what everybody else is told.

mod algorithms;
mod command;
mod custom;
mod forward_server;
mod isolation;
mod matrix;
mod none;
mod repeats;
mod scopes;
mod secrets;
mod streams;
mod task_rules;
mod tokens;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use self::tokens::{AUDIENCE, SECRET};
use crate::support::client::{Client, Reply};
use crate::support::server::Server;
use crate::support::{Backend, within};

/// Settings of a server in mode `jwt` with everything there is to check.
const JWT: [(&str, &str); 3] = [
    ("TASKCAST_AUTH_MODE", "jwt"),
    ("TASKCAST_JWT_SECRET", SECRET),
    ("TASKCAST_JWT_AUDIENCE", AUDIENCE),
];

/// Starts two instances that serve the same tasks; in memory one twice.
async fn start_two(backend: &Backend) -> (Server, Server) {
    let first = backend.start_with(&JWT).await;
    let second = match backend {
        Backend::Memory => first.clone(),
        Backend::Postgres(_) => backend.start_with(&JWT).await,
    };
    (first, second)
}

/// A route that needs a scope.
#[derive(Debug, Clone, Copy)]
struct Route {
    method: &'static str,
    path: &'static str,
    scope: &'static str,
    body: Option<&'static str>,
}

impl Route {
    /// Tells whether the route is about one task.
    fn names_task(&self) -> bool {
        self.path.contains("{id}")
    }

    /// Begins a well-formed request for a task.
    fn request(&self, client: &Client, id: &str) -> RequestBuilder {
        let path = self.path.replace("{id}", id);
        let method: Method = self.method.parse().unwrap();
        match self.body {
            Some(body) => client.json(method, &path, body.replace("{id}", id)),
            None => client.request(method, &path),
        }
    }

    /// Begins a request whose form is wrong in the body or the query.
    fn malformed(&self, client: &Client, id: &str) -> RequestBuilder {
        let path = self.path.replace("{id}", id);
        let method: Method = self.method.parse().unwrap();
        match self.body {
            Some(_) => client.json(method, &path, "{"),
            None => client.request(method, &format!("{path}?limit=no&since.index=no&types=a*b")),
        }
    }
}

/// Every route that is not public, the destructive ones last.
const ROUTES: [Route; 11] = [
    Route { method: "GET", path: "/tasks", scope: "event:subscribe", body: None },
    Route { method: "GET", path: "/events", scope: "event:subscribe", body: None },
    Route { method: "GET", path: "/tasks/{id}", scope: "event:subscribe", body: None },
    Route { method: "GET", path: "/tasks/{id}/events", scope: "event:subscribe", body: None },
    Route { method: "GET", path: "/tasks/{id}/events/history", scope: "event:history", body: None },
    Route {
        method: "POST",
        path: "/tasks/{id}/events",
        scope: "event:publish",
        body: Some(r#"{"type":"a"}"#),
    },
    Route {
        method: "PATCH",
        path: "/tasks/{id}/status",
        scope: "task:manage",
        body: Some(r#"{"status":"running"}"#),
    },
    Route { method: "GET", path: "/tasks/{id}/webhooks", scope: "task:manage", body: None },
    Route {
        method: "POST",
        path: "/tasks/{id}/webhooks/01JD4ZK9Q80000000000G0000A-0/redeliver",
        scope: "task:manage",
        body: None,
    },
    Route { method: "DELETE", path: "/tasks/{id}", scope: "task:manage", body: None },
    Route {
        method: "POST",
        path: "/tasks",
        scope: "task:create",
        body: Some(r#"{"id":"{id}-new"}"#),
    },
];

/// Sends a request; of a stream only the beginning is waited for.
async fn ask(request: RequestBuilder) -> Reply {
    within("the server answers", async {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let is_stream = headers.get("content-type").is_some_and(|it| it == "text/event-stream");
        let text = if is_stream { String::new() } else { response.text().await.unwrap() };
        Reply { status, headers, text }
    })
    .await
}

/// Tells whether an answer is that of a caller who may.
fn is_let_in(reply: &Reply) -> bool {
    // There is nothing to send again, which only such a caller hears.
    (200..300).contains(&reply.status) || reply.text.contains("delivery_not_found")
}

/// What may differ between two answers that must not tell anything apart. The
/// id that a caller asked for stands in the sentence, and is no news to it.
fn told(reply: &Reply) -> (u16, String, Value) {
    let mut body: Value = serde_json::from_str(&reply.text).unwrap_or(Value::Null);
    if body["code"] == "task_not_found" {
        let sentence = body["error"].as_str().unwrap();
        let (beginning, advice) = sentence.split_once(". ").unwrap();
        assert!(beginning.starts_with("Task not found"), "{sentence}");
        body["error"] = advice.into();
    }
    (reply.status, reply.header("www-authenticate").to_owned(), body)
}
