//! The configuration as it is written: the keys of a file, before anything is
//! decided from them.
//!
//! The serialised default document is the one list of known keys. Environment
//! variables, unknown-key checks and the typing of text are all derived from
//! it, so a key added here is known everywhere.

use std::fmt;

use figment::value::{Dict, Value};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::error::{ConfigError, Source};
use super::sections::{CorsOrigins, Limits, LogLevel, MemorySettings, PostgresSettings, Sse};

/// The port when nobody gives one.
const DEFAULT_PORT: u16 = 3721;

/// Keys that a later version will understand. They refuse to start rather than
/// be ignored, because each of them promises something.
pub(super) const NOT_SUPPORTED: [&str; 6] =
    ["auth.custom", "auth.jwt", "cleanup", "redis", "sentry", "webhook"];

/// Accepted spellings of a key within `adapters`, with what they stand for.
pub(super) const ADAPTER_ALIASES: [(&str, &str); 2] =
    [("shortTermStore", "shortTerm"), ("longTermStore", "longTerm")];

/// The root of the configuration.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Document {
    pub(super) port: u16,
    pub(super) host: Option<String>,
    pub(super) log_level: LogLevel,
    pub(super) auth: AuthSection,
    pub(super) adapters: AdaptersSection,
    pub(super) cors: CorsSection,
    pub(super) limits: Limits,
    pub(super) sse: Sse,
    pub(super) postgres: PostgresSection,
    pub(super) memory: MemorySettings,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            port: DEFAULT_PORT,
            host: None,
            log_level: LogLevel::default(),
            auth: AuthSection::default(),
            adapters: AdaptersSection::default(),
            cors: CorsSection::default(),
            limits: Limits::default(),
            sse: Sse::default(),
            postgres: PostgresSection::default(),
            memory: MemorySettings::default(),
        }
    }
}

/// `auth`: the mode only, for now.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct AuthSection {
    pub(super) mode: String,
}

impl Default for AuthSection {
    fn default() -> Self {
        Self { mode: "none".to_owned() }
    }
}

/// `adapters`: what stores tasks and carries wake-ups.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct AdaptersSection {
    pub(super) broadcast: AdapterSection,
    pub(super) short_term: AdapterSection,
    pub(super) long_term: AdapterSection,
}

/// One entry of `adapters`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct AdapterSection {
    pub(super) provider: Option<String>,
    pub(super) url: Option<String>,
}

/// `cors`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct CorsSection {
    pub(super) origins: CorsOrigins,
}

/// `postgres`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct PostgresSection {
    pub(super) url: Option<String>,
    pub(super) direct_url: Option<String>,
    lanes: usize,
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

impl Serialize for CorsOrigins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.collect_seq::<[&str; 0]>([]),
            Self::Any => serializer.serialize_str("*"),
            Self::List(origins) => serializer.collect_seq(origins),
        }
    }
}

impl<'de> Deserialize<'de> for CorsOrigins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OriginsVisitor)
    }
}

struct OriginsVisitor;

impl<'de> Visitor<'de> for OriginsVisitor {
    type Value = CorsOrigins;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of origins or `*`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<CorsOrigins, E> {
        if text == "*" {
            Ok(CorsOrigins::Any)
        } else {
            Err(E::invalid_type(de::Unexpected::Str(text), &self))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<CorsOrigins, A::Error> {
        let mut origins: Vec<String> = Vec::new();
        while let Some(origin) = seq.next_element()? {
            origins.push(origin);
        }
        if origins.is_empty() {
            return Ok(CorsOrigins::Off);
        }
        if origins.iter().any(|origin| origin == "*") {
            return Ok(CorsOrigins::Any);
        }
        match origins.iter().find(|origin| !is_origin(origin)) {
            None => Ok(CorsOrigins::List(origins)),
            Some(origin) => Err(de::Error::custom(format_args!(
                "`{origin}` is not an origin; write scheme and host as browsers send them, such as `https://app.example.com`"
            ))),
        }
    }
}

/// Tells whether a text can equal what a browser sends as `Origin`. One that
/// cannot, such as a URL with a trailing slash, would never let anybody in.
fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@', ' '])
    })
}

/// Returns the default document as a tree: the known keys, each with a value
/// of the type it takes. Absent defaults are text.
pub(super) fn known_keys() -> Result<Dict, ConfigError> {
    Value::serialize(Document::default())
        .map(|tree| tree.into_dict().unwrap_or_default())
        .map_err(|error| ConfigError::whole(Source::Default, error.to_string()))
}

/// Gives a text from an environment variable the type its key takes. Text that
/// does not fit stays text, and is refused by name later.
pub(super) fn typed(known: Option<&Value>, text: String) -> Value {
    let parsed = match known {
        Some(Value::Num(..)) => text.parse::<u64>().ok().map(Value::from),
        Some(Value::Bool(..)) => text.parse::<bool>().ok().map(Value::from),
        Some(Value::Array(..)) if text.starts_with('[') => serde_json::from_str(&text).ok(),
        Some(
            Value::Array(..)
            | Value::String(..)
            | Value::Char(..)
            | Value::Empty(..)
            | Value::Dict(..),
        )
        | None => None,
    };
    parsed.unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_gets_the_type_of_its_key() {
        let number = Value::from(1_u8);
        assert_eq!(typed(Some(&number), "8080".to_owned()), Value::from(8080_u64));
        assert_eq!(typed(Some(&number), "x".to_owned()), Value::from("x"));
        let list = Value::from(Vec::<String>::new());
        assert_eq!(typed(Some(&list), "*".to_owned()), Value::from("*"));
        assert_eq!(typed(Some(&list), r#"["a"]"#.to_owned()), Value::from(vec!["a"]));
        assert_eq!(typed(Some(&Value::from("x")), "8080".to_owned()), Value::from("8080"));
    }

    #[test]
    fn an_origin_is_scheme_and_host_only() {
        assert!(is_origin("https://app.example.com"));
        assert!(is_origin("http://localhost:5173"));
        for text in ["https://app.example.com/", "app.example.com", "https://", "null"] {
            assert!(!is_origin(text), "{text}");
        }
    }

    #[test]
    fn the_known_keys_hold_every_section() {
        let known = known_keys().unwrap();
        let sections: Vec<&str> = known.keys().map(String::as_str).collect();
        let expected = [
            "adapters", "auth", "cors", "host", "limits", "logLevel", "memory", "port", "postgres",
            "sse",
        ];
        assert_eq!(sections, expected);
    }
}
