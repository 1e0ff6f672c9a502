//! Who is calling, and whether they may.
//!
//! Handlers take a [`Caller`] as their first extractor, or a
//! [`Submission`](super::extract::Submission) that holds one, so that a request
//! without good credentials is answered before anything else of it is looked
//! at, and ask it before they touch anything; no handler compares scopes
//! itself. The order on every route: the scope (403), the form of the request
//! (400), then whether there is such a task for this caller (404).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::AppState;
use super::error::{ApiError, ErrorCode};
use super::fresh;
use super::wire::Visibility;
use crate::auth::{AuthError, AuthMode, Authenticate, Credentials};
use crate::domain::{
    Action, AuthConfig, Decision, Guard, Principal, Task, TaskId, decide, decide_by_rules,
    decide_scope,
};

/// Who sent a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    principal: Arc<Principal>,
    /// Whether anybody is judged at all; not in mode `none`.
    is_judged: bool,
    renewal: Option<Arc<Renewal>>,
}

/// Credentials that are looked at again while a stream is open.
#[derive(Debug)]
pub(super) struct Renewal {
    authenticator: Arc<dyn Authenticate>,
    every: Duration,
    method: Method,
    path: String,
    headers: SecretHeaders,
}

/// Headers that no debug output shows.
struct SecretHeaders(HeaderMap);

impl std::fmt::Debug for SecretHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

impl Renewal {
    /// Returns after how long to ask.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    /// Asks who the caller is by now.
    pub(super) async fn ask(self: Arc<Self>) -> Result<Arc<Principal>, AuthError> {
        let Self { authenticator, method, path, headers, .. } = &*self;
        authenticator.authenticate(&Credentials { method, path, headers: &headers.0 }).await
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let authenticator = &app.authenticator;
        let path = canonical_path(parts.uri.path());
        let (method, path, headers) = (&parts.method, &*path, &parts.headers);
        let principal = authenticator.authenticate(&Credentials { method, path, headers }).await?;
        let renewal = authenticator.recheck_every().map(|every| {
            Arc::new(Renewal {
                authenticator: authenticator.clone(),
                every,
                method: method.clone(),
                path: path.to_owned(),
                headers: SecretHeaders(headers.clone()),
            })
        });
        let is_judged = authenticator.mode() != AuthMode::None;
        Ok(Self { principal, is_judged, renewal })
    }
}

/// Characters that stand for themselves in a canonical path: unreserved ones
/// (RFC 3986, section 2.3) and the colon that ids may hold.
const LITERAL: AsciiSet =
    NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// Returns the one spelling of a path: each segment decoded as the router
/// decodes it, and encoded again only where that is needed.
///
/// A path has many spellings, all of which lead to the same handler; whoever
/// decides by the path must see one.
fn canonical_path(path: &str) -> Cow<'_, str> {
    if !path.contains('%') && path.bytes().all(|byte| byte == b'/' || is_literal(byte)) {
        return Cow::Borrowed(path);
    }
    let segments = path.split('/').map(|segment| {
        let decoded: Vec<u8> = percent_decode_str(segment).collect();
        percent_encode(&decoded, &LITERAL).to_string()
    });
    Cow::Owned(segments.collect::<Vec<_>>().join("/"))
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':')
}

impl Caller {
    /// Refuses to open a stream with credentials that have expired, also
    /// within the leeway: it would end at once, and its reader come back.
    pub(super) fn may_stream(&self) -> Result<(), ApiError> {
        let expires_at_ms = self.principal.expires_at_ms;
        if expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= fresh::now_ms()) {
            return Err(AuthError::Expired.into());
        }
        Ok(())
    }

    /// Returns who it is.
    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns how its credentials are looked at again, if they are.
    pub(super) fn renewal(&self) -> Option<Arc<Renewal>> {
        self.renewal.clone()
    }

    /// Refuses what the caller's scopes do not cover, on whatever task.
    pub(super) fn allow(&self, action: Action) -> Result<(), ApiError> {
        answer(decide_scope(&self.principal, action), action)
    }

    /// Refuses what the domain does not allow the caller to do.
    ///
    /// A task that must stay hidden is answered like one that does not exist.
    pub(super) fn authorize(&self, action: Action, task: Option<&TaskId>) -> Result<(), ApiError> {
        answer(decide(&self.principal, action, task), action)
    }

    /// Refuses what the rules of a task that was read do not allow.
    pub(super) fn admit(&self, action: Action, rules: Option<&AuthConfig>) -> Result<(), ApiError> {
        if !self.is_judged {
            return Ok(());
        }
        answer(decide_by_rules(&self.principal, action, rules), action)
    }

    /// Returns what makes others ask a task's rules, where anybody is judged.
    pub(super) fn guard(&self, action: Action) -> Option<Guard> {
        self.is_judged.then(|| Guard { principal: self.principal.clone(), action })
    }

    /// Returns how much of a task the caller may see.
    pub(super) fn visibility(&self, task: &Task) -> Visibility {
        let rules = task.spec.auth_config.as_ref();
        let guard = self.guard(Action::ManageTask);
        if guard.is_none_or(|guard| guard.admits(&task.spec.id, rules)) {
            Visibility::Manager
        } else {
            Visibility::Reader
        }
    }
}

impl From<AuthError> for ApiError {
    /// Says no more than whoever guesses at credentials knows anyhow.
    fn from(error: AuthError) -> Self {
        let unauthorized = |message: &'static str| Self::new(ErrorCode::Unauthorized, message);
        match error {
            AuthError::Missing => {
                unauthorized("Missing Bearer token. Send the header Authorization: Bearer <token>")
            }
            AuthError::Malformed => unauthorized(
                "Invalid or expired token: it cannot be read. \
                 Send the header Authorization: Bearer <token>",
            ),
            AuthError::Expired => {
                unauthorized("Invalid or expired token: it has expired. Get a new one")
            }
            AuthError::Invalid => {
                unauthorized("Invalid or expired token: it is not valid here. Get another one")
            }
            AuthError::Refused => {
                Self::new(ErrorCode::Forbidden, "Forbidden: these credentials do not allow that")
            }
            AuthError::Unavailable(source) => Self::new(
                ErrorCode::AuthUnavailable,
                "credentials cannot be checked at the moment; repeat the request later",
            )
            .caused_by(source),
        }
    }
}

/// Turns a decision into the answer a caller gets.
pub(super) fn answer(decision: Decision, action: Action) -> Result<(), ApiError> {
    match decision {
        Decision::Allowed => Ok(()),
        Decision::MissingScope(scope) => Err(ApiError::new(
            ErrorCode::Forbidden,
            format!("Forbidden: this needs credentials with the scope {}", scope.as_str()),
        )),
        // Nothing is given away by refusing a task that is yet to be made.
        Decision::Hidden if action == Action::CreateTask => Err(ApiError::new(
            ErrorCode::Forbidden,
            "Forbidden: this token is limited to specific task ids; use one of them as `id`",
        )),
        Decision::Hidden => Err(ApiError::task_not_found()),
        Decision::Forbidden => Err(ApiError::new(
            ErrorCode::Forbidden,
            "Forbidden: the authConfig of this task does not let these credentials do that",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Scope, TaskGrant};

    fn caller(scopes: Vec<Scope>, task: &TaskId) -> Caller {
        let tasks = TaskGrant::Only(vec![task.clone()]);
        let principal = Principal { scopes, tasks, ..Principal::unrestricted() };
        Caller { principal: Arc::new(principal), is_judged: true, renewal: None }
    }

    #[test]
    fn refusals_tell_a_missing_scope_from_a_hidden_task() {
        let mine = TaskId::parse("mine").unwrap();
        let other = TaskId::parse("other").unwrap();
        let caller = caller(vec![Scope::TaskCreate, Scope::EventHistory], &mine);
        let code = |action, task| caller.authorize(action, task).map_err(|error| error.code());
        assert_eq!(code(Action::ReadHistory, Some(&mine)), Ok(()));
        assert_eq!(code(Action::ReadHistory, Some(&other)), Err(ErrorCode::TaskNotFound));
        assert_eq!(code(Action::ManageTask, Some(&mine)), Err(ErrorCode::Forbidden));
        assert_eq!(code(Action::CreateTask, None), Err(ErrorCode::Forbidden));
        let allow = |action| caller.allow(action).map_err(|error| error.code());
        assert_eq!(allow(Action::ReadHistory), Ok(()));
        assert_eq!(allow(Action::ManageTask), Err(ErrorCode::Forbidden));
    }

    #[test]
    fn every_spelling_of_a_path_is_shown_as_one() {
        for path in ["/tasks/secret1", "/tasks/%73ecret1", "/tasks/s%65cr%65t%31"] {
            assert_eq!(canonical_path(path), "/tasks/secret1", "{path}");
        }
        assert_eq!(canonical_path("/tasks/a:b~c.d"), "/tasks/a:b~c.d");
        assert_eq!(canonical_path("/tasks/a%3Ab%7e"), "/tasks/a:b~");
        assert_eq!(canonical_path("/tasks/a%2fb"), "/tasks/a%2Fb");
        assert_eq!(canonical_path("/tasks/a!b"), "/tasks/a%21b");
        assert_eq!(canonical_path("/tasks/%ff%00"), "/tasks/%FF%00");
    }

    #[test]
    fn where_nobody_is_judged_no_rules_are_asked() {
        let mine = TaskId::parse("mine").unwrap();
        let locked: AuthConfig = serde_json::from_value(serde_json::json!({"rules": [
            {"match": {"scope": ["*"]}, "require": {"sub": []}},
        ]}))
        .unwrap();
        let judged = caller(vec![Scope::All], &mine);
        assert!(judged.admit(Action::ReadTask, Some(&locked)).is_err());
        let free = Caller { is_judged: false, ..judged };
        assert!(free.admit(Action::ReadTask, Some(&locked)).is_ok());
        assert!(free.guard(Action::ReadTask).is_none());
    }

    #[test]
    fn credentials_that_cannot_be_checked_are_told_without_the_reason() {
        let error = ApiError::from(AuthError::Unavailable("canary".into()));
        assert_eq!(error.code(), ErrorCode::AuthUnavailable);
        assert!(!error.message().contains("canary"));
    }
}
