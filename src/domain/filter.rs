//! Which events a reader wants.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Event, Level, STATUS_EVENT_TYPE};

/// One entry of a `types` list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TypePattern {
    /// `*`: every type.
    Any,
    /// `llm.*`: every type that begins with `llm.`.
    Prefix(Arc<str>),
    /// Exactly this type.
    Exact(Arc<str>),
}

/// A pattern with a `*` where none may stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a * may stand alone or after a final dot, as in llm.*")]
pub struct InvalidPattern;

impl TypePattern {
    /// Parses one pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let pattern = match text.strip_suffix('*') {
            Some(prefix) if prefix.ends_with('.') => Self::Prefix(prefix.into()),
            Some(_) => return Err(InvalidPattern),
            None => Self::Exact(text.into()),
        };
        match &pattern {
            Self::Prefix(fixed) | Self::Exact(fixed) if fixed.contains('*') => Err(InvalidPattern),
            _ => Ok(pattern),
        }
    }

    /// Tells whether a type matches.
    pub fn matches(&self, event_type: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Prefix(prefix) => event_type.starts_with(&**prefix),
            Self::Exact(exact) => event_type == &**exact,
        }
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Exact(exact) => f.write_str(exact),
        }
    }
}

impl TryFrom<String> for TypePattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        Self::parse(&text)
    }
}

impl From<TypePattern> for String {
    fn from(pattern: TypePattern) -> Self {
        pattern.to_string()
    }
}

/// A reader's choice of events; all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Types wanted; empty means every type.
    pub types: Vec<TypePattern>,
    /// Levels wanted; empty means every level.
    pub levels: Vec<Level>,
    /// Whether status events pass.
    pub include_status: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self { types: Vec::new(), levels: Vec::new(), include_status: true }
    }
}

impl Filter {
    /// Tells whether every event passes, so that filtered index equals index.
    pub fn is_all(&self) -> bool {
        self.levels.is_empty()
            && self.include_status
            && (self.types.is_empty() || self.types.contains(&TypePattern::Any))
    }

    /// Tells whether events of this kind pass.
    pub fn admits_kind(&self, event_type: &str, level: Level) -> bool {
        (self.types.is_empty() || self.types.iter().any(|pattern| pattern.matches(event_type)))
            && (self.levels.is_empty() || self.levels.contains(&level))
            && (self.include_status || event_type != STATUS_EVENT_TYPE)
    }

    /// Tells whether an event passes.
    pub fn admits(&self, event: &Event) -> bool {
        self.admits_kind(&event.draft.event_type, event.draft.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_alone_or_after_a_final_dot() {
        for (pattern, hits, misses) in [
            ("*", vec!["a", "llm.x"], vec![]),
            ("llm.*", vec!["llm.x", "llm.a.b", "llm."], vec!["llm", "llmx"]),
            ("llm", vec!["llm"], vec!["llm.x", "LLM"]),
        ] {
            let parsed = TypePattern::parse(pattern).unwrap();
            assert!(hits.iter().all(|hit| parsed.matches(hit)), "{pattern}");
            assert!(!misses.iter().any(|miss| parsed.matches(miss)), "{pattern}");
        }
        for bad in ["l*m", "llm*", "*.x", "**", "a.*.b", "*.*"] {
            assert!(TypePattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let filter = Filter {
            types: vec![TypePattern::parse("llm.*").unwrap()],
            levels: vec![Level::Warn],
            include_status: true,
        };
        assert!(filter.admits_kind("llm.x", Level::Warn));
        assert!(!filter.admits_kind("llm.x", Level::Info));
        assert!(!filter.admits_kind("taskcast:status", Level::Warn));
        assert!(!filter.is_all());
        let hidden = Filter { include_status: false, ..Filter::default() };
        assert!(!hidden.admits_kind("taskcast:status", Level::Info));
        assert!(hidden.admits_kind("taskcast", Level::Info));
        assert!(Filter::default().is_all());
    }
}
