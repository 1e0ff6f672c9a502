//! Roll-ups: full blocks of a log, summed up in the background.
//!
//! Once a block is full nothing is added to it, so it can be rolled up at any
//! time by anybody: a histogram of its kinds, the text its series gained, and
//! which event of each `latest` series is retained. The statement that inserts
//! a roll-up also does all that depends on it, so of several who try, one does
//! it. Readers never rely on it having happened; it only keeps what they read
//! short. They do rely on a block and the roll-ups it completes being there
//! together.

mod histogram;
mod removal;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(super) use self::histogram::{Ranges, count, plain_ranges, position_of, rolled_up_blocks};
use self::histogram::{block_to_text, rollups, tally_from_text, tally_to_text};
pub(super) use self::removal::{LANE_STATEMENT_TIMEOUT, REMOVAL_DELAY, run as run_removals};
use super::columns::{to_i64, to_level, to_mode, to_u64};
use super::session::{Reads, Session};
use crate::domain::{
    BLOCK_LEN, BlockTally, Contribution, EventDraft, FAN_OUT, Json, MAX_HEIGHT, SeriesMode, Tally,
};
use crate::store::StoreError;

/// Tasks that may wait to be rolled up; past it they wait for their next block.
const MAX_WAITING: usize = 10_000;

/// The tasks with a full block.
#[derive(Debug, Default)]
pub(super) struct RollupQueue {
    waiting: Mutex<HashMap<i64, u64>>,
    arrived: Notify,
}

impl RollupQueue {
    /// Notes that a task's log reached `next_index`.
    pub(super) fn push(&self, task: i64, next_index: u64) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < MAX_WAITING || waiting.contains_key(&task) {
            waiting.insert(task, next_index);
            drop(waiting);
            self.arrived.notify_one();
        }
    }

    fn pop(&self) -> Option<(i64, u64)> {
        let mut waiting = self.waiting.lock();
        let task = *waiting.keys().next()?;
        waiting.remove(&task).map(|next_index| (task, next_index))
    }
}

/// Rolls up what the queue names, until it is stopped.
pub(super) async fn run(queue: Arc<RollupQueue>, reads: Reads) {
    loop {
        while let Some((task, next_index)) = queue.pop() {
            if let Err(error) = roll_up_task(&reads, task, next_index, next_index).await {
                // The next full block of the task brings it back.
                tracing::debug!(task.number = task, %error, "could not roll up a block");
            }
        }
        queue.arrived.notified().await;
    }
}

/// Rolls up the whole log of a finished task, its last block too, which nothing
/// is added to any more. Returns whether that is the case now.
pub(super) async fn roll_up_finished(
    reads: &Reads,
    task: i64,
    next_index: u64,
) -> Result<bool, StoreError> {
    let blocks = next_index.div_ceil(BLOCK_LEN);
    if rolled_up_blocks(reads, task).await? < blocks {
        roll_up_task(reads, task, blocks * BLOCK_LEN, next_index).await?;
    }
    Ok(rolled_up_blocks(reads, task).await? >= blocks)
}

/// Rolls up every block that ends at or before `full_until`, of a log that ends
/// at `next_index`.
async fn roll_up_task(
    reads: &Reads,
    task: i64,
    full_until: u64,
    next_index: u64,
) -> Result<(), StoreError> {
    let mut block = rolled_up_blocks(reads, task).await?;
    while (block + 1) * BLOCK_LEN <= full_until {
        let whole = (next_index - block * BLOCK_LEN).min(BLOCK_LEN);
        let Some(summary) = summarise(reads, task, block, whole).await? else { return Ok(()) };
        let mut transaction = reads.begin().await?;
        let is_ours = store_block(&mut transaction, task, block, &summary).await?;
        block += 1;
        if is_ours {
            roll_up_parents(&mut transaction, task, block).await?;
        }
        transaction.commit().await?;
    }
    Ok(())
}

/// The sum of a block.
#[derive(Debug, Default)]
struct Summary {
    kinds: BlockTally,
    /// By series: newest delta and text gained.
    chunks: HashMap<String, (u64, String)>,
    /// Events superseded within the block.
    superseded: Vec<i64>,
    /// By `latest` series: the event that is retained of the block.
    retained: HashMap<String, u64>,
}

/// Reads a block of `whole` events; `None` when some are missing, because its
/// task was deleted.
async fn summarise(
    reads: &Reads,
    task: i64,
    block: u64,
    whole: u64,
) -> Result<Option<Summary>, StoreError> {
    let (from, to) = (to_i64(block * BLOCK_LEN), to_i64((block + 1) * BLOCK_LEN));
    let rows = sqlx::query_file!("sql/rollup/rows.sql", task, from, to).fetch_all(reads).await?;
    if rows.len() as u64 != whole {
        return Ok(None);
    }
    let mut summary = Summary::default();
    for row in rows {
        let (index, level) = (to_u64(row.index), to_level(row.level)?);
        let event_type: Arc<str> = row.event_type.into();
        summary.kinds.push(&event_type, level, row.is_delta);
        let (Some(series), Some(mode)) = (row.series, row.mode) else { continue };
        match to_mode(mode)? {
            SeriesMode::KeepAll => {}
            SeriesMode::Latest => {
                if let Some(before) = summary.retained.insert(series, index) {
                    summary.superseded.push(to_i64(before));
                }
            }
            SeriesMode::Accumulate => {
                let data = Json::from_compact(row.data);
                let draft = EventDraft { event_type, level, data, series: None };
                let field = row.field.map(Arc::from);
                let chunk = summary.chunks.entry(series).or_default();
                chunk.0 = index;
                if let Some(part) = Contribution::of(field.as_ref(), &draft) {
                    chunk.1.push_str(part.body);
                }
            }
        }
    }
    Ok(Some(summary))
}

/// Stores a block; `false` when somebody else did.
async fn store_block(
    session: &mut Session,
    task: i64,
    block: u64,
    summary: &Summary,
) -> Result<bool, StoreError> {
    let (mut series, mut last, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
    for (id, (last_index, body)) in &summary.chunks {
        series.push(id.as_str());
        last.push(to_i64(*last_index));
        bodies.push(body.as_str());
    }
    let (latest, left): (Vec<&str>, Vec<i64>) =
        summary.retained.iter().map(|(id, index)| (id.as_str(), to_i64(*index))).unzip();
    let inserted = sqlx::query_file_scalar!(
        "sql/rollup/block.sql",
        task,
        to_i64(block),
        block_to_text(&summary.kinds),
        &series as &[&str],
        &last,
        &bodies as &[&str],
        &summary.superseded,
        &latest as &[&str],
        &left,
        to_i64((block + 1) * BLOCK_LEN),
    )
    .fetch_one(session)
    .await?;
    Ok(inserted > 0)
}

/// Rolls up the neighbours that the block before `blocks` completed.
async fn roll_up_parents(session: &mut Session, task: i64, blocks: u64) -> Result<(), StoreError> {
    for height in 1..=MAX_HEIGHT {
        let span = FAN_OUT.pow(u32::from(height));
        if !blocks.is_multiple_of(span) {
            return Ok(());
        }
        let ordinal = blocks / span - 1;
        let children = ordinal * FAN_OUT..(ordinal + 1) * FAN_OUT;
        let wanted = Ranges::of([(height - 1, children.clone())]);
        let mut sum = Tally::default();
        for ((child_height, _), text) in rollups(&mut *session, task, &wanted).await? {
            sum.merge(&tally_from_text(child_height, &text)?);
        }
        sqlx::query_file!(
            "sql/rollup/parent.sql",
            task,
            i16::from(height),
            to_i64(ordinal),
            tally_to_text(&sum),
            to_i64(children.start),
            to_i64(children.end),
        )
        .execute(&mut *session)
        .await?;
    }
    Ok(())
}
