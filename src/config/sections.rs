//! The sections of the configuration: one documented struct each, with its
//! defaults and the range of every number.
//!
//! Sizes are bytes, times are milliseconds, as the names say. The structs are
//! plain numbers; the parts of the server turn them into types of their own.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;
const HOUR_MS: usize = 60 * 60 * 1000;

/// A number outside the range its key allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutOfRange {
    /// The key within its section, as written in a file.
    pub(super) key: &'static str,
    /// The values that would have been accepted.
    pub(super) allowed: RangeInclusive<usize>,
}

/// A number of a section: its key, its value and the values it may take.
type Bound = (&'static str, usize, RangeInclusive<usize>);

/// Finds the first number that is out of its range.
fn first_out_of_range(bounds: impl IntoIterator<Item = Bound>) -> Result<(), OutOfRange> {
    bounds
        .into_iter()
        .find(|(_, value, allowed)| !allowed.contains(value))
        .map_or(Ok(()), |(key, _, allowed)| Err(OutOfRange { key, allowed }))
}

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
    /// Bytes of the joined text of one accumulate series.
    pub series_text_bytes: usize,
    /// Events in one publish request.
    pub events_per_request: usize,
    /// Levels of nesting in a JSON body.
    pub nesting: usize,
    /// Tags of one task.
    pub tags: usize,
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
            series_text_bytes: 16 * MIB,
            events_per_request: 1000,
            nesting: 64,
            tags: 100,
            history_limit: 10_000,
            list_limit: 500,
            list_page_bytes: 4 * MIB,
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), OutOfRange> {
        first_out_of_range([
            ("bodyBytes", self.body_bytes, 1..=256 * MIB),
            ("eventDataBytes", self.event_data_bytes, 1..=256 * MIB),
            ("outcomeBytes", self.outcome_bytes, 1..=256 * MIB),
            ("seriesTextBytes", self.series_text_bytes, 1..=GIB / 2),
            ("eventsPerRequest", self.events_per_request, 1..=100_000),
            ("nesting", self.nesting, 1..=128),
            ("tags", self.tags, 1..=10_000),
            ("historyLimit", self.history_limit, 1..=1_000_000),
            ("listLimit", self.list_limit, 1..=10_000),
            ("listPageBytes", self.list_page_bytes, 1..=256 * MIB),
        ])
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
}

impl Default for Sse {
    fn default() -> Self {
        Self {
            keep_alive_ms: 15_000,
            stall_timeout_ms: 60_000,
            ring_events: 256,
            ring_bytes: 256 * KIB,
            global_backlog_bytes: 4 * MIB,
            drain_ms: 5000,
        }
    }
}

impl Sse {
    pub(super) fn check(&self) -> Result<(), OutOfRange> {
        first_out_of_range([
            ("keepAliveMs", self.keep_alive_ms, 1..=HOUR_MS),
            ("stallTimeoutMs", self.stall_timeout_ms, 1..=HOUR_MS),
            ("ringEvents", self.ring_events, 1..=1_000_000),
            ("ringBytes", self.ring_bytes, 1..=GIB),
            ("globalBacklogBytes", self.global_backlog_bytes, 1..=GIB),
            // A stopping server has ten seconds in all.
            ("drainMs", self.drain_ms, 1..=8000),
        ])
    }
}

/// `postgres`, without the URLs: how the Postgres store uses its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostgresSettings {
    /// Append lanes, each with a connection of its own.
    pub lanes: usize,
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
            lanes: 2,
            read_connections: 6,
            lane_bytes: 16 * MIB,
            write_timeout_ms: 5_000,
            listen: true,
        }
    }
}

impl PostgresSettings {
    pub(super) fn check(&self) -> Result<(), OutOfRange> {
        first_out_of_range([
            ("lanes", self.lanes, 1..=64),
            ("readConnections", self.read_connections, 1..=1000),
            ("laneBytes", self.lane_bytes, 1..=GIB),
            ("writeTimeoutMs", self.write_timeout_ms, 1..=HOUR_MS),
        ])
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

impl MemorySettings {
    pub(super) fn check(self) -> Result<(), OutOfRange> {
        first_out_of_range([("maxBytes", self.max_bytes, 1..=usize::MAX)])
    }
}

/// `logLevel`: the least important lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything, each request's details included.
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
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// `auth.mode`: who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// Everyone may do everything.
    #[default]
    None,
}

/// `cors.origins`: the web pages of other origins that browsers let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CorsOrigins {
    /// No other origin.
    #[default]
    Off,
    /// Every origin.
    Any,
    /// These origins, such as `https://app.example.com`.
    List(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_range() {
        assert_eq!(Limits::default().check(), Ok(()));
        assert_eq!(Sse::default().check(), Ok(()));
        assert_eq!(PostgresSettings::default().check(), Ok(()));
        assert_eq!(MemorySettings::default().check(), Ok(()));
    }

    #[test]
    fn zero_and_more_than_the_maximum_are_out_of_range() {
        let zero = Limits { tags: 0, ..Limits::default() };
        assert_eq!(zero.check().unwrap_err().key, "tags");
        let slow = Sse { drain_ms: 60_000, ..Sse::default() };
        assert_eq!(slow.check().unwrap_err().key, "drainMs");
    }
}
