//! Reading roll-ups: how many events pass a filter, where, and which runs of a
//! log are no deltas.
//!
//! Full blocks are answered by a bounded number of stored histograms; the tail
//! of the log that is not rolled up yet, by the types and levels of its rows,
//! which are all still there: superseded events are removed only after their
//! roll-up. So the tail is read together with where it begins, and the
//! roll-ups after it: what was rolled up once stays so.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;

use super::super::columns::{of_level, to_i64, to_level, to_u64};
use super::super::session::Reads;
use crate::domain::{
    BLOCK_LEN, BlockTally, FAN_OUT, Filter, Kind, LogKind, MAX_HEIGHT, Node, Tally, cover,
};
use crate::store::StoreError;

/// Ranges of roll-ups as columns.
#[derive(Debug, Default)]
pub(in super::super) struct Ranges {
    pub(in super::super) height: Vec<i16>,
    pub(in super::super) first: Vec<i64>,
    pub(in super::super) past: Vec<i64>,
}

impl Ranges {
    pub(in super::super) fn of(ranges: impl IntoIterator<Item = (u8, Range<u64>)>) -> Self {
        let mut columns = Self::default();
        for (height, ordinals) in ranges {
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
    /// Type and level, and whether the events are deltas.
    k: Vec<(String, i16, bool)>,
    /// For a block: runs of kind and length. For a sum: kind and count.
    n: Vec<(u32, u64)>,
    /// For a sum of too many kinds, instead of them: plain events and deltas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    m: Option<(u64, u64)>,
}

impl StoredKinds {
    fn parse(text: &str) -> Result<Self, StoreError> {
        serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("rollup: {error}")))
    }

    fn to_text(&self) -> String {
        // Plain strings and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn kinds(&self) -> Result<Vec<LogKind>, StoreError> {
        let kind = |(event_type, level, is_delta): &(String, i16, bool)| {
            let kind = Kind { event_type: event_type.as_str().into(), level: to_level(*level)? };
            Ok(LogKind { kind, is_delta: *is_delta })
        };
        self.k.iter().map(kind).collect()
    }
}

fn stored_kind(log: &LogKind) -> (String, i16, bool) {
    (log.kind.event_type.to_string(), of_level(log.kind.level), log.is_delta)
}

pub(super) fn block_to_text(block: &BlockTally) -> String {
    let k = block.kinds.iter().map(stored_kind);
    let n = block.runs.iter().map(|(kind, length)| (*kind, u64::from(*length)));
    StoredKinds { k: k.collect(), n: n.collect(), m: None }.to_text()
}

pub(super) fn tally_to_text(tally: &Tally) -> String {
    let kinds: &[(LogKind, u64)] = match tally {
        Tally::Kinds(kinds) => kinds,
        Tally::TooMany { .. } => &[],
    };
    let m = match tally {
        Tally::Kinds(_) => None,
        Tally::TooMany { plain, deltas } => Some((*plain, *deltas)),
    };
    let k = kinds.iter().map(|(kind, _)| stored_kind(kind));
    let n = (0..).zip(kinds.iter().map(|(_, count)| *count));
    StoredKinds { k: k.collect(), n: n.collect(), m }.to_text()
}

fn block_from_text(text: &str) -> Result<BlockTally, StoreError> {
    let stored = StoredKinds::parse(text)?;
    let run = |(kind, length): &(u32, u64)| (*kind, u32::try_from(*length).unwrap_or(u32::MAX));
    Ok(BlockTally::new(stored.kinds()?, stored.n.iter().map(run).collect()))
}

/// Reads the tally of a node of any height.
pub(super) fn tally_from_text(height: i16, text: &str) -> Result<Tally, StoreError> {
    if height == 0 {
        return Ok(block_from_text(text)?.tally());
    }
    let stored = StoredKinds::parse(text)?;
    if let Some((plain, deltas)) = stored.m {
        return Ok(Tally::TooMany { plain, deltas });
    }
    // A sum names each kind once, in order.
    let counts = stored.n.iter().map(|(_, count)| *count);
    Ok(Tally::Kinds(stored.kinds()?.into_iter().zip(counts).collect()))
}

/// Stored tallies, by height and ordinal.
pub(super) type Texts = BTreeMap<(i16, u64), String>;

/// Bytes of stored tallies that are read on the spot; more would keep an async
/// worker from everything else.
const INLINE_BYTES: usize = 64 << 10;

/// Does something with stored tallies, on a thread of its own where they are
/// large.
pub(super) async fn with_texts<T: Send + 'static>(
    texts: Texts,
    work: impl FnOnce(&Texts) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    if texts.values().map(String::len).sum::<usize>() <= INLINE_BYTES {
        return work(&texts);
    }
    let done = tokio::task::spawn_blocking(move || work(&texts)).await;
    done.unwrap_or_else(|_| Err(StoreError::Unexpected("reading roll-ups failed".into())))
}

/// Counts what passes `filter` in each tally; `None` where it has too many
/// kinds to tell.
async fn counts_of(
    texts: Texts,
    filter: &Filter,
) -> Result<BTreeMap<(i16, u64), Option<u64>>, StoreError> {
    let filter = filter.clone();
    with_texts(texts, move |texts| {
        let count = |(node, text): (&(i16, u64), &String)| {
            Ok((*node, tally_from_text(node.0, text)?.count(&filter)))
        };
        texts.iter().map(count).collect()
    })
    .await
}

/// Counts what passes `filter` in a node of too many kinds, by its children.
/// Blocks always tell, so this ends.
async fn count_children(
    reads: &Reads,
    task: i64,
    (height, ordinal): (i16, u64),
    filter: &Filter,
) -> Result<u64, StoreError> {
    let child = u8::try_from(height - 1).unwrap_or(0);
    let wanted = Ranges::of([(child, ordinal * FAN_OUT..(ordinal + 1) * FAN_OUT)]);
    let counts = counts_of(rollups(reads, task, &wanted).await?, filter).await?;
    let mut sum = 0;
    for (node, count) in counts {
        sum += match count {
            Some(count) => count,
            None => Box::pin(count_children(reads, task, node, filter)).await?,
        };
    }
    Ok(sum)
}

/// Returns how many blocks of a log are rolled up.
pub(in super::super) async fn rolled_up_blocks(
    reads: &Reads,
    task: i64,
) -> Result<u64, StoreError> {
    let blocks = sqlx::query_file_scalar!("sql/read/rolled_up.sql", task).fetch_one(reads).await?;
    Ok(to_u64(blocks))
}

/// Reads stored tallies, by height and ordinal.
pub(super) async fn rollups(
    executor: impl PgExecutor<'_>,
    task: i64,
    wanted: &Ranges,
) -> Result<Texts, StoreError> {
    let rows = sqlx::query_file!(
        "sql/read/rollups.sql",
        task,
        &wanted.height,
        &wanted.first,
        &wanted.past
    )
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.height, to_u64(row.ordinal)), row.kinds)).collect())
}

/// The end of a log that is not rolled up.
struct Tail {
    /// Blocks that are.
    rolled_up: u64,
    /// What follows them.
    kinds: BlockTally,
}

/// Reads the kinds of what is not rolled up, before `to`.
async fn tail(reads: &Reads, task: i64, to: u64) -> Result<Tail, StoreError> {
    let rows = sqlx::query_file!("sql/read/kinds.sql", task, to_i64(to), to_i64(BLOCK_LEN))
        .fetch_all(reads)
        .await?;
    let rolled_up = rows.first().map_or(0, |row| to_u64(row.blocks));
    let mut kinds = BlockTally::default();
    for row in rows {
        if let (Some(event_type), Some(level)) = (row.event_type, row.level) {
            kinds.push(&event_type.into(), to_level(level)?, row.is_delta);
        }
    }
    Ok(Tail { rolled_up, kinds })
}

/// Counts what passes `filter` before each position.
pub(in super::super) async fn count(
    reads: &Reads,
    task: i64,
    positions: &[u64],
    filter: &Filter,
) -> Result<Vec<u64>, StoreError> {
    let last = positions.iter().copied().max().unwrap_or_default();
    let Tail { rolled_up, kinds: end } = tail(reads, task, last).await?;
    let mut wanted = Vec::new();
    for position in positions {
        let block = position / BLOCK_LEN;
        wanted.extend(cover(block.min(rolled_up)));
        if block < rolled_up {
            wanted.push((0, block..block + 1));
        }
    }
    wanted.sort_by_key(|(height, ordinals)| (*height, ordinals.start, ordinals.end));
    wanted.dedup();
    let texts = rollups(reads, task, &Ranges::of(wanted)).await?;
    let partial = |position: &u64| Some(position / BLOCK_LEN).filter(|block| *block < rolled_up);
    let blocks: HashMap<u64, String> = positions
        .iter()
        .filter_map(partial)
        .filter_map(|block| Some((block, texts.get(&(0, block))?.clone())))
        .collect();
    let mut counts: HashMap<(i16, u64), u64> = HashMap::with_capacity(texts.len());
    for (node, count) in counts_of(texts, filter).await? {
        let count = match count {
            Some(count) => count,
            None => count_children(reads, task, node, filter).await?,
        };
        counts.insert(node, count);
    }
    let mut result = Vec::with_capacity(positions.len());
    for position in positions {
        let block = (position / BLOCK_LEN).min(rolled_up);
        let whole = cover(block).into_iter().flat_map(|(height, ordinals)| {
            ordinals.map(move |ordinal| (i16::from(height), ordinal))
        });
        let before: u64 = whole.map(|node| counts.get(&node).copied().unwrap_or_default()).sum();
        let within = match partial(position).and_then(|block| blocks.get(&block)) {
            Some(text) => block_from_text(text)?.count_before(position % BLOCK_LEN, filter),
            None => end.count_before(position - block * BLOCK_LEN, filter),
        };
        result.push(before + within);
    }
    Ok(result)
}

/// Finds the event that passes `filter` as number `nth`.
pub(in super::super) async fn position_of(
    reads: &Reads,
    task: i64,
    filter: &Filter,
    nth: u64,
) -> Result<Option<u64>, StoreError> {
    loop {
        let rolled_up = rolled_up_blocks(reads, task).await?;
        let left = match find_rolled_up(reads, task, rolled_up, filter, nth).await? {
            Found::At(position) => return Ok(Some(position)),
            Found::Later(left) => left,
        };
        let end = tail(reads, task, u64::MAX).await?;
        // Otherwise a block was rolled up meanwhile and is in neither part.
        if end.rolled_up == rolled_up {
            let start = rolled_up * BLOCK_LEN;
            return Ok(end.kinds.offset_of(left, filter).map(|offset| start + offset));
        }
    }
}

/// Where an event was looked for in the rolled up part.
enum Found {
    /// It is there.
    At(u64),
    /// It comes later, as this number from 0.
    Later(u64),
}

/// Looks for the event that passes `filter` as number `nth` in full blocks.
async fn find_rolled_up(
    reads: &Reads,
    task: i64,
    rolled_up: u64,
    filter: &Filter,
    nth: u64,
) -> Result<Found, StoreError> {
    let (mut left, mut first_block) = (nth, 0);
    // From the top: pass over whole nodes, then look inside the one that holds it.
    for height in (0..=MAX_HEIGHT).rev() {
        let span = FAN_OUT.pow(u32::from(height));
        let first = first_block / span;
        let past = if height == MAX_HEIGHT {
            rolled_up / span
        } else {
            (rolled_up / span).min(first + FAN_OUT)
        };
        let wanted = Ranges::of([(height, first..past)]);
        let texts = rollups(reads, task, &wanted).await?;
        for (node, count) in counts_of(texts.clone(), filter).await? {
            let count = match count {
                Some(count) => count,
                None => count_children(reads, task, node, filter).await?,
            };
            let ordinal = node.1;
            if left < count {
                if let Some(text) = texts.get(&node).filter(|_| height == 0)
                    && let Some(offset) = block_from_text(text)?.offset_of(left, filter)
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

/// Most blocks whose runs are looked at for one page.
const MAX_MIXED_BLOCKS: usize = 64;

/// Ranges in the order of the log; those that touch become one.
#[derive(Default)]
struct Merged(Vec<Range<u64>>);

impl Merged {
    /// Adds what of a range lies within `bounds`.
    fn push(&mut self, range: &Range<u64>, bounds: &Range<u64>) {
        let range = range.start.max(bounds.start)..range.end.min(bounds.end);
        match self.0.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }
}

/// Returns ranges that hold every event of `range`, up to the returned index,
/// that is no delta, and, apart from the tail of the log, no delta.
///
/// Stops early after a bounded number of blocks that hold both.
pub(in super::super) async fn plain_ranges(
    reads: &Reads,
    task: i64,
    range: Range<u64>,
) -> Result<(Vec<Range<u64>>, u64), StoreError> {
    let wanted = range.start / BLOCK_LEN..range.end.div_ceil(BLOCK_LEN);
    let rollups = PlainRollups::read(reads, task, &wanted).await?;
    let rolled_up = wanted.start..wanted.end.min(rollups.blocks);
    let mut merged = Merged::default();
    if !rolled_up.is_empty() {
        let (parts, looked_until) = plain_parts(reads, task, &rollups, rolled_up.clone()).await?;
        for part in parts {
            merged.push(&part, &range);
        }
        if looked_until < rolled_up.end {
            return Ok((merged.0, looked_until * BLOCK_LEN));
        }
    }
    merged.push(&(rollups.blocks * BLOCK_LEN..u64::MAX), &range);
    Ok((merged.0, range.end))
}

/// The roll-ups that tell plain events from deltas, read at once.
struct PlainRollups {
    /// How many blocks of the log are rolled up.
    blocks: u64,
    parents: HashMap<u64, Tally>,
    leaves: HashMap<u64, BlockTally>,
}

impl PlainRollups {
    async fn read(reads: &Reads, task: i64, blocks: &Range<u64>) -> Result<Self, StoreError> {
        let rows = sqlx::query_file!(
            "sql/read/plain_rollups.sql",
            task,
            to_i64(blocks.start),
            to_i64(blocks.end),
            to_i64(FAN_OUT)
        )
        .fetch_all(reads)
        .await?;
        let blocks = rows.first().map_or(0, |row| to_u64(row.blocks));
        let (mut parents, mut leaves) = (HashMap::new(), HashMap::new());
        for row in rows {
            let (Some(ordinal), Some(text)) = (row.ordinal.map(to_u64), row.kinds) else {
                continue;
            };
            match row.height {
                Some(0) => drop(leaves.insert(ordinal, block_from_text(&text)?)),
                Some(height) => drop(parents.insert(ordinal, tally_from_text(height, &text)?)),
                None => {}
            }
        }
        Ok(Self { blocks, parents, leaves })
    }
}

/// Returns the runs of plain events in a range of blocks, and the block up to
/// which they are known. Where a parent holds only deltas, or none, its blocks
/// are not read.
async fn plain_parts(
    reads: &Reads,
    task: i64,
    rollups_read: &PlainRollups,
    blocks: Range<u64>,
) -> Result<(Vec<Range<u64>>, u64), StoreError> {
    let (mut parts, mut mixed, mut block) = (Vec::new(), 0, blocks.start);
    let mut unread = Vec::new();
    let runs_of = |ordinal: u64, runs: &BlockTally| {
        let start = ordinal * BLOCK_LEN;
        let runs: Vec<_> =
            runs.plain_runs().map(|run| start + run.start..start + run.end).collect();
        runs
    };
    while block < blocks.end && mixed < MAX_MIXED_BLOCKS {
        let parent = rollups_read.parents.get(&(block / FAN_OUT));
        if let Some(tally) = parent.filter(|tally| !tally.has(false) || !tally.has(true)) {
            if tally.has(false) {
                parts.push(block * BLOCK_LEN..(block + FAN_OUT) * BLOCK_LEN);
            }
            block += FAN_OUT;
            continue;
        }
        match rollups_read.leaves.get(&block) {
            Some(runs) => parts.extend(runs_of(block, runs)),
            None => unread.push(block),
        }
        mixed += 1;
        block += 1;
    }
    if !unread.is_empty() {
        let wanted = Ranges::of(unread.into_iter().map(|block| (0, block..block + 1)));
        for ((_, ordinal), text) in rollups(reads, task, &wanted).await? {
            parts.extend(runs_of(ordinal, &block_from_text(&text)?));
        }
    }
    parts.sort_unstable_by_key(|part| part.start);
    Ok((parts, block))
}
