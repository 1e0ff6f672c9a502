//! Who is calling, and whether they may.
//!
//! Handlers take a [`Caller`] as their first extractor, or a
//! [`Submission`](super::extract::Submission) that holds one, so that a request
//! without good credentials is answered before anything else of it is looked
//! at, and ask it before they touch anything; no handler compares scopes
//! itself. The order on every route: the scope (403), the form of the request
//! (400), then whether there is such a task for this caller (404).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};

use super::AppState;
use super::error::{ApiError, ErrorCode};
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
        let (method, path, headers) = (&parts.method, parts.uri.path(), &parts.headers);
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

impl Caller {
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
                unauthorized("this needs credentials; send Authorization: Bearer with a token")
            }
            AuthError::Malformed => unauthorized(
                "the credentials cannot be read; send Authorization: Bearer with a token",
            ),
            AuthError::Expired => unauthorized("the credentials have expired; get new ones"),
            AuthError::Invalid => {
                unauthorized("the credentials are not valid here; get other ones")
            }
            AuthError::Refused => {
                Self::new(ErrorCode::Forbidden, "these credentials do not allow that; send others")
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
            format!("this needs credentials with the scope {}", scope.as_str()),
        )),
        // Nothing is given away by refusing a task that is yet to be made.
        Decision::Hidden if action == Action::CreateTask => Err(ApiError::new(
            ErrorCode::Forbidden,
            "these credentials are for other tasks; create one of the ids they name",
        )),
        Decision::Hidden => Err(ApiError::task_not_found()),
        Decision::Forbidden => Err(ApiError::new(
            ErrorCode::Forbidden,
            "the rules of this task do not let these credentials do that",
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
