//! Series: how the events of one `seriesId` fold, and what they may change.
//!
//! A series is fixed by the event that opens it. `accumulate` fixes mode,
//! type, level and text field, because a snapshot stands for all its deltas;
//! `latest` and `keep-all` fix only the mode.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Event, EventDraft, Json, Level, SeriesTag, json};

/// How the events of a series fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeriesMode {
    /// Every event stands for itself.
    KeepAll,
    /// Text concatenates; late readers get the whole as one snapshot.
    Accumulate,
    /// The newest event stands for the series.
    Latest,
}

impl SeriesMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::KeepAll, Self::Accumulate, Self::Latest];

    /// Returns the mode's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeepAll => "keep-all",
            Self::Accumulate => "accumulate",
            Self::Latest => "latest",
        }
    }

    /// Parses a mode's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// Members that hold the text when the publisher names none, in this order.
const DEFAULT_TEXT_FIELDS: [&str; 2] = ["text", "delta"];

/// What the head of a task knows about one of its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesState {
    /// How the series folds.
    pub mode: SeriesMode,
    /// Type of the event that opened it.
    pub event_type: Arc<str>,
    /// Level of the event that opened it.
    pub level: Level,
    /// The text field the opening event named.
    pub named_field: Option<Arc<str>>,
    /// The text field in force: named, or fixed by the first event that has one.
    pub field: Option<Arc<str>>,
    /// Index of the event that opened it.
    pub first_index: u64,
    /// Index of its newest event.
    pub last_index: u64,
    /// Length of the accumulated text, undecoded, in bytes.
    pub text_bytes: u64,
}

/// A series as it stands after an accepted write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesWrite {
    /// Name of the series.
    pub id: Arc<str>,
    /// Its new state.
    pub state: SeriesState,
    /// Indexes of events of a `latest` series that no longer stand for it.
    pub superseded: Vec<u64>,
}

/// Why an event does not fit the series it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeriesConflict {
    /// The series began with another mode.
    #[error("series began with mode {}", .0.as_str())]
    Mode(SeriesMode),
    /// The series began with another type.
    #[error("series began with type {0}")]
    Type(Arc<str>),
    /// The series began with another level.
    #[error("series began with level {}", .0.as_str())]
    Level(Level),
    /// The series began with another text field.
    #[error("series accumulates another field than {0}")]
    Field(Arc<str>),
    /// The text field holds something else than a string.
    #[error("field {0} is present but not a string")]
    NotText(Arc<str>),
}

/// The text one event adds to its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution<'a> {
    /// The member that holds it.
    pub field: Arc<str>,
    /// The text between the quotes, undecoded.
    pub body: &'a str,
}

impl SeriesState {
    /// Opens a series with its first event.
    pub fn open(
        draft: &EventDraft,
        tag: &SeriesTag,
        mode: SeriesMode,
        index: u64,
    ) -> Result<Self, SeriesConflict> {
        let state = Self {
            mode,
            event_type: draft.event_type.clone(),
            level: draft.level,
            named_field: tag.field.clone(),
            field: tag.field.clone(),
            first_index: index,
            last_index: index,
            text_bytes: 0,
        };
        state.extended(draft, index)
    }

    /// Returns the state after `draft` joins the series at `index`.
    pub fn extend(
        &self,
        draft: &EventDraft,
        tag: &SeriesTag,
        mode: SeriesMode,
        index: u64,
    ) -> Result<Self, SeriesConflict> {
        if mode != self.mode {
            return Err(SeriesConflict::Mode(self.mode));
        }
        if mode == SeriesMode::Accumulate {
            if draft.event_type != self.event_type {
                return Err(SeriesConflict::Type(self.event_type.clone()));
            }
            if draft.level != self.level {
                return Err(SeriesConflict::Level(self.level));
            }
            if let Some(named) = &tag.field
                && self.named_field.as_ref().or(self.field.as_ref()) != Some(named)
            {
                return Err(SeriesConflict::Field(named.clone()));
            }
        }
        self.clone().extended(draft, index)
    }

    fn extended(mut self, draft: &EventDraft, index: u64) -> Result<Self, SeriesConflict> {
        if self.mode == SeriesMode::Accumulate
            && let Some(text) = contribution(self.field.as_ref(), draft)?
        {
            self.text_bytes += text.body.len() as u64;
            self.field = Some(text.field);
        }
        self.last_index = index;
        Ok(self)
    }
}

/// Returns the text `draft` adds to a series that accumulates `field`.
///
/// While no field is in force the first default field present decides.
pub(super) fn contribution<'a>(
    field: Option<&Arc<str>>,
    draft: &'a EventDraft,
) -> Result<Option<Contribution<'a>>, SeriesConflict> {
    let data = draft.data.as_str();
    let (field, value) = if let Some(field) = field {
        match json::member(data, field) {
            Some(value) => (field.clone(), value),
            None => return Ok(None),
        }
    } else {
        let default = DEFAULT_TEXT_FIELDS
            .into_iter()
            .find_map(|name| Some((Arc::from(name), json::member(data, name)?)));
        match default {
            Some(found) => found,
            None => return Ok(None),
        }
    };
    match json::string_body(&data[value]) {
        Some(body) => Ok(Some(Contribution { field, body })),
        None => Err(SeriesConflict::NotText(field)),
    }
}

impl<'a> Contribution<'a> {
    /// Returns what a stored delta adds to a series that accumulates `field`.
    pub fn of(field: Option<&Arc<str>>, draft: &'a EventDraft) -> Option<Self> {
        // A stored delta was judged when it was accepted, so it has no conflict.
        contribution(field, draft).ok().flatten()
    }
}

/// Folds the whole text of a series into its newest event.
pub fn fold(mut newest: Event, field: Option<&str>, text: &str) -> Event {
    let data = newest.draft.data.as_str();
    let Some(field) = field else { return newest };
    // Before the first text there is nothing to show.
    if !text.is_empty() || json::member(data, field).is_some() {
        newest.draft.data = Json::from_compact(json::with_string_member(data, field, text));
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(data: &str) -> EventDraft {
        EventDraft {
            event_type: "llm.delta".into(),
            level: Level::Info,
            data: Json::from_valid(data),
            series: None,
        }
    }

    fn tag(field: Option<&str>) -> SeriesTag {
        SeriesTag {
            id: "r".into(),
            mode: Some(SeriesMode::Accumulate),
            field: field.map(Arc::from),
        }
    }

    fn open(data: &str, field: Option<&str>) -> Result<SeriesState, SeriesConflict> {
        SeriesState::open(&draft(data), &tag(field), SeriesMode::Accumulate, 0)
    }

    fn extend(
        state: &SeriesState,
        data: &str,
        field: Option<&str>,
    ) -> Result<SeriesState, SeriesConflict> {
        state.extend(&draft(data), &tag(field), SeriesMode::Accumulate, 1)
    }

    #[test]
    fn the_first_event_that_has_a_default_field_fixes_it() {
        let state = open("null", None).unwrap();
        assert_eq!(state.field, None);
        let state = extend(&state, r#"{"delta":"abc"}"#, None).unwrap();
        assert_eq!((state.field.as_deref(), state.text_bytes), (Some("delta"), 3));
        let state = extend(&state, r#"{"text":"ignored"}"#, None).unwrap();
        assert_eq!((state.field.as_deref(), state.text_bytes), (Some("delta"), 3));
        assert_eq!(
            open(r#"{"delta":"d","text":"t"}"#, None).unwrap().field.as_deref(),
            Some("text")
        );
    }

    #[test]
    fn a_text_field_that_is_no_string_is_a_conflict() {
        assert!(matches!(open(r#"{"text":1}"#, None), Err(SeriesConflict::NotText(_))));
        assert!(matches!(open(r#"{"out":null}"#, Some("out")), Err(SeriesConflict::NotText(_))));
    }

    #[test]
    fn an_accumulate_series_keeps_mode_type_level_and_field() {
        let state = open(r#"{"out":"a"}"#, Some("out")).unwrap();
        assert!(extend(&state, r#"{"out":"b"}"#, None).is_ok());
        assert!(extend(&state, r#"{"out":"b"}"#, Some("out")).is_ok());
        assert!(matches!(extend(&state, "{}", Some("text")), Err(SeriesConflict::Field(_))));
        let mut other = draft("{}");
        other.event_type = "x".into();
        let conflict = state.extend(&other, &tag(None), SeriesMode::Accumulate, 1);
        assert!(matches!(conflict, Err(SeriesConflict::Type(_))));
        let mut other = draft("{}");
        other.level = Level::Warn;
        let conflict = state.extend(&other, &tag(None), SeriesMode::Accumulate, 1);
        assert!(matches!(conflict, Err(SeriesConflict::Level(_))));
        let conflict = state.extend(&draft("{}"), &tag(None), SeriesMode::Latest, 1);
        assert_eq!(conflict, Err(SeriesConflict::Mode(SeriesMode::Accumulate)));
    }

    #[test]
    fn text_bytes_count_the_undecoded_body() {
        let state = open(r#"{"text":"\ud83d"}"#, None).unwrap();
        assert_eq!(state.text_bytes, 6);
    }
}
