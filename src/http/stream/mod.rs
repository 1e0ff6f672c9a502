//! Streams of events, and histories.
//!
//! Handlers read the query to a request, ask the dispatcher for a reader, and
//! hand it to a body that the socket pulls. Everything that can be refused is
//! refused before the first byte.

mod body;
mod frames;
mod history;
mod lease;
mod open;
mod query;

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio_util::sync::CancellationToken;

use self::body::{AllTasksBody, TaskBody};
use self::frames::Wrap;
pub(super) use self::history::read_history;
use self::lease::Lease;
use self::open::OpenStream;
pub use self::open::Stalled;
use super::AppState;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Query, TaskPath};
use crate::dispatcher::{FeedRequest, OpenedStream, StreamRequest};
use crate::domain::Action;

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
    caller: Caller,
    path: TaskPath,
    query: Query,
    stalled: Option<Extension<Stalled>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    caller.allow(Action::ReadTask)?;
    let request = query::StreamQuery::read(&query, app.engine.limits())?;
    let id = path.id()?;
    caller.authorize(Action::ReadTask, Some(&id))?;
    let opened = app
        .dispatcher
        .subscribe(StreamRequest {
            task: id.clone(),
            filter: request.filter,
            last_event_id: query::last_event_id(&headers),
            cursor: request.cursor,
            limit: request.limit,
            accumulated: request.accumulated,
            guard: caller.guard(Action::ReadTask),
        })
        .await?
        .ok_or_else(ApiError::task_not_found)?;
    match opened {
        OpenedStream::AtEnd => Ok(StatusCode::NO_CONTENT.into_response()),
        OpenedStream::Denied(decision) => Err(ApiError::denied(decision, Action::ReadTask)),
        OpenedStream::Stream(subscription) => {
            let task = (id, subscription.task_number());
            let open = OpenStream::of_task(
                &app.observer,
                &app.dispatcher,
                task,
                stalled.map(|Extension(stalled)| stalled),
            );
            let lease = Lease::new(&caller, Action::ReadTask);
            let body = TaskBody::new(*subscription, request.wrap, lease, &app.streams, open);
            Ok(event_stream(Body::from_stream(body.into_stream())))
        }
    }
}

/// Follows every task the caller may see: `GET /events`.
pub(super) async fn stream_all(
    State(app): State<AppState>,
    caller: Caller,
    query: Query,
    stalled: Option<Extension<Stalled>>,
) -> Result<Response, ApiError> {
    caller.authorize(Action::ReadAnyTask, None)?;
    let filter = query::read_filter(&query)?;
    let wrap = query.flag("wrap")?.map_or(Wrap::Envelope, Wrap::of_flag);
    let guard = caller.guard(Action::ReadAnyTask);
    let reader = app.dispatcher.subscribe_all(FeedRequest { filter, guard }).await?;
    let lease = Lease::new(&caller, Action::ReadAnyTask);
    let stalled = stalled.map(|Extension(stalled)| stalled);
    let open = OpenStream::of_all_tasks(&app.observer, &app.dispatcher, stalled);
    let body = AllTasksBody::new(reader, wrap, lease, &app.streams, open);
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
