//! A small HTTP client that says what it saw when it expected something else.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::sse::Stream;
use super::{PATIENCE, within};

/// Speaks to one server.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
    token: Option<String>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub text: String,
}

impl Client {
    /// Returns the base of the server.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Makes a client of the server at `base`.
    pub fn new(base: &str) -> Self {
        // A client insists on one, though it speaks no TLS here; only the first counts.
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(PATIENCE)
            .pool_idle_timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        Self { base: base.to_owned(), http, token: None }
    }

    /// Returns the same client with a token on every request.
    pub fn bearing(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// Returns the port of the server.
    pub fn port(&self) -> u16 {
        reqwest::Url::parse(&self.base).unwrap().port().expect("a port in the base URL")
    }

    /// Begins a request.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&self, request: RequestBuilder) -> Reply {
        self.try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// Sends a request to a server that may be gone.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Reply, reqwest::Error> {
        within("the server answers", async {
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok(Reply { status, headers, text: response.text().await? })
        })
        .await
    }

    /// Gets `path`.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// Posts JSON text.
    pub async fn post(&self, path: &str, body: impl ToString) -> Reply {
        self.send(self.json(Method::POST, path, body)).await
    }

    /// Patches with JSON text.
    pub async fn patch(&self, path: &str, body: impl ToString) -> Reply {
        self.send(self.json(Method::PATCH, path, body)).await
    }

    /// Deletes `path`.
    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Begins a request with JSON text.
    #[expect(clippy::needless_pass_by_value, reason = "callers write the body in place")]
    pub fn json(&self, method: Method, path: &str, body: impl ToString) -> RequestBuilder {
        let request = self.request(method, path).header(CONTENT_TYPE, "application/json");
        request.body(body.to_string())
    }

    /// Creates a task and returns it.
    pub async fn create(&self, body: impl ToString) -> Value {
        self.post("/tasks", body).await.expect(201).json()
    }

    /// Creates a task without anything and returns its id.
    pub async fn new_task(&self) -> String {
        text_of(&self.create("{}").await["id"])
    }

    /// Moves a task to another state.
    pub async fn enter(&self, id: &str, status: &str) -> Value {
        let body = json!({ "status": status });
        self.patch(&format!("/tasks/{id}/status"), body).await.expect(200).json()
    }

    /// Creates a task and starts it.
    pub async fn running_task(&self) -> String {
        let id = self.new_task().await;
        self.enter(&id, "running").await;
        id
    }

    /// Publishes one event or several.
    pub async fn publish(&self, id: &str, events: Value) -> Value {
        self.post(&format!("/tasks/{id}/events"), events).await.expect(201).json()
    }

    /// Reads a task.
    pub async fn task(&self, id: &str) -> Value {
        self.get(&format!("/tasks/{id}")).await.expect(200).json()
    }

    /// Reads a history; `query` begins with `?` when there is one.
    pub async fn history(&self, id: &str, query: &str) -> Vec<Value> {
        match self.get(&format!("/tasks/{id}/events/history{query}")).await.expect(200).json() {
            Value::Array(events) => events,
            other => panic!("a history should be an array, not {other}"),
        }
    }

    /// Opens the stream of a task; `query` begins with `?` when there is one.
    pub async fn stream(&self, id: &str, query: &str) -> Stream {
        self.open(self.request(Method::GET, &format!("/tasks/{id}/events{query}"))).await
    }

    /// Resumes the stream of a task the way a browser does.
    pub async fn resume(&self, id: &str, query: &str, last_event_id: &str) -> Stream {
        let request = self.request(Method::GET, &format!("/tasks/{id}/events{query}"));
        self.open(request.header("Last-Event-ID", last_event_id)).await
    }

    /// Opens a stream and expects one.
    pub async fn open(&self, request: RequestBuilder) -> Stream {
        let response = within("the stream opens", request.send()).await.unwrap();
        let status = response.status();
        if status == 200 {
            return Stream::new(response);
        }
        panic!("no stream but {status}: {}", response.text().await.unwrap_or_default())
    }
}

impl Reply {
    /// Returns the reply when it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text))
    }

    /// Returns a header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is an error of that status and code in the one shape,
    /// and returns it.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type").split(';').next(), Some("application/json"));
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        let sentence = body["error"].as_str().unwrap_or_else(|| panic!("no sentence in {body}"));
        assert!(sentence.len() > 5, "{body}");
        assert!(body.as_object().unwrap().values().all(|value| !value.is_null()), "{body}");
        assert!(!self.header("x-request-id").is_empty());
        body
    }

    /// Checks that this is such an error and names `path`.
    #[track_caller]
    pub fn refused_at(&self, status: u16, code: &str, path: &str) -> Value {
        let body = self.refused(status, code);
        assert_eq!(body["path"], path, "{body}");
        body
    }
}

/// Returns a JSON string as text.
#[track_caller]
pub fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} should be a string")).to_owned()
}

/// Returns a JSON number.
#[track_caller]
pub fn number_of(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} should be a whole number"))
}

/// Returns one member of every object, in order.
pub fn column(rows: &[Value], name: &str) -> Vec<Value> {
    rows.iter().map(|row| row[name].clone()).collect()
}
