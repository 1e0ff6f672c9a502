//! Streams of events, and histories.
//!
//! Handlers read the query to a request, ask the dispatcher for a reader, and
//! hand it to a body that the socket pulls. Everything that can be refused is
//! refused before the first byte.

mod body;
mod drain;
mod frames;
mod history;
mod lease;
mod open;
mod opening;
mod query;

use std::time::Duration;

use self::body::{AllTasksBody, TaskBody};
pub use self::drain::Drain;
use self::frames::Wrap;
pub(super) use self::history::read_history;
use self::lease::Lease;
use self::open::OpenStream;
pub use self::open::Stalled;
use self::opening::Opening;
use super::AppState;
use super::error::ApiError;
use super::extract::{Query, TaskPath};
use crate::dispatcher::{FeedRequest, OpenedStream, StreamRequest};
use crate::domain::{Action, Decision, TaskId};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::time::{Instant, sleep_until};

/// Longest time a reader may wait for its task to be created, in seconds.
const MAX_WAIT_SECONDS: i64 = 25;

/// How streams are kept open and ended.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// Longest silence on a stream.
    pub keep_alive: Duration,
    /// How long a request for a stream is held while the store, or who checks
    /// credentials, cannot be reached.
    pub open_timeout: Duration,
    /// The end of the server.
    pub drain: Drain,
}

/// Pause between two looks for a task that a reader waits for.
const WAIT_PAUSE: Duration = Duration::from_millis(500);

/// Follows one task: `GET /tasks/{id}/events`.
pub(super) async fn stream_task(
    State(app): State<AppState>,
    opening: Opening,
    path: TaskPath,
    query: Query,
    stalled: Option<Extension<Stalled>>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let refuse = |error: ApiError| opening.refuse(&app, error);
    let (id, request, wait_until) = read_request(&app, &opening, path, &query).map_err(refuse)?;
    let authorized = opening.caller.authorize(Action::ReadTask, Some(&id));
    if let Err(hidden) = authorized {
        // A task that may not be seen is waited for just as long as one that
        // is not there.
        tokio::select! {
            () = sleep_until(wait_until) => return Err(refuse(hidden)),
            () = app.streams.drain.token().cancelled() => return Err(opening.send_away(&app)),
        }
    }
    let opened = loop {
        let subscribe = || {
            app.dispatcher.subscribe(StreamRequest {
                task: id.clone(),
                filter: request.filter.clone(),
                last_event_id: query::last_event_id(&headers),
                cursor: request.cursor.clone(),
                limit: request.limit,
                accumulated: request.accumulated,
                guard: opening.caller.guard(Action::ReadTask),
            })
        };
        let opened = opening.attempt(&app, wait_until, subscribe).await?;
        let is_hidden = matches!(opened, None | Some(OpenedStream::Denied(Decision::Hidden)));
        if !is_hidden || Instant::now() >= wait_until {
            break opened;
        }
        if app.streams.drain.has_begun() {
            return Err(opening.send_away(&app));
        }
        sleep_until(wait_until.min(Instant::now() + WAIT_PAUSE)).await;
    };
    match opened {
        None => Err(refuse(ApiError::task_not_found())),
        Some(OpenedStream::AtEnd) => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(OpenedStream::Denied(decision)) => {
            Err(refuse(ApiError::denied(decision, Action::ReadTask)))
        }
        Some(OpenedStream::Stream(subscription)) => {
            let task = (id, subscription.task_number());
            let open = OpenStream::of_task(
                &app.observer,
                &app.dispatcher,
                task,
                stalled.map(|Extension(stalled)| stalled),
            );
            let lease = Lease::new(&opening.caller, Action::ReadTask);
            let body = TaskBody::new(*subscription, request.wrap, lease, &app.streams, open);
            Ok(event_stream(Body::from_stream(body.into_stream())))
        }
    }
}

/// Reads what a reader wants of which task, and until when it waits for the
/// task to be created.
fn read_request(
    app: &AppState,
    opening: &Opening,
    path: TaskPath,
    query: &Query,
) -> Result<(TaskId, query::StreamQuery, Instant), ApiError> {
    opening.caller.may_stream()?;
    opening.caller.allow(Action::ReadTask)?;
    let request = query::StreamQuery::read(query, app.engine.limits())?;
    let wait = query.integer("wait", 0..=MAX_WAIT_SECONDS)?.unwrap_or(0);
    let wait = Duration::from_secs(u64::try_from(wait).unwrap_or(0));
    Ok((path.id()?, request, opening.began + wait))
}

/// Follows every task the caller may see: `GET /events`.
pub(super) async fn stream_all(
    State(app): State<AppState>,
    opening: Opening,
    query: Query,
    stalled: Option<Extension<Stalled>>,
) -> Result<Response, Response> {
    let refuse = |error: ApiError| opening.refuse(&app, error);
    let caller = &opening.caller;
    caller.may_stream().map_err(refuse)?;
    caller.authorize(Action::ReadAnyTask, None).map_err(refuse)?;
    let filter = query::read_filter(&query).map_err(refuse)?;
    let wrap = query.flag("wrap").map_err(refuse)?.map_or(Wrap::Envelope, Wrap::of_flag);
    let subscribe = || {
        let (filter, guard) = (filter.clone(), caller.guard(Action::ReadAnyTask));
        app.dispatcher.subscribe_all(FeedRequest { filter, guard })
    };
    let reader = opening.attempt(&app, opening.began, subscribe).await?;
    let lease = Lease::new(caller, Action::ReadAnyTask);
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
