//! Who is calling, and whether they may.
//!
//! Handlers take a [`Principal`] as an extractor and ask [`authorize`] before
//! they touch anything; no handler compares scopes itself. The only mode is
//! `none`, in which every caller may do everything.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::AppState;
use super::error::{ApiError, ErrorCode};
use crate::domain::{Action, Decision, Principal, Scope, TaskId, decide};

/// Name of the authentication mode, as health reports show it.
pub(super) const MODE: &str = "none";

impl FromRequestParts<AppState> for Principal {
    type Rejection = Infallible;

    async fn from_request_parts(_parts: &mut Parts, _app: &AppState) -> Result<Self, Infallible> {
        Ok(Self::unrestricted())
    }
}

/// Refuses what the domain does not allow `principal` to do.
///
/// A task that must stay hidden is answered like one that does not exist.
pub(super) fn authorize(
    principal: &Principal,
    action: Action,
    task: Option<&TaskId>,
) -> Result<(), ApiError> {
    match decide(principal, action, task) {
        Decision::Allowed => Ok(()),
        Decision::MissingScope(scope) => Err(ApiError::new(
            ErrorCode::Forbidden,
            format!("this needs credentials with the scope {}", name(scope)),
        )),
        // Nothing is given away by refusing a task that is yet to be made.
        Decision::Hidden if action == Action::CreateTask => Err(ApiError::new(
            ErrorCode::Forbidden,
            "these credentials are for other tasks; create one of the ids they name",
        )),
        Decision::Hidden => Err(ApiError::task_not_found()),
    }
}

const fn name(scope: Scope) -> &'static str {
    match scope {
        Scope::TaskCreate => "task:create",
        Scope::TaskManage => "task:manage",
        Scope::EventPublish => "event:publish",
        Scope::EventSubscribe => "event:subscribe",
        Scope::EventHistory => "event:history",
        Scope::All => "*",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TaskGrant;

    #[test]
    fn refusals_tell_a_missing_scope_from_a_hidden_task() {
        let mine = TaskId::parse("mine").unwrap();
        let other = TaskId::parse("other").unwrap();
        let caller = Principal {
            scopes: vec![Scope::TaskCreate, Scope::EventHistory],
            tasks: TaskGrant::Only(vec![mine.clone()]),
        };
        let code = |action, task| authorize(&caller, action, task).map_err(|error| error.code());
        assert_eq!(code(Action::ReadHistory, Some(&mine)), Ok(()));
        assert_eq!(code(Action::ReadHistory, Some(&other)), Err(ErrorCode::TaskNotFound));
        assert_eq!(code(Action::ManageTask, Some(&mine)), Err(ErrorCode::Forbidden));
        assert_eq!(code(Action::CreateTask, None), Err(ErrorCode::Forbidden));
    }
}
