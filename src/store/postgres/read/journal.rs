//! The journal: what every lane committed since a reader last looked.

use std::collections::HashMap;

use super::super::columns::{to_i64, to_number, to_u64};
use super::super::session::Reads;
use crate::store::{Journal, JournalEntry, JournalMark, StoreError};

/// Most batches of one lane a journal read returns.
const JOURNAL_BATCHES: usize = 4096;

/// How long a reader may have been away and still have seen every receipt of a
/// lane that is gone: half the time that those of a retired lane stay.
const MAX_AWAY_MS: u64 = 30_000;

/// Reads what was committed after a mark.
pub(super) async fn since(reads: &Reads, mark: &JournalMark) -> Result<Journal, StoreError> {
    let (lanes, batches): (Vec<i64>, Vec<i64>) =
        mark.0.iter().map(|(lane, batch)| (to_i64(*lane), to_i64(*batch))).unzip();
    let rows = sqlx::query_file!("sql/read/journal.sql", &lanes, &batches).fetch_all(reads).await?;
    // Lanes that are gone for good are dropped from the mark.
    let mut journal = Journal::default();
    journal.mark.1 = rows.first().map_or(0, |row| to_u64(row.now));
    let is_back_from_afar = journal.mark.1.abs_diff(mark.1) > MAX_AWAY_MS;
    let mut batches: HashMap<i64, usize> = HashMap::new();
    for row in rows {
        let Some(lane) = row.lane else { continue };
        let source = to_u64(lane);
        let before = journal.mark.0.get(&source).or_else(|| mark.0.get(&source)).copied();
        let Some(sequence) = row.batch.map(to_u64) else {
            journal.mark.0.insert(source, before.unwrap_or_default());
            continue;
        };
        let read = batches.entry(lane).or_default();
        *read += 1;
        // Pruned before it was read, or too much to read at once, after
        // which other lanes would be ahead.
        journal.has_gap |= before.unwrap_or_default() + 1 < sequence || *read == JOURNAL_BATCHES;
        journal.mark.0.insert(source, sequence);
        let (tasks, from, next) = (row.task, row.from_index, row.next_index);
        let moved = tasks.into_iter().flatten().zip(from.into_iter().flatten());
        for ((task, from), next_index) in moved.zip(next.into_iter().flatten()) {
            let (number, from, next_index) = (to_number(task)?, to_u64(from), to_u64(next_index));
            journal.entries.push(JournalEntry { source, sequence, number, from, next_index });
        }
    }
    // A lane may have been retired, and its receipts removed, while this reader
    // was suspended, or in no time when a clock was set.
    let is_gone = |lane: &u64| !journal.mark.0.contains_key(lane);
    let has_lost_a_lane = is_back_from_afar && mark.0.keys().any(is_gone);
    journal.has_gap |= has_lost_a_lane;
    // Who wrote a task later saw the earlier batch committed, so both are
    // here; by index they stand in log order.
    journal.entries.sort_by_key(|entry| (entry.number, entry.from, entry.next_index));
    Ok(journal)
}
