//! The port of task documents.

use async_trait::async_trait;

use super::{StoreError, TaskRef};
use crate::domain::{IdempotencyKey, ListQuery, NewTask, Task, TaskId, TaskPage};

/// What creating a task came to.
#[derive(Debug, Clone)]
pub enum Created {
    /// The task exists now.
    New(Box<Task>),
    /// A request with the same key and body created it before; the task as it
    /// was then.
    Replayed(Box<Task>),
    /// Another task has that id.
    Exists,
    /// Another request was sent with the same key.
    KeyConflict,
}

/// The tasks, their logs apart.
#[async_trait]
pub trait Tasks: Send + Sync {
    /// Creates a pending task; its deadline is counted from the store's clock.
    ///
    /// Of any number of callers with one id exactly one creates it. With a key
    /// the request takes effect once, whatever id it was given.
    async fn create(
        &self,
        task: NewTask,
        key: Option<IdempotencyKey>,
    ) -> Result<Created, StoreError>;

    /// Returns a task, or `None` when there is none or it was deleted.
    async fn find(&self, id: &TaskId) -> Result<Option<Task>, StoreError>;

    /// Returns a page of tasks, newest first.
    ///
    /// A page may be short while more follow, when its bytes or the effort it
    /// took reached a bound.
    async fn list(&self, query: &ListQuery) -> Result<TaskPage, StoreError>;

    /// Deletes a task; `false` when it is gone already, also when another has
    /// its id meanwhile.
    ///
    /// The id is free at once. No event is accepted afterwards; what the task
    /// owned goes later, by [`Self::purge`].
    async fn delete(&self, task: &TaskRef) -> Result<bool, StoreError>;

    /// Returns up to `limit` unfinished tasks past their deadline, oldest first.
    async fn overdue(&self, limit: usize) -> Result<Vec<TaskId>, StoreError>;

    /// Fails while the store is known to take no writes, though it may answer
    /// reads: a standby, a database that is read-only.
    async fn check_writable(&self) -> Result<(), StoreError>;

    /// Removes up to about `limit` rows that deleted tasks left behind.
    ///
    /// Returns how many went; zero means nothing is left for now.
    async fn purge(&self, limit: usize) -> Result<usize, StoreError>;
}
