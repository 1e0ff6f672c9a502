//! The task port over SQL; writes go through the lanes.

use async_trait::async_trait;

use super::super::PostgresStore;
use super::super::columns::{of_number, of_status, to_i64};
use super::super::rows::TaskRow;
use super::super::session::Reads;
use super::super::write::{CreateRequest, DeleteRequest};
use crate::domain::{
    IdempotencyKey, ListQuery, NewTask, Task, TaskGrant, TaskId, TaskPage, TypePattern,
};
use crate::store::{Created, StoreError, TaskRef, Tasks};

/// How long a deleted task stays for readers that poll its head, in milliseconds.
const TOMBSTONE_LIFE_MS: i64 = 60_000;

/// Deleted tasks looked at in one purge.
const PURGE_TASKS: i64 = 64;

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
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let rows = fetch_list(&self.reads, query, limit.saturating_add(1)).await?;
        let mut page = TaskPage { tasks: Vec::with_capacity(rows.len()), next: None };
        let mut bytes = 0;
        for row in rows {
            let task = Task::try_from(row)?;
            bytes += task.size_bytes();
            let full = page.tasks.len() >= query.limit
                || (!page.tasks.is_empty() && bytes > query.max_bytes);
            if full {
                page.next = page.tasks.last().map(|last| last.number);
                break;
            }
            page.tasks.push(task);
        }
        Ok(page)
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
        let tasks =
            sqlx::query_file_scalar!("sql/tasks/purgeable.sql", TOMBSTONE_LIFE_MS, PURGE_TASKS)
                .fetch_all(&self.reads)
                .await?;
        let mut gone = 0;
        for task in tasks {
            let left = limit.saturating_sub(gone);
            if left == 0 {
                break;
            }
            gone += purge_task(&self.reads, task, left).await?;
        }
        Ok(gone)
    }
}

async fn fetch_list(
    reads: &Reads,
    query: &ListQuery,
    limit: i64,
) -> Result<Vec<TaskRow>, StoreError> {
    let before = query.before.map_or(i64::MAX, of_number);
    let statuses: Option<Vec<i16>> = (!query.statuses.is_empty())
        .then(|| query.statuses.iter().map(|status| of_status(*status)).collect());
    let any_type = query.types.is_empty() || query.types.contains(&TypePattern::Any);
    let types: Option<Vec<String>> =
        (!any_type).then(|| query.types.iter().map(like_pattern).collect());
    let tags: Option<Vec<String>> =
        (!query.tags.is_empty()).then(|| query.tags.iter().map(ToString::to_string).collect());
    let ids: Option<Vec<String>> = match &query.grant {
        TaskGrant::Every => None,
        TaskGrant::Only(ids) => Some(ids.iter().map(ToString::to_string).collect()),
    };
    let rows = sqlx::query_file_as!(
        TaskRow,
        "sql/tasks/list.sql",
        before,
        statuses.as_deref() as Option<&[i16]>,
        types.as_deref() as Option<&[String]>,
        tags.as_deref() as Option<&[String]>,
        ids.as_deref() as Option<&[String]>,
        limit,
    )
    .fetch_all(reads)
    .await?;
    Ok(rows)
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

/// Removes up to `limit` rows of a deleted task, at last the task itself.
async fn purge_task(reads: &Reads, task: i64, limit: usize) -> Result<usize, StoreError> {
    let mut gone: u64 = 0;
    macro_rules! purge {
        ($file:literal) => {
            let left = to_i64((limit as u64).saturating_sub(gone));
            if left > 0 {
                gone += sqlx::query_file!($file, task, left).execute(reads).await?.rows_affected();
            }
        };
    }
    purge!("sql/tasks/purge_event.sql");
    purge!("sql/tasks/purge_series.sql");
    purge!("sql/tasks/purge_rollup.sql");
    purge!("sql/tasks/purge_text_chunk.sql");
    purge!("sql/tasks/purge_latest_retained.sql");
    purge!("sql/tasks/purge_delivery.sql");
    purge!("sql/tasks/purge_cleanup.sql");
    if gone < limit as u64 {
        gone += sqlx::query_file!("sql/tasks/purge_task.sql", task)
            .execute(reads)
            .await?
            .rows_affected();
    }
    Ok(usize::try_from(gone).unwrap_or(usize::MAX))
}
