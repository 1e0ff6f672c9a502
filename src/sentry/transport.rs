//! How reports travel: by a thread of their own, so that neither a slow
//! project nor a busy service holds the other up.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sentry::types::Dsn;
use sentry::{Envelope, Transport};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::SentryError;
use crate::tls;

/// Reports that may wait to be sent; what does not fit is given up.
const WAITING: usize = 100;

/// How long sending one may take.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// How long a project that has enough is left alone, where it does not say.
const PAUSE: Duration = Duration::from_mins(1);

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What the thread is asked for.
enum Task {
    Send(Box<Envelope>),
    /// Tell when everything before is sent.
    Flush(oneshot::Sender<()>),
}

/// The way to the thread that sends.
pub(super) struct Sender {
    tasks: mpsc::Sender<Task>,
}

impl Sender {
    /// Starts the thread; it ends when the sender is gone and nothing waits.
    pub(super) fn start(dsn: &Dsn) -> Result<Self, SentryError> {
        let post = Post::new(dsn)?;
        let (tasks, waiting) = mpsc::channel(WAITING);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name("taskcast-sentry".to_owned())
            .spawn(move || runtime.block_on(run(post, waiting)))?;
        Ok(Self { tasks })
    }

    /// Waits until everything that was handed in is sent or given up.
    pub(super) async fn flush(&self) {
        let (sent, all_sent) = oneshot::channel();
        if self.tasks.send(Task::Flush(sent)).await.is_ok() {
            // An error means that the thread ended, which leaves nothing to wait for.
            let _ = all_sent.await;
        }
    }
}

impl Transport for Sender {
    fn send_envelope(&self, envelope: Envelope) {
        // A hook must not wait, so what does not fit goes.
        if self.tasks.try_send(Task::Send(Box::new(envelope))).is_err() {
            tracing::debug!("a report was given up: too many wait");
        }
    }
}

/// Where and as whom to post.
struct Post {
    client: HttpClient,
    url: Uri,
    authorization: HeaderValue,
}

impl Post {
    fn new(dsn: &Dsn) -> Result<Self, SentryError> {
        let url = dsn.envelope_api_url().as_str().parse();
        let user_agent = concat!("taskcast/", env!("CARGO_PKG_VERSION"));
        let mut authorization = HeaderValue::try_from(dsn.to_auth(Some(user_agent)).to_string())
            .map_err(|_| SentryError::InvalidDsn)?;
        authorization.set_sensitive(true);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(tls::connector()?),
            url: url.map_err(|_| SentryError::InvalidDsn)?,
            authorization,
        })
    }

    /// Posts an envelope; returns how long the project wants to be left alone.
    async fn send(&self, envelope: &Envelope) -> Option<Duration> {
        let mut body = Vec::new();
        // Writing to memory cannot fail.
        envelope.to_writer(&mut body).ok()?;
        let mut request = Request::post(self.url.clone()).body(Full::from(body)).ok()?;
        let headers = request.headers_mut();
        let envelope_type = HeaderValue::from_static("application/x-sentry-envelope");
        headers.insert(CONTENT_TYPE, envelope_type);
        headers.insert("x-sentry-auth", self.authorization.clone());
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => {
                // The error's own text may name the project.
                let is_connect = error.is_connect();
                tracing::debug!(is_connect, "a report could not be sent");
                return None;
            }
        };
        let (head, body) = response.into_parts();
        // Read, so that the connection can be used again.
        let _ = body.collect().await;
        (head.status == StatusCode::TOO_MANY_REQUESTS).then(|| {
            let asked = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let seconds = asked.and_then(|text| text.trim().parse().ok());
            seconds.map_or(PAUSE, Duration::from_secs)
        })
    }
}

async fn run(post: Post, mut waiting: mpsc::Receiver<Task>) {
    let mut paused_until: Option<Instant> = None;
    while let Some(task) = waiting.recv().await {
        match task {
            Task::Flush(sent) => drop(sent.send(())),
            Task::Send(_) if paused_until.is_some_and(|until| Instant::now() < until) => {}
            Task::Send(envelope) => {
                let pause = timeout(SEND_WITHIN, post.send(&envelope)).await.ok().flatten();
                paused_until = pause.and_then(|pause| Instant::now().checked_add(pause));
            }
        }
    }
}
