//! Reports to Sentry: [`Hooks`] that send what went wrong to a project.
//!
//! A report says what happened and where to look: the kind, the task, the
//! route, the id of the request whose log line has the rest. It never holds a
//! payload, `params`, a `result`, an error's `details` or what a driver or a
//! formatted panic said, because those quote values. What a backend writes
//! into the `code` and `message` of a failed task is sent, cut short and with
//! whatever looks like a credential taken out.
//!
//! Nothing of the process is added: no environment, no host name, no request,
//! no integration of the library. Sending happens on a thread of its own
//! behind a bounded queue, and of each kind at most [`REPORTS_PER_MINUTE`]
//! leave in a minute, so a storm costs neither the service nor the project.

mod scrub;
mod storm;
mod transport;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sentry::protocol::{Event, Map, Value};
use sentry::types::Dsn;
use sentry::{Client, ClientOptions, EventSamplingStrategy, Level};

use self::scrub::scrub;
use self::storm::{Storms, Verdict};
use self::transport::Sender;
use crate::domain::TaskId;
use crate::hooks::{
    BroadcastError, ErrorPlace, EventDropped, Hooks, StorageError, TaskFailed, TaskTimedOut,
    UnhandledError,
};

/// Most reports of one kind within a minute; the next one that is sent says
/// how many were not.
pub const REPORTS_PER_MINUTE: u32 = 30;

/// How reports are sent, and which.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "one switch for each kind of report")]
pub struct SentryOptions {
    /// The project, as the URL Sentry gives out for it.
    pub dsn: String,
    /// Name of the environment in reports.
    pub environment: String,
    /// Name of the release in reports.
    pub release: String,
    /// Share of the reports that are sent, from 0 to 1.
    pub sample_rate: f32,
    /// Whether failed tasks are reported.
    pub capture_task_failures: bool,
    /// Whether tasks that timed out are reported.
    pub capture_task_timeouts: bool,
    /// Whether panics and answers of 500 are reported.
    pub capture_unhandled_errors: bool,
    /// Whether dropped events and readers that were cut off are reported.
    pub capture_dropped_events: bool,
    /// Whether failures of the store are reported.
    pub capture_storage_errors: bool,
    /// Whether failures of the wakes between instances are reported.
    pub capture_broadcast_errors: bool,
}

impl fmt::Debug for SentryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The DSN holds a key.
        f.debug_struct("SentryOptions")
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

impl SentryOptions {
    /// Returns options that report everything to the project of `dsn`.
    pub fn new(dsn: impl Into<String>) -> Self {
        Self {
            dsn: dsn.into(),
            environment: "production".to_owned(),
            release: concat!("taskcast@", env!("CARGO_PKG_VERSION")).to_owned(),
            sample_rate: 1.0,
            capture_task_failures: true,
            capture_task_timeouts: true,
            capture_unhandled_errors: true,
            capture_dropped_events: true,
            capture_storage_errors: true,
            capture_broadcast_errors: true,
        }
    }
}

/// Reports cannot be sent as configured.
#[derive(Debug, thiserror::Error)]
pub enum SentryError {
    /// The DSN is none. It is not repeated, because it holds a key.
    #[error("the Sentry DSN does not parse; expected https://key@host/project")]
    InvalidDsn,
    /// TLS could not be set up.
    #[error("no usable TLS version: {0}")]
    Tls(#[from] rustls::Error),
    /// The thread that sends could not be started.
    #[error("cannot start the thread that sends reports: {0}")]
    Thread(#[from] std::io::Error),
}

/// What reports are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    TaskFailed,
    TaskTimedOut,
    Unhandled,
    Dropped,
    Storage,
    Broadcast,
}

impl Kind {
    const COUNT: usize = 6;

    const fn as_str(self) -> &'static str {
        match self {
            Self::TaskFailed => "task_failed",
            Self::TaskTimedOut => "task_timed_out",
            Self::Unhandled => "unhandled_error",
            Self::Dropped => "event_dropped",
            Self::Storage => "storage_error",
            Self::Broadcast => "broadcast_error",
        }
    }
}

/// A report before it is an event of the library.
struct Report {
    kind: Kind,
    level: Level,
    message: String,
    /// What tells reports apart that are about different things.
    group: String,
    tags: Vec<(&'static str, String)>,
    task: Option<TaskId>,
}

/// Hooks that report to a Sentry project.
pub struct Sentry {
    options: SentryOptions,
    /// Taken when reporting ends.
    client: Mutex<Option<Client>>,
    sender: Arc<Sender>,
    storms: Mutex<Storms>,
}

impl fmt::Debug for Sentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentry").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Sentry {
    /// Begins to report.
    ///
    /// # Errors
    ///
    /// Fails when the DSN does not parse or TLS cannot be set up.
    pub fn start(options: SentryOptions) -> Result<Arc<Self>, SentryError> {
        let dsn: Dsn = options.dsn.parse().map_err(|_| SentryError::InvalidDsn)?;
        let sender = Arc::new(Sender::start(&dsn)?);
        let mut client = ClientOptions::new();
        client.dsn = Some(dsn);
        client.environment = Some(Cow::Owned(options.environment.clone()));
        client.release = Some(Cow::Owned(options.release.clone()));
        client.event_sampling_strategy = EventSamplingStrategy::FixedRate(options.sample_rate);
        client.default_integrations = false;
        client.attach_stacktrace = false;
        client.send_default_pii = false;
        client.server_name = None;
        client.max_breadcrumbs = 0;
        client.before_send = Some(Arc::new(|event| Some(leave_only_ours(event))));
        client.transport = Some(Arc::new(sender.clone()));
        Ok(Arc::new(Self {
            options,
            client: Mutex::new(Some(Client::from(client))),
            sender,
            storms: Mutex::default(),
        }))
    }

    /// Sends what waits, for up to `patience`, and ends reporting.
    pub async fn finish(&self, patience: Duration) {
        if self.client.lock().take().is_none() {
            return;
        }
        if tokio::time::timeout(patience, self.sender.flush()).await.is_err() {
            tracing::warn!("stopped before every report was sent");
        }
    }

    fn send(&self, report: Report) {
        let suppressed = match self.storms.lock().admit(report.kind as usize, Instant::now()) {
            Verdict::Send { suppressed } => suppressed,
            Verdict::Suppress => return,
        };
        let client = self.client.lock();
        let Some(client) = &*client else { return };
        let kind = report.kind.as_str();
        let mut extra: Map<String, Value> = Map::new();
        if let Some(task) = report.task {
            extra.insert("task".to_owned(), task.as_str().into());
        }
        if suppressed > 0 {
            extra.insert("suppressed".to_owned(), suppressed.into());
        }
        let tags = report.tags.into_iter().map(|(name, value)| (name.to_owned(), scrub(&value)));
        client.capture_event(
            Event {
                level: report.level,
                logger: Some("taskcast".to_owned()),
                message: Some(scrub(&report.message)),
                fingerprint: Cow::Owned(vec![kind.into(), scrub(&report.group).into()]),
                tags: tags.chain([("kind".to_owned(), kind.to_owned())]).collect(),
                extra,
                ..Event::default()
            },
            None,
        );
    }
}

/// Takes out of an event whatever was not put there by [`Sentry::send`].
fn leave_only_ours(event: Event<'static>) -> Event<'static> {
    Event {
        event_id: event.event_id,
        level: event.level,
        logger: event.logger,
        message: event.message,
        fingerprint: event.fingerprint,
        tags: event.tags,
        extra: event.extra,
        timestamp: event.timestamp,
        platform: event.platform,
        release: event.release,
        environment: event.environment,
        sdk: event.sdk,
        ..Event::default()
    }
}

fn with_type(task_type: Option<&Arc<str>>) -> Vec<(&'static str, String)> {
    task_type.map(|task_type| ("task.type", task_type.to_string())).into_iter().collect()
}

impl Hooks for Sentry {
    fn task_failed(&self, failed: &TaskFailed) {
        if !self.options.capture_task_failures {
            return;
        }
        let mut message = "task failed".to_owned();
        for part in [&failed.code, &failed.message].into_iter().flatten() {
            message.push_str(": ");
            message.push_str(part);
        }
        let mut tags = with_type(failed.task_type.as_ref());
        tags.extend(failed.code.as_ref().map(|code| ("error.code", code.to_string())));
        let group = failed.code.as_ref().or(failed.task_type.as_ref());
        self.send(Report {
            kind: Kind::TaskFailed,
            level: Level::Error,
            message,
            group: group.map_or_else(String::new, ToString::to_string),
            tags,
            task: Some(failed.task.clone()),
        });
    }

    fn task_timed_out(&self, timed_out: &TaskTimedOut) {
        if !self.options.capture_task_timeouts {
            return;
        }
        self.send(Report {
            kind: Kind::TaskTimedOut,
            level: Level::Warning,
            message: "task timed out".to_owned(),
            group: timed_out.task_type.as_deref().unwrap_or_default().to_owned(),
            tags: with_type(timed_out.task_type.as_ref()),
            task: Some(timed_out.task.clone()),
        });
    }

    fn unhandled_error(&self, error: &UnhandledError) {
        if !self.options.capture_unhandled_errors {
            return;
        }
        let what = if error.is_panic { "panic" } else { "unhandled error" };
        let (place, tags) = match &error.place {
            ErrorPlace::Request { method, route, request_id } => (
                format!("{method} {route}"),
                vec![("http.route", route.to_string()), ("request.id", request_id.to_string())],
            ),
            ErrorPlace::Loop(name) => (format!("loop {name}"), vec![("loop", (*name).to_owned())]),
        };
        // Only fixed words: a formatted message was made from values.
        let words = error.summary.map(|words| format!(": {words}")).unwrap_or_default();
        self.send(Report {
            kind: Kind::Unhandled,
            level: Level::Error,
            message: format!("{what} in {place}{words}"),
            group: place,
            tags,
            task: None,
        });
    }

    fn event_dropped(&self, dropped: &EventDropped) {
        if !self.options.capture_dropped_events {
            return;
        }
        let reason = dropped.reason.as_str();
        let events = dropped.events.map(|events| format!(" ({events} events)"));
        let message = format!("events dropped: {reason}{}", events.unwrap_or_default());
        self.send(Report {
            kind: Kind::Dropped,
            level: Level::Warning,
            message,
            group: reason.to_owned(),
            tags: vec![("reason", reason.to_owned())],
            task: dropped.task.clone(),
        });
    }

    fn storage_error(&self, error: &StorageError) {
        if !self.options.capture_storage_errors {
            return;
        }
        let (part, problem) = (error.part.as_str(), error.problem.as_str());
        self.send(Report {
            kind: Kind::Storage,
            level: Level::Error,
            message: format!("store failed: {part} {problem}"),
            group: format!("{part} {problem}"),
            tags: vec![("part", part.to_owned()), ("problem", problem.to_owned())],
            task: None,
        });
    }

    fn broadcast_error(&self, error: &BroadcastError) {
        if !self.options.capture_broadcast_errors {
            return;
        }
        let problem = error.problem.as_str();
        self.send(Report {
            kind: Kind::Broadcast,
            level: Level::Warning,
            message: format!("wakes between instances failed: {problem}"),
            group: problem.to_owned(),
            tags: vec![("problem", problem.to_owned())],
            task: None,
        });
    }
}
