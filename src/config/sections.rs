//! The sections of the configuration that are plain values: one documented
//! struct each, with its defaults.
//!
//! Sizes are bytes, times are milliseconds, as the names say. The parts of the
//! server turn them into types of their own.

use serde::{Deserialize, Serialize};

use super::secret::Secret;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// `limits`: how much one request, task or page may hold. Requests past a
/// limit are refused with the limit in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request body.
    pub body_bytes: usize,
    /// Bytes of one event's `data`.
    pub event_data_bytes: usize,
    /// Bytes of a transition's `result` and `error` together.
    pub outcome_bytes: usize,
    /// Bytes of all text a task is created with.
    pub task_bytes: usize,
    /// Bytes of the joined text of one accumulate series.
    pub series_text_bytes: usize,
    /// Events in one publish request.
    pub events_per_request: usize,
    /// Levels of nesting in a JSON body.
    pub nesting: usize,
    /// Tags of one task.
    pub tags: usize,
    /// Webhooks of one task.
    pub webhooks_per_task: usize,
    /// Events in one history page; also the default page.
    pub history_limit: usize,
    /// Tasks in one list page, at most.
    pub list_limit: usize,
    /// Bytes of one list page.
    pub list_page_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 2 * MIB,
            event_data_bytes: MIB,
            outcome_bytes: MIB,
            task_bytes: 4 * MIB,
            series_text_bytes: 16 * MIB,
            events_per_request: 1000,
            nesting: 64,
            tags: 100,
            webhooks_per_task: 20,
            history_limit: 10_000,
            list_limit: 500,
            list_page_bytes: 4 * MIB,
        }
    }
}

/// `sse`: how streams are kept alive, fed and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sse {
    /// Milliseconds of silence after which a comment is sent.
    pub keep_alive_ms: usize,
    /// Milliseconds without progress after which a reader is disconnected.
    pub stall_timeout_ms: usize,
    /// Events kept ready to send per watched task.
    pub ring_events: usize,
    /// Bytes kept ready to send per watched task.
    pub ring_bytes: usize,
    /// Bytes a reader of all tasks may be behind before it is disconnected.
    pub global_backlog_bytes: usize,
    /// Milliseconds over which streams are ended when the server stops.
    pub drain_ms: usize,
    /// Milliseconds that a request for a stream is held while the store, or the
    /// service of mode `custom`, cannot be reached.
    pub open_timeout_ms: usize,
}

impl Default for Sse {
    fn default() -> Self {
        Self {
            keep_alive_ms: 8_000,
            stall_timeout_ms: 60_000,
            ring_events: 256,
            ring_bytes: 256 * KIB,
            global_backlog_bytes: 4 * MIB,
            drain_ms: 5000,
            open_timeout_ms: 10_000,
        }
    }
}

/// `http`: connections and the names the server answers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Http {
    /// Milliseconds that a connection is kept between two requests.
    pub keep_alive_ms: usize,
    /// Names besides those of loopback that a server on loopback answers to in
    /// mode `none`.
    pub allowed_hosts: Vec<String>,
    /// Bytes of request bodies that may be under way at a time.
    pub body_bytes: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self { keep_alive_ms: 620_000, allowed_hosts: Vec::new(), body_bytes: 64 * MIB }
    }
}

/// `postgres`, without the URLs: how the Postgres store uses its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostgresSettings {
    /// Append lanes, each with a connection of its own; without it the store
    /// goes by the processors.
    pub lanes: Option<usize>,
    /// Connections for everything but appends.
    pub read_connections: usize,
    /// Bytes that may wait in one lane before appends are refused.
    pub lane_bytes: usize,
    /// Milliseconds a write is tried before its caller is told that it failed.
    pub write_timeout_ms: usize,
    /// Whether to LISTEN for wake-ups; without it the poll does all the work.
    pub listen: bool,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            lanes: None,
            read_connections: 6,
            lane_bytes: 16 * MIB,
            write_timeout_ms: 5_000,
            listen: true,
        }
    }
}

/// `memory`: the bound of the memory store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MemorySettings {
    /// Bytes of tasks and events. Beyond it the oldest finished tasks go
    /// first, then writes are refused.
    pub max_bytes: usize,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self { max_bytes: 256 * MIB }
    }
}

/// `logLevel`: the least important lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything, also what the libraries below have to say.
    Trace,
    /// Everything of the server's own, each request's details included.
    Debug,
    /// What the server does.
    #[default]
    Info,
    /// What an operator should look at.
    Warn,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// Returns the name as written in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// `metrics`: whether and to whom the numbers of the server are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Whether there is a route for them.
    pub enabled: bool,
    /// The bearer token the route asks for; without one it is open.
    pub token: Option<Secret>,
}

/// `cors.origins`: the web pages of other origins that browsers let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CorsOrigins {
    /// No other origin.
    #[default]
    Off,
    /// Pages of this machine: what `taskcast dev` lets in unless told otherwise.
    Localhost,
    /// Every origin.
    Any,
    /// These origins, such as `https://app.example.com`.
    List(Vec<String>),
}
