//! Histories: a stretch of the log as one array, in constant memory.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::unfold;

use super::body::Cut;
use super::query::{StreamQuery, last_event_id};
use crate::dispatcher::{History, HistoryEvent, HistoryRequest, OpenedHistory};
use crate::domain::{Action, write_event, write_snapshot};
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::http::extract::{Query, TaskPath};
use crate::http::middleware::TASKCAST_RESET;

/// Returns a task's events: `GET /tasks/{id}/events/history`.
pub(in crate::http) async fn read_history(
    State(app): State<AppState>,
    caller: Caller,
    path: TaskPath,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    caller.allow(Action::ReadHistory)?;
    let limits = app.engine.limits();
    let mut request = StreamQuery::read(&query, limits)?;
    // The header counts before the cursors of the query, as on a stream.
    request.cursor.ids.splice(..0, last_event_id(&headers));
    let id = path.id()?;
    caller.authorize(Action::ReadHistory, Some(&id))?;
    let opened = app
        .dispatcher
        .history(HistoryRequest {
            task: id,
            filter: request.filter,
            cursor: request.cursor,
            limit: request.limit.unwrap_or(limits.history_events),
            accumulated: request.accumulated,
            guard: caller.guard(Action::ReadHistory),
        })
        .await?
        .ok_or_else(ApiError::task_not_found)?;
    let mut history = match opened {
        OpenedHistory::History(history) => *history,
        OpenedHistory::Denied(decision) => {
            return Err(ApiError::denied(decision, Action::ReadHistory));
        }
    };
    // The first page is read before the status is sent, so that a store that
    // is down can still be told in the usual shape.
    let first = history.read().await?;
    let is_reset = history.is_reset();
    let parts = unfold(Part::First(history, first), next_part);
    let headers = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (headers, Body::from_stream(parts)).into_response();
    if is_reset {
        response.headers_mut().insert(TASKCAST_RESET, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// What is left of a history to send.
enum Part {
    First(History, Vec<HistoryEvent>),
    Rest(History),
    Nothing,
}

async fn next_part(part: Part) -> Option<(Result<Bytes, Cut>, Part)> {
    let mut out = String::new();
    let (history, events) = match part {
        Part::First(history, events) => {
            out.push('[');
            (history, events)
        }
        Part::Rest(mut history) => match history.read().await {
            Ok(events) => {
                if !events.is_empty() {
                    out.push(',');
                }
                (history, events)
            }
            Err(error) => {
                tracing::warn!(%error, "history cut: the store failed");
                return Some((Err(Cut), Part::Nothing));
            }
        },
        Part::Nothing => return None,
    };
    if events.is_empty() {
        out.push(']');
        return Some((Ok(out.into()), Part::Nothing));
    }
    for (position, HistoryEvent { event, is_snapshot }) in events.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        if *is_snapshot {
            write_snapshot(&mut out, event);
        } else {
            write_event(&mut out, event);
        }
    }
    Some((Ok(out.into()), Part::Rest(history)))
}
