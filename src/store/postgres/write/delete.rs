//! Deleting tasks through a lane: in its batches, so that deletions commit in
//! groups as well and cannot overtake an append of the same instance.

use std::collections::HashSet;
use std::time::Instant;

use super::super::columns::of_number;
use super::super::session::Session;
use super::append::BatchId;
use super::connection::{Statement, WriteError};
use super::lane::Lane;
use super::request::DeleteRequest;
use crate::store::{BatchKind, Commit, StoreError};

/// Deletes tasks.
struct DeleteBatch {
    id: BatchId,
    numbers: Vec<i64>,
}

impl Statement for DeleteBatch {
    /// The tasks that were there; `None` when the lane is not registered.
    type Output = Option<Vec<i64>>;

    async fn run(
        &mut self,
        session: &mut Session,
        _: bool,
    ) -> Result<Option<Vec<i64>>, sqlx::Error> {
        let (lane, batch) = (self.id.lane, self.id.batch);
        let row = sqlx::query_file!("sql/write/delete.sql", lane, batch, &self.numbers)
            .fetch_one(&mut *session)
            .await?;
        if row.batch.is_some() {
            return Ok(Some(row.numbers.unwrap_or_default()));
        }
        if !row.is_registered {
            return Ok(None);
        }
        // The receipt was there before: an earlier copy did it.
        let deleted = sqlx::query_file_scalar!("sql/write/deleted.sql", lane, batch);
        Ok(Some(deleted.fetch_all(session).await?))
    }
}

impl Lane {
    pub(super) async fn delete(&mut self, requests: Vec<DeleteRequest>, until: Instant) {
        let began = Instant::now();
        let numbers = requests.iter().map(|request| of_number(request.task.number)).collect();
        let deleted = match self.delete_batch(numbers, until).await {
            Ok(deleted) => deleted,
            Err(error) => {
                self.post_commit.failed(&error);
                for request in requests {
                    request.ticket.answer(Err(error.clone()));
                }
                return;
            }
        };
        self.report_tasks(BatchKind::Delete, deleted.len(), began);
        let mut commits = Vec::with_capacity(deleted.len());
        let mut deleted: HashSet<i64> = deleted.into_iter().collect();
        for DeleteRequest { task, ticket } in requests {
            drop(self.cache.take(&task.id));
            // Of several who delete one task, one did it.
            let is_ours = deleted.remove(&of_number(task.number));
            if is_ours {
                commits.push(Commit::of_deletion(task));
            }
            ticket.answer(Ok(is_ours));
        }
        self.post_commit.committed(&commits);
    }

    async fn delete_batch(
        &mut self,
        numbers: Vec<i64>,
        until: Instant,
    ) -> Result<Vec<i64>, StoreError> {
        let id = self.batch_id(until).await?;
        let mut statement = DeleteBatch { id, numbers };
        loop {
            match self.connection.run(until, &mut statement).await {
                Ok(Some(deleted)) => {
                    self.finish_batch();
                    return Ok(deleted);
                }
                Ok(None) => {
                    self.abandon_lane();
                    statement.id = self.batch_id(until).await?;
                }
                Err(error) => {
                    if matches!(error, WriteError::Unknown(_)) {
                        self.abandon_lane();
                    }
                    return Err(error.into_store_error());
                }
            }
        }
    }
}
