//! Events as the model knows them: payloads are members and values, so that
//! nothing has to be parsed to know what a series adds up to.

use taskcast::domain::{EventDraft, Filter, Json, Level, SeriesMode, SeriesTag, TypePattern};

/// Type of the event of a transition.
pub(super) const STATUS: &str = "taskcast:status";

/// What an event carries.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Payload {
    /// An object: names and values, both as they are written.
    Members(Vec<(&'static str, &'static str)>),
    /// Anything else, as it is written.
    Bare(String),
}

/// The series an event names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tag {
    pub(super) id: &'static str,
    pub(super) mode: Option<SeriesMode>,
    pub(super) field: Option<&'static str>,
}

/// An event as it is published.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    pub(super) kind: &'static str,
    pub(super) level: Level,
    pub(super) data: Payload,
    pub(super) tag: Option<Tag>,
}

/// Which events are wanted.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub(super) types: Vec<&'static str>,
    pub(super) levels: Vec<Level>,
    pub(super) include_status: bool,
}

impl Payload {
    /// Returns the payload as it is written.
    pub(super) fn written(&self) -> String {
        match self {
            Self::Members(members) => {
                let members: Vec<String> =
                    members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }
            Self::Bare(text) => text.clone(),
        }
    }

    /// Returns the value of a member, as it is written.
    pub(super) fn member(&self, name: &str) -> Option<&'static str> {
        match self {
            Self::Members(members) => {
                members.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
            }
            Self::Bare(_) => None,
        }
    }

    /// Returns the payload with a whole text in the place of its piece: in its
    /// member, else in a new one at the end, else as the only one.
    pub(super) fn with_text(&self, field: &str, text: &str) -> String {
        let whole = format!("\"{text}\"");
        let members = match self {
            Self::Members(members) => members.clone(),
            Self::Bare(_) => Vec::new(),
        };
        let has_field = self.member(field).is_some();
        let mut written: Vec<String> = members
            .iter()
            .map(|(name, value)| {
                let value = if *name == field { &whole } else { *value };
                format!("\"{name}\":{value}")
            })
            .collect();
        if !has_field {
            written.push(format!("\"{field}\":{whole}"));
        }
        format!("{{{}}}", written.join(","))
    }
}

/// Returns what stands between the quotes of a written string.
pub(super) fn text_of(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

impl Draft {
    /// Returns the event that tells of a transition.
    pub(super) fn status(data: String) -> Self {
        Self { kind: STATUS, level: Level::Info, data: Payload::Bare(data), tag: None }
    }

    /// Returns the series the event belongs to, with its mode.
    pub(super) fn series(&self) -> Option<(&Tag, SeriesMode)> {
        let tag = self.tag.as_ref()?;
        Some((tag, tag.mode?))
    }

    /// Tells whether the event is a piece of an `accumulate` series.
    pub(super) fn is_delta(&self) -> bool {
        self.series().is_some_and(|(_, mode)| mode == SeriesMode::Accumulate)
    }

    /// Returns the event as a store takes it, with this payload.
    pub(super) fn with_data(&self, data: &str) -> EventDraft {
        let tag = |tag: &Tag| SeriesTag {
            id: tag.id.into(),
            mode: tag.mode,
            field: tag.field.map(Into::into),
        };
        EventDraft {
            event_type: self.kind.into(),
            level: self.level,
            data: Json::from_valid(data),
            series: self.tag.as_ref().map(tag),
        }
    }

    /// Returns the event as a store takes it.
    pub(super) fn sent(&self) -> EventDraft {
        self.with_data(&self.data.written())
    }
}

/// Tells whether a type fits a pattern: itself, `*`, or what begins like it.
pub(super) fn fits(pattern: &str, kind: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == kind, |prefix| kind.starts_with(prefix))
}

impl Want {
    /// Tells whether an event is wanted.
    pub(super) fn admits(&self, draft: &Draft) -> bool {
        let type_fits = self.types.is_empty() || self.types.iter().any(|p| fits(p, draft.kind));
        let level_fits = self.levels.is_empty() || self.levels.contains(&draft.level);
        type_fits && level_fits && (self.include_status || draft.kind != STATUS)
    }

    /// Returns the filter a store takes.
    pub(super) fn sent(&self) -> Filter {
        Filter {
            types: self.types.iter().map(|text| TypePattern::parse(text).unwrap()).collect(),
            levels: self.levels.clone(),
            include_status: self.include_status,
        }
    }
}
