//! Tasks as the service keeps them.

use std::sync::Arc;

use super::{
    AuthConfig, CleanupRule, Json, TaskGrant, TaskId, TaskNumber, TaskStatus, TypePattern, Webhook,
};

/// Why a task failed, in the backend's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    /// A code for programs.
    pub code: Option<Arc<str>>,
    /// A sentence for people.
    pub message: Arc<str>,
    /// More, as an object.
    pub details: Option<Json>,
}

impl TaskError {
    /// Returns an error that is a sentence and nothing else.
    pub fn new(message: &str) -> Self {
        Self { code: None, message: message.into(), details: None }
    }
}

/// A task to be created.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// What kind of task it is, in the backend's words.
    pub task_type: Option<Arc<str>>,
    /// Input, never changed.
    pub params: Option<Json>,
    /// Anything the backend wants to keep beside it, never changed.
    pub metadata: Option<Json>,
    /// Labels to list by.
    pub tags: Option<Vec<Arc<str>>>,
    /// Time to live in seconds, counted from creation.
    pub ttl_seconds: Option<u64>,
    /// Who else must agree before a caller may touch it.
    pub auth_config: Option<AuthConfig>,
    /// Who is told of its events.
    pub webhooks: Option<Vec<Webhook>>,
    /// What goes of it once it is finished.
    pub cleanup: Option<Vec<CleanupRule>>,
}

impl NewTask {
    /// Returns a task that has nothing but an id.
    pub fn new(id: TaskId) -> Self {
        Self {
            id,
            task_type: None,
            params: None,
            metadata: None,
            tags: None,
            ttl_seconds: None,
            auth_config: None,
            webhooks: None,
            cleanup: None,
        }
    }
}

/// A task.
#[derive(Debug, Clone)]
pub struct Task {
    /// What it was created with.
    pub spec: NewTask,
    /// Its number within the store.
    pub number: TaskNumber,
    /// State it is in.
    pub status: TaskStatus,
    /// Result last given with a transition.
    pub result: Option<Json>,
    /// Error last given with a transition.
    pub error: Option<TaskError>,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds of the last transition, or of creation.
    pub updated_at_ms: u64,
    /// Unix milliseconds of the terminal transition.
    pub completed_at_ms: Option<u64>,
}

/// Which tasks to list, newest first.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// States wanted; empty means every state.
    pub statuses: Vec<TaskStatus>,
    /// Types wanted; empty means every task, with a type or without.
    pub types: Vec<TypePattern>,
    /// Tags a task must all have.
    pub tags: Vec<Arc<str>>,
    /// Only tasks numbered below this: where the page before ended.
    pub before: Option<TaskNumber>,
    /// Tasks the caller may see.
    pub grant: TaskGrant,
    /// Most tasks to return.
    pub limit: usize,
    /// Most bytes of payload to return; one task always fits.
    pub max_bytes: usize,
}

impl ListQuery {
    /// Tells whether `task` belongs to the list, paging apart.
    pub fn admits(&self, task: &Task) -> bool {
        let type_matches = || {
            let task_type = task.spec.task_type.as_deref();
            self.types.is_empty()
                || self.types.iter().any(|pattern| match pattern {
                    TypePattern::Any => true,
                    _ => task_type.is_some_and(|task_type| pattern.matches(task_type)),
                })
        };
        let tags = task.spec.tags.as_deref().unwrap_or_default();
        let granted = match &self.grant {
            TaskGrant::Every => true,
            TaskGrant::Only(ids) => ids.contains(&task.spec.id),
        };
        granted
            && (self.statuses.is_empty() || self.statuses.contains(&task.status))
            && type_matches()
            && self.tags.iter().all(|tag| tags.contains(tag))
    }
}

/// A page of a list.
#[derive(Debug, Clone, Default)]
pub struct TaskPage {
    /// The tasks, newest first.
    pub tasks: Vec<Task>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<TaskNumber>,
}
