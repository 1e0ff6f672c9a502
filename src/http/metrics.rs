//! The numbers of the service, for whoever collects them.

use std::fmt;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use super::error::{ApiError, ErrorCode};
use super::{AppState, no_route};
use crate::metrics::CONTENT_TYPE;

/// Whether and to whom the numbers are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MetricsAccess {
    enabled: bool,
    /// What the token comes to when hashed; the token itself is not kept.
    token: Option<[u8; 32]>,
}

impl fmt::Debug for MetricsAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsAccess")
            .field("enabled", &self.enabled)
            .field("has_token", &self.token.is_some())
            .finish()
    }
}

impl Default for MetricsAccess {
    /// Shows the numbers to everybody.
    fn default() -> Self {
        Self { enabled: true, token: None }
    }
}

impl MetricsAccess {
    /// Shows the numbers to nobody: the route is not there.
    pub fn off() -> Self {
        Self { enabled: false, token: None }
    }

    /// Shows the numbers to those who send `token` as a bearer token.
    pub fn with_token(token: &str) -> Self {
        Self { enabled: true, token: Some(digest(token)) }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(wanted) = self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        // Comparing what they hash to tells by its time nothing about them.
        token.is_some_and(|token| digest(token) == wanted)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Shows the numbers: `GET /metrics`.
pub(super) async fn show_metrics(State(app): State<AppState>, headers: HeaderMap) -> Response {
    if !app.metrics.enabled {
        return no_route().await.into_response();
    }
    if !app.metrics.admits(&headers) {
        let message = "the metrics ask for a bearer token of their own";
        let mut response = ApiError::new(ErrorCode::Unauthorized, message).into_response();
        let challenge = HeaderValue::from_static("Bearer realm=\"metrics\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    let body = app.observer.metrics.encode(&app.dispatcher.sample());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens_and_it_is_never_shown() {
        let access = MetricsAccess::with_token("canary-token");
        let admits = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            access.admits(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };
        assert!(admits("Bearer canary-token") && admits("bearer  canary-token"));
        for wrong in ["Bearer canary-toke", "Bearer ", "Basic canary-token", "canary-token", ""] {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(!access.admits(&HeaderMap::new()));
        assert!(MetricsAccess::default().admits(&HeaderMap::new()));
        assert!(!format!("{access:?}").contains("canary"));
    }
}
