//! What goes over the wire, apart from the domain's own types.
//!
//! Requests are read field by field from the JSON text, and answers are
//! written as text, so that a payload passes through as it was sent: it is
//! checked and cut out, never parsed into values and printed again.

mod auth_config;
mod cleanup;
mod event;
mod fields;
mod lists;
mod task;
mod webhooks;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

pub(super) use event::{Published, read_events};
pub(super) use fields::is_label;
pub(super) use task::{ReaderCount, Visibility, read_new_task, read_transition, write_task};
pub(super) use webhooks::write_delivery;

/// Appends a whole number to `out`.
pub(crate) fn push_number(out: &mut String, number: u64) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// Says on a response that an earlier request with the same key did the work.
pub(super) fn mark_replay(mut response: Response, replayed: bool) -> Response {
    const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// Makes a response of JSON text.
pub(crate) fn json_response(status: StatusCode, body: String) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}
