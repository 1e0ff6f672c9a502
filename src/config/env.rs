//! The environment: the only place of the crate that reads it, and the rules
//! by which its variables become configuration.
//!
//! Every key has a variable: `TASKCAST_` and the key in capitals, sections
//! joined by two underscores, as in `TASKCAST_SSE__KEEP_ALIVE_MS`. A few have
//! a shorter one as well.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use figment::value::{Dict, Value};

use super::document::{ADAPTER_ALIASES, typed};
use super::error::{ConfigError, Source, empty_mode};
use super::layer::Layer;

/// What the names of our variables begin with.
const PREFIX: &str = "TASKCAST_";

/// Short names beside the regular ones.
const SHORT_NAMES: [(&str, &str); 3] = [
    ("TASKCAST_AUTH_MODE", "auth.mode"),
    ("TASKCAST_POSTGRES_URL", "postgres.url"),
    ("TASKCAST_POSTGRES_DIRECT_URL", "postgres.directUrl"),
];

/// Beginnings of variables that a later version will understand, with the key
/// they belong to. A name without a trailing underscore is a whole name, so
/// that what Kubernetes injects for a service `taskcast-redis` is not meant.
const NOT_SUPPORTED: [(&str, &str); 10] = [
    ("SENTRY_DSN", "sentry.dsn"),
    ("TASKCAST_AUTH__CUSTOM__", "auth.custom"),
    ("TASKCAST_AUTH__JWT__", "auth.jwt"),
    ("TASKCAST_CLEANUP__", "cleanup"),
    ("TASKCAST_JWT_", "auth.jwt"),
    ("TASKCAST_REDIS_URL", "redis"),
    ("TASKCAST_REDIS_URL_FILE", "redis"),
    ("TASKCAST_REDIS__", "redis"),
    ("TASKCAST_SENTRY__", "sentry"),
    ("TASKCAST_WEBHOOK__", "webhook"),
];

/// The environment variables of a process, as values that can be passed in.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Takes a copy of this process's environment. What is not Unicode is
    /// converted with replacement characters, so it matches nothing by accident.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub fn from_process() -> Self {
        std::env::vars_os()
            .map(|(name, value)| {
                let text = |part: &OsStr| part.to_string_lossy().into_owned();
                (text(&name), text(&value))
            })
            .collect()
    }

    /// Returns a variable's value, also when it is empty.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns a variable's value unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value(name).filter(|value| !value.is_empty())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl std::fmt::Debug for Environment {
    /// Shows names only, since values are often secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What the environment says.
#[derive(Debug)]
pub(super) struct Reading {
    /// The values it gives.
    pub(super) layer: Layer,
    /// What an operator should know about variables that give none.
    pub(super) warnings: Vec<String>,
}

/// Reads our variables. Relative paths in them are taken from `directory`.
pub(super) fn read(
    environment: &Environment,
    known: &Dict,
    directory: &Path,
) -> Result<Reading, ConfigError> {
    let names = Names::of(known);
    let mut given: BTreeMap<String, (String, Value)> = BTreeMap::new();
    let mut warnings = Vec::new();
    for (name, value) in &environment.0 {
        if value.is_empty() {
            if names.key(name) == Some("auth.mode") {
                return Err(empty_mode(Source::Variable(name.clone())));
            }
            continue;
        }
        if let Some(key) = not_supported(name) {
            return Err(ConfigError::not_supported(Source::Variable(name.clone()), key));
        }
        if !name.starts_with(PREFIX) || is_injected(name, environment) {
            continue;
        }
        if is_port_of_a_service(name, value) {
            warnings.push(format!(
                "{name}={value} is ignored: it looks like the address Kubernetes injects for a \
                 service named taskcast"
            ));
            continue;
        }
        let (key, text) = if let Some(key) = names.key(name) {
            (key, value.clone())
        } else if let Some(key) = name.strip_suffix("_FILE").and_then(|name| names.secret(name)) {
            (key, read_secret(name, key, &directory.join(value))?)
        } else {
            warnings.push(format!("{name} is not a variable of taskcast and is ignored"));
            continue;
        };
        if text.is_empty() {
            continue;
        }
        let value = typed(find(known, key), text);
        if let Some((other, _)) = given.insert(key.to_owned(), (name.clone(), value)) {
            let reason = format!("{other} gives the same key; unset one of the two");
            return Err(ConfigError::key(Source::Variable(name.clone()), key, reason));
        }
    }
    let layer = Layer::variables(given);
    Ok(Reading { layer, warnings })
}

/// Returns the key of a later version that a variable belongs to.
fn not_supported(name: &str) -> Option<&'static str> {
    NOT_SUPPORTED
        .iter()
        .find(|(known, _)| name == *known || (known.ends_with('_') && name.starts_with(known)))
        .map(|(_, key)| *key)
}

/// Tells whether a value is what Kubernetes injects under the name of our port.
fn is_port_of_a_service(name: &str, value: &str) -> bool {
    name == "TASKCAST_PORT" && (value.starts_with("tcp://") || value.starts_with("udp://"))
}

/// Tells whether a variable is one of those that Kubernetes injects together
/// with that port. The warning about the port stands for them all.
fn is_injected(name: &str, environment: &Environment) -> bool {
    let port = "TASKCAST_PORT";
    let has_service = environment.get(port).is_some_and(|value| is_port_of_a_service(port, value));
    has_service && (name.starts_with("TASKCAST_SERVICE_") || name.starts_with("TASKCAST_PORT_"))
}

/// Reads a secret from the file that a variable names, less the line end that
/// editors leave behind.
fn read_secret(name: &str, key: &str, path: &Path) -> Result<String, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| {
        let reason = format!("{} cannot be read: {error}", path.display());
        ConfigError::key(Source::Variable(name.to_owned()), key, reason)
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Finds a value by its dotted key.
fn find<'a>(values: &'a Dict, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => values.get(key),
        Some((section, rest)) => find(values.get(section)?.as_dict()?, rest),
    }
}

/// The variables that are known, with the keys they set.
struct Names(BTreeMap<String, String>);

impl Names {
    fn of(known: &Dict) -> Self {
        let mut names = BTreeMap::new();
        collect(known, "", PREFIX, &mut names);
        for (name, key) in SHORT_NAMES {
            names.insert(name.to_owned(), key.to_owned());
        }
        Self(names)
    }

    fn key(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns the key of a variable that holds a secret.
    fn secret(&self, name: &str) -> Option<&str> {
        self.key(name).filter(|key| {
            ["url", "directUrl"].iter().any(|secret| key.split('.').next_back() == Some(secret))
        })
    }
}

/// Collects the variables of a section, aliases included.
fn collect(section: &Dict, path: &str, prefix: &str, names: &mut BTreeMap<String, String>) {
    for (name, value) in section {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let aliases = ADAPTER_ALIASES.iter().filter(|(_, stands_for)| stands_for == name);
        for spelling in aliases.map(|(alias, _)| *alias).chain([name.as_str()]) {
            let variable = format!("{prefix}{}", screaming(spelling));
            match value {
                Value::Dict(_, inner) => collect(inner, &key, &format!("{variable}__"), names),
                _ => {
                    names.insert(variable, key.clone());
                }
            }
        }
    }
}

/// Turns `keepAliveMs` into `KEEP_ALIVE_MS`.
fn screaming(name: &str) -> String {
    let mut screaming = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            screaming.push('_');
        }
        screaming.push(letter.to_ascii_uppercase());
    }
    screaming
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::known_keys;

    #[test]
    fn every_key_has_a_variable_derived_from_its_path() {
        let names = Names::of(&known_keys().unwrap());
        for (name, key) in [
            ("TASKCAST_PORT", "port"),
            ("TASKCAST_LOG_LEVEL", "logLevel"),
            ("TASKCAST_SSE__KEEP_ALIVE_MS", "sse.keepAliveMs"),
            ("TASKCAST_POSTGRES_DIRECT_URL", "postgres.directUrl"),
            ("TASKCAST_POSTGRES__DIRECT_URL", "postgres.directUrl"),
            ("TASKCAST_ADAPTERS__SHORT_TERM__URL", "adapters.shortTerm.url"),
            ("TASKCAST_ADAPTERS__SHORT_TERM_STORE__URL", "adapters.shortTerm.url"),
            ("TASKCAST_CORS__ORIGINS", "cors.origins"),
        ] {
            assert_eq!(names.key(name), Some(key), "{name}");
        }
        assert_eq!(names.key("TASKCAST_SSE"), None);
    }

    #[test]
    fn printing_an_environment_shows_no_values() {
        let environment: Environment =
            [("SECRET".to_owned(), "canary".to_owned())].into_iter().collect();
        assert_eq!(format!("{environment:?}"), r#"{"SECRET"}"#);
    }
}
