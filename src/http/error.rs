//! What a refused request is told.
//!
//! [`ErrorCode`] is a closed list and part of the contract: a code decides
//! the status, in one place, and never changes its meaning. A 4xx says what to
//! change; a 5xx is a constant sentence, and what really went wrong travels
//! beside the response to the one log line of the request.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::wire::json_response;
use crate::domain::{Action, Decision, SeriesConflict, TaskId, TaskStatus, json};
use crate::engine::{CreateTaskError, PublishError, TransitionError};
use crate::store::StoreError;

/// Why a request was refused, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The body is not JSON in UTF-8.
    InvalidJson,
    /// A field or parameter is missing, of the wrong type or out of range.
    InvalidRequest,
    /// Too many of something.
    LimitExceeded,
    /// A task shall have rules of its own, where nobody is told apart.
    AuthNotConfigured,
    /// An event contradicts how its series began.
    SeriesConflict,
    /// The task has ended and takes no more events.
    TaskClosed,
    /// The caller did not prove who it is.
    Unauthorized,
    /// The caller lacks a permission.
    Forbidden,
    /// There is no such route.
    NotFound,
    /// There is no such task.
    TaskNotFound,
    /// The task has no such delivery to a webhook.
    DeliveryNotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// A task with this id exists.
    TaskExists,
    /// The task's status does not allow this change.
    InvalidTransition,
    /// The idempotency key was sent with another request.
    IdempotencyConflict,
    /// Too many bytes.
    PayloadTooLarge,
    /// The body came too slowly.
    RequestTimeout,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// A fault of the server.
    Internal,
    /// It could not be found out whether the write happened.
    OutcomeUnknown,
    /// Too many writes are waiting.
    Overloaded,
    /// The store has no room left.
    StoreFull,
    /// The store cannot be reached.
    StoreUnavailable,
    /// Credentials cannot be checked.
    AuthUnavailable,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 24] = [
        Self::InvalidJson,
        Self::InvalidRequest,
        Self::LimitExceeded,
        Self::AuthNotConfigured,
        Self::SeriesConflict,
        Self::TaskClosed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::TaskNotFound,
        Self::DeliveryNotFound,
        Self::MethodNotAllowed,
        Self::TaskExists,
        Self::InvalidTransition,
        Self::IdempotencyConflict,
        Self::PayloadTooLarge,
        Self::RequestTimeout,
        Self::UnsupportedMediaType,
        Self::Internal,
        Self::OutcomeUnknown,
        Self::Overloaded,
        Self::StoreFull,
        Self::StoreUnavailable,
        Self::AuthUnavailable,
    ];

    /// Returns the code's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidRequest => "invalid_request",
            Self::LimitExceeded => "limit_exceeded",
            Self::AuthNotConfigured => "auth_not_configured",
            Self::SeriesConflict => "series_conflict",
            Self::TaskClosed => "task_closed",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TaskNotFound => "task_not_found",
            Self::DeliveryNotFound => "delivery_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TaskExists => "task_exists",
            Self::InvalidTransition => "invalid_transition",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::RequestTimeout => "request_timeout",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Internal => "internal",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Overloaded => "overloaded",
            Self::StoreFull => "store_full",
            Self::StoreUnavailable => "store_unavailable",
            Self::AuthUnavailable => "auth_unavailable",
        }
    }

    /// Returns the status the code is sent with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidJson
            | Self::InvalidRequest
            | Self::LimitExceeded
            | Self::AuthNotConfigured
            | Self::SeriesConflict
            | Self::TaskClosed => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound | Self::TaskNotFound | Self::DeliveryNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TaskExists | Self::InvalidTransition | Self::IdempotencyConflict => {
                StatusCode::CONFLICT
            }
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::OutcomeUnknown
            | Self::Overloaded
            | Self::StoreFull
            | Self::StoreUnavailable
            | Self::AuthUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Seconds after which a caller that met a passing failure may come back.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// How a caller may prove who it is.
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

/// A request that was refused or could not be served.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: ErrorCode,
    message: Cow<'static, str>,
    path: Option<String>,
    transition: Option<(TaskStatus, TaskStatus)>,
    limit: Option<u64>,
    source: Option<Arc<str>>,
}

impl ApiError {
    /// Makes an error of a code and a sentence for people.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            path: None,
            transition: None,
            limit: None,
            source: None,
        }
    }

    /// Makes an [`ErrorCode::InvalidRequest`] about the place `path` points to.
    pub fn invalid(path: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message).at(path)
    }

    /// Makes an [`ErrorCode::TaskNotFound`].
    pub fn task_not_found() -> Self {
        Self::new(ErrorCode::TaskNotFound, "Task not found. It may have been deleted")
    }

    /// Makes an [`ErrorCode::TaskNotFound`] that names the task.
    pub(super) fn no_such_task(id: &TaskId) -> Self {
        let message = format!("Task not found: {id}. It may have been deleted");
        Self::new(ErrorCode::TaskNotFound, message)
    }

    /// Makes an [`ErrorCode::StoreUnavailable`]; `source` is for the log alone.
    pub fn store_unavailable(source: impl Into<Arc<str>>) -> Self {
        Self::new(
            ErrorCode::StoreUnavailable,
            "the store cannot be reached at the moment; repeat the request later",
        )
        .caused_by(source)
    }

    /// Makes an [`ErrorCode::Internal`]; `source` is for the log alone.
    pub fn internal(source: impl Into<Arc<str>>) -> Self {
        Self::new(
            ErrorCode::Internal,
            "the server failed to serve this request; its log has the reason under the request's id",
        )
        .caused_by(source)
    }

    /// Adds the JSON pointer of the place at fault.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Puts the place at fault below `parent`, a JSON pointer.
    #[must_use]
    pub(super) fn under(mut self, parent: &str) -> Self {
        self.path = Some(format!("{parent}{}", self.path.unwrap_or_default()));
        self
    }

    /// Adds the limit that was passed.
    #[must_use]
    pub fn over(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Adds what went wrong inside, for the log alone.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Arc<str>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the JSON pointer of the place at fault.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Returns the sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the error that tells a publisher why its events were refused.
    ///
    /// `is_batch` says whether the request was an array, where a place begins
    /// with the position of the event.
    pub(super) fn of_publish(error: PublishError, is_batch: bool) -> Self {
        let place = |position: usize, rest: &str| {
            if is_batch { format!("/{position}{rest}") } else { rest.to_owned() }
        };
        match error {
            PublishError::NoSuchTask => Self::task_not_found(),
            PublishError::Closed(status) => Self::new(
                ErrorCode::TaskClosed,
                format!(
                    "Cannot publish to task in terminal status: {status}. \
                     It takes no more events; create another task"
                ),
            ),
            PublishError::Series { position, conflict } => {
                let rest = match &conflict {
                    SeriesConflict::Mode(_) => Cow::Borrowed("/seriesMode"),
                    SeriesConflict::Type(_) => Cow::Borrowed("/type"),
                    SeriesConflict::Level(_) => Cow::Borrowed("/level"),
                    SeriesConflict::Field(_) => Cow::Borrowed("/seriesAccField"),
                    SeriesConflict::NotText(field) => {
                        let escaped = field.replace('~', "~0").replace('/', "~1");
                        Cow::Owned(format!("/data/{escaped}"))
                    }
                };
                Self::new(ErrorCode::SeriesConflict, conflict.to_string())
                    .at(place(position, &rest))
            }
            PublishError::SeriesTooLong { position, limit_bytes } => Self::new(
                ErrorCode::PayloadTooLarge,
                format!("the text of a series is limited to {limit_bytes} bytes"),
            )
            .at(place(position, "/data"))
            .over(limit_bytes),
            PublishError::Denied(decision) => Self::denied(decision, Action::PublishEvents),
            PublishError::KeyConflict => Self::key_conflict(),
            PublishError::Store(error) => error.into(),
        }
    }

    fn key_conflict() -> Self {
        let message = "this Idempotency-Key was sent with another request; use a new key";
        Self::new(ErrorCode::IdempotencyConflict, message).at("/headers/Idempotency-Key")
    }

    /// Makes the error for a task whose own rules do not let the caller.
    pub(super) fn denied(decision: Decision, action: Action) -> Self {
        // Whoever judged refused, so the decision was not to allow it.
        super::auth::answer(decision, action).err().unwrap_or_else(Self::task_not_found)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let source = error.to_string();
        match error {
            StoreError::Unavailable(_) => Self::new(
                ErrorCode::StoreUnavailable,
                "the store cannot serve this at the moment; repeat the request later",
            ),
            StoreError::Overloaded => Self::new(
                ErrorCode::Overloaded,
                "too many writes are waiting; nothing was stored, so repeat the request later",
            ),
            StoreError::Full => {
                Self::new(ErrorCode::StoreFull, "the store has no room left; nothing was stored")
            }
            StoreError::OutcomeUnknown(_) => Self::new(
                ErrorCode::OutcomeUnknown,
                "the store did not answer, so the write may have happened or not; \
                 read the task before repeating",
            ),
            StoreError::Corrupt(_) | StoreError::Unexpected(_) => return Self::internal(source),
        }
        .caused_by(source)
    }
}

impl From<CreateTaskError> for ApiError {
    fn from(error: CreateTaskError) -> Self {
        match error {
            CreateTaskError::Exists(id) => Self::new(
                ErrorCode::TaskExists,
                format!("Task already exists: {id}. Choose another id or leave it out"),
            )
            .at("/id"),
            CreateTaskError::TooLarge(limit) => Self::new(
                ErrorCode::PayloadTooLarge,
                format!(
                    "all text of a task together is limited to {limit} bytes; \
                     send large inputs elsewhere and name them in params"
                ),
            )
            .over(limit as u64),
            CreateTaskError::KeyConflict => Self::key_conflict(),
            CreateTaskError::Gone => Self::task_not_found(),
            CreateTaskError::Store(error) => error.into(),
        }
    }
}

impl From<TransitionError> for ApiError {
    fn from(error: TransitionError) -> Self {
        match error {
            TransitionError::NoSuchTask => Self::task_not_found(),
            TransitionError::Illegal { from, to } => Self {
                transition: Some((from, to)),
                ..Self::new(
                    ErrorCode::InvalidTransition,
                    format!("Invalid transition: {from} \u{2192} {to}. {}", next_steps(from)),
                )
            },
            TransitionError::Denied(decision) => Self::denied(decision, Action::ManageTask),
            TransitionError::KeyConflict => Self::key_conflict(),
            TransitionError::Store(error) => error.into(),
        }
    }
}

/// Marks the answer for a task that is not there, or may not be seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoSuchTask;

/// Says what a task in this state may still become.
fn next_steps(from: TaskStatus) -> String {
    let successors: Vec<&str> = from.successors().iter().map(|to| to.as_str()).collect();
    match successors.split_last() {
        None => "The task is finished".to_owned(),
        Some((last, rest)) => format!("It may become {} or {last}", rest.join(", ")),
    }
}

/// What went wrong behind a 5xx, for the log line of the request.
#[derive(Debug, Clone)]
pub(super) struct FailureSource(pub(super) Arc<str>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = String::with_capacity(128);
        body.push_str("{\"error\":");
        json::push_string(&mut body, &self.message);
        body.push_str(",\"code\":\"");
        body.push_str(self.code.as_str());
        body.push('"');
        if let Some(path) = &self.path {
            body.push_str(",\"path\":");
            json::push_string(&mut body, path);
        }
        if let Some((from, to)) = self.transition {
            // Writing to a String cannot fail.
            let _ = write!(body, ",\"from\":\"{from}\",\"to\":\"{to}\"");
        }
        if let Some(limit) = self.limit {
            let _ = write!(body, ",\"limit\":{limit}");
        }
        body.push('}');
        let status = self.code.status();
        let mut response = json_response(status, body);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, BEARER);
        }
        if let Some(source) = self.source {
            response.extensions_mut().insert(FailureSource(source));
        }
        if self.code == ErrorCode::TaskNotFound {
            response.extensions_mut().insert(NoSuchTask);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn parts(error: ApiError) -> (Response<()>, serde_json::Value) {
        let (head, body) = error.into_response().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(head, ()), serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> =
            ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }

    #[tokio::test]
    async fn a_store_failure_keeps_its_reason_out_of_the_body_and_asks_to_come_back() {
        let failure = StoreError::Unavailable("connect to postgres://secret".to_owned());
        let (head, body) = parts(failure.into()).await;
        assert_eq!(head.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(head.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(body["code"], "store_unavailable");
        assert!(!body.to_string().contains("secret"));
        let source = head.extensions().get::<FailureSource>().unwrap();
        assert!(source.0.contains("secret"));
    }

    #[tokio::test]
    async fn a_corrupt_row_is_an_internal_fault() {
        let (head, body) = parts(StoreError::Corrupt("tasks.status".to_owned()).into()).await;
        assert_eq!(head.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!head.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(body["code"], "internal");
    }

    #[tokio::test]
    async fn an_illegal_transition_names_both_states() {
        let error =
            TransitionError::Illegal { from: TaskStatus::Completed, to: TaskStatus::Running };
        let (head, body) = parts(error.into()).await;
        assert_eq!(head.status(), StatusCode::CONFLICT);
        assert_eq!((&body["from"], &body["to"]), (&"completed".into(), &"running".into()));
    }

    #[test]
    fn a_series_conflict_points_into_the_event_at_fault() {
        let refused = |is_batch| {
            let conflict = SeriesConflict::NotText("a/b".into());
            ApiError::of_publish(PublishError::Series { position: 3, conflict }, is_batch)
        };
        assert_eq!(refused(true).path(), Some("/3/data/a~1b"));
        assert_eq!(refused(false).path(), Some("/data/a~1b"));
        let long = PublishError::SeriesTooLong { position: 1, limit_bytes: 9 };
        let long = ApiError::of_publish(long, true);
        assert_eq!((long.code(), long.path()), (ErrorCode::PayloadTooLarge, Some("/1/data")));
    }
}
