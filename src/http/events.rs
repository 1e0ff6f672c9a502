//! Publishing events.
//!
//! The body is read to drafts in one pass over its text and the answer is
//! appended from the stored events, so a payload is copied twice at most.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::AppState;
use super::auth::authorize;
use super::error::ApiError;
use super::extract::{JsonBody, NoIdempotencyKey, TaskPath};
use super::wire::{Published, json_response, read_events, write_event};
use crate::domain::{Action, Principal};

/// Room for an event's members beside its payload.
const ENVELOPE_BYTES: usize = 96;

/// Publishes an event or an array of events: `POST /tasks/{id}/events`.
pub(super) async fn publish_events(
    State(app): State<AppState>,
    caller: Principal,
    path: TaskPath,
    _: NoIdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let Published { events, is_batch } = read_events(&body, app.engine.limits())?;
    let id = path.id()?;
    authorize(&caller, Action::PublishEvents, Some(&id))?;
    let events = app
        .engine
        .publish(&id, events)
        .await
        .map_err(|error| ApiError::of_publish(error, is_batch))?;

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
    Ok(json_response(StatusCode::CREATED, body))
}
