//! Choosing events, one by one and by their sums.

use divan::{Bencher, black_box};
use taskcast::domain::{BLOCK_LEN, BlockTally, Event, Filter, Level, TypePattern};

use crate::material::{DELTA, logged, plain};

fn filter(types: &[&str], levels: &[Level]) -> Filter {
    Filter {
        types: types.iter().map(|text| TypePattern::parse(text).unwrap()).collect(),
        levels: levels.to_vec(),
        include_status: true,
    }
}

fn event() -> Event {
    logged(7, plain(DELTA))
}

#[divan::bench]
fn admits_all(bencher: Bencher<'_, '_>) {
    let (filter, event) = (Filter::default(), event());
    bencher.bench_local(|| black_box(&filter).admits(black_box(&event)));
}

#[divan::bench]
fn admits_by_prefix(bencher: Bencher<'_, '_>) {
    let (filter, event) = (filter(&["llm.*"], &[]), event());
    bencher.bench_local(|| black_box(&filter).admits(black_box(&event)));
}

#[divan::bench]
fn admits_by_the_last_of_eight_types_and_a_level(bencher: Bencher<'_, '_>) {
    let types = ["a", "b", "c.*", "d", "e.f", "g.h.*", "tool.call", "llm.delta"];
    let (filter, event) = (filter(&types, &[Level::Warn, Level::Info]), event());
    bencher.bench_local(|| black_box(&filter).admits(black_box(&event)));
}

#[divan::bench]
fn pattern_is_parsed() -> TypePattern {
    TypePattern::parse(black_box("tool.call.*")).unwrap()
}

/// The count before a position in a block in which two kinds alternate, which
/// has as many runs as a block can have.
#[divan::bench]
fn count_before_the_end_of_a_block(bencher: Bencher<'_, '_>) {
    let filter = filter(&["llm.*"], &[]);
    let mut block = BlockTally::default();
    let kinds = ["llm.delta".into(), "tool.call".into()];
    for index in 0..BLOCK_LEN as usize {
        block.push(&kinds[index % kinds.len()], Level::Info, false);
    }
    bencher.bench_local(|| black_box(&block).count_before(BLOCK_LEN - 1, black_box(&filter)));
}
