//! Publishing events.
//!
//! The body is read to drafts in one pass over its text and the answer is
//! appended from the stored events, so a payload is copied twice at most.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::AppState;
use super::error::ApiError;
use super::extract::{Submission, Submitted, TaskPath};
use super::wire::{Published, json_response, mark_replay, read_events};
use crate::domain::{Action, write_event};
use crate::engine::WriteContext;

/// Room for an event's members beside its payload.
const ENVELOPE_BYTES: usize = 96;

/// Publishes an event or an array of events: `POST /tasks/{id}/events`.
pub(super) async fn publish_events(
    State(app): State<AppState>,
    path: TaskPath,
    submission: Submission,
) -> Result<Response, ApiError> {
    let Submitted { caller, repeatable, body, held: _held } =
        submission.accept(Action::PublishEvents).await?;
    let Published { events, is_batch } = read_events(&body, app.engine.limits())?;
    let id = path.id()?;
    caller.authorize(Action::PublishEvents, Some(&id))?;
    let context = WriteContext {
        guard: caller.guard(Action::PublishEvents),
        key: repeatable.key(&caller, "publish", Some(&id), &body),
    };
    let written = app
        .engine
        .publish(&id, events, context)
        .await
        .map_err(|error| ApiError::of_publish(error, is_batch))?;
    let events = written.outcome;

    let size: usize = events.iter().map(|event| event.size_bytes() + ENVELOPE_BYTES).sum();
    let mut body = String::with_capacity(size + 2);
    if is_batch {
        body.push('[');
    }
    for (position, event) in events.iter().enumerate() {
        if position > 0 {
            body.push(',');
        }
        write_event(&mut body, event);
    }
    if is_batch {
        body.push(']');
    }
    Ok(mark_replay(json_response(StatusCode::CREATED, body), written.replayed))
}
