//! The configuration file: which one, in which format, and what its values
//! become before they take part in precedence.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Json, Toml};
use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;

use super::document::ADAPTER_ALIASES;
use super::env::Environment;
use super::error::{ConfigError, Source};
use super::layer::Layer;
use super::schema::{Reader, Section};

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
    known: &Section,
    environment: &Environment,
) -> Result<Layer, ConfigError> {
    let source = Source::File(path.to_owned());
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigError::whole(source.clone(), describe(&error)))?;
    let mut values =
        parse(path, &text).map_err(|reason| ConfigError::whole(source.clone(), reason))?;
    rename_adapters(&mut values, &source)?;
    let values = Reader::of_file(environment)
        .section(values, "", known)
        .map_err(|problem| problem.of(source))?;
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
