//! Asking another service who a caller is.
//!
//! The service gets the request's method, path, `Authorization` and cookies,
//! and answers 200 with what the caller may do, 401 or 403. Whatever else
//! happens (another status, silence, nonsense) lets nobody in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT, AUTHORIZATION, COOKIE, HeaderName};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::cache::{Answers, Key};
use super::{AuthError, AuthMode, Authenticate, Credentials, principal_of};
use crate::domain::Principal;
use crate::tls;

/// Longest time an answer holds, whatever is configured.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// How long a connection to the service is kept without use.
const IDLE: Duration = Duration::from_secs(30);

/// Longest answer, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The service to ask, and how.
#[derive(Clone)]
pub struct ForwardAuthOptions {
    /// Where it is: `http` or `https`.
    pub url: String,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// How long an answer holds for the same credentials, method and path;
    /// more than 5 s counts as 5 s.
    pub hold: Duration,
    /// After how long it is asked again about a stream that is still open.
    pub recheck: Duration,
}

impl fmt::Debug for ForwardAuthOptions {
    /// Leaves the URL out, which may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardAuthOptions")
            .field("timeout", &self.timeout)
            .field("hold", &self.hold)
            .field("recheck", &self.recheck)
            .finish_non_exhaustive()
    }
}

/// No service can be asked.
#[derive(Debug, thiserror::Error)]
pub enum ForwardAuthError {
    /// The URL is none.
    #[error("the URL must be an absolute one of http or https")]
    Url,
    /// The URL has a user in it, for which there is no use.
    #[error("the URL must not carry credentials; the service gets those of the caller")]
    UrlWithUser,
    /// TLS could not be set up.
    #[error("no usable TLS: {0}")]
    Tls(#[from] rustls::Error),
}

type Answer = Result<Arc<Principal>, AuthError>;

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Asks a service over HTTP.
pub struct ForwardAuth {
    client: HttpClient,
    url: Uri,
    options: ForwardAuthOptions,
    answers: Answers<Answer>,
}

impl fmt::Debug for ForwardAuth {
    /// Leaves out what was answered.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardAuth").field("options", &self.options).finish_non_exhaustive()
    }
}

impl ForwardAuth {
    /// Makes an authenticator that asks; nothing is asked yet.
    ///
    /// # Errors
    ///
    /// Fails when the URL is none to ask, or TLS cannot be set up.
    pub fn new(options: ForwardAuthOptions) -> Result<Self, ForwardAuthError> {
        let url: Uri = options.url.parse().map_err(|_| ForwardAuthError::Url)?;
        let authority = url.authority().ok_or(ForwardAuthError::Url)?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(ForwardAuthError::Url);
        }
        if authority.as_str().contains('@') {
            return Err(ForwardAuthError::UrlWithUser);
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(tls::connector()?);
        let answers = Answers::new(options.hold.min(LONGEST_HOLD));
        Ok(Self { client, url, options, answers })
    }

    fn question(&self, request: &Credentials<'_>) -> Result<Request<Empty<Bytes>>, AuthError> {
        let header = |text| HeaderValue::from_str(text).map_err(|_| AuthError::Malformed);
        let mut question = Request::new(Empty::new());
        *question.uri_mut() = self.url.clone();
        let headers = question.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(FORWARDED_METHOD, header(request.method.as_str())?);
        headers.insert(FORWARDED_URI, header(request.path)?);
        for name in [AUTHORIZATION, COOKIE] {
            for value in request.headers.get_all(&name) {
                let mut value = value.clone();
                value.set_sensitive(true);
                headers.append(name.clone(), value);
            }
        }
        Ok(question)
    }
}

/// Digests everything that an answer depends on.
fn key_of(request: &Credentials<'_>) -> Key {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        // With its length in front, no part can run into the next.
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    };
    add(request.method.as_str().as_bytes());
    add(request.path.as_bytes());
    for name in [AUTHORIZATION, COOKIE] {
        add(name.as_str().as_bytes());
        for value in request.headers.get_all(&name) {
            add(value.as_bytes());
        }
    }
    digest.finalize().into()
}

async fn ask(client: HttpClient, question: Request<Empty<Bytes>>) -> Answer {
    // A connection kept from before may be closed just as it is used.
    let first = client.request(question.clone()).await;
    let answer = match first {
        Err(error) if !error.is_connect() => client.request(question).await,
        first => first,
    };
    let answer = answer.map_err(|error| {
        // The error's own text may name what was sent.
        unavailable(if error.is_connect() {
            "the service cannot be reached"
        } else {
            "the service hung up"
        })
    })?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => return Err(AuthError::Invalid),
        StatusCode::FORBIDDEN => return Err(AuthError::Refused),
        other => return Err(unavailable(&format!("the service answered {}", other.as_u16()))),
    }
    let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
    let body = body.map_err(|_| unavailable("the service's answer broke off or is too long"))?;
    // What it says instead stays out of the log: it may be anything.
    let described: Map<String, Value> = serde_json::from_slice(&body.to_bytes())
        .map_err(|_| unavailable("the service's answer is no JSON object"))?;
    let claims = described.get("claims").and_then(Value::as_object).cloned().unwrap_or_default();
    let principal = principal_of(&described, claims);
    let principal =
        principal.map_err(|invalid| unavailable(&format!("the service's answer: {invalid}")))?;
    Ok(Arc::new(principal))
}

fn unavailable(reason: &str) -> AuthError {
    AuthError::Unavailable(reason.into())
}

#[async_trait]
impl Authenticate for ForwardAuth {
    fn mode(&self) -> AuthMode {
        AuthMode::Custom
    }

    async fn authenticate(&self, request: &Credentials<'_>) -> Result<Arc<Principal>, AuthError> {
        let question = self.question(request)?;
        let (client, timeout) = (self.client.clone(), self.options.timeout);
        let ask = move || {
            let asking = async move {
                let asking = tokio::time::timeout(timeout, ask(client, question));
                let late = |_| Err(unavailable("the service did not answer in time"));
                asking.await.unwrap_or_else(late)
            };
            asking.boxed()
        };
        let keeps = |answer: &Answer| !matches!(answer, Err(AuthError::Unavailable(_)));
        let principal = self.answers.get(key_of(request), ask, keeps).await?;
        let now_ms = jsonwebtoken::get_current_timestamp().saturating_mul(1_000);
        // The answer may have been good only for less than it is kept.
        if principal.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms) {
            return Err(AuthError::Expired);
        }
        Ok(principal)
    }

    fn recheck_every(&self) -> Option<Duration> {
        Some(self.options.recheck)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    #[test]
    fn questions_differ_by_everything_an_answer_depends_on() {
        let key = |method: Method, path, headers: &[(HeaderName, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name.clone(), HeaderValue::from_static(value));
            }
            key_of(&Credentials { method: &method, path, headers: &map })
        };
        let keys = [
            key(Method::GET, "/a", &[]),
            key(Method::POST, "/a", &[]),
            key(Method::GET, "/b", &[]),
            key(Method::GET, "/a", &[(AUTHORIZATION, "x")]),
            key(Method::GET, "/a", &[(COOKIE, "x")]),
            key(Method::GET, "/a", &[(AUTHORIZATION, "x"), (COOKIE, "x")]),
            key(Method::GET, "/a", &[(COOKIE, "x"), (COOKIE, "x")]),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(key(Method::GET, "/a", &[(ACCEPT, "x")]), keys[0]);
    }

    #[test]
    fn neither_printing_nor_refusing_one_shows_its_url() {
        let options = |url: &str| ForwardAuthOptions {
            url: url.to_owned(),
            timeout: Duration::from_secs(1),
            hold: Duration::from_secs(5),
            recheck: Duration::from_mins(1),
        };
        let made = ForwardAuth::new(options("http://127.0.0.1/?key=canary")).unwrap();
        assert!(!format!("{made:?}").contains("canary"));
        for bad in ["canary", "/canary", "ftp://canary/", "http://canary@h/", "http://a:canary@h"] {
            let error = ForwardAuth::new(options(bad)).unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
