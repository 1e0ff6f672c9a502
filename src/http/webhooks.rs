//! Deliveries to webhooks: list, and send again.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;

use super::AppState;
use super::auth::Caller;
use super::error::{ApiError, ErrorCode};
use super::extract::{Query, TaskPath};
use super::wire::{json_response, write_delivery};
use crate::domain::{Action, DeliveryId, Task};

/// Deliveries on a page when the caller does not say how many.
const DEFAULT_PAGE: usize = 50;

/// Most deliveries on a page.
const MOST: usize = 500;

/// Room for one delivery in an answer.
const DELIVERY_BYTES: usize = 320;

/// The delivery a path names; `None` for what could be none.
#[derive(Debug)]
pub(super) struct DeliveryPath(Option<DeliveryId>);

impl<S: Send + Sync> FromRequestParts<S> for DeliveryPath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let Ok(params) = RawPathParams::from_request_parts(parts, state).await else {
            return Ok(Self(None));
        };
        let id = params.iter().find(|(name, _)| *name == "deliveryId");
        Ok(Self(id.and_then(|(_, text)| DeliveryId::parse(text))))
    }
}

/// Returns a page of a task's deliveries, newest event first:
/// `GET /tasks/{id}/webhooks`.
pub(super) async fn list_deliveries(
    State(app): State<AppState>,
    caller: Caller,
    path: TaskPath,
    query: Query,
) -> Result<Response, ApiError> {
    caller.allow(Action::ManageTask)?;
    let limit = query.integer("limit", 1..=i64::try_from(MOST).unwrap_or(i64::MAX))?;
    let limit = limit.and_then(|limit| limit.try_into().ok()).unwrap_or(DEFAULT_PAGE);
    let before = match query.last("cursor")? {
        None => None,
        Some(text) => Some(DeliveryId::parse(&text).ok_or_else(|| {
            query.invalid("cursor", "must be the nextCursor of a page of this list")
        })?),
    };
    let task = managed_task(&app, &caller, path).await?;
    // One more than asked for tells whether there is a next page.
    let mut page = app.engine.deliveries(&task, before.as_ref(), limit + 1).await?;
    let has_more = page.len() > limit;
    page.truncate(limit);
    let webhooks = task.spec.webhooks.as_deref().unwrap_or_default();
    let mut body = String::with_capacity(page.len() * DELIVERY_BYTES + 64);
    body.push_str("{\"deliveries\":[");
    for (position, delivery) in page.iter().enumerate() {
        if position > 0 {
            body.push(',');
        }
        write_delivery(&mut body, delivery, webhooks);
    }
    body.push(']');
    if let Some(last) = page.last().filter(|_| has_more) {
        body.push_str(",\"nextCursor\":\"");
        body.push_str(&last.id.to_string());
        body.push('"');
    }
    body.push('}');
    Ok(json_response(StatusCode::OK, body))
}

/// Makes a delivery due at once:
/// `POST /tasks/{id}/webhooks/{deliveryId}/redeliver`.
pub(super) async fn redeliver(
    State(app): State<AppState>,
    caller: Caller,
    path: TaskPath,
    DeliveryPath(id): DeliveryPath,
) -> Result<Response, ApiError> {
    caller.allow(Action::ManageTask)?;
    let task = managed_task(&app, &caller, path).await?;
    let delivery = match id {
        Some(id) => app.engine.redeliver(&task, &id).await?,
        None => None,
    };
    let Some(delivery) = delivery else {
        let message = "the task has no delivery with this id, or its event is gone";
        return Err(ApiError::new(ErrorCode::DeliveryNotFound, message));
    };
    let mut body = String::with_capacity(DELIVERY_BYTES);
    write_delivery(&mut body, &delivery, task.spec.webhooks.as_deref().unwrap_or_default());
    Ok(json_response(StatusCode::ACCEPTED, body))
}

/// Returns a task that the caller may manage.
async fn managed_task(app: &AppState, caller: &Caller, path: TaskPath) -> Result<Task, ApiError> {
    let id = path.id()?;
    caller.authorize(Action::ManageTask, Some(&id))?;
    let task = app.engine.find_task(&id).await?.ok_or_else(ApiError::task_not_found)?;
    caller.admit(Action::ManageTask, task.spec.auth_config.as_ref())?;
    Ok(task)
}
