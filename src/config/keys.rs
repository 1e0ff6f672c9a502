//! Every key of the configuration: what it is called, what it may hold and
//! what it means.
//!
//! This table is the one list of keys. Files and variables are checked against
//! it, `config show` knows from it what is secret, and the reference in the
//! documentation is printed from it. Defaults are not here but in the document
//! that is filled from the values; a test holds the two together.

use super::kind::Kind::{
    self, Dsn, File, Fraction, HttpUrl, Items, List, Name, Number, OneOrMany, Origin, Pattern,
    Secret, SigningKey, StoreUrl, Switch, Target, Text,
};
use crate::domain::{Level, SeriesMode, TaskStatus};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const MINUTE_MS: u64 = 60 * 1000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// Ten years, the longest a task may live.
const AGE_MS: u64 = 10 * 365 * 24 * HOUR_MS;

/// A key.
#[derive(Debug)]
pub(super) struct Key {
    /// Where it stands in a file. `[]` follows the name of a list of sections.
    pub(super) path: &'static str,
    /// What it may hold.
    pub(super) kind: Kind,
    /// What it means, for the reference.
    pub(super) meaning: &'static str,
    /// Its variables besides the one derived from the path.
    pub(super) short_names: &'static [&'static str],
    /// Whether the section it stands in is refused without it.
    pub(super) is_required: bool,
}

impl Key {
    /// Tells whether the key belongs to the elements of a list. Those have no
    /// variable of their own.
    pub(super) fn is_in_a_list(&self) -> bool {
        self.path.contains("[]")
    }

    /// Tells whether what stands under the key may hold a secret.
    pub(super) fn may_hold_a_secret(&self) -> bool {
        let is_below =
            |key: &Key| key.path.strip_prefix(self.path).is_some_and(|rest| rest.starts_with("[]"));
        match self.kind {
            Items => KEYS.iter().any(|key| is_below(key) && key.kind.may_hold_a_secret()),
            kind => kind.may_hold_a_secret(),
        }
    }

    const fn or(mut self, short_names: &'static [&'static str]) -> Self {
        self.short_names = short_names;
        self
    }

    const fn required(mut self) -> Self {
        self.is_required = true;
        self
    }
}

const fn key(path: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { path, kind, meaning, short_names: &[], is_required: false }
}

const LOG_LEVELS: &[&str] = &["trace", "debug", "info", "warn", "error"];

/// What `auth.mode` may be.
pub(super) const MODES: &[&str] = &["none", "jwt", "custom"];

/// What `auth.jwt.algorithm` may be. ES512 is missing on purpose: the library
/// that checks signatures does not have it.
pub(super) const ALGORITHMS: &[&str] = &[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384",
];

/// What a `backoff` may be.
pub(super) const BACKOFFS: &[&str] = &["fixed", "linear", "exponential"];

/// What the `target` of a cleanup rule may be.
pub(super) const TARGETS: &[&str] = &["all", "events", "task"];

const PROVIDERS: &[&str] = &["memory", "postgres", "redis"];

const LEVELS: &[&str] =
    &[Level::Debug.as_str(), Level::Info.as_str(), Level::Warn.as_str(), Level::Error.as_str()];

const TERMINAL: &[&str] = &[
    TaskStatus::Completed.as_str(),
    TaskStatus::Failed.as_str(),
    TaskStatus::Timeout.as_str(),
    TaskStatus::Cancelled.as_str(),
];

const SERIES_MODES: &[&str] =
    &[SeriesMode::KeepAll.as_str(), SeriesMode::Accumulate.as_str(), SeriesMode::Latest.as_str()];

/// Every key, in the order of the reference.
#[rustfmt::skip] // It is a table: a key a line.
pub(super) static KEYS: &[Key] = &[
    key("port", Number(0, 65535), "TCP port to listen on; 0 lets the system choose."),
    key("host", Text, "Address or name to listen on. Without it `0.0.0.0`, and `127.0.0.1` for `dev`."),
    key("logLevel", Name(LOG_LEVELS), "Least important log lines to write."),
    key("workerThreads", Number(1, 1024), "Threads that serve. Without it one for each processor, or half as many when the database is on the same machine."),
    // auth
    key("auth.mode", Name(MODES), "Who may do what: everybody everything, bearers of a signed token what it says, or what another service answers.")
        .or(&["TASKCAST_AUTH_MODE"]),
    key("auth.jwt.algorithm", Name(ALGORITHMS), "The one algorithm a token may be signed with.")
        .or(&["TASKCAST_JWT_ALGORITHM"]),
    key("auth.jwt.secret", Secret, "Key of the `HS…` algorithms, 32 bytes or more.")
        .or(&["TASKCAST_JWT_SECRET"]),
    key("auth.jwt.publicKey", Secret, "Public key of the other algorithms, as PEM.")
        .or(&["TASKCAST_JWT_PUBLIC_KEY"]),
    key("auth.jwt.publicKeyFile", File, "File with that key; give one of the two.")
        .or(&["TASKCAST_JWT_PUBLIC_KEY_FILE"]),
    key("auth.jwt.issuer", Text, "What the claim `iss` must be. Without it the claim is not looked at.")
        .or(&["TASKCAST_JWT_ISSUER"]),
    key("auth.jwt.audience", OneOrMany(&Text), "What the claim `aud` must name, one of these. Without it the claim is not looked at.")
        .or(&["TASKCAST_JWT_AUDIENCE"]),
    key("auth.jwt.leewaySeconds", Number(0, 30), "How far the clock of whoever signs may be off."),
    key("auth.custom.url", HttpUrl, "Service that is asked who a caller is."),
    key("auth.custom.timeoutMs", Number(1, MINUTE_MS), "Time after which it counts as unreachable."),
    key("auth.custom.cacheMs", Number(0, 5000), "How long its answer holds for the same credentials, method and path."),
    key("auth.custom.recheckMs", Number(100, HOUR_MS), "How often it is asked again about an open stream."),
    // adapters
    key("adapters.shortTerm.provider", Name(PROVIDERS), "The store. `shortTermStore` is another name for the section."),
    key("adapters.shortTerm.url", StoreUrl, "The same as `postgres.url`."),
    key("adapters.broadcast.provider", Name(PROVIDERS), "The bus that carries wake-ups between instances."),
    key("adapters.broadcast.url", StoreUrl, "The same as `postgres.url`."),
    key("adapters.longTerm.provider", Name(PROVIDERS), "An archive beside the store; refused in this version. `longTermStore` is another name for the section."),
    key("adapters.longTerm.url", StoreUrl, "Where that archive is; refused in this version."),
    // postgres
    key("postgres.url", StoreUrl, "Where the data is: `postgres://user:password@host:port/database`.")
        .or(&["TASKCAST_POSTGRES_URL"]),
    key("postgres.directUrl", StoreUrl, "The same database for listening and migrations, when `url` leads through a transaction pooler.")
        .or(&["TASKCAST_POSTGRES_DIRECT_URL"]),
    key("postgres.lanes", Number(1, 64), "Queues that write in groups, each with a connection. Without it half the processors, from 1 to 4."),
    key("postgres.laneBytes", Number(1, GIB), "What may wait in one of them; more is 503 `overloaded`."),
    key("postgres.readConnections", Number(1, 1000), "Connections for all else."),
    key("postgres.writeTimeoutMs", Number(1, HOUR_MS), "How long a write is tried, through lost connections too, before it is answered with 503."),
    key("postgres.listen", Switch, "`false` does without LISTEN; readers are then served by polling."),
    // memory
    key("memory.maxBytes", Number(1, u64::MAX), "What tasks, events and their text may take up, an eighth of it kept for idempotency keys, of which the oldest go first. Beyond it the tasks that ended longest ago are dropped; when none has ended, writes are 503 `store_full`."),
    // webhook
    key("webhook.endpoints", Items, "Endpoints that get the events of every task."),
    key("webhook.endpoints[].url", HttpUrl, "Where events are sent.").required(),
    key("webhook.endpoints[].secret", SigningKey, "Key of the signatures. Without it requests are not signed."),
    key("webhook.endpoints[].wrap", Switch, "`false` sends the event without its envelope."),
    key("webhook.endpoints[].taskTypes", List(&Pattern), "Types of the tasks whose events are sent; none given, all are."),
    key("webhook.endpoints[].filter.types", List(&Pattern), "Types of the events that are sent; none given, all are."),
    key("webhook.endpoints[].filter.levels", List(&Name(LEVELS)), "Levels of the events that are sent; none given, all are."),
    key("webhook.endpoints[].filter.includeStatus", Switch, "`false` leaves out changes of status."),
    key("webhook.endpoints[].retry.retries", Number(0, 100), "In place of `webhook.defaultRetry.retries`."),
    key("webhook.endpoints[].retry.backoff", Name(BACKOFFS), "In place of `webhook.defaultRetry.backoff`."),
    key("webhook.endpoints[].retry.initialDelayMs", Number(0, HOUR_MS), "In place of `webhook.defaultRetry.initialDelayMs`."),
    key("webhook.endpoints[].retry.maxDelayMs", Number(0, 24 * HOUR_MS), "In place of `webhook.defaultRetry.maxDelayMs`."),
    key("webhook.endpoints[].retry.timeoutMs", Number(1, 5 * MINUTE_MS), "In place of `webhook.defaultRetry.timeoutMs`."),
    key("webhook.defaultRetry.retries", Number(0, 100), "Attempts after the first."),
    key("webhook.defaultRetry.backoff", Name(BACKOFFS), "How the pause between two attempts grows."),
    key("webhook.defaultRetry.initialDelayMs", Number(0, HOUR_MS), "First pause."),
    key("webhook.defaultRetry.maxDelayMs", Number(0, 24 * HOUR_MS), "Longest pause."),
    key("webhook.defaultRetry.timeoutMs", Number(1, 5 * MINUTE_MS), "Time after which an attempt has failed."),
    key("webhook.allowPrivateTargets", Switch, "`true` lets the webhooks of tasks reach private and local addresses."),
    key("webhook.allowTargets", List(&Target), "Hosts and addresses they may reach although private."),
    key("webhook.concurrency", Number(1, 4096), "Attempts at the webhooks of tasks that are new, up to half a second old, at the same time. Those that take longer do not count; endpoints have as many of their own."),
    // cleanup
    key("cleanup.rules", Items, "What is removed of tasks that have ended."),
    key("cleanup.rules[].name", Text, "Name of the rule, for logs."),
    key("cleanup.rules[].match.taskTypes", List(&Pattern), "Types of the tasks it is for; none given, all."),
    key("cleanup.rules[].match.status", List(&Name(TERMINAL)), "How the tasks it is for ended; none given, any way."),
    key("cleanup.rules[].trigger.afterMs", Number(0, AGE_MS), "Time since the end of the task."),
    key("cleanup.rules[].target", Name(TARGETS), "What goes: events, or with `task` and `all` the task with everything it has.").required(),
    key("cleanup.rules[].eventFilter.types", List(&Pattern), "With target `events`: types of those that go; none given, all."),
    key("cleanup.rules[].eventFilter.levels", List(&Name(LEVELS)), "With target `events`: levels of those that go; none given, all."),
    key("cleanup.rules[].eventFilter.olderThanMs", Number(0, AGE_MS), "With target `events`: least age of those that go."),
    key("cleanup.rules[].eventFilter.seriesMode", Name(SERIES_MODES), "With target `events`: how the series of those that go folds."),
    key("cleanup.intervalMs", Number(100, 5000), "Pause between two looks for what has fallen due."),
    // sentry
    key("sentry.dsn", Dsn, "Project that gets the reports. Without it nothing is reported.")
        .or(&["SENTRY_DSN"]),
    key("sentry.environment", Text, "Name of the environment in reports."),
    key("sentry.release", Text, "Name of the release in reports."),
    key("sentry.sampleRate", Fraction, "Share of the reports that are sent."),
    key("sentry.captureTaskFailures", Switch, "Whether failed tasks are reported."),
    key("sentry.captureTaskTimeouts", Switch, "Whether tasks that timed out are reported."),
    key("sentry.captureUnhandledErrors", Switch, "Whether errors nobody handled are reported."),
    key("sentry.captureDroppedEvents", Switch, "Whether events that were dropped are reported."),
    key("sentry.captureStorageErrors", Switch, "Whether failures of the store are reported."),
    key("sentry.captureBroadcastErrors", Switch, "Whether failures of the bus are reported."),
    // metrics
    key("metrics.enabled", Switch, "`false` takes the route `GET /metrics` away."),
    key("metrics.token", Secret, "Bearer token the route asks for. Without it the route is open."),
    // cors
    key("cors.origins", OneOrMany(&Origin), "Origins whose pages browsers let in, spelled as browsers send them: no slash at the end."),
    key("cors.credentials", Switch, "`true` lets those pages send cookies; needs origins by name, not `*`."),
    // http
    key("http.keepAliveMs", Number(1000, HOUR_MS), "How long a connection is kept between two requests; longer than proxies keep theirs."),
    key("http.allowedHosts", List(&Text), "Names, besides those of loopback, that a server on loopback answers to in mode `none`."),
    key("http.bodyBytes", Number(1, GIB), "Size of all request bodies under way together."),
    // limits
    key("limits.bodyBytes", Number(1, 256 * MIB), "Size of a request's body."),
    key("limits.eventDataBytes", Number(1, 256 * MIB), "Size of an event's `data`."),
    key("limits.outcomeBytes", Number(1, 256 * MIB), "Size of `result` and `error` of a transition together."),
    key("limits.taskBytes", Number(1, 256 * MIB), "Size of all text a task is created with."),
    key("limits.seriesTextBytes", Number(1, GIB / 2), "Size of the text of an accumulate series."),
    key("limits.eventsPerRequest", Number(1, 100_000), "Events in one request."),
    key("limits.nesting", Number(1, 128), "Arrays and objects within one another, in a payload."),
    key("limits.tags", Number(1, 10_000), "Tags of a task."),
    key("limits.webhooksPerTask", Number(0, 1000), "Webhooks of a task; 0 for none."),
    key("limits.historyLimit", Number(1, 1_000_000), "Events in a history answer."),
    key("limits.listLimit", Number(1, 10_000), "Tasks in a page of a list."),
    key("limits.listPageBytes", Number(1, 256 * MIB), "Size of a page of a list."),
    // sse
    key("sse.keepAliveMs", Number(1, HOUR_MS), "Silence after which a stream gets a comment."),
    key("sse.stallTimeoutMs", Number(1, HOUR_MS), "Time after which a reader that takes nothing is disconnected."),
    key("sse.ringEvents", Number(1, 1_000_000), "Frames kept ready for each task that has readers; who needs older ones is served from the store."),
    key("sse.ringBytes", Number(1, GIB), "Size of those frames."),
    key("sse.globalBacklogBytes", Number(1, GIB), "How far a reader of `GET /events` may fall behind."),
    key("sse.openTimeoutMs", Number(0, MINUTE_MS), "How long a request for a stream is held while the store, or the service of mode `custom`, cannot be reached."),
    // A stopping server has ten seconds in all.
    key("sse.drainMs", Number(1, 8000), "Time over which a stopping server ends its streams."),
];
