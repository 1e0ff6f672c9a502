//! Counting what a filter passes without reading the log.
//!
//! A filter sees only an event's type and level, its [`Kind`]. The log is cut
//! into blocks of [`BLOCK_LEN`] events; a full block is summed up as the runs
//! of kinds it holds, [`FAN_OUT`] neighbours as a [`Tally`], and so on up.
//! The count before any position is then the sum of a bounded number of
//! tallies, and it stays right when rows of superseded events are gone.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Filter, Level};

/// Events in a block.
pub const BLOCK_LEN: u64 = 1024;

/// Nodes of one height that the next height sums up.
pub const FAN_OUT: u64 = 32;

/// All a filter sees of an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The event's type.
    pub event_type: Arc<str>,
    /// The event's level.
    pub level: Level,
}

impl Kind {
    fn passes(&self, filter: &Filter) -> bool {
        filter.admits_kind(&self.event_type, self.level)
    }
}

/// A kind as roll-ups count it: apart from what a filter sees, whether its
/// events are deltas that a snapshot stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogKind {
    /// Type and level.
    pub kind: Kind,
    /// Whether the events are deltas of `accumulate` series.
    pub is_delta: bool,
}

/// Most kinds that a sum of blocks counts one by one. A histogram of more
/// would cost more to read than the blocks it stands for.
const MAX_KINDS: usize = 4096;

/// How many events of each kind a stretch of the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tally {
    /// Counts of at most `MAX_KINDS` kinds, each of which stands here once.
    Kinds(Vec<(LogKind, u64)>),
    /// More kinds than that. Who wants to know what passes a filter asks the
    /// parts of the stretch.
    TooMany {
        /// Events that are no deltas.
        plain: u64,
        /// Events that are.
        deltas: u64,
    },
}

impl Tally {
    /// Adds up neighbours; linear in the number of their kinds.
    pub fn sum<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut counts: HashMap<&LogKind, u64> = HashMap::new();
        let mut order: Vec<&LogKind> = Vec::new();
        let (mut plain, mut deltas, mut too_many) = (0, 0, false);
        for part in parts {
            plain += part.events(false);
            deltas += part.events(true);
            match part {
                Self::TooMany { .. } => too_many = true,
                Self::Kinds(kinds) if !too_many => {
                    for (kind, count) in kinds {
                        *counts.entry(kind).or_insert_with(|| {
                            order.push(kind);
                            0
                        }) += count;
                    }
                    too_many = order.len() > MAX_KINDS;
                }
                Self::Kinds(_) => {}
            }
        }
        if too_many {
            return Self::TooMany { plain, deltas };
        }
        let count = |kind: &LogKind| counts.get(kind).copied().unwrap_or_default();
        Self::Kinds(order.into_iter().map(|kind| (kind.clone(), count(kind))).collect())
    }

    /// Returns how many of the events pass `filter`; `None` when only the
    /// parts of the stretch can tell.
    pub fn count(&self, filter: &Filter) -> Option<u64> {
        let Self::Kinds(kinds) = self else { return None };
        Some(kinds.iter().filter(|(log, _)| log.kind.passes(filter)).map(|(_, n)| n).sum())
    }

    /// Returns how many events are deltas, or how many are none.
    fn events(&self, is_delta: bool) -> u64 {
        match self {
            Self::Kinds(kinds) => {
                kinds.iter().filter(|(log, _)| log.is_delta == is_delta).map(|(_, n)| n).sum()
            }
            Self::TooMany { plain, deltas } => {
                if is_delta {
                    *deltas
                } else {
                    *plain
                }
            }
        }
    }

    /// Tells whether there is an event that is a delta, or one that is none.
    pub fn has(&self, is_delta: bool) -> bool {
        self.events(is_delta) > 0
    }
}

/// Kinds that are looked through one by one; more are looked up.
const FEW_KINDS: usize = 16;

/// The kinds of the events of one block, in order.
#[derive(Debug, Clone, Default)]
pub struct BlockTally {
    /// Kinds that occur.
    pub kinds: Vec<LogKind>,
    /// Which kind, and how many events of it follow each other.
    pub runs: Vec<(u32, u32)>,
    /// Where each kind stands, once there are many.
    places: HashMap<LogKind, u32>,
}

impl PartialEq for BlockTally {
    fn eq(&self, other: &Self) -> bool {
        self.kinds == other.kinds && self.runs == other.runs
    }
}

impl Eq for BlockTally {}

impl BlockTally {
    /// Returns the block that holds these runs of these kinds.
    pub fn new(kinds: Vec<LogKind>, runs: Vec<(u32, u32)>) -> Self {
        Self { kinds, runs, places: HashMap::new() }
    }

    /// Adds the next event's kind; returns whether it is the first of it.
    pub fn push(&mut self, event_type: &Arc<str>, level: Level, is_delta: bool) -> bool {
        let kind = Kind { event_type: event_type.clone(), level };
        let kind = LogKind { kind, is_delta };
        let known = self.place_of(&kind);
        let at = known.unwrap_or_else(|| self.add(kind));
        match self.runs.last_mut() {
            Some((kind, length)) if *kind == at => *length += 1,
            _ => self.runs.push((at, 1)),
        }
        known.is_none()
    }

    fn place_of(&self, kind: &LogKind) -> Option<u32> {
        if self.kinds.len() > FEW_KINDS && !self.places.is_empty() {
            return self.places.get(kind).copied();
        }
        (0..).zip(&self.kinds).find(|(_, known)| *known == kind).map(|(at, _)| at)
    }

    fn add(&mut self, kind: LogKind) -> u32 {
        let at = self.kinds.len() as u32;
        if self.kinds.len() == FEW_KINDS {
            self.places = self.kinds.iter().cloned().zip(0..).collect();
        }
        if self.kinds.len() >= FEW_KINDS {
            self.places.insert(kind.clone(), at);
        }
        self.kinds.push(kind);
        at
    }

    /// Lets go of what only [`push`](Self::push) needs: the block is full.
    pub fn seal(&mut self) {
        self.places = HashMap::new();
    }

    /// Returns how many events the block holds.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(_, length)| u64::from(*length)).sum()
    }

    /// Tells whether the block holds no event.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns how many of the first `offset` events pass `filter`.
    pub fn count_before(&self, offset: u64, filter: &Filter) -> u64 {
        let (mut left, mut count) = (offset, 0);
        for (passes, length) in self.passing_runs(filter) {
            let taken = length.min(left);
            count += if passes { taken } else { 0 };
            left -= taken;
        }
        count
    }

    /// Returns the offset of the event that `filter` passes as number `nth`, from 0.
    pub fn offset_of(&self, nth: u64, filter: &Filter) -> Option<u64> {
        let (mut offset, mut left) = (0, nth);
        for (passes, length) in self.passing_runs(filter) {
            if passes {
                if left < length {
                    return Some(offset + left);
                }
                left -= length;
            }
            offset += length;
        }
        None
    }

    fn passing_runs(&self, filter: &Filter) -> impl Iterator<Item = (bool, u64)> {
        let passes: Vec<bool> = self.kinds.iter().map(|log| log.kind.passes(filter)).collect();
        self.runs.iter().map(move |(kind, length)| (passes[*kind as usize], u64::from(*length)))
    }

    /// Returns the offsets of runs of events that are no deltas.
    pub fn plain_runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut next = 0;
        self.runs.iter().filter_map(move |(kind, length)| {
            let run = next..next + u64::from(*length);
            next = run.end;
            (!self.kinds[*kind as usize].is_delta).then_some(run)
        })
    }

    /// Sums the block up.
    pub fn tally(&self) -> Tally {
        let mut counts = vec![0; self.kinds.len()];
        for (kind, length) in &self.runs {
            counts[*kind as usize] += u64::from(*length);
        }
        // No block has more events, and so no more kinds, than a tally takes.
        Tally::Kinds(self.kinds.iter().cloned().zip(counts).collect())
    }
}

/// A stretch of the log that one stored tally sums up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// 0 for a block, one more for each step of [`FAN_OUT`].
    pub height: u8,
    /// Number of the node among those of its height, from the start of the log.
    pub ordinal: u64,
}

impl Node {
    /// Returns how many events a node of this height sums up.
    pub fn len(height: u8) -> u64 {
        BLOCK_LEN * FAN_OUT.pow(u32::from(height))
    }

    /// Returns the indexes the node sums up.
    pub fn range(self) -> Range<u64> {
        let length = Self::len(self.height);
        self.ordinal * length..(self.ordinal + 1) * length
    }
}

/// Greatest height at which tallies are stored; above, the list stays short.
pub const MAX_HEIGHT: u8 = 2;

/// Returns, per height from the top, the nodes that together sum up exactly
/// the first `blocks` blocks: fewer than [`FAN_OUT`] of each height but the top.
pub fn cover(blocks: u64) -> Vec<(u8, Range<u64>)> {
    let mut done = 0;
    (0..=MAX_HEIGHT)
        .rev()
        .map(|height| {
            let span = FAN_OUT.pow(u32::from(height));
            let nodes = done / span..blocks / span;
            done = nodes.end * span;
            (height, nodes)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TypePattern;

    fn only(event_type: &str) -> Filter {
        Filter { types: vec![TypePattern::parse(event_type).unwrap()], ..Filter::default() }
    }

    #[test]
    fn a_block_counts_and_finds_what_a_filter_passes() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut block = BlockTally::default();
        for event_type in [&a, &a, &b, &a, &b, &b] {
            block.push(event_type, Level::Info, false);
        }
        assert_eq!(block.runs, [(0, 2), (1, 1), (0, 1), (1, 2)]);
        let counts: Vec<u64> = (0..=6).map(|at| block.count_before(at, &only("b"))).collect();
        assert_eq!(counts, [0, 0, 0, 1, 1, 2, 3]);
        let offsets: Vec<Option<u64>> = (0..4).map(|n| block.offset_of(n, &only("b"))).collect();
        assert_eq!(offsets, [Some(2), Some(4), Some(5), None]);
        assert_eq!(block.tally().count(&only("a")), Some(3));
    }

    #[test]
    fn a_block_knows_which_of_its_events_are_no_deltas() {
        let event_type: Arc<str> = "a".into();
        let mut block = BlockTally::default();
        for is_delta in [true, false, false, true, true, false] {
            block.push(&event_type, Level::Info, is_delta);
        }
        assert_eq!(block.plain_runs().collect::<Vec<_>>(), [1..3, 5..6]);
        assert!(block.tally().has(true) && block.tally().has(false));
        assert_eq!(block.tally().count(&Filter::default()), Some(6));
    }

    /// Returns full blocks in which every event has a type of its own.
    fn blocks_of_distinct_types(count: u64) -> Vec<BlockTally> {
        let block = |number: u64| {
            let mut block = BlockTally::default();
            for event in 0..BLOCK_LEN {
                let event_type: Arc<str> = format!("type.{}", number * BLOCK_LEN + event).into();
                assert!(block.push(&event_type, Level::Info, event % 4 == 0));
                assert!(!block.push(&event_type, Level::Info, event % 4 == 0));
            }
            block
        };
        (0..count).map(block).collect()
    }

    #[test]
    fn a_sum_of_few_kinds_counts_each_and_one_of_many_says_so() {
        let blocks = blocks_of_distinct_types(5);
        let tallies: Vec<Tally> = blocks.iter().map(BlockTally::tally).collect();
        let few = Tally::sum([&tallies[0], &tallies[0], &tallies[1]]);
        assert_eq!(few.count(&only("type.3")), Some(4));
        assert_eq!(few.count(&only("type.1025")), Some(2));
        assert_eq!(few.count(&Filter::default()), Some(3 * 2 * BLOCK_LEN));
        let many = Tally::sum(&tallies);
        let events = 2 * 5 * BLOCK_LEN;
        assert_eq!(many, Tally::TooMany { plain: events / 4 * 3, deltas: events / 4 });
        assert_eq!(many.count(&Filter::default()), None);
        assert!(many.has(true) && many.has(false));
        assert_eq!(Tally::sum([&tallies[0], &many]).count(&only("type.3")), None);
    }

    #[test]
    fn summing_distinct_types_up_takes_time_in_proportion_to_their_number() {
        // Quadratic, the larger one would take 64 times as long and minutes in all.
        let began = std::time::Instant::now();
        let blocks = blocks_of_distinct_types(64);
        let tallies: Vec<Tally> = blocks.iter().map(BlockTally::tally).collect();
        for _ in 0..100 {
            Tally::sum(&tallies);
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(20));
    }

    #[test]
    fn a_cover_tiles_the_blocks_before_a_position_with_few_nodes() {
        for blocks in [0, 1, 31, 32, 33, 976, 1024, 1025, 40_000] {
            let mut next = 0;
            for (height, nodes) in cover(blocks) {
                if height < MAX_HEIGHT {
                    assert!(nodes.end - nodes.start < FAN_OUT);
                }
                for ordinal in nodes {
                    let range = Node { height, ordinal }.range();
                    assert_eq!(range.start, next);
                    next = range.end;
                }
            }
            assert_eq!(next, blocks * BLOCK_LEN);
        }
    }
}
