//! Who is calling: what a request's credentials prove.
//!
//! An [`Authenticate`] turns credentials into a [`Principal`]; what that
//! principal may do is decided in [`domain`](crate::domain) alone. There are
//! three here: [`Open`] asks nobody, [`JwtAuth`] believes signed tokens, and
//! [`ForwardAuth`] asks another service. A program that embeds the crate may
//! bring its own.
//!
//! Invariants: what cannot be checked is refused, never let in; no error and
//! no debug output holds a token, a cookie or a key.

mod cache;
mod claims;
mod crypto;
mod forward;
mod jwt;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::header::{AUTHORIZATION, HeaderMap};

pub use self::claims::{InvalidClaim, principal_of};
pub use self::forward::{ForwardAuth, ForwardAuthError, ForwardAuthOptions};
pub use self::jwt::{InvalidKey, JwtAlgorithm, JwtAuth, JwtKey, JwtOptions, JwtSigner};
use crate::domain::Principal;

/// How callers prove who they are, as health reports name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Not at all: everyone may do everything, and no task's own rules count.
    None,
    /// With a signed token.
    Jwt,
    /// In a way that something else judges.
    Custom,
}

impl AuthMode {
    /// Returns the mode's name as configuration and reports spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Jwt => "jwt",
            Self::Custom => "custom",
        }
    }
}

/// The part of a request that tells who sent it.
#[derive(Clone, Copy)]
pub struct Credentials<'r> {
    /// The request's method.
    pub method: &'r Method,
    /// Its path, without the query, as the routes of this crate see it.
    pub path: &'r str,
    /// Its headers.
    pub headers: &'r HeaderMap,
}

impl fmt::Debug for Credentials<'_> {
    /// Leaves the headers out, which carry secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("method", self.method).finish_non_exhaustive()
    }
}

impl<'r> Credentials<'r> {
    /// Returns the token of `Authorization: Bearer <token>`.
    ///
    /// # Errors
    ///
    /// [`AuthError::Missing`] without the header, [`AuthError::Malformed`]
    /// when it is there twice or says something else.
    pub fn bearer(&self) -> Result<&'r str, AuthError> {
        let mut given = self.headers.get_all(AUTHORIZATION).iter();
        let (header, another) = (given.next().ok_or(AuthError::Missing)?, given.next());
        let text = header.to_str().ok().filter(|_| another.is_none());
        let (scheme, token) =
            text.and_then(|text| text.split_once(' ')).ok_or(AuthError::Malformed)?;
        let token = token.trim_matches(' ');
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(AuthError::Malformed);
        }
        Ok(token)
    }
}

/// Why nobody is known to have sent a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There are no credentials.
    #[error("no credentials")]
    Missing,
    /// They are not in a form that can be read.
    #[error("malformed credentials")]
    Malformed,
    /// They were good once.
    #[error("expired credentials")]
    Expired,
    /// They prove nothing. Nobody is told why: the reason helps those who guess.
    #[error("invalid credentials")]
    Invalid,
    /// They are good and let nobody do this.
    #[error("refused")]
    Refused,
    /// It could not be found out; the text is for the log and holds no secret.
    #[error("cannot check credentials: {0}")]
    Unavailable(Arc<str>),
}

/// Finds out who sent a request.
#[async_trait]
pub trait Authenticate: fmt::Debug + Send + Sync {
    /// Returns the mode that reports name.
    ///
    /// Under [`AuthMode::None`] nobody is judged, whatever principal
    /// [`Self::authenticate`] returns.
    fn mode(&self) -> AuthMode;

    /// Returns who sent a request.
    ///
    /// It is asked before anything else of the request is looked at.
    ///
    /// # Errors
    ///
    /// Every [`AuthError`] keeps the caller out.
    async fn authenticate(&self, request: &Credentials<'_>) -> Result<Arc<Principal>, AuthError>;

    /// Returns after how long to ask again about a stream that is still open;
    /// `None` when [`Principal::expires_at_ms`] says everything there is to say.
    fn recheck_every(&self) -> Option<Duration>;
}

/// Lets everyone do everything.
#[derive(Debug, Clone)]
pub struct Open(Arc<Principal>);

impl Default for Open {
    fn default() -> Self {
        Self(Arc::new(Principal::unrestricted()))
    }
}

#[async_trait]
impl Authenticate for Open {
    fn mode(&self) -> AuthMode {
        AuthMode::None
    }

    async fn authenticate(&self, _request: &Credentials<'_>) -> Result<Arc<Principal>, AuthError> {
        Ok(self.0.clone())
    }

    fn recheck_every(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn bearer(values: &[&str]) -> Result<String, AuthError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let request = Credentials { method: &Method::GET, path: "/tasks", headers: &headers };
        assert!(!format!("{request:?}").contains("canary"));
        request.bearer().map(str::to_owned)
    }

    #[test]
    fn a_token_is_read_from_one_bearer_header_and_from_nothing_else() {
        assert_eq!(bearer(&["Bearer canary"]).unwrap(), "canary");
        assert_eq!(bearer(&["bearer  canary "]).unwrap(), "canary");
        assert_eq!(bearer(&[]), Err(AuthError::Missing));
        for bad in [
            &["Bearer"][..],
            &["Bearer "],
            &["Basic canary"],
            &["canary"],
            &["Bearer a", "Bearer b"],
        ] {
            assert_eq!(bearer(bad), Err(AuthError::Malformed), "{bad:?}");
        }
    }
}
