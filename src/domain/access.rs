//! Who may do what: the one decision every route asks.
//!
//! Every handler names its [`Action`] and the task it touches; no route
//! decides for itself. In mode `none` every caller is
//! [`Principal::unrestricted`].

use super::TaskId;

/// A permission a caller may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Create tasks.
    TaskCreate,
    /// Change and delete tasks.
    TaskManage,
    /// Publish events.
    EventPublish,
    /// Read tasks and follow streams.
    EventSubscribe,
    /// Read event history.
    EventHistory,
    /// Everything.
    All,
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Create a task.
    CreateTask,
    /// Read one task or its stream.
    ReadTask,
    /// List tasks or follow all of them; judged per task as well.
    ReadAnyTask,
    /// Read a task's history.
    ReadHistory,
    /// Publish events to a task.
    PublishEvents,
    /// Move a task to another state or delete it.
    ManageTask,
}

impl Action {
    /// Returns the scope the action needs.
    pub const fn scope(self) -> Scope {
        match self {
            Self::CreateTask => Scope::TaskCreate,
            Self::ReadTask | Self::ReadAnyTask => Scope::EventSubscribe,
            Self::ReadHistory => Scope::EventHistory,
            Self::PublishEvents => Scope::EventPublish,
            Self::ManageTask => Scope::TaskManage,
        }
    }
}

/// The tasks a caller may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskGrant {
    /// Every task.
    Every,
    /// These tasks and no other.
    Only(Vec<TaskId>),
}

/// A caller whose identity was established.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Permissions held.
    pub scopes: Vec<Scope>,
    /// Tasks those permissions extend to.
    pub tasks: TaskGrant,
}

impl Principal {
    /// Returns the caller of mode `none`: every permission on every task.
    pub fn unrestricted() -> Self {
        Self { scopes: vec![Scope::All], tasks: TaskGrant::Every }
    }
}

/// The answer to "may this caller do that?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allowed,
    /// No: the caller lacks the scope.
    MissingScope(Scope),
    /// No, and the caller must not learn whether the task exists.
    Hidden,
}

/// Decides whether `principal` may perform `action` on `task`.
///
/// `task` is `None` where no task is named: listing, and creating a task
/// under a server-made id.
pub fn decide(principal: &Principal, action: Action, task: Option<&TaskId>) -> Decision {
    let scope = action.scope();
    if !principal.scopes.iter().any(|held| *held == scope || *held == Scope::All) {
        return Decision::MissingScope(scope);
    }
    match (&principal.tasks, task) {
        (TaskGrant::Every, _) => Decision::Allowed,
        (TaskGrant::Only(ids), Some(id)) if ids.contains(id) => Decision::Allowed,
        // The rows of a list are judged one by one against the same grant.
        (TaskGrant::Only(_), None) if action == Action::ReadAnyTask => Decision::Allowed,
        (TaskGrant::Only(_), _) => Decision::Hidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(scope: Scope) -> Principal {
        let id = TaskId::parse("mine").unwrap();
        Principal { scopes: vec![scope], tasks: TaskGrant::Only(vec![id]) }
    }

    #[test]
    fn a_caller_without_the_scope_is_refused_before_the_task_is_looked_at() {
        let other = TaskId::parse("other").unwrap();
        assert_eq!(
            decide(&narrow(Scope::EventPublish), Action::ManageTask, Some(&other)),
            Decision::MissingScope(Scope::TaskManage)
        );
    }

    #[test]
    fn a_caller_limited_to_named_tasks_sees_no_other() {
        let (mine, other) = (TaskId::parse("mine").unwrap(), TaskId::parse("other").unwrap());
        let caller = narrow(Scope::All);
        assert_eq!(decide(&caller, Action::ReadTask, Some(&mine)), Decision::Allowed);
        assert_eq!(decide(&caller, Action::ReadTask, Some(&other)), Decision::Hidden);
        assert_eq!(decide(&caller, Action::CreateTask, None), Decision::Hidden);
        assert_eq!(decide(&caller, Action::ReadAnyTask, None), Decision::Allowed);
    }
}
