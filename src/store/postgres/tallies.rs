//! Reading the summed up part of a log: how much passes a filter, and where.
//!
//! Full blocks are answered by a bounded number of stored tallies; the end of
//! the log that is not summed up yet, by the types and levels of its rows,
//! which are all still there: only summing up removes superseded events. So
//! the end is read together with where it begins, and the tallies after it:
//! what was summed up once stays so.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;

use super::codes::{of_level, to_i64, to_level, to_u64};
use super::session::Reads;
use crate::domain::{BLOCK_LEN, BlockTally, FAN_OUT, Filter, Kind, MAX_HEIGHT, Node, Tally, cover};
use crate::store::StoreError;

/// Stretches of nodes as columns.
#[derive(Debug, Default)]
pub(super) struct Stretches {
    pub(super) height: Vec<i16>,
    pub(super) first: Vec<i64>,
    pub(super) past: Vec<i64>,
}

impl Stretches {
    pub(super) fn of(stretches: impl IntoIterator<Item = (u8, Range<u64>)>) -> Self {
        let mut columns = Self::default();
        for (height, ordinals) in stretches {
            if !ordinals.is_empty() {
                columns.height.push(i16::from(height));
                columns.first.push(to_i64(ordinals.start));
                columns.past.push(to_i64(ordinals.end));
            }
        }
        columns
    }
}

/// How a tally is stored.
#[derive(Debug, Serialize, Deserialize)]
struct StoredKinds {
    /// Types and levels.
    k: Vec<(String, i16)>,
    /// For a block: runs of kind and length. For a sum: kind and count.
    n: Vec<(u32, u64)>,
}

impl StoredKinds {
    fn parse(text: &str) -> Result<Self, StoreError> {
        serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("node: {error}")))
    }

    fn to_text(&self) -> String {
        // Plain strings and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn kinds(&self) -> Result<Vec<Kind>, StoreError> {
        let kind = |(event_type, level): &(String, i16)| {
            Ok(Kind { event_type: event_type.as_str().into(), level: to_level(*level)? })
        };
        self.k.iter().map(kind).collect()
    }
}

pub(super) fn block_to_text(block: &BlockTally) -> String {
    let k = block.kinds.iter().map(|kind| (kind.event_type.to_string(), of_level(kind.level)));
    let n = block.runs.iter().map(|(kind, length)| (*kind, u64::from(*length)));
    StoredKinds { k: k.collect(), n: n.collect() }.to_text()
}

pub(super) fn tally_to_text(tally: &Tally) -> String {
    let k = tally.0.iter().map(|(kind, _)| (kind.event_type.to_string(), of_level(kind.level)));
    let n = (0..).zip(tally.0.iter().map(|(_, count)| *count));
    StoredKinds { k: k.collect(), n: n.collect() }.to_text()
}

fn block_from_text(text: &str) -> Result<BlockTally, StoreError> {
    let stored = StoredKinds::parse(text)?;
    let run = |(kind, length): &(u32, u64)| (*kind, u32::try_from(*length).unwrap_or(u32::MAX));
    Ok(BlockTally { kinds: stored.kinds()?, runs: stored.n.iter().map(run).collect() })
}

/// Reads the tally of a node of any height.
pub(super) fn tally_from_text(height: i16, text: &str) -> Result<Tally, StoreError> {
    if height == 0 {
        return Ok(block_from_text(text)?.tally());
    }
    let stored = StoredKinds::parse(text)?;
    let kinds = stored.kinds()?;
    let mut tally = Tally::default();
    for (kind, count) in &stored.n {
        if let Some(kind) = kinds.get(*kind as usize) {
            tally.add(kind, *count);
        }
    }
    Ok(tally)
}

/// Returns how many blocks of a log are summed up.
pub(super) async fn sealed_blocks(reads: &Reads, task: i64) -> Result<u64, StoreError> {
    let blocks = sqlx::query_file_scalar!("sql/events/sealed.sql", task).fetch_one(reads).await?;
    Ok(to_u64(blocks))
}

/// Reads stored tallies, by height and ordinal.
pub(super) async fn nodes(
    executor: impl PgExecutor<'_>,
    task: i64,
    wanted: &Stretches,
) -> Result<BTreeMap<(i16, u64), String>, StoreError> {
    let rows = sqlx::query_file!(
        "sql/events/nodes.sql",
        task,
        &wanted.height,
        &wanted.first,
        &wanted.past
    )
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.height, to_u64(row.ordinal)), row.kinds)).collect())
}

/// The end of a log that is not summed up.
struct Tail {
    /// Blocks that are.
    sealed: u64,
    /// What follows them.
    kinds: BlockTally,
}

/// Reads the kinds of what is not summed up, before `to`.
async fn tail(reads: &Reads, task: i64, to: u64) -> Result<Tail, StoreError> {
    let rows = sqlx::query_file!("sql/events/kinds.sql", task, to_i64(to), to_i64(BLOCK_LEN))
        .fetch_all(reads)
        .await?;
    let sealed = rows.first().map_or(0, |row| to_u64(row.blocks));
    let mut kinds = BlockTally::default();
    for row in rows {
        if let (Some(event_type), Some(level)) = (row.event_type, row.level) {
            kinds.push(&event_type.into(), to_level(level)?);
        }
    }
    Ok(Tail { sealed, kinds })
}

/// Counts what passes `filter` before each position.
pub(super) async fn count(
    reads: &Reads,
    task: i64,
    positions: &[u64],
    filter: &Filter,
) -> Result<Vec<u64>, StoreError> {
    let last = positions.iter().copied().max().unwrap_or_default();
    let Tail { sealed, kinds: end } = tail(reads, task, last).await?;
    let mut wanted = Vec::new();
    for position in positions {
        let block = position / BLOCK_LEN;
        wanted.extend(cover(block.min(sealed)));
        if block < sealed {
            wanted.push((0, block..block + 1));
        }
    }
    wanted.sort_by_key(|(height, ordinals)| (*height, ordinals.start, ordinals.end));
    wanted.dedup();
    let texts = nodes(reads, task, &Stretches::of(wanted)).await?;
    let mut counts: HashMap<(i16, u64), u64> = HashMap::with_capacity(texts.len());
    for ((height, ordinal), text) in &texts {
        counts.insert((*height, *ordinal), tally_from_text(*height, text)?.count(filter));
    }
    let mut result = Vec::with_capacity(positions.len());
    for position in positions {
        let block = (position / BLOCK_LEN).min(sealed);
        let whole = cover(block).into_iter().flat_map(|(height, ordinals)| {
            ordinals.map(move |ordinal| (i16::from(height), ordinal))
        });
        let before: u64 = whole.map(|node| counts.get(&node).copied().unwrap_or_default()).sum();
        let within = match texts.get(&(0, block)).filter(|_| position / BLOCK_LEN < sealed) {
            Some(text) => block_from_text(text)?.count_before(position % BLOCK_LEN, filter),
            None => end.count_before(position - block * BLOCK_LEN, filter),
        };
        result.push(before + within);
    }
    Ok(result)
}

/// Finds the event that passes `filter` as number `nth`.
pub(super) async fn position_of(
    reads: &Reads,
    task: i64,
    filter: &Filter,
    nth: u64,
) -> Result<Option<u64>, StoreError> {
    loop {
        let sealed = sealed_blocks(reads, task).await?;
        let left = match find_sealed(reads, task, sealed, filter, nth).await? {
            Found::At(position) => return Ok(Some(position)),
            Found::Later(left) => left,
        };
        let end = tail(reads, task, u64::MAX).await?;
        // Otherwise a block was summed up meanwhile and is in neither part.
        if end.sealed == sealed {
            let start = sealed * BLOCK_LEN;
            return Ok(end.kinds.offset_of(left, filter).map(|offset| start + offset));
        }
    }
}

/// Where an event was looked for in the summed up part.
enum Found {
    /// It is there.
    At(u64),
    /// It comes later, as this number from 0.
    Later(u64),
}

/// Looks for the event that passes `filter` as number `nth` in full blocks.
async fn find_sealed(
    reads: &Reads,
    task: i64,
    sealed: u64,
    filter: &Filter,
    nth: u64,
) -> Result<Found, StoreError> {
    let (mut left, mut first_block) = (nth, 0);
    // From the top: pass over whole nodes, then look inside the one that holds it.
    for height in (0..=MAX_HEIGHT).rev() {
        let span = FAN_OUT.pow(u32::from(height));
        let first = first_block / span;
        let past =
            if height == MAX_HEIGHT { sealed / span } else { (sealed / span).min(first + FAN_OUT) };
        let wanted = Stretches::of([(height, first..past)]);
        for ((_, ordinal), text) in nodes(reads, task, &wanted).await? {
            let count = tally_from_text(i16::from(height), &text)?.count(filter);
            if left < count {
                if height == 0
                    && let Some(offset) = block_from_text(&text)?.offset_of(left, filter)
                {
                    return Ok(Found::At(Node { height, ordinal }.range().start + offset));
                }
                break;
            }
            left -= count;
            first_block = (ordinal + 1) * span;
        }
    }
    Ok(Found::Later(left))
}
