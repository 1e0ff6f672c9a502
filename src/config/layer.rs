//! One layer of configuration, flags, environment or file, as a figment
//! provider that remembers what each of its values is called at its source.

use std::collections::BTreeMap;
use std::path::Path;

use figment::error::{Actual, Kind};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::document::Document;
use super::error::{ConfigError, Source};

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
            // An element of a list is named after the list.
            names
                .iter()
                .find(|(known, _)| key == **known || key.starts_with(&format!("{known}.")))
                .map_or(key.clone(), |(_, name)| name.clone())
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

/// Returns where the value of a key comes from.
pub(super) fn source_of(figment: &Figment, key: &str) -> Source {
    let path: Vec<&str> = key.split('.').collect();
    source_from(figment.find_metadata(key), &path)
}

fn source_from<K: AsRef<str>>(metadata: Option<&Metadata>, path: &[K]) -> Source {
    let Some(metadata) = metadata else {
        return Source::Default;
    };
    let file = metadata.source.as_ref().and_then(|source| source.file_path());
    let name = || metadata.interpolate(&Profile::Default, path);
    match (&*metadata.name, file) {
        (FILE, Some(file)) => Source::File(file.to_owned()),
        (VARIABLE, _) => Source::Variable(name()),
        (FLAG, _) => Source::Flag(name()),
        (_, _) => Source::Default,
    }
}

/// Reads the merged layers.
pub(super) fn extract(figment: &Figment) -> Result<Document, ConfigError> {
    figment.extract().map_err(|error| {
        let source = source_from(error.metadata.as_ref(), &error.path);
        ConfigError::key(source, error.path.join("."), reason(&error.kind))
    })
}

/// Words the reason a value was refused. Text that was found in place of
/// something else stays out, since it could be a secret under the wrong key.
fn reason(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            format!("expected {}, found {}", describe_wanted(wanted), describe_found(found))
        }
        Kind::UnknownVariant(found, known) => {
            format!("`{found}` is not one of {}", list(known))
        }
        other => other.to_string(),
    }
}

fn describe_wanted(wanted: &str) -> &str {
    match wanted {
        "u16" => "a whole number from 0 to 65535",
        "usize" => "a positive whole number",
        "a boolean" => "true or false",
        section if section.starts_with("struct ") => "a section with keys of its own",
        variants if variants.starts_with("enum ") => "a name",
        other => other,
    }
}

fn describe_found(found: &Actual) -> String {
    match found {
        Actual::Str(_) | Actual::Char(_) | Actual::Bytes(_) => "text".to_owned(),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a section".to_owned(),
        Actual::Bool(value) => format!("`{value}`"),
        Actual::Unsigned(value) => format!("`{value}`"),
        Actual::Signed(value) => format!("`{value}`"),
        Actual::Float(value) => format!("`{value}`"),
        _ => "something else".to_owned(),
    }
}

/// Writes names as `a`, `b`, `c`.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
