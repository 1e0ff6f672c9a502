//! The configuration file: which one, in which format, and what its values
//! become before they take part in precedence.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Json, Toml};
use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;

use super::document::{ADAPTER_ALIASES, NOT_SUPPORTED, typed};
use super::env::Environment;
use super::error::{ConfigError, Source, empty_mode};
use super::layer::{Layer, list};
use super::placeholder::{Expanded, expand};

/// The names that are looked for in the working directory, the first one wins.
const NAMES: [&str; 4] =
    ["taskcast.config.yaml", "taskcast.config.yml", "taskcast.config.json", "taskcast.config.toml"];

/// Names that other servers of this protocol run as programs.
const SCRIPTS: [&str; 3] = ["taskcast.config.ts", "taskcast.config.js", "taskcast.config.mjs"];

/// YAML as a figment format.
struct Yaml;

impl Format for Yaml {
    type Error = serde_yaml_ng::Error;

    const NAME: &'static str = "YAML";

    fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Self::Error> {
        serde_yaml_ng::from_str(text)
    }
}

/// Finds the configuration file of a working directory.
///
/// A script refuses to start: it may have configured authentication, and a
/// server that passes it over would be open without anybody noticing.
pub(super) fn find(directory: &Path) -> Result<Option<PathBuf>, ConfigError> {
    let existing = |name: &&str| directory.join(name).is_file();
    if let Some(script) = SCRIPTS.into_iter().find(|name| existing(name)) {
        return Err(ConfigError::whole(
            Source::File(directory.join(script)),
            "script configuration is not supported and may have set up authentication; move its \
             settings to taskcast.config.yaml and start with `-c taskcast.config.yaml`",
        ));
    }
    Ok(NAMES.into_iter().find(|name| existing(name)).map(|name| directory.join(name)))
}

/// Reads a configuration file into a layer.
pub(super) fn read(
    path: &Path,
    known: &Dict,
    environment: &Environment,
) -> Result<Layer, ConfigError> {
    let source = Source::File(path.to_owned());
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigError::whole(source.clone(), describe(&error)))?;
    let mut values =
        parse(path, &text).map_err(|reason| ConfigError::whole(source.clone(), reason))?;
    rename_adapters(&mut values, &source)?;
    let refinement = Refinement { source: &source, environment };
    let values = refinement.section(values, "", known)?;
    Ok(Layer::file(path, values))
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "the file does not exist".to_owned(),
        io::ErrorKind::InvalidData => "the file is not UTF-8 text".to_owned(),
        _ => format!("the file cannot be read: {error}"),
    }
}

/// Parses a file by its extension. Reasons name a line and never quote it.
fn parse(path: &Path, text: &str) -> Result<Dict, String> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    match extension {
        "yaml" | "yml" => {
            // A file of comments only is a valid file without values.
            let values: Option<Dict> =
                Yaml::from_str(text).map_err(|error| format!("not valid YAML: {error}"))?;
            Ok(values.unwrap_or_default())
        }
        "json" => Json::from_str(text).map_err(|error| format!("not valid JSON: {error}")),
        "toml" => Toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or(text);
            let line = 1 + before.matches('\n').count();
            format!("not valid TOML: {} at line {line}", error.message())
        }),
        "ts" | "js" | "mjs" => {
            Err("script configuration is not supported; write the settings as YAML, JSON or TOML"
                .to_owned())
        }
        _ => Err("the file name must end in .yaml, .yml, .json or .toml".to_owned()),
    }
}

/// Replaces the accepted aliases within `adapters`.
fn rename_adapters(values: &mut Dict, source: &Source) -> Result<(), ConfigError> {
    let Some(Value::Dict(_, adapters)) = values.get_mut("adapters") else {
        return Ok(());
    };
    for (alias, name) in ADAPTER_ALIASES {
        let Some(value) = adapters.remove(alias) else {
            continue;
        };
        if adapters.insert(name.to_owned(), value).is_some() {
            return Err(ConfigError::key(
                source.clone(),
                format!("adapters.{alias}"),
                format!("the same as `adapters.{name}`, which is given too"),
            ));
        }
    }
    Ok(())
}

/// Checks keys, replaces placeholders and drops empty values.
struct Refinement<'a> {
    source: &'a Source,
    environment: &'a Environment,
}

impl Refinement<'_> {
    fn section(&self, values: Dict, path: &str, known: &Dict) -> Result<Dict, ConfigError> {
        let mut refined = Dict::new();
        for (name, value) in values {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if NOT_SUPPORTED.contains(&key.as_str()) {
                self.refuse_unless_empty(value, &key)?;
                continue;
            }
            let Some(expected) = known.get(&name) else {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                let reason = format!("unknown key; the keys here are {}", list(&names));
                return Err(ConfigError::key(self.source.clone(), key, reason));
            };
            if let Some(value) = self.value(value, &key, Some(expected))? {
                refined.insert(name, value);
            }
        }
        Ok(refined)
    }

    /// Refines one value; `None` means that it is as good as absent.
    fn value(
        &self,
        value: Value,
        key: &str,
        known: Option<&Value>,
    ) -> Result<Option<Value>, ConfigError> {
        Ok(match value {
            Value::Empty(..) => None,
            Value::String(_, text) => self.text(&text, key, known)?,
            Value::Dict(_, inner) => {
                let inner = match known {
                    Some(Value::Dict(_, known)) => self.section(inner, key, known)?,
                    // A section where none belongs is refused by its type later.
                    Some(_) | None => inner,
                };
                Some(Value::from(inner))
            }
            Value::Array(_, items) => {
                let items: Result<Vec<Option<Value>>, ConfigError> =
                    items.into_iter().map(|item| self.value(item, key, None)).collect();
                Some(Value::from(items?.into_iter().flatten().collect::<Vec<Value>>()))
            }
            Value::Char(..) | Value::Bool(..) | Value::Num(..) => Some(value),
        })
    }

    fn text(
        &self,
        text: &str,
        key: &str,
        known: Option<&Value>,
    ) -> Result<Option<Value>, ConfigError> {
        let expanded = expand(text, |name| self.environment.value(name).map(str::to_owned))
            .map_err(|error| ConfigError::key(self.source.clone(), key, error.to_string()))?;
        Ok(match expanded {
            Expanded::Text(text) | Expanded::Untyped(text) if text.is_empty() => {
                if key == "auth.mode" {
                    return Err(empty_mode(self.source.clone()));
                }
                None
            }
            Expanded::Text(text) => Some(Value::from(text)),
            Expanded::Untyped(text) => Some(typed(known, text)),
        })
    }

    /// Refuses a key of a later version, unless all it holds is empty: one file
    /// may serve installations with and without it.
    fn refuse_unless_empty(&self, value: Value, key: &str) -> Result<(), ConfigError> {
        if self.holds_something(value, key) {
            return Err(ConfigError::not_supported(self.source.clone(), key));
        }
        Ok(())
    }

    fn holds_something(&self, value: Value, key: &str) -> bool {
        match value {
            Value::Dict(_, inner) => {
                inner.into_values().any(|value| self.holds_something(value, key))
            }
            Value::Array(_, items) => {
                items.into_iter().any(|value| self.holds_something(value, key))
            }
            // What cannot be expanded was meant to hold something.
            other => !matches!(self.value(other, key, None), Ok(None)),
        }
    }
}
