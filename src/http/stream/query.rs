//! What a reader asks for, from its query string and headers.

use std::borrow::Cow;

use axum::http::HeaderMap;

use super::frames::Wrap;
use crate::domain::{Cursor, Filter, Level, TypePattern};
use crate::engine::Limits;
use crate::http::error::ApiError;
use crate::http::extract::Query;

/// The query of a stream or a history.
#[derive(Debug)]
pub(super) struct StreamQuery {
    pub(super) filter: Filter,
    pub(super) cursor: Cursor,
    pub(super) limit: Option<usize>,
    pub(super) accumulated: bool,
    pub(super) wrap: Wrap,
}

impl StreamQuery {
    pub(super) fn read(query: &Query, limits: &Limits) -> Result<Self, ApiError> {
        let most = i64::try_from(limits.history_events).unwrap_or(i64::MAX);
        let limit = query.integer("limit", 1..=most)?;
        Ok(Self {
            filter: read_filter(query)?,
            cursor: read_cursor(query)?,
            limit: limit.and_then(|limit| usize::try_from(limit).ok()),
            accumulated: read_is_accumulated(query)?,
            wrap: query.flag("wrap")?.map_or(Wrap::Envelope, Wrap::of_flag),
        })
    }
}

pub(super) fn read_filter(query: &Query) -> Result<Filter, ApiError> {
    let problem = "is a list of types such as llm.delta, llm.* or *; a * may only end a type";
    let types = query.list("types", problem, |text| TypePattern::parse(text).ok())?;
    let levels = query.list("levels", "is a list of debug, info, warn and error", Level::parse)?;
    let include_status = query.flag("includeStatus")?.unwrap_or(true);
    Ok(Filter { types, levels, include_status })
}

fn read_cursor(query: &Query) -> Result<Cursor, ApiError> {
    let id = query.last("since.id")?.filter(|id| !id.is_empty());
    let timestamp = query.integer("since.timestamp", 0..=i64::MAX)?;
    Ok(Cursor {
        ids: id.map(Cow::into_owned).into_iter().collect(),
        filtered_index: query.integer("since.index", -1..=i64::MAX)?,
        timestamp_ms: timestamp.and_then(|timestamp| u64::try_from(timestamp).ok()),
    })
}

fn read_is_accumulated(query: &Query) -> Result<bool, ApiError> {
    match query.last("seriesFormat")?.as_deref() {
        None | Some("delta") => Ok(false),
        Some("accumulated") => Ok(true),
        Some(_) => Err(query.invalid("seriesFormat", "must be delta or accumulated")),
    }
}

/// Returns the id a browser sends when it reconnects.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("last-event-id")?;
    // An id we never gave out is unknown, however it is spelled.
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned()).filter(|id| !id.is_empty())
}
