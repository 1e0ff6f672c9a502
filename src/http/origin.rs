//! Requests that a page of another origin has a browser send.
//!
//! A form or an image needs no permission of CORS to be sent, and carries the
//! cookies of whoever looks at it (cross-site request forgery). So a request
//! that changes something and says that it comes from another site is refused,
//! unless CORS lets that origin in. An `Authorization` header is a permission:
//! no form can send one.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::{ApiError, ErrorCode};
use super::{CorsOptions, CorsOrigins};
use crate::auth::AuthMode;

/// What requests are let through by.
#[derive(Debug)]
pub(super) struct OriginRules {
    pub(super) cors: CorsOptions,
    /// How callers prove who they are.
    pub(super) mode: AuthMode,
}

/// Refuses requests under a foreign name, and what a page of a foreign origin
/// would change.
pub(super) async fn check(
    State(rules): State<Arc<OriginRules>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    if let Some(allowed) = &rules.cors.loopback_names {
        let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
        if !is_answered(host, allowed) {
            let message = "Forbidden: without authentication this server answers only to names \
                           of loopback, such as localhost; list others under http.allowedHosts";
            return ApiError::new(ErrorCode::Forbidden, message).into_response();
        }
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    // A token is asked for in any case in mode `jwt`, and no page can make one.
    if changes && rules.mode != AuthMode::Jwt && is_foreign(headers, &rules.cors) {
        let message = "Forbidden: a page of another origin may change nothing here; \
                       list its origin under cors.origins, or send an Authorization header";
        return ApiError::new(ErrorCode::Forbidden, message).into_response();
    }
    next.run(request).await
}

/// Says whether a server on loopback answers to a name. Without authentication
/// whoever reaches the port may do anything, and a page on the web can point a
/// name of its own at 127.0.0.1 (DNS rebinding).
fn is_answered(host: Option<&str>, allowed: &[String]) -> bool {
    // HTTP/1.0 and hand-written requests have none; a browser always sends one.
    let Some(host) = host else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(&name))
}

fn is_foreign(headers: &HeaderMap, cors: &CorsOptions) -> bool {
    if headers.contains_key(header::AUTHORIZATION) {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    };
    let is_let_in = match &cors.origins {
        CorsOrigins::None => false,
        CorsOrigins::Any => true,
        CorsOrigins::Localhost => is_localhost(origin),
        CorsOrigins::List(origins) => origins.contains(origin),
    };
    !is_let_in && !is_own(origin.as_bytes(), headers)
}

/// Says whether an origin is a page of this machine.
pub(super) fn is_localhost(origin: &HeaderValue) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| is_answered(Some(authority), &[]))
}

/// Says whether an origin is this host, as the request names it.
fn is_own(origin: &[u8], headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authority = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://"));
    authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(headers: &[(&'static str, &'static str)], origins: CorsOrigins) -> bool {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<(header::HeaderName, HeaderValue)>>()
            .into_iter()
            .collect();
        is_foreign(&headers, &CorsOptions { origins, ..CorsOptions::default() })
    }

    #[test]
    fn only_pages_of_this_host_and_of_listed_origins_may_change_something() {
        let listed = || CorsOrigins::List(vec!["https://app.example".parse().unwrap()]);
        let from = |origin| [("host", "localhost:3721"), ("origin", origin)];
        assert!(!foreign(&[], CorsOrigins::None));
        assert!(!foreign(&from("http://localhost:3721"), CorsOrigins::None));
        for evil in ["https://evil.example", "http://localhost:3722", "null", "file://"] {
            assert!(foreign(&from(evil), CorsOrigins::None), "{evil}");
            assert!(foreign(&from(evil), listed()), "{evil}");
            assert!(!foreign(&from(evil), CorsOrigins::Any), "{evil}");
        }
        assert!(!foreign(&from("https://app.example"), listed()));
        assert!(foreign(&[("sec-fetch-site", "cross-site")], listed()));
        assert!(!foreign(&[("sec-fetch-site", "same-origin")], CorsOrigins::None));
        let token = ("authorization", "Bearer x");
        assert!(!foreign(&[token, ("origin", "https://evil.example")], CorsOrigins::None));
    }

    #[test]
    fn names_of_loopback_and_allowed_ones_are_answered_and_no_others() {
        let allowed = ["taskcast.internal".to_owned()];
        for good in [
            "localhost",
            "localhost:3721",
            "LOCALHOST.:1",
            "app.localhost:3721",
            "127.0.0.1:3721",
            "127.1.2.3",
            "[::1]:3721",
            "Taskcast.Internal:80",
        ] {
            assert!(is_answered(Some(good), &allowed), "{good}");
        }
        for bad in ["evil.example", "evil.example:3721", "localhost.evil.example", "10.0.0.1", ""] {
            assert!(!is_answered(Some(bad), &allowed), "{bad}");
        }
        assert!(is_answered(None, &[]));
    }

    #[test]
    fn pages_of_this_machine_are_told_by_their_origin() {
        let local = |origin: &'static str| is_localhost(&HeaderValue::from_static(origin));
        assert!(local("http://localhost:5173") && local("https://127.0.0.1"));
        assert!(local("http://[::1]:1"));
        assert!(!local("https://localhost.evil.example") && !local("null") && !local("file://"));
        let dev = CorsOptions { origins: CorsOrigins::Localhost, ..CorsOptions::default() };
        assert!(super::super::middleware::cors(&dev).is_some());
    }
}
