//! The port of cleanup over SQL.
//!
//! A finished task is looked at once for each set of rules; what then holds
//! for it waits in a table of its own until it is due. Tasks go through the
//! lanes like every deletion. Events go in chunks, after the end of the log was
//! rolled up, so that counts and numbers stay what they were.

use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::columns::{of_level, of_mode, to_i64, to_level, to_number, to_status, to_u64};
use super::read::like_pattern;
use super::rows::{from_text, to_task_id};
use super::{PostgresStore, rollup};
use crate::domain::{CleanupRule, CleanupRules, IDEMPOTENCY_LIFE_MS, SeriesMode, TypePattern};
use crate::store::{Cleaned, Cleanup, StoreError, TaskRef, Tasks as _};

/// Rules looked at at once.
const DUE_AT_ONCE: i64 = 200;

/// How long a task waits for its webhooks before it is looked at again.
const POSTPONE_MS: i64 = 5_000;

/// How often a rule looks whether more events have reached their age.
const AGEING_MS: u64 = 5_000;

/// A rule that is due for a task.
struct DueRow {
    task: i64,
    rule: String,
    from_index: i64,
    next_index: i64,
    updated_at: i64,
    id: String,
    cleanup: Option<String>,
    now: i64,
}

/// Returns the digest of rules as the schema spells it: never negative, which
/// is how tasks are marked that brought rules of their own.
fn digest(rules: &CleanupRules) -> i64 {
    to_i64(rules.digest() >> 1)
}

fn own_rules(text: Option<&String>) -> Result<Vec<CleanupRule>, StoreError> {
    text.map_or_else(|| Ok(Vec::new()), |text| from_text("task.cleanup", text))
}

#[async_trait]
impl Cleanup for PostgresStore {
    async fn lead_cleanup(&self, holder: u64, ttl_ms: u64) -> Result<bool, StoreError> {
        let row = sqlx::query_file!(
            "sql/cleanup/acquire_lease.sql",
            "cleanup",
            holder.cast_signed(),
            to_i64(ttl_ms)
        )
        .fetch_optional(&self.reads)
        .await?;
        Ok(row.is_some())
    }

    async fn schedule_cleanup(
        &self,
        rules: &CleanupRules,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let digest = digest(rules);
        let unscheduled =
            sqlx::query_file!("sql/cleanup/unscheduled.sql", digest, to_i64(limit as u64))
                .fetch_all(&self.reads)
                .await?;
        let (mut scheduled, mut tasks, mut keys, mut due) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in &unscheduled {
            scheduled.push(row.task);
            let own = own_rules(row.cleanup.as_ref())?;
            let (task_type, status) = (row.task_type.as_deref(), to_status(row.status)?);
            for (key, at) in rules.due(&own, task_type, status, to_u64(row.updated_at)) {
                tasks.push(row.task);
                keys.push(key.as_str().to_owned());
                due.push(to_i64(at));
            }
        }
        if !scheduled.is_empty() {
            let delay = i64::try_from(self.removal_delay.as_millis()).unwrap_or(i64::MAX);
            sqlx::query_file!(
                "sql/cleanup/schedule.sql",
                digest,
                &scheduled,
                &tasks,
                &keys,
                &due,
                delay
            )
            .execute(&self.reads)
            .await?;
        }
        Ok(scheduled.len())
    }

    async fn clean(&self, rules: &CleanupRules, limit: usize) -> Result<Cleaned, StoreError> {
        sqlx::query_file!("sql/cleanup/postpone.sql", POSTPONE_MS, DUE_AT_ONCE)
            .execute(&self.reads)
            .await?;
        let most = DUE_AT_ONCE.min(to_i64(limit as u64));
        let due = sqlx::query_file_as!(DueRow, "sql/cleanup/due.sql", most)
            .fetch_all(&self.reads)
            .await?;
        let mut cleaned = Cleaned { more: to_i64(due.len() as u64) == most, ..Cleaned::default() };
        let mut left = to_i64(limit as u64);
        let mut doomed = Vec::new();
        for row in due {
            let own = own_rules(row.cleanup.as_ref())?;
            match rules.find(&own, &row.rule) {
                None => self.finish_rule(&row).await?,
                Some(rule) if rule.removes_task() => {
                    doomed.push(TaskRef { id: to_task_id(&row.id)?, number: to_number(row.task)? });
                }
                Some(_) if left <= 0 => cleaned.more = true,
                Some(rule) => {
                    let chunk = self.clean_chunk(&row, rule, left).await?;
                    left -= chunk.looked_at;
                    cleaned.events += chunk.removed;
                    cleaned.more |= chunk.more;
                }
            }
        }
        // At once, so that they share the lanes' batches.
        let deleted = doomed.iter().map(|task| self.delete(task));
        for deleted in futures_util::future::join_all(deleted).await {
            cleaned.tasks += u64::from(deleted?);
        }
        Ok(cleaned)
    }

    async fn prune_keys(&self, limit: usize) -> Result<usize, StoreError> {
        let life_ms = to_i64(IDEMPOTENCY_LIFE_MS);
        let from = self.pruned.keys.load(Ordering::Relaxed);
        let gone = sqlx::query_file!("sql/keys/prune.sql", life_ms, to_i64(limit as u64), from)
            .fetch_one(&self.reads)
            .await?;
        self.pruned.keys.fetch_max(gone.newest.unwrap_or(0), Ordering::Relaxed);
        Ok(usize::try_from(gone.count).unwrap_or(usize::MAX))
    }
}

/// What became of a chunk of a log.
struct Chunk {
    looked_at: i64,
    removed: u64,
    /// Whether the rule has more to do at once.
    more: bool,
}

impl PostgresStore {
    async fn finish_rule(&self, row: &DueRow) -> Result<(), StoreError> {
        sqlx::query_file!("sql/cleanup/done.sql", row.task, row.rule).execute(&self.reads).await?;
        Ok(())
    }

    /// Removes events of one task, of a bounded stretch of its log.
    async fn clean_chunk(
        &self,
        row: &DueRow,
        rule: &CleanupRule,
        limit: i64,
    ) -> Result<Chunk, StoreError> {
        if !rollup::roll_up_finished(&self.reads, row.task, to_u64(row.next_index)).await? {
            // Somebody is at it; the rule stays due.
            return Ok(Chunk { looked_at: 1, removed: 0, more: false });
        }
        let horizon = row.now - to_i64(rule.older_than_ms());
        self.drop_series(row, rule, horizon).await?;
        let filter = rule.event_filter.as_ref();
        let types = filter.and_then(|filter| filter.types.as_ref()).map(|types| patterns(types));
        let levels: Option<Vec<i16>> = filter
            .and_then(|filter| filter.levels.as_ref())
            .map(|levels| levels.iter().map(|level| of_level(*level)).collect());
        let mode = filter.and_then(|filter| filter.series_mode).map(of_mode);
        let chunk = sqlx::query_file!(
            "sql/cleanup/chunk.sql",
            row.task,
            row.from_index,
            horizon,
            types.as_deref() as Option<&[String]>,
            levels.as_deref() as Option<&[i16]>,
            mode as Option<i16>,
            limit,
        )
        .fetch_one(&self.reads)
        .await?;
        let ages_until = row.updated_at + to_i64(rule.older_than_ms());
        match chunk.next_index {
            // Nothing in this stretch was too young: go on behind it.
            Some(next) if chunk.younger_at.is_none() => self.reschedule(row, next, row.now).await?,
            // What is too young now is looked at again, from the start of this stretch.
            Some(_) => self.age(row, row.from_index, chunk.younger_at, rule).await?,
            None if ages_until > row.now => {
                self.age(row, row.from_index, chunk.younger_at, rule).await?;
            }
            None => self.finish_rule(row).await?,
        }
        let more = chunk.next_index.is_some() && chunk.younger_at.is_none();
        Ok(Chunk { looked_at: limit, removed: to_u64(chunk.removed), more })
    }

    /// Lets a rule rest until more events are old enough.
    async fn age(
        &self,
        row: &DueRow,
        from: i64,
        younger_at: Option<i64>,
        rule: &CleanupRule,
    ) -> Result<(), StoreError> {
        let age = to_i64(rule.older_than_ms());
        let at_end = row.updated_at + age;
        let next = younger_at.map_or(at_end, |at| at + age).max(row.now + to_i64(AGEING_MS));
        self.reschedule(row, from, next.min(at_end.max(row.now))).await
    }

    async fn reschedule(&self, row: &DueRow, from: i64, due_at: i64) -> Result<(), StoreError> {
        sqlx::query_file!("sql/cleanup/reschedule.sql", row.task, row.rule, from, due_at)
            .execute(&self.reads)
            .await?;
        Ok(())
    }

    /// Makes those accumulate series vanish that the rule names whole.
    async fn drop_series(
        &self,
        row: &DueRow,
        rule: &CleanupRule,
        horizon: i64,
    ) -> Result<(), StoreError> {
        let series =
            sqlx::query_file!("sql/cleanup/series.sql", row.task).fetch_all(&self.reads).await?;
        let mut gone = Vec::new();
        for span in series {
            let level = to_level(span.level)?;
            let is_old = span.at.is_none_or(|at| at <= horizon);
            if is_old && rule.admits_event(&span.event_type, level, Some(SeriesMode::Accumulate)) {
                gone.push(span.id);
            }
        }
        if !gone.is_empty() {
            sqlx::query_file!("sql/cleanup/drop_series.sql", row.task, &gone)
                .execute(&self.reads)
                .await?;
        }
        Ok(())
    }
}

/// Spells patterns for LIKE; every type for a list that admits all.
fn patterns(types: &[TypePattern]) -> Vec<String> {
    types.iter().map(like_pattern).collect()
}
