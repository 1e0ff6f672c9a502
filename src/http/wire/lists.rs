//! Members that are lists of something, and truth values.

use super::fields::{Field, elements, is_label, string};
use crate::domain::{Filter, Level, TypePattern};
use crate::http::error::{ApiError, ErrorCode};

/// Most entries of a list of types, levels or states.
const MOST_ENTRIES: usize = 100;

/// Returns the elements of a member that is an array of at most `limit`.
fn items<'a>(field: &Field<'a>, limit: usize) -> Result<Option<Vec<&'a str>>, ApiError> {
    let Some(text) = field.sent() else { return Ok(None) };
    if !text.starts_with('[') {
        return Err(field.invalid("must be an array"));
    }
    let items = elements(text, limit)?;
    if items.len() > limit {
        let message = format!("{} is limited to {limit} entries", field.name());
        return Err(ApiError::new(ErrorCode::LimitExceeded, message)
            .at(field.path())
            .over(limit as u64));
    }
    Ok(Some(items))
}

/// Returns what `read` makes of each element of an array; an error points to
/// the element, whose `read` knows nothing of where it stands.
pub(super) fn each<T>(
    field: &Field<'_>,
    limit: usize,
    read: impl Fn(&str) -> Result<T, ApiError>,
) -> Result<Option<Vec<T>>, ApiError> {
    let Some(items) = items(field, limit)? else { return Ok(None) };
    let read = |(position, item): (usize, &str)| {
        read(item).map_err(|error| error.under(&format!("{}/{position}", field.path())))
    };
    items.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

/// Returns a truth value.
pub(super) fn flag(field: &Field<'_>) -> Result<Option<bool>, ApiError> {
    match field.sent() {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(field.invalid("must be true or false")),
    }
}

/// Returns what `parse` makes of each word of a list.
pub(super) fn words<T>(
    field: &Field<'_>,
    parse: impl Fn(&str) -> Option<T>,
    problem: &str,
) -> Result<Option<Vec<T>>, ApiError> {
    each(field, MOST_ENTRIES, |item| {
        string(item).ok().and_then(|word| parse(&word)).ok_or_else(|| {
            ApiError::invalid("", format!("each of {} must be {problem}", field.name()))
        })
    })
}

/// Returns a list of patterns for types.
pub(super) fn patterns(field: &Field<'_>) -> Result<Option<Vec<TypePattern>>, ApiError> {
    let parse = |text: &str| {
        TypePattern::parse(text).ok().filter(|_| is_label(text) && !text.contains(','))
    };
    words(field, parse, "a type; a * may stand alone or after a final dot, as in llm.*")
}

/// Returns a list of levels.
pub(super) fn levels(field: &Field<'_>) -> Result<Option<Vec<Level>>, ApiError> {
    words(field, Level::parse, "one of debug, info, warn, error")
}

/// Returns a choice of events: an object of `types`, `levels`, `includeStatus`.
pub(super) fn filter(field: &Field<'_>) -> Result<Option<Filter>, ApiError> {
    let Some([types, wanted, include_status]) =
        field.fields(["types", "levels", "includeStatus"])?
    else {
        return Ok(None);
    };
    Ok(Some(Filter {
        types: patterns(&types)?.unwrap_or_default(),
        levels: levels(&wanted)?.unwrap_or_default(),
        include_status: flag(&include_status)?.unwrap_or(true),
    }))
}
