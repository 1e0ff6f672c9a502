//! The task port over SQL; writes go through the lanes.

use async_trait::async_trait;

use super::super::PostgresStore;
use super::super::columns::{to_i64, to_u64};
use super::super::rows::TaskRow;
use super::super::session::Reads;
use super::super::write::{CreateRequest, DeleteRequest};
use crate::domain::{IdempotencyKey, ListQuery, NewTask, Task, TaskId, TaskPage, TypePattern};
use crate::store::{Created, StoreError, TaskRef, Tasks};

/// How long a deleted task stays for readers that poll its head, in milliseconds.
const TOMBSTONE_LIFE_MS: i64 = 60_000;

/// Deleted tasks looked at in one purge.
const PURGE_TASKS: i64 = 500;

/// Bytes of payload removed by one statement.
const PURGE_BYTES: i64 = 16 << 20;

#[async_trait]
impl Tasks for PostgresStore {
    async fn create(
        &self,
        task: NewTask,
        key: Option<IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        let id = task.id.clone();
        let (request, answer) = CreateRequest::queue(task, key, self.deadline());
        self.submit(&id, request, answer).await
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        let row = sqlx::query_file_as!(TaskRow, "sql/tasks/find.sql", id.as_str())
            .fetch_optional(&self.reads)
            .await?;
        row.map(Task::try_from).transpose()
    }

    async fn list(&self, query: &ListQuery) -> Result<TaskPage, StoreError> {
        self.read_list(query).await
    }

    async fn delete(&self, task: &TaskRef) -> Result<bool, StoreError> {
        let (request, answer) = DeleteRequest::queue(task.clone(), self.deadline());
        self.submit(&task.id, request, answer).await
    }

    async fn overdue(&self, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let ids =
            sqlx::query_file_scalar!("sql/tasks/overdue.sql", limit).fetch_all(&self.reads).await?;
        let parse = |id: String| {
            TaskId::parse(&id).map_err(|_| StoreError::Corrupt(format!("task.id {id:?}")))
        };
        ids.into_iter().map(parse).collect()
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        self.primary.check()?;
        self.primary.note_role(self.reads.role().await?);
        self.primary.check()
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        let most = to_i64(limit as u64).min(PURGE_TASKS);
        let tasks = sqlx::query_file_scalar!("sql/tasks/purgeable.sql", TOMBSTONE_LIFE_MS, most)
            .fetch_all(&self.reads)
            .await?;
        if tasks.is_empty() {
            return Ok(0);
        }
        purge_tasks(&self.reads, &tasks, limit).await
    }
}

/// Spells a type pattern for LIKE.
pub(in super::super) fn like_pattern(pattern: &TypePattern) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    match pattern {
        TypePattern::Any => "%".into(),
        TypePattern::Prefix(prefix) => escape(prefix) + "%",
        TypePattern::Exact(exact) => escape(exact),
    }
}

/// Removes up to about `limit` rows of deleted tasks, one statement for each
/// table; at last the tasks themselves.
async fn purge_tasks(reads: &Reads, tasks: &[i64], limit: usize) -> Result<usize, StoreError> {
    let mut gone: u64 = 0;
    let mut is_done = true;
    macro_rules! purge {
        ($file:literal) => {
            let left = to_i64((limit as u64).saturating_sub(gone));
            if is_done && left > 0 {
                let removed =
                    sqlx::query_file!($file, tasks, left).execute(reads).await?.rows_affected();
                gone += removed;
                is_done = to_i64(removed) < left;
            }
        };
    }
    macro_rules! purge_wide {
        ($file:literal) => {
            let left = to_i64((limit as u64).saturating_sub(gone));
            if is_done && left > 0 {
                let chunk =
                    sqlx::query_file!($file, tasks, left, PURGE_BYTES).fetch_one(reads).await?;
                gone += to_u64(chunk.removed);
                is_done = chunk.removed == chunk.seen && chunk.seen < left;
            }
        };
    }
    purge_wide!("sql/tasks/purge_event.sql");
    purge_wide!("sql/tasks/purge_text_chunk.sql");
    purge!("sql/tasks/purge_series.sql");
    purge!("sql/tasks/purge_rollup.sql");
    purge!("sql/tasks/purge_latest_retained.sql");
    purge!("sql/tasks/purge_delivery.sql");
    purge!("sql/tasks/purge_cleanup.sql");
    if is_done && gone < limit as u64 {
        gone += sqlx::query_file!("sql/tasks/purge_task.sql", tasks)
            .execute(reads)
            .await?
            .rows_affected();
    }
    Ok(usize::try_from(gone).unwrap_or(usize::MAX))
}
