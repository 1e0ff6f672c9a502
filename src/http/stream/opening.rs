//! Opening a stream while something it needs cannot be reached.
//!
//! A browser's `EventSource` gives up for good after any answer of 4xx or 5xx.
//! So a request for a stream is held while the store, or the service that
//! checks credentials, is away. When its time is over, whoever accepts
//! `text/event-stream` gets a stream that asks to come back and is cut, which a
//! browser survives; everybody else gets the error.

use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout_at};

use super::body::Cut;
use super::event_stream;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::error::{ApiError, ErrorCode};
use crate::metrics::StreamKind;

/// Pause between two attempts, give or take half.
const PAUSE: Duration = Duration::from_millis(300);

/// Shortest time for one attempt.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(2);

/// Pause between what a reader is told and the cut, so that it is sent.
const CUT_AFTER: Duration = Duration::from_millis(100);

/// Readers are asked to come back after this, give or take the same again.
const RETRY_MS: u64 = 2_000;

/// A request for a stream whose sender is known.
pub(in crate::http) struct Opening {
    pub(super) caller: Caller,
    pub(super) began: Instant,
    deadline: Instant,
    accepts_stream: bool,
    kind: StreamKind,
}

impl FromRequestParts<AppState> for Opening {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Response> {
        let began = Instant::now();
        let deadline = began + app.streams.open_timeout;
        let accepts_stream = accepts_stream(&parts.headers);
        let path = parts.uri.path();
        let is_of_all = path.ends_with("/events") && !path.contains("/tasks/");
        let kind = if is_of_all { StreamKind::All } else { StreamKind::Task };
        loop {
            let attempt = Caller::from_request_parts(parts, app);
            let tried = timeout_at(last_moment(deadline), attempt).await;
            let tried = tried.unwrap_or_else(|_| Err(late(ErrorCode::AuthUnavailable)));
            match hold(app, deadline, tried).await {
                Ok(Some(caller)) => {
                    return Ok(Self { caller, began, deadline, accepts_stream, kind });
                }
                Ok(None) => {}
                Err(error) => return Err(refuse(app, error, kind, accepts_stream)),
            }
        }
    }
}

impl Opening {
    /// Attempts something again and again until it is done, refused, or the
    /// time is over: that of the request, or of its wait for the task if that
    /// is longer.
    pub(super) async fn attempt<T, F, E>(
        &self,
        app: &AppState,
        wait_until: Instant,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Response>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<ApiError>,
    {
        let deadline = self.deadline.max(wait_until);
        loop {
            let tried = timeout_at(last_moment(deadline), attempt()).await;
            let tried = match tried {
                Ok(tried) => tried.map_err(Into::into),
                Err(_) => Err(late(ErrorCode::StoreUnavailable)),
            };
            match hold(app, deadline, tried).await {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => {}
                Err(error) => return Err(self.refuse(app, error)),
            }
        }
    }

    /// Returns the answer for a reader that gets no stream.
    pub(super) fn refuse(&self, app: &AppState, error: ApiError) -> Response {
        refuse(app, error, self.kind, self.accepts_stream)
    }

    /// Returns the answer for a reader whose wait the end of the server cuts
    /// short.
    pub(super) fn send_away(&self, app: &AppState) -> Response {
        self.refuse(app, late(ErrorCode::StoreUnavailable))
    }
}

/// Returns when an attempt ends: one that begins late gets a moment, too, so
/// that it fails by what is wrong and not for lack of time.
fn last_moment(deadline: Instant) -> Instant {
    deadline.max(Instant::now() + SHORTEST_ATTEMPT)
}

fn late(code: ErrorCode) -> ApiError {
    ApiError::new(code, "the stream could not be opened in time; repeat the request later")
}

/// Judges an attempt: done, to be tried again after the pause that this takes,
/// or given up.
async fn hold<T>(
    app: &AppState,
    deadline: Instant,
    tried: Result<T, ApiError>,
) -> Result<Option<T>, ApiError> {
    let error = match tried {
        Ok(done) => return Ok(Some(done)),
        Err(error) => error,
    };
    let pause = PAUSE.mul_f64(rand::random_range(0.5..1.5));
    if !is_passing(&error) || app.streams.drain.has_begun() || Instant::now() + pause >= deadline {
        return Err(error);
    }
    sleep(pause).await;
    Ok(None)
}

/// Says whether the same request may be accepted in a moment.
fn is_passing(error: &ApiError) -> bool {
    matches!(
        error.code(),
        ErrorCode::StoreUnavailable | ErrorCode::AuthUnavailable | ErrorCode::Overloaded
    )
}

fn refuse(app: &AppState, error: ApiError, kind: StreamKind, accepts_stream: bool) -> Response {
    if !is_passing(&error) {
        return error.into_response();
    }
    app.observer.metrics.stream_not_opened(kind);
    if !accepts_stream {
        return error.into_response();
    }
    let retry_ms = RETRY_MS + rand::random_range(0..=RETRY_MS);
    let come_back = Bytes::from(format!(": unavailable\nretry: {retry_ms}\n\n"));
    // Cut, so that nobody takes it for the end of the task. An error that is
    // ready at once would be cut before the head has left.
    let told = stream::once(std::future::ready(Ok(come_back)));
    let cut = stream::once(async {
        sleep(CUT_AFTER).await;
        Err(Cut)
    });
    event_stream(Body::from_stream(told.chain(cut)))
}

fn accepts_stream(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| {
        accept.to_str().is_ok_and(|accept| {
            accept.split(',').any(|range| {
                let range = range.split(';').next().unwrap_or_default().trim();
                range.eq_ignore_ascii_case("text/event-stream")
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_for_a_stream_by_name_is_asked_to_come_back_by_one() {
        let accepts = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            accepts_stream(&headers)
        };
        assert!(accepts("text/event-stream"));
        assert!(accepts("application/json, Text/Event-Stream;q=0.9"));
        assert!(!accepts("*/*") && !accepts("text/event-streams") && !accepts(""));
        assert!(!accepts_stream(&HeaderMap::new()));
    }
}
