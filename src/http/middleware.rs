//! What happens around every request.
//!
//! From the outside in: the request id and the one log line, CORS, and the
//! net under panics. The net is innermost so that its answer, too, has the
//! headers the layers outside of it add. A log line names the matched route
//! and never the query, a header or a payload.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use percent_encoding::percent_decode_str;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any as AnyOrigin, CorsLayer};

use super::error::{ApiError, FailureSource, NoSuchTask};
use super::{CorsOptions, CorsOrigins, fresh, origin};
use crate::domain::TaskId;
use crate::hooks::{ErrorPlace, UnhandledError, words_of};
use crate::observer::Observer;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Says on a history that the cursor is unknown, so that it is from the start.
pub(super) const TASKCAST_RESET: HeaderName = HeaderName::from_static("taskcast-reset");

/// Longest request id taken over from a caller, in bytes.
const REQUEST_ID_BYTES: usize = 128;

/// How long a browser may remember the answer to a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// Gives the request an id and logs one line when its response begins.
///
/// The line names the route, not the path, and neither query nor payload:
/// ids and what people write do not belong in a log.
pub(super) async fn observe(
    State(observer): State<Arc<Observer>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;

    let status = response.status().as_u16();
    let failure = response.extensions_mut().remove::<FailureSource>();
    let failure = failure.map(|source| source.0);
    let panicked = response.extensions_mut().remove::<Panicked>();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let took = started.elapsed();
    observer.metrics.http_request(method.as_str(), route, status, took);
    let duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
    let request_id = id.to_str().unwrap_or_default();
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                request.id = request_id,
                http.method = %method,
                http.route = route,
                http.status = status,
                duration_ms,
                error.source = failure.as_deref(),
                "request"
            )
        };
    }
    if response.status().is_server_error() {
        log!(error);
    } else {
        log!(info);
    }
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        let (method, route) = (method.as_str().into(), route.into());
        let place = ErrorPlace::Request { method, route, request_id: request_id.into() };
        let detail = failure.unwrap_or_default();
        let summary = panicked.as_ref().and_then(|panicked| panicked.0);
        observer.unhandled(&UnhandledError::new(place, panicked.is_some(), summary, detail));
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        // An id of letters and digits is always a valid header value.
        HeaderValue::try_from(fresh::request_id()).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// Names the task in the answer that there is none. In one place, so that a
/// task that may not be seen is answered just like one that is not there.
pub(super) async fn name_missing_task(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let response = next.run(request).await;
    if response.extensions().get::<NoSuchTask>().is_none() {
        return response;
    }
    let segment = uri.path().strip_prefix("/tasks/").and_then(|rest| rest.split('/').next());
    let decoded = segment.and_then(|segment| percent_decode_str(segment).decode_utf8().ok());
    match decoded.and_then(|text| TaskId::parse(&text).ok()) {
        Some(id) => ApiError::no_such_task(&id).into_response(),
        None => response,
    }
}

/// Marks the answer for a handler that panicked, with its words if they are
/// fixed.
#[derive(Debug, Clone, Copy)]
struct Panicked(Option<&'static str>);

/// Answers for a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the layer hands the panic over")]
pub(super) fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let (summary, message) = words_of(&*panic);
    let mut response = ApiError::internal(format!("panicked: {message}")).into_response();
    response.extensions_mut().insert(Panicked(summary));
    response
}

/// Returns the layer that lets browsers in, if any origin is allowed.
pub(super) fn cors(options: &CorsOptions) -> Option<CorsLayer> {
    let origins = match &options.origins {
        CorsOrigins::None => return None,
        CorsOrigins::Localhost => AllowOrigin::predicate(|origin, _| origin::is_localhost(origin)),
        CorsOrigins::Any => AllowOrigin::from(AnyOrigin),
        CorsOrigins::List(origins) => AllowOrigin::list(origins.clone()),
    };
    // Cookies for any origin would be an invitation; browsers refuse it as well.
    let credentials = options.credentials && matches!(options.origins, CorsOrigins::List(_));
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_credentials(credentials)
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
            // Clients and their instrumentation send headers of their own
            // (`traceparent`, `x-requested-with`, `cache-control`, …); who is
            // let in may send them.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([
                header::RETRY_AFTER,
                header::WWW_AUTHENTICATE,
                header::LINK,
                REQUEST_ID,
                IDEMPOTENT_REPLAYED,
                TASKCAST_RESET,
            ])
            .max_age(PREFLIGHT_AGE),
    )
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn taken_over(id: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
        request_id(&headers) == id
    }

    #[test]
    fn a_request_keeps_an_id_of_visible_ascii_and_gets_one_otherwise() {
        assert!(taken_over("a-B_1/~"));
        assert!(taken_over(&"x".repeat(128)));
        for bad in ["", "a b", "ä", &"x".repeat(129)] {
            assert!(!taken_over(bad), "{bad}");
        }
        let made = request_id(&HeaderMap::new());
        assert_eq!(made.len(), 26);
        assert_ne!(made, request_id(&HeaderMap::new()));
    }

    #[test]
    fn a_panic_is_told_to_the_log_and_not_to_the_caller() {
        for panic in [Box::new("secret") as Box<dyn Any + Send>, Box::new("secret".to_owned())] {
            let response = answer_panic(panic);
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let source = response.extensions().get::<FailureSource>().unwrap();
            assert!(source.0.contains("secret"));
        }
    }

    #[test]
    fn browsers_are_let_in_only_when_configured() {
        let with =
            |origins| cors(&CorsOptions { origins, credentials: true, ..CorsOptions::default() });
        assert!(with(CorsOrigins::None).is_none());
        assert!(with(CorsOrigins::Any).is_some());
    }
}
