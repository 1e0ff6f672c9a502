//! Streams of events, and histories.
//!
//! Handlers read the query to a request, ask the dispatcher for a reader, and
//! hand it to a body that the socket pulls. Everything that can be refused is
//! refused before the first byte.

mod body;
mod frames;
mod history;
mod query;

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio_util::sync::CancellationToken;

use self::body::{AllTasksBody, TaskBody};
use self::frames::Wrap;
pub(super) use self::history::read_history;
use super::AppState;
use super::auth::authorize;
use super::error::ApiError;
use super::extract::{Query, TaskPath};
use crate::dispatcher::{OpenedStream, StreamRequest};
use crate::domain::{Action, Principal};

/// How streams are kept open and ended.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// Longest silence on a stream.
    pub keep_alive: Duration,
    /// How long streams take to end, spread at random, when the server drains.
    pub drain_window: Duration,
    /// Cancelled when the server drains.
    pub draining: CancellationToken,
}

/// Follows one task: `GET /tasks/{id}/events`.
pub(super) async fn stream_task(
    State(app): State<AppState>,
    caller: Principal,
    path: TaskPath,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let request = query::StreamQuery::read(&query, app.engine.limits())?;
    let id = path.id()?;
    authorize(&caller, Action::ReadTask, Some(&id))?;
    let opened = app
        .dispatcher
        .subscribe(StreamRequest {
            task: id,
            filter: request.filter,
            last_event_id: query::last_event_id(&headers),
            cursor: request.cursor,
            limit: request.limit,
            accumulated: request.accumulated,
        })
        .await?
        .ok_or_else(ApiError::task_not_found)?;
    match opened {
        OpenedStream::AtEnd => Ok(StatusCode::NO_CONTENT.into_response()),
        OpenedStream::Stream(subscription) => {
            let body = TaskBody::new(*subscription, request.wrap, &app.streams);
            Ok(event_stream(Body::from_stream(body.into_stream())))
        }
    }
}

/// Follows every task the caller may see: `GET /events`.
pub(super) async fn stream_all(
    State(app): State<AppState>,
    caller: Principal,
    query: Query,
) -> Result<Response, ApiError> {
    let filter = query::read_filter(&query)?;
    let wrap = query.flag("wrap")?.map_or(Wrap::Envelope, Wrap::of_flag);
    authorize(&caller, Action::ReadAnyTask, None)?;
    let reader = app.dispatcher.subscribe_all(filter).await?;
    let body = AllTasksBody::new(reader, wrap, &app.streams);
    Ok(event_stream(Body::from_stream(body.into_stream())))
}

fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // A proxy must neither keep, nor recode, nor hold back a stream.
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}
