//! Lists in which some rows are not for everyone.
//!
//! Rules of tasks are judged here, row by row, because no store could: they
//! compare claims. A page that lost rows is filled up from the next ones.

use crate::domain::{Guard, ListQuery, TaskNumber, TaskPage};
use crate::store::{Store, StoreError};

/// Most pages read from the store for one that is asked for.
const MOST_READS: usize = 10;

/// Rows read at least when a page is filled up: small pages shall get on, too.
const REFILL_ROWS: usize = 100;

/// Reads pages until one is full of what `guard` admits, the tasks end, or it
/// took too much.
pub(super) async fn list_guarded(
    store: &dyn Store,
    query: &ListQuery,
    guard: &Guard,
) -> Result<TaskPage, StoreError> {
    let mut found = TaskPage { tasks: Vec::new(), next: query.before };
    let mut bytes_left = query.max_bytes;
    let mut read = query.clone();
    for _ in 0..MOST_READS {
        read.before = found.next;
        read.max_bytes = bytes_left;
        let page = store.list(&read).await?;
        let mut rows = page.tasks.into_iter().peekable();
        while let Some(task) = rows.next() {
            if !guard.admits(&task.spec.id, task.spec.auth_config.as_ref()) {
                continue;
            }
            if task.size_bytes() > bytes_left && !found.tasks.is_empty() {
                found.next = TaskNumber::new(task.number.get() + 1);
                return Ok(found);
            }
            bytes_left = bytes_left.saturating_sub(task.size_bytes());
            let below = Some(task.number);
            found.tasks.push(task);
            if found.tasks.len() == query.limit {
                found.next = if rows.peek().is_some() { below } else { page.next };
                return Ok(found);
            }
        }
        found.next = page.next;
        if found.next.is_none() || bytes_left == 0 {
            break;
        }
        read.limit = query.limit.max(REFILL_ROWS);
    }
    Ok(found)
}
