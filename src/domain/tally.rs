//! Counting what a filter passes without reading the log.
//!
//! A filter sees only an event's type and level, its [`Kind`]. The log is cut
//! into blocks of [`BLOCK_LEN`] events; a full block is summed up as the runs
//! of kinds it holds, [`FAN_OUT`] neighbours as a [`Tally`], and so on up.
//! The count before any position is then the sum of a bounded number of
//! tallies, and it stays right when rows of superseded events are gone.

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

/// How many events of each kind a stretch of the log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(pub Vec<(LogKind, u64)>);

impl Tally {
    /// Adds `count` events of `kind`.
    pub fn add(&mut self, kind: &LogKind, count: u64) {
        match self.0.iter_mut().find(|(known, _)| known == kind) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((kind.clone(), count)),
        }
    }

    /// Adds everything `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            self.add(kind, *count);
        }
    }

    /// Returns how many of the events pass `filter`.
    pub fn count(&self, filter: &Filter) -> u64 {
        self.0.iter().filter(|(log, _)| log.kind.passes(filter)).map(|(_, count)| count).sum()
    }

    /// Tells whether there is an event that is a delta, or one that is none.
    pub fn has(&self, is_delta: bool) -> bool {
        self.0.iter().any(|(log, count)| log.is_delta == is_delta && *count > 0)
    }
}

/// The kinds of the events of one block, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockTally {
    /// Kinds that occur.
    pub kinds: Vec<LogKind>,
    /// Which kind, and how many events of it follow each other.
    pub runs: Vec<(u32, u32)>,
}

impl BlockTally {
    /// Adds the next event's kind.
    pub fn push(&mut self, event_type: &Arc<str>, level: Level, is_delta: bool) {
        let known = self.kinds.iter().position(|log| {
            log.kind.level == level
                && log.is_delta == is_delta
                && log.kind.event_type == *event_type
        });
        let at = known.unwrap_or_else(|| {
            let kind = Kind { event_type: event_type.clone(), level };
            self.kinds.push(LogKind { kind, is_delta });
            self.kinds.len() - 1
        }) as u32;
        match self.runs.last_mut() {
            Some((kind, length)) if *kind == at => *length += 1,
            _ => self.runs.push((at, 1)),
        }
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
        let mut tally = Tally::default();
        for (kind, length) in &self.runs {
            tally.add(&self.kinds[*kind as usize], u64::from(*length));
        }
        tally
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
        assert_eq!(block.tally().count(&only("a")), 3);
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
        assert_eq!(block.tally().count(&Filter::default()), 6);
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
