//! What readers of a log should get, counted one by one.

use std::collections::{BTreeMap, HashMap, HashSet};

use taskcast::dispatcher::Entry;
use taskcast::domain::{Filter, Level, SeriesMode, json};

use super::log::Log;

/// What a reader should get of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    index: u64,
    filtered_index: u64,
    is_snapshot: bool,
    data: String,
}

impl Expected {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            index: entry.slot.event.index,
            filtered_index: entry.filtered_index,
            is_snapshot: entry.is_snapshot,
            data: entry.slot.event.draft.data.as_str().to_owned(),
        }
    }
}

/// The log as one filter shows it, counted one by one.
pub(super) struct Truth<'a> {
    pub(super) log: &'a Log,
    /// Events before each index that pass.
    pub(super) passed_before: Vec<u64>,
    pub(super) passes: Vec<bool>,
    /// Indexes of `latest` events that were replaced.
    replaced: HashSet<u64>,
}

impl<'a> Truth<'a> {
    pub(super) fn new(log: &'a Log, filter: &Filter) -> Self {
        let passes: Vec<bool> = std::iter::once(filter.admits_kind("taskcast:status", Level::Info))
            .chain(
                log.published
                    .iter()
                    .map(|event| filter.admits_kind(&event.event_type, event.level)),
            )
            .collect();
        let mut passed_before = vec![0];
        for passes in &passes {
            passed_before.push(passed_before[passed_before.len() - 1] + u64::from(*passes));
        }
        let (mut newest, mut replaced) = (HashMap::new(), HashSet::new());
        for (index, event) in (1..).zip(&log.published) {
            let Some(tag) = &event.series else { continue };
            if tag.mode == Some(SeriesMode::Latest) {
                replaced.extend(newest.insert(tag.id.clone(), index));
            }
        }
        Self { log, passed_before, passes, replaced }
    }

    pub(super) fn expect(&self, index: u64, is_snapshot: bool, data: String) -> Expected {
        Expected { index, filtered_index: self.passed_before[index as usize], is_snapshot, data }
    }

    pub(super) fn data(&self, index: u64) -> String {
        match index.checked_sub(1) {
            None => r#"{"status":"running"}"#.to_owned(),
            Some(number) => self.log.published[number as usize].data.as_str().to_owned(),
        }
    }

    pub(super) fn is_delta(&self, index: u64) -> bool {
        index > 0 && self.series(index, SeriesMode::Accumulate).is_some()
    }

    pub(super) fn series(&self, index: u64, mode: SeriesMode) -> Option<&str> {
        let tag = self.log.published[index as usize - 1].series.as_ref()?;
        (tag.mode == Some(mode)).then_some(&*tag.id)
    }

    /// Every event from `from` on that is left, one by one.
    pub(super) fn single(&self, from: u64) -> Vec<Expected> {
        (from..self.log.length())
            .filter(|index| self.passes[*index as usize] && !self.replaced.contains(index))
            .map(|index| self.expect(index, false, self.data(index)))
            .collect()
    }

    /// What a view of `from..to` shows with `accumulate` series folded, and
    /// every event after it.
    pub(super) fn collapsed(&self, from: u64, to: u64) -> Vec<Expected> {
        let plain = |index: &u64| !self.is_delta(*index) && !self.replaced.contains(index);
        let mut expected: Vec<Expected> = (from..to)
            .filter(|index| self.passes[*index as usize])
            .filter(plain)
            .map(|index| self.expect(index, false, self.data(index)))
            .collect();
        let mut texts: BTreeMap<&str, (u64, String)> = BTreeMap::new();
        for index in 1..to {
            let Some(series) = self.series(index, SeriesMode::Accumulate) else { continue };
            let text = texts.entry(series).or_default();
            text.0 = index;
            let data = self.log.published[index as usize - 1].data.as_str();
            text.1.push_str(json::string_body(&data[json::member(data, "text").unwrap()]).unwrap());
        }
        let snapshots =
            texts.into_values().filter(|(index, _)| *index >= from && self.passes[*index as usize]);
        expected.extend(
            snapshots
                .map(|(index, text)| self.expect(index, true, format!(r#"{{"text":"{text}"}}"#))),
        );
        expected.sort_by_key(|expected| expected.index);
        expected.extend(self.single(to));
        expected
    }
}

pub(super) fn compare(entries: &[Entry], expected: &[Expected], context: &str) {
    // Not one assertion of both lists, whose failure nobody could read.
    for (entry, expected) in entries.iter().zip(expected) {
        assert_eq!(&Expected::of(entry), expected, "{context}");
    }
    assert_eq!(entries.len(), expected.len(), "{context}");
}
