//! One layer of configuration, flags, environment or file, as a figment
//! provider that remembers what each of its values is called at its source.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::document::Document;
use super::error::{ConfigError, Place, Source};

const FILE: &str = "file";
const VARIABLE: &str = "variable";
const FLAG: &str = "flag";

/// A set of values with their origin.
#[derive(Debug)]
pub(super) struct Layer {
    metadata: Metadata,
    values: Dict,
}

impl Layer {
    /// Makes the layer of a file.
    pub(super) fn file(path: &Path, values: Dict) -> Self {
        Self { metadata: Metadata::from(FILE, path), values }
    }

    /// Makes the layer of environment variables from what was read: the name
    /// of a variable and its value, by key.
    pub(super) fn variables(read: BTreeMap<String, (String, Value)>) -> Self {
        Self::named(VARIABLE, read)
    }

    /// Makes the layer of command line flags: the name of a flag and its
    /// value, by key.
    pub(super) fn flags(given: BTreeMap<String, (String, Value)>) -> Self {
        Self::named(FLAG, given)
    }

    fn named(kind: &'static str, given: BTreeMap<String, (String, Value)>) -> Self {
        let mut names = BTreeMap::new();
        let mut values = Dict::new();
        for (key, (name, value)) in given {
            insert(&mut values, &key, value);
            names.insert(key, name);
        }
        let metadata = Metadata::named(kind).interpolater(move |_, path| {
            let key = path.join(".");
            names.get(&key).cloned().unwrap_or(key)
        });
        Self { metadata, values }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// Puts a value at a dotted key.
fn insert(values: &mut Dict, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            values.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let mut inner = match values.remove(section) {
                Some(Value::Dict(_, inner)) => inner,
                Some(_) | None => Dict::new(),
            };
            insert(&mut inner, rest, value);
            values.insert(section.to_owned(), Value::from(inner));
        }
    }
}

/// Returns where the value of a key comes from. An element of a list, such as
/// `cleanup.rules[1]`, comes from where the list does.
pub(super) fn source_of(figment: &Figment, key: &str) -> Source {
    let key = key.split('[').next().unwrap_or(key);
    let Some(metadata) = figment.find_metadata(key) else {
        return Source::Default;
    };
    let path: Vec<&str> = key.split('.').collect();
    let file = metadata.source.as_ref().and_then(|source| source.file_path());
    let name = || metadata.interpolate(&Profile::Default, &path);
    match (&*metadata.name, file) {
        (FILE, Some(file)) => Source::File(file.to_owned()),
        (VARIABLE, _) => Source::Variable(name()),
        (FLAG, _) => Source::Flag(name()),
        (_, _) => Source::Default,
    }
}

/// Returns the place of a key in the layer that won.
pub(super) fn place_of(figment: &Figment, key: &str) -> Place {
    Place::key(source_of(figment, key), key)
}

/// Refuses the value of a key, blaming the layer that won.
pub(super) fn refuse(figment: &Figment, key: &str, reason: impl Into<String>) -> ConfigError {
    place_of(figment, key).refuse(reason)
}

/// Reads the merged layers. Every layer was checked, so what fails here is a
/// fault of the check; its words could repeat a secret and stay out.
pub(super) fn extract(figment: &Figment) -> Result<Document, ConfigError> {
    figment.extract().map_err(|error| {
        refuse(figment, &error.path.join("."), "a checked value was not understood")
    })
}
