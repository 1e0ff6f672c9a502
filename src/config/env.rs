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

use figment::value::Value;

use super::document::ADAPTER_ALIASES;
use super::error::{ConfigError, Source};
use super::keys::{KEYS, Key};
use super::layer::Layer;
use super::schema::{self, EMPTY_MODE, Section};
use super::storage::without_redis;

/// What the names of our variables begin with.
const PREFIX: &str = "TASKCAST_";

/// Variables of Redis, which a later version will understand. A name without a
/// trailing underscore is a whole name, so that what Kubernetes injects for a
/// service `taskcast-redis` is not meant.
const NOT_SUPPORTED: [&str; 3] =
    ["TASKCAST_REDIS_URL", "TASKCAST_REDIS_URL_FILE", "TASKCAST_REDIS__"];

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
    known: &Section,
    directory: &Path,
) -> Result<Reading, ConfigError> {
    let names = Names::new();
    let mut given: BTreeMap<String, (String, Value)> = BTreeMap::new();
    let mut warnings = Vec::new();
    for (name, value) in &environment.0 {
        let source = || Source::Variable(name.clone());
        if value.is_empty() {
            if names.key(name).is_some_and(|key| key.path == "auth.mode") {
                return Err(ConfigError::key(source(), "auth.mode", EMPTY_MODE));
            }
            continue;
        }
        if is_not_supported(name) {
            return Err(ConfigError::key(source(), schema::NOT_SUPPORTED, without_redis()));
        }
        if is_injected(name, environment) {
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
            if name.starts_with(PREFIX) {
                warnings.push(format!("{name} is not a variable of taskcast and is ignored"));
            }
            continue;
        };
        let read = match schema::find(known, key.path) {
            Some(node) if !text.is_empty() => schema::read_variable(text, node),
            Some(_) | None => Ok(None),
        };
        let Some(value) = read.map_err(|problem| problem.of(source()))? else {
            continue;
        };
        if let Some((other, _)) = given.insert(key.path.to_owned(), (name.clone(), value)) {
            let reason = format!("{other} gives the same key; unset one of the two");
            return Err(ConfigError::key(source(), key.path, reason));
        }
    }
    let layer = Layer::variables(given);
    Ok(Reading { layer, warnings })
}

/// Tells whether a variable belongs to a later version.
fn is_not_supported(name: &str) -> bool {
    NOT_SUPPORTED
        .iter()
        .any(|known| name == *known || (known.ends_with('_') && name.starts_with(known)))
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
fn read_secret(name: &str, key: &Key, path: &Path) -> Result<String, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| {
        let reason = format!("{} cannot be read: {error}", path.display());
        ConfigError::key(Source::Variable(name.to_owned()), key.path, reason)
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The variables that are known, with the keys they set.
struct Names(BTreeMap<String, &'static Key>);

impl Names {
    fn new() -> Self {
        let mut names = BTreeMap::new();
        for key in KEYS.iter().filter(|key| !key.is_in_a_list()) {
            names.insert(derived(key.path), key);
            for (alias, stands_for) in ADAPTER_ALIASES {
                if let Some(rest) = key.path.strip_prefix(&format!("adapters.{stands_for}.")) {
                    names.insert(derived(&format!("adapters.{alias}.{rest}")), key);
                }
            }
            names.extend(key.short_names.iter().map(|name| ((*name).to_owned(), key)));
        }
        Self(names)
    }

    fn key(&self, name: &str) -> Option<&'static Key> {
        self.0.get(name).copied()
    }

    /// Returns the key of a variable that may hold a secret.
    fn secret(&self, name: &str) -> Option<&'static Key> {
        self.key(name).filter(|key| key.may_hold_a_secret())
    }
}

/// Returns the variables of a key, the shortest first.
pub(super) fn names_of(key: &Key) -> Vec<String> {
    let mut names: Vec<String> = key.short_names.iter().map(|name| (*name).to_owned()).collect();
    if !key.is_in_a_list() {
        names.push(derived(key.path));
    }
    names
}

/// Returns the variable that is derived from the path of a key.
fn derived(path: &str) -> String {
    let names: Vec<String> = path.split('.').map(screaming).collect();
    format!("{PREFIX}{}", names.join("__"))
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
    use figment::Figment;

    use super::super::kind::Kind;
    use super::super::layer::source_of;
    use super::*;

    #[test]
    fn every_key_has_a_variable_derived_from_its_path() {
        let names = Names::new();
        for (name, key) in [
            ("TASKCAST_PORT", "port"),
            ("TASKCAST_LOG_LEVEL", "logLevel"),
            ("TASKCAST_SSE__KEEP_ALIVE_MS", "sse.keepAliveMs"),
            ("TASKCAST_POSTGRES_DIRECT_URL", "postgres.directUrl"),
            ("TASKCAST_POSTGRES__DIRECT_URL", "postgres.directUrl"),
            ("TASKCAST_ADAPTERS__SHORT_TERM__URL", "adapters.shortTerm.url"),
            ("TASKCAST_ADAPTERS__SHORT_TERM_STORE__URL", "adapters.shortTerm.url"),
            ("TASKCAST_CORS__ORIGINS", "cors.origins"),
            ("TASKCAST_WEBHOOK__ENDPOINTS", "webhook.endpoints"),
            ("TASKCAST_JWT_PUBLIC_KEY_FILE", "auth.jwt.publicKeyFile"),
            ("TASKCAST_AUTH__JWT__PUBLIC_KEY_FILE", "auth.jwt.publicKeyFile"),
            ("SENTRY_DSN", "sentry.dsn"),
        ] {
            assert_eq!(names.key(name).map(|key| key.path), Some(key), "{name}");
        }
        assert!(names.key("TASKCAST_SSE").is_none());
    }

    /// Returns a text that the check of a kind lets through.
    fn sample(kind: Kind) -> String {
        match kind {
            Kind::Number(least, _) => least.to_string(),
            Kind::Name(names) => names[0].to_owned(),
            Kind::List(entry) => format!("[\"{}\"]", sample(*entry)),
            Kind::OneOrMany(entry) => sample(*entry),
            Kind::Fraction => "0.5".to_owned(),
            Kind::Switch => "false".to_owned(),
            Kind::Text | Kind::Secret | Kind::SigningKey | Kind::File => "text".to_owned(),
            Kind::StoreUrl => "postgres://h/x".to_owned(),
            Kind::HttpUrl | Kind::Origin => "http://h".to_owned(),
            Kind::Dsn => "http://k@h/1".to_owned(),
            Kind::Pattern => "llm.*".to_owned(),
            Kind::Target => "10.0.0.0/8".to_owned(),
            Kind::Items => r#"[{"url": "http://h"}]"#.to_owned(),
        }
    }

    #[test]
    fn every_variable_of_every_key_gives_its_value() {
        for key in KEYS.iter().filter(|key| !key.is_in_a_list()) {
            for name in names_of(key) {
                let text = match key.path {
                    "cleanup.rules" => r#"[{"target": "all"}]"#.to_owned(),
                    _ => sample(key.kind),
                };
                let environment = [(name.clone(), text)].into_iter().collect();
                let Reading { layer, warnings } =
                    read(&environment, &schema::tree(), Path::new("")).unwrap();
                assert!(warnings.is_empty(), "{warnings:?}");
                let figment = Figment::from(layer);
                assert!(figment.find_value(key.path).is_ok(), "{name}");
                assert_eq!(source_of(&figment, key.path), Source::Variable(name));
            }
        }
    }

    #[test]
    fn printing_an_environment_shows_no_values() {
        let environment: Environment =
            [("SECRET".to_owned(), "canary".to_owned())].into_iter().collect();
        assert_eq!(format!("{environment:?}"), r#"{"SECRET"}"#);
    }
}
