//! The configuration as it is written: what the keys of a file are read into,
//! before anything is decided from them, and the default of each.
//!
//! By the time values get here they were checked against the table of keys, so
//! the sections are plain.

use std::num::NonZero;

use figment::value::Value;
use serde::{Deserialize, Serialize};

use super::auth::AuthSection;
use super::cleanup::{CleanupSection, RuleSection};
use super::error::{ConfigError, Source};
use super::secret::Secret;
use super::sections::{
    CorsOrigins, Http, Limits, LogLevel, MemorySettings, MetricsSettings, PostgresSettings, Sse,
};
use super::sentry::SentrySection;
use super::webhook::{EndpointSection, WebhookSection};

/// The port when nobody gives one.
const DEFAULT_PORT: u16 = 3721;

/// Accepted spellings of a key within `adapters`, with what they stand for.
pub(super) const ADAPTER_ALIASES: [(&str, &str); 2] =
    [("shortTermStore", "shortTerm"), ("longTermStore", "longTerm")];

/// The root of the configuration.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Document {
    pub(super) port: u16,
    pub(super) host: Option<String>,
    pub(super) log_level: LogLevel,
    pub(super) worker_threads: Option<NonZero<usize>>,
    pub(super) auth: AuthSection,
    pub(super) adapters: AdaptersSection,
    pub(super) cors: CorsSection,
    pub(super) http: Http,
    pub(super) limits: Limits,
    pub(super) metrics: MetricsSection,
    pub(super) sse: Sse,
    pub(super) postgres: PostgresSection,
    pub(super) memory: MemorySettings,
    pub(super) webhook: WebhookSection,
    pub(super) cleanup: CleanupSection,
    pub(super) sentry: SentrySection,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            port: DEFAULT_PORT,
            host: None,
            log_level: LogLevel::default(),
            worker_threads: None,
            auth: AuthSection::default(),
            adapters: AdaptersSection::default(),
            cors: CorsSection::default(),
            http: Http::default(),
            limits: Limits::default(),
            metrics: MetricsSection::default(),
            sse: Sse::default(),
            postgres: PostgresSection::default(),
            memory: MemorySettings::default(),
            webhook: WebhookSection::default(),
            cleanup: CleanupSection::default(),
            sentry: SentrySection::default(),
        }
    }
}

/// Returns the defaults with one element in every list of sections, so that
/// the keys of elements and their defaults are there too.
pub(super) fn written_out() -> Result<Value, ConfigError> {
    let mut document = Document::default();
    document.webhook.endpoints.push(EndpointSection::default());
    document.cleanup.rules.push(RuleSection::default());
    Value::serialize(document)
        .map_err(|error| ConfigError::whole(Source::Default, error.to_string()))
}

/// `adapters`: what stores tasks and carries wake-ups.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct AdaptersSection {
    pub(super) broadcast: AdapterSection,
    pub(super) short_term: AdapterSection,
    pub(super) long_term: AdapterSection,
}

/// One entry of `adapters`.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct AdapterSection {
    pub(super) provider: Option<String>,
    pub(super) url: Option<String>,
}

/// `cors`.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct CorsSection {
    origins: OneOrMany,
    pub(super) credentials: bool,
}

impl CorsSection {
    /// Says whether cookies are allowed from every origin, which no browser
    /// accepts and nobody should ask for.
    pub(super) fn is_too_open(&self) -> bool {
        self.credentials && self.origins.contains("*")
    }

    pub(super) fn settings(self) -> CorsOrigins {
        let origins = self.origins.into_vec();
        if origins.iter().any(|origin| origin == "*") {
            CorsOrigins::Any
        } else if origins.is_empty() {
            CorsOrigins::Off
        } else {
            CorsOrigins::List(origins)
        }
    }
}

/// `metrics`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct MetricsSection {
    enabled: bool,
    token: Option<String>,
}

impl Default for MetricsSection {
    fn default() -> Self {
        Self { enabled: true, token: None }
    }
}

impl MetricsSection {
    pub(super) fn settings(self) -> MetricsSettings {
        MetricsSettings { enabled: self.enabled, token: self.token.map(Secret::new) }
    }
}

/// `postgres`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct PostgresSection {
    pub(super) url: Option<String>,
    pub(super) direct_url: Option<String>,
    lanes: Option<usize>,
    read_connections: usize,
    lane_bytes: usize,
    write_timeout_ms: usize,
    listen: bool,
}

impl PostgresSection {
    pub(super) fn settings(&self) -> PostgresSettings {
        PostgresSettings {
            lanes: self.lanes,
            read_connections: self.read_connections,
            lane_bytes: self.lane_bytes,
            write_timeout_ms: self.write_timeout_ms,
            listen: self.listen,
        }
    }
}

impl Default for PostgresSection {
    fn default() -> Self {
        let PostgresSettings { lanes, read_connections, lane_bytes, write_timeout_ms, listen } =
            PostgresSettings::default();
        Self {
            url: None,
            direct_url: None,
            lanes,
            read_connections,
            lane_bytes,
            write_timeout_ms,
            listen,
        }
    }
}

/// A value that may be written alone or as a list.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn contains(&self, entry: &str) -> bool {
        match self {
            Self::One(one) => one == entry,
            Self::Many(many) => many.iter().any(|one| one == entry),
        }
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// Turns texts that were checked against the table of keys into what they
/// stand for.
///
/// # Errors
///
/// Fails on a text that the table lets through and `parse` does not, rather
/// than pass it over: a filter with an entry less lets more through.
pub(super) fn parsed<T>(
    texts: &[String],
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, ConfigError> {
    texts.iter().map(|text| understood(parse(text))).collect()
}

/// Like [`parsed`], for one value.
pub(super) fn understood<T>(value: Option<T>) -> Result<T, ConfigError> {
    value.ok_or_else(|| ConfigError::whole(Source::Default, "a checked value was not understood"))
}
