//! The keys as a tree, and the check of everything that is written against it.
//!
//! Values are checked layer by layer, before precedence, so that a mistake is
//! found although a stronger layer would cover it, and is blamed on the place
//! it was made in.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::env::Environment;
use super::error::{ConfigError, Source};
use super::keys::{KEYS, Key};
use super::kind::{Kind, found, list};
use super::placeholder::{Expanded, expand};
use super::storage::without_redis;

/// A section that a later version will understand. What it holds refuses to
/// start rather than be ignored.
pub(super) const NOT_SUPPORTED: &str = "redis";

/// Why an empty mode is refused. Elsewhere empty means absent, but here the
/// default lets everybody in, and nobody asks for that by leaving a value out.
pub(super) const EMPTY_MODE: &str = "the mode is empty; write `none` for no authentication";

/// The keys of a section, by name.
pub(super) type Section = BTreeMap<&'static str, Node>;

/// What a name within a section stands for.
#[derive(Debug)]
pub(super) enum Node {
    /// Keys of its own.
    Section(Section),
    /// A list of sections with these keys.
    Items(&'static Key, Section),
    /// A value.
    Value(&'static Key),
}

/// Returns every key as a tree.
pub(super) fn tree() -> Section {
    let mut root = Section::new();
    for key in KEYS {
        place(&mut root, key.path, key);
    }
    root
}

fn place(section: &mut Section, path: &'static str, key: &'static Key) {
    let Some((name, rest)) = path.split_once('.') else {
        let node = match key.kind {
            Kind::Items => Node::Items(key, Section::new()),
            _ => Node::Value(key),
        };
        section.insert(path, node);
        return;
    };
    let name = name.trim_end_matches("[]");
    match section.entry(name).or_insert_with(|| Node::Section(Section::new())) {
        Node::Section(inner) | Node::Items(_, inner) => place(inner, rest, key),
        // A key that is a value cannot be a section as well; the test that
        // fills the document from the table finds the table wrong.
        Node::Value(_) => {}
    }
}

/// Finds what stands at a dotted path.
pub(super) fn find<'a>(section: &'a Section, path: &str) -> Option<&'a Node> {
    match path.split_once('.') {
        None => section.get(path),
        Some((name, rest)) => match section.get(name)? {
            Node::Section(inner) => find(inner, rest),
            Node::Items(..) | Node::Value(_) => None,
        },
    }
}

/// What is wrong with a value, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The key, with the positions in lists: `cleanup.rules[1].target`.
    pub(super) path: String,
    pub(super) reason: String,
}

impl Problem {
    fn new(path: &str, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into() }
    }

    /// Blames the source the value was read from.
    pub(super) fn of(self, source: Source) -> ConfigError {
        ConfigError::key(source, self.path, self.reason)
    }
}

/// Checks values against the keys, replaces placeholders, drops what is empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    /// What placeholders stand for; without it text is taken as it is.
    environment: Option<&'a Environment>,
}

impl<'a> Reader<'a> {
    /// A reader of values that hold no placeholders.
    pub(super) const LITERAL: Self = Self { environment: None };

    /// Makes a reader that replaces placeholders.
    pub(super) fn of_file(environment: &'a Environment) -> Self {
        Self { environment: Some(environment) }
    }

    /// Reads a section.
    pub(super) fn section(
        self,
        values: Dict,
        path: &str,
        known: &Section,
    ) -> Result<Dict, Problem> {
        let mut read = Dict::new();
        for (name, value) in values {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if key == NOT_SUPPORTED {
                if self.holds_something(value) {
                    return Err(Problem::new(&key, without_redis()));
                }
                continue;
            }
            let Some(node) = known.get(&*name) else {
                let names: Vec<&str> = known.keys().copied().collect();
                let reason = format!("unknown key; the keys here are {}", list(&names));
                return Err(Problem::new(&key, reason));
            };
            if let Some(value) = self.node(value, &key, node)? {
                read.insert(name, value);
            }
        }
        Ok(read)
    }

    /// Reads what stands under one name; `None` means that it is as good as
    /// absent.
    fn node(self, value: Value, path: &str, node: &Node) -> Result<Option<Value>, Problem> {
        match (node, value) {
            (_, Value::Empty(..)) => Ok(None),
            (Node::Value(key), value) => self.value(value, path, key.kind),
            (Node::Section(known), Value::Dict(_, values)) => {
                Ok(Some(Value::from(self.section(values, path, known)?)))
            }
            (Node::Section(_), other) => Err(not_a_section(&other, path)),
            (Node::Items(key, known), Value::String(_, text)) => {
                match self.text(&text, path, key.kind)? {
                    None => Ok(None),
                    Some(value) => Reader::LITERAL.items(value, path, known).map(Some),
                }
            }
            (Node::Items(_, known), value) => self.items(value, path, known).map(Some),
        }
    }

    /// Reads a list of sections.
    fn items(self, value: Value, path: &str, known: &Section) -> Result<Value, Problem> {
        let Value::Array(_, items) = value else {
            let reason = format!("expected {}, found {}", Kind::Items, found(&value));
            return Err(Problem::new(path, reason));
        };
        let mut read = Vec::new();
        for (position, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{position}]");
            match item {
                Value::Empty(..) => {}
                Value::Dict(_, values) => {
                    let values = self.section(values, &path, known)?;
                    if let Some(name) = missing(&values, known) {
                        let key = format!("{path}.{name}");
                        return Err(Problem::new(&key, "missing; there is no default for it"));
                    }
                    read.push(Value::from(values));
                }
                other => return Err(not_a_section(&other, &path)),
            }
        }
        Ok(Value::from(read))
    }

    /// Reads a value that is no section.
    fn value(self, value: Value, path: &str, kind: Kind) -> Result<Option<Value>, Problem> {
        let (value, inner) = match value {
            Value::Empty(..) => return Ok(None),
            Value::String(_, text) => match self.text(&text, path, kind)? {
                None => return Ok(None),
                // What a variable holds is not expanded again.
                Some(value) => (value, Reader::LITERAL),
            },
            other => (other, self),
        };
        let entries = match (kind, value) {
            (Kind::List(entry) | Kind::OneOrMany(entry), Value::Array(_, entries)) => entries
                .into_iter()
                .enumerate()
                .map(|(position, value)| inner.value(value, &format!("{path}[{position}]"), *entry))
                .collect::<Result<Vec<Option<Value>>, Problem>>()?,
            (Kind::OneOrMany(entry), value) => return check(*entry, value, path),
            (kind, value) => return check(kind, value, path),
        };
        Ok(Some(Value::from(entries.into_iter().flatten().collect::<Vec<Value>>())))
    }

    /// Reads a text; `None` means that it is empty.
    fn text(self, text: &str, path: &str, kind: Kind) -> Result<Option<Value>, Problem> {
        let expanded = match self.environment {
            None => Expanded::Text(text.to_owned()),
            Some(environment) => expand(text, |name| environment.value(name).map(str::to_owned))
                .map_err(|error| Problem::new(path, error.to_string()))?,
        };
        match expanded {
            Expanded::Text(text) | Expanded::Untyped(text) if text.is_empty() => {
                if path == "auth.mode" { Err(Problem::new(path, EMPTY_MODE)) } else { Ok(None) }
            }
            Expanded::Text(text) => Ok(Some(Value::from(text))),
            Expanded::Untyped(text) => {
                kind.typed(text).map(Some).map_err(|reason| Problem::new(path, reason))
            }
        }
    }

    /// Tells whether anything below a value is not empty: one file may serve
    /// installations with and without it.
    fn holds_something(self, value: Value) -> bool {
        match value {
            Value::Dict(_, inner) => inner.into_values().any(|value| self.holds_something(value)),
            Value::Array(_, items) => items.into_iter().any(|value| self.holds_something(value)),
            // What cannot be expanded was meant to hold something.
            other => !matches!(self.value(other, NOT_SUPPORTED, Kind::Text), Ok(None)),
        }
    }
}

/// Reads the text of a variable, whose type follows from its key.
pub(super) fn read_variable(text: String, node: &Node) -> Result<Option<Value>, Problem> {
    let (Node::Value(key) | Node::Items(key, _)) = node else {
        return Ok(None);
    };
    let value = key.kind.typed(text).map_err(|reason| Problem::new(key.path, reason))?;
    Reader::LITERAL.node(value, key.path, node)
}

fn check(kind: Kind, value: Value, path: &str) -> Result<Option<Value>, Problem> {
    kind.check(value).map(Some).map_err(|reason| Problem::new(path, reason))
}

fn not_a_section(value: &Value, path: &str) -> Problem {
    let reason = format!("expected a section with keys of its own, found {}", found(value));
    Problem::new(path, reason)
}

/// Returns the first key that a section must have and has not.
fn missing(values: &Dict, known: &Section) -> Option<&'static str> {
    known
        .iter()
        .filter(|(_, node)| matches!(node, Node::Value(key) if key.is_required))
        .map(|(name, _)| *name)
        .find(|name| !values.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::super::document::{self, Document};
    use super::*;

    /// Collects the paths below a tree of values, as the table spells them.
    fn paths(value: &Value, path: &str, into: &mut Vec<String>) {
        match value {
            Value::Dict(_, values) => {
                for (name, value) in values {
                    let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    paths(value, &key, into);
                }
            }
            Value::Array(_, items) if matches!(items.first(), Some(Value::Dict(..))) => {
                into.push(path.to_owned());
                paths(&items[0], &format!("{path}[]"), into);
            }
            _ => into.push(path.to_owned()),
        }
    }

    #[test]
    fn the_table_and_the_document_have_the_same_keys() {
        let mut written = Vec::new();
        paths(&document::written_out().unwrap(), "", &mut written);
        let mut listed: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
        written.sort();
        listed.sort_unstable();
        assert_eq!(written, listed);
    }

    #[test]
    fn every_default_passes_the_check_of_its_key() {
        let Value::Dict(_, defaults) = Value::serialize(Document::default()).unwrap() else {
            panic!("the document is a section")
        };
        Reader::LITERAL.section(defaults, "", &tree()).unwrap();
    }

    #[test]
    fn every_key_says_what_it_means() {
        for key in KEYS {
            assert!(key.meaning.ends_with('.'), "{}", key.path);
            assert!(!key.meaning.contains(['|', '\n']), "{}", key.path);
        }
    }

    #[test]
    fn problems_name_the_position_in_a_list() {
        let read = |text: &str| {
            let values: Dict = serde_json::from_str(text).unwrap();
            Reader::LITERAL.section(values, "", &tree())
        };
        for (text, path) in [
            (
                r#"{"webhook":{"endpoints":[{"url":"http://h"},{"urk":1}]}}"#,
                "webhook.endpoints[1].urk",
            ),
            (r#"{"webhook":{"endpoints":[{"wrap":true}]}}"#, "webhook.endpoints[0].url"),
            (r#"{"webhook":{"endpoints":["http://h"]}}"#, "webhook.endpoints[0]"),
            (r#"{"webhook":{"endpoints":{}}}"#, "webhook.endpoints"),
            (r#"{"webhook":{"allowTargets":["a","b/8"]}}"#, "webhook.allowTargets[1]"),
            (
                r#"{"cleanup":{"rules":[{"target":"all"},{"target":"all","match":{"status":["running"]}}]}}"#,
                "cleanup.rules[1].match.status[0]",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().path, path, "{text}");
        }
    }
}
