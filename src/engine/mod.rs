//! The only writer of task state.
//!
//! A use case validates what the domain cannot know (limits, defaults), asks
//! the store for one atomic operation, and names every way it can end in an
//! error of its own. Waking readers is not done here: stores report commits
//! to the dispatcher themselves, so that a caller that hangs up early cannot
//! keep readers waiting.

mod error;
mod limits;

use std::sync::Arc;

pub use error::{CreateTaskError, PublishError, TransitionError};
pub use limits::Limits;

use crate::domain::{
    Append, Change, Event, EventDraft, ListQuery, NewTask, Refusal, Task, TaskId, TaskPage,
    Transition,
};
use crate::store::{Appended, Created, Store, StoreError};

/// Creates, moves and deletes tasks and publishes their events.
#[derive(Clone)]
pub struct Engine {
    store: Arc<dyn Store>,
    limits: Limits,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes an engine over a store.
    pub fn new(store: Arc<dyn Store>, limits: Limits) -> Self {
        Self { store, limits }
    }

    /// Returns the limits requests must keep.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Creates a pending task.
    pub async fn create_task(&self, task: NewTask) -> Result<Task, CreateTaskError> {
        let id = task.id.clone();
        match self.store.create(task).await? {
            Created::New(task) => Ok(*task),
            Created::Exists => Err(CreateTaskError::Exists(id)),
        }
    }

    /// Returns a task.
    pub async fn find_task(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        self.store.find(id).await
    }

    /// Returns a page of tasks, newest first.
    pub async fn list_tasks(&self, query: &ListQuery) -> Result<TaskPage, StoreError> {
        self.store.list(query).await
    }

    /// Deletes a task; `false` when there is none.
    pub async fn delete_task(&self, id: &TaskId) -> Result<bool, StoreError> {
        self.store.delete(id).await
    }

    /// Publishes events in one atomic append: all of them or none.
    pub async fn publish(
        &self,
        id: &TaskId,
        events: Vec<EventDraft>,
    ) -> Result<Vec<Arc<Event>>, PublishError> {
        match self.append(id, Change::Publish(events)).await? {
            Appended::Events(events) => Ok(events),
            Appended::NoSuchTask => Err(PublishError::NoSuchTask),
            Appended::Refused(Refusal::Closed(status)) => Err(PublishError::Closed(status)),
            Appended::Refused(Refusal::Series { position, conflict }) => {
                Err(PublishError::Series { position, conflict })
            }
            Appended::Refused(Refusal::SeriesTooLong { position, limit_bytes }) => {
                Err(PublishError::SeriesTooLong { position, limit_bytes })
            }
            Appended::Refused(Refusal::IllegalTransition { .. }) => {
                unreachable!("the domain refuses publishing as closed, never as a transition")
            }
        }
    }

    /// Moves a task to another state and returns it as it is then.
    pub async fn transition(
        &self,
        id: &TaskId,
        transition: Transition,
    ) -> Result<Task, TransitionError> {
        let to = transition.to;
        let events = match self.append(id, Change::Transition(transition)).await? {
            Appended::Events(events) => events,
            Appended::NoSuchTask => return Err(TransitionError::NoSuchTask),
            Appended::Refused(Refusal::IllegalTransition { from, to }) => {
                return Err(TransitionError::Illegal { from, to });
            }
            Appended::Refused(_) => {
                unreachable!("the domain refuses a transition only as illegal")
            }
        };
        let mut task = self.store.find(id).await?.ok_or(TransitionError::NoSuchTask)?;
        // The task may have moved on since; the caller hears of its own step.
        if let Some(event) = events.first() {
            task.status = to;
            task.updated_at_ms = event.timestamp_ms;
            task.completed_at_ms = to.is_terminal().then_some(event.timestamp_ms);
        }
        Ok(task)
    }

    async fn append(&self, id: &TaskId, change: Change) -> Result<Appended, StoreError> {
        let append =
            Append { task: id.clone(), change, series_text_limit: self.limits.series_text_bytes };
        self.store.append(append).await
    }
}
