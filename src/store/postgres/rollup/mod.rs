//! Roll-ups: full blocks of a log, summed up in the background.
//!
//! Once a block is full nothing is added to it, so it can be rolled up at any
//! time by anybody: a histogram of its kinds, the text its series gained, and
//! which event of each `latest` series is retained. The statement that inserts
//! a roll-up also does all that depends on it, so of several who try, one does
//! it. Readers never rely on it having happened; it only keeps what they read
//! short. They do rely on a block and the roll-ups it completes being there
//! together.

mod batch;
mod histogram;
mod removal;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(super) use self::batch::{BatchRow, RollupColumns};
pub(super) use self::histogram::{Ranges, count, plain_ranges, position_of, rolled_up_blocks};
use self::histogram::{block_to_text, rollups, tally_from_text, tally_to_text, with_texts};
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
        // Summed up before the transaction: what is stored never changes, and
        // Postgres ends a transaction that is kept waiting.
        let parents = sum_parents(reads, task, block, &summary.kinds).await?;
        let mut transaction = reads.begin().await?;
        if store_block(&mut transaction, task, block, &summary).await? {
            for parent in &parents {
                store_parent(&mut transaction, task, parent).await?;
            }
        }
        transaction.commit().await?;
        block += 1;
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

/// An entry of a block.
struct SummaryRow {
    index: u64,
    level: i16,
    mode: Option<i16>,
    event_type: String,
    series: Option<String>,
    field: Option<String>,
    is_delta: bool,
    data: String,
}

impl Summary {
    /// Adds the next entry of the block.
    fn add(&mut self, row: SummaryRow) -> Result<(), StoreError> {
        let (index, level) = (row.index, to_level(row.level)?);
        let event_type: Arc<str> = row.event_type.into();
        self.kinds.push(&event_type, level, row.is_delta);
        let (Some(series), Some(mode)) = (row.series, row.mode) else { return Ok(()) };
        match to_mode(mode)? {
            SeriesMode::KeepAll => {}
            SeriesMode::Latest => {
                if let Some(before) = self.retained.insert(series, index) {
                    self.superseded.push(to_i64(before));
                }
            }
            SeriesMode::Accumulate => {
                let data = Json::from_compact(row.data);
                let draft = EventDraft { event_type, level, data, series: None };
                let field = row.field.map(Arc::from);
                let chunk = self.chunks.entry(series).or_default();
                chunk.0 = index;
                if let Some(part) = Contribution::of(field.as_ref(), &draft) {
                    chunk.1.push_str(part.body);
                }
            }
        }
        Ok(())
    }
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
        summary.add(SummaryRow {
            index: to_u64(row.index),
            level: row.level,
            mode: row.mode,
            event_type: row.event_type,
            series: row.series,
            field: row.field,
            is_delta: row.is_delta,
            data: row.data,
        })?;
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

/// The sum of neighbours of one height.
struct Parent {
    height: u8,
    ordinal: u64,
    kinds: String,
}

impl Parent {
    /// Returns the ordinals of the neighbours, one height below.
    fn children(&self) -> Range<u64> {
        self.ordinal * FAN_OUT..(self.ordinal + 1) * FAN_OUT
    }
}

/// Sums up the neighbours that `block`, which is not stored yet, completes.
async fn sum_parents(
    reads: &Reads,
    task: i64,
    block: u64,
    kinds: &BlockTally,
) -> Result<Vec<Parent>, StoreError> {
    let mut parents: Vec<Parent> = Vec::new();
    let mut newest = None;
    for height in 1..=MAX_HEIGHT {
        if !(block + 1).is_multiple_of(FAN_OUT.pow(u32::from(height))) {
            break;
        }
        let ordinal = (block + 1) / FAN_OUT.pow(u32::from(height)) - 1;
        let newest_child = newest.take().unwrap_or_else(|| kinds.tally());
        let mut parent = Parent { height, ordinal, kinds: String::new() };
        // The last of them is the one that is not stored yet.
        let stored = Range { end: parent.children().end - 1, ..parent.children() };
        let texts = rollups(reads, task, &Ranges::of([(height - 1, stored)])).await?;
        let (sum, text) = with_texts(texts, move |texts| {
            let parse =
                |((height, _), text): (&(i16, u64), &String)| tally_from_text(*height, text);
            let mut parts = texts.iter().map(parse).collect::<Result<Vec<Tally>, _>>()?;
            parts.push(newest_child);
            let sum = Tally::sum(&parts);
            let text = tally_to_text(&sum);
            Ok((sum, text))
        })
        .await?;
        parent.kinds = text;
        parents.push(parent);
        newest = Some(sum);
    }
    Ok(parents)
}

async fn store_parent(session: &mut Session, task: i64, parent: &Parent) -> Result<(), StoreError> {
    let children = parent.children();
    sqlx::query_file!(
        "sql/rollup/parent.sql",
        task,
        i16::from(parent.height),
        to_i64(parent.ordinal),
        parent.kinds,
        to_i64(children.start),
        to_i64(children.end),
    )
    .execute(&mut *session)
    .await?;
    Ok(())
}
