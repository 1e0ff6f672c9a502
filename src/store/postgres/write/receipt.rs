//! Receipts: how a lane finds out what came of a batch whose reply was lost.

use super::super::session::Session;
use super::append::BatchId;
use super::connection::Statement;

/// How long receipts are kept, in milliseconds: far longer than a batch is retried.
const RECEIPT_LIFE_MS: i64 = 120_000;

/// When a batch was written, and to which tasks.
pub(super) type Receipt = (i64, Vec<i64>);

/// Reads what came of a batch whose reply was lost; `None` when nothing did.
pub(super) async fn look_up(
    session: &mut Session,
    id: BatchId,
) -> Result<Option<Receipt>, sqlx::Error> {
    let receipt = sqlx::query_file!("sql/write/receipt.sql", id.lane, id.batch)
        .fetch_optional(session)
        .await?;
    Ok(receipt.map(|receipt| (receipt.at, receipt.task)))
}

/// Spends a batch number on nothing, so that no copy of the batch can commit
/// any more; `false` when one has.
pub(super) async fn void(session: &mut Session, id: BatchId) -> Result<bool, sqlx::Error> {
    let voided =
        sqlx::query_file!("sql/write/void.sql", id.lane, id.batch).execute(session).await?;
    Ok(voided.rows_affected() > 0)
}

/// Removes old receipts of a lane.
pub(super) struct Prune {
    pub(super) lane: i64,
    pub(super) after: i64,
    pub(super) up_to: i64,
}

impl Statement for Prune {
    /// The last batch that has no receipt any more.
    type Output = Option<i64>;

    async fn run(&mut self, session: &mut Session, _: bool) -> Result<Option<i64>, sqlx::Error> {
        let Self { lane, after, up_to } = *self;
        sqlx::query_file_scalar!("sql/write/prune.sql", lane, after, up_to, RECEIPT_LIFE_MS)
            .fetch_one(session)
            .await
    }
}
