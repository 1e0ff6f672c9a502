//! Cleaning the logs of many finished tasks at once.
//!
//! Most tasks have short logs. One after the other, each would pay for a dozen
//! round trips and several flushes; here a rule is carried out for all of them
//! by a handful of statements. A log is short when it is one block, of which
//! this also makes the roll-up.

use std::collections::{HashMap, HashSet};

use super::PostgresStore;
use super::cleanup::{DueRow, Rest, columns_of};
use super::columns::{to_i64, to_level, to_u64};
use super::rollup::{BatchRow, RollupColumns};
use crate::domain::{BLOCK_LEN, CleanupRule, SeriesMode};
use crate::store::StoreError;

/// Bytes of deltas read at once to roll them up.
const TEXT_BYTES: i64 = 8 << 20;

/// Tells whether a rule can be carried out together with those of other tasks.
pub(super) fn is_short(row: &DueRow) -> bool {
    row.from_index == 0 && to_u64(row.next_index) <= BLOCK_LEN
}

/// What came of one rule for tasks with short logs.
#[derive(Debug, Default)]
pub(super) struct ShortChunk {
    /// Events removed.
    pub(super) removed: u64,
    /// Tasks that could not be rolled up with the others.
    pub(super) left: HashSet<i64>,
}

impl PostgresStore {
    /// Carries out one rule for tasks with short logs.
    pub(super) async fn clean_short(
        &self,
        rows: &[DueRow],
        rule: &CleanupRule,
        rest: &mut Rest,
    ) -> Result<ShortChunk, StoreError> {
        let Some(first) = rows.first() else { return Ok(ShortChunk::default()) };
        let horizon = first.now - to_i64(rule.older_than_ms());
        let rolled_up = self.roll_up_short(rows).await?;
        let tasks: Vec<i64> =
            rows.iter().map(|row| row.task).filter(|task| rolled_up.contains(task)).collect();
        let left = rows.iter().map(|row| row.task).filter(|task| !rolled_up.contains(task));
        let mut chunk = ShortChunk { removed: 0, left: left.collect() };
        if tasks.is_empty() {
            return Ok(chunk);
        }
        self.drop_short_series(&tasks, rule, horizon).await?;
        let columns = columns_of(rule);
        let cleaned = sqlx::query_file!(
            "sql/cleanup/short_chunk.sql",
            &tasks,
            horizon,
            columns.types.as_deref() as Option<&[String]>,
            columns.levels.as_deref() as Option<&[i16]>,
            columns.mode as Option<i16>,
        )
        .fetch_all(&self.reads)
        .await?;
        chunk.removed = cleaned.first().map_or(0, |row| to_u64(row.removed));
        let younger: HashMap<i64, i64> =
            cleaned.into_iter().filter_map(|row| Some((row.task, row.younger_at?))).collect();
        for row in rows.iter().filter(|row| rolled_up.contains(&row.task)) {
            let younger_at = younger.get(&row.task).copied();
            let ages_until = row.updated_at + to_i64(rule.older_than_ms());
            if younger_at.is_some() || ages_until > row.now {
                rest.age(row, row.from_index, younger_at, rule);
            } else {
                rest.finish(row);
            }
        }
        Ok(chunk)
    }

    /// Rolls the logs up, and returns the tasks for which that is done.
    async fn roll_up_short(&self, rows: &[DueRow]) -> Result<HashSet<i64>, StoreError> {
        let lengths: HashMap<i64, u64> =
            rows.iter().map(|row| (row.task, to_u64(row.next_index))).collect();
        let tasks: Vec<i64> = rows.iter().map(|row| row.task).collect();
        let events =
            sqlx::query_file_as!(BatchRow, "sql/cleanup/short_logs.sql", &tasks, TEXT_BYTES)
                .fetch_all(&self.reads)
                .await?;
        let mut logs: HashMap<i64, Vec<BatchRow>> = HashMap::new();
        for event in events {
            logs.entry(event.task).or_default().push(event);
        }
        // One that was cut is rolled up by itself.
        logs.retain(|task, events| lengths.get(task) == Some(&(events.len() as u64)));
        if !logs.is_empty() {
            let columns = RollupColumns::of(logs)?;
            columns.store(&self.reads).await?;
        }
        let rolled_up = sqlx::query_file_scalar!("sql/cleanup/rolled_up.sql", &tasks)
            .fetch_all(&self.reads)
            .await?;
        let empty = rows.iter().filter(|row| row.next_index == 0).map(|row| row.task);
        Ok(rolled_up.into_iter().chain(empty).collect())
    }

    /// Makes those accumulate series vanish that the rule names whole.
    async fn drop_short_series(
        &self,
        tasks: &[i64],
        rule: &CleanupRule,
        horizon: i64,
    ) -> Result<(), StoreError> {
        let series =
            sqlx::query_file!("sql/cleanup/short_series.sql", tasks).fetch_all(&self.reads).await?;
        let (mut of, mut gone) = (Vec::new(), Vec::new());
        for span in series {
            let level = to_level(span.level)?;
            let is_old = span.at.is_none_or(|at| at <= horizon);
            if is_old && rule.admits_event(&span.event_type, level, Some(SeriesMode::Accumulate)) {
                of.push(span.task);
                gone.push(span.id);
            }
        }
        if !gone.is_empty() {
            sqlx::query_file!("sql/cleanup/drop_series.sql", &of, &gone)
                .execute(&self.reads)
                .await?;
        }
        Ok(())
    }
}
