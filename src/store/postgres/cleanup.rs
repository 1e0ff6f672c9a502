//! The port of cleanup over SQL.
//!
//! A finished task is looked at once for each set of rules; what then holds
//! for it waits in a table of its own until it is due. Tasks go through the
//! lanes like every deletion. Events go in bites, after the end of the log was
//! summed up, so that counts and numbers stay what they were.

use async_trait::async_trait;

use super::codes::{of_level, of_mode, to_i64, to_level, to_number, to_status, to_u64};
use super::rows::{from_text, to_task_id};
use super::tasks::like_pattern;
use super::{PostgresStore, seal};
use crate::domain::{CleanupRule, CleanupRules, IDEMPOTENCY_LIFE_MS, SeriesMode, TypePattern};
use crate::store::{Cleaned, Cleanup, StoreError, TaskRef, Tasks as _};

/// Rules looked at in one bite.
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
            "sql/cleanup/lead.sql",
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
        let unswept = sqlx::query_file!("sql/cleanup/unswept.sql", digest, to_i64(limit as u64))
            .fetch_all(&self.reads)
            .await?;
        let (mut swept, mut tasks, mut keys, mut due) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in &unswept {
            swept.push(row.task);
            let own = own_rules(row.cleanup.as_ref())?;
            let (task_type, status) = (row.task_type.as_deref(), to_status(row.status)?);
            for (key, at) in rules.due(&own, task_type, status, to_u64(row.updated_at)) {
                tasks.push(row.task);
                keys.push(key.as_str().to_owned());
                due.push(to_i64(at));
            }
        }
        if !swept.is_empty() {
            sqlx::query_file!("sql/cleanup/sweep.sql", digest, &swept, &tasks, &keys, &due)
                .execute(&self.reads)
                .await?;
        }
        Ok(swept.len())
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
                    let bite = self.bite(&row, rule, left).await?;
                    left -= bite.looked_at;
                    cleaned.events += bite.removed;
                    cleaned.more |= bite.more;
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
        let gone = sqlx::query_file!("sql/keys/prune.sql", life_ms, to_i64(limit as u64))
            .execute(&self.reads)
            .await?;
        Ok(usize::try_from(gone.rows_affected()).unwrap_or(usize::MAX))
    }
}

/// What a bite of a log came to.
struct Bite {
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
    async fn bite(&self, row: &DueRow, rule: &CleanupRule, limit: i64) -> Result<Bite, StoreError> {
        if !seal::seal_finished(&self.reads, row.task, to_u64(row.next_index)).await? {
            // Somebody is at it; the rule stays due.
            return Ok(Bite { looked_at: 1, removed: 0, more: false });
        }
        let horizon = row.now - to_i64(rule.older_than_ms());
        self.drop_series(row, rule, horizon).await?;
        let filter = rule.event_filter.as_ref();
        let types = filter.and_then(|filter| filter.types.as_ref()).map(|types| patterns(types));
        let levels: Option<Vec<i16>> = filter
            .and_then(|filter| filter.levels.as_ref())
            .map(|levels| levels.iter().map(|level| of_level(*level)).collect());
        let mode = filter.and_then(|filter| filter.series_mode).map(of_mode);
        let bite = sqlx::query_file!(
            "sql/cleanup/bite.sql",
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
        match bite.next_index {
            // Nothing in this stretch was too young: go on behind it.
            Some(next) if bite.younger_at.is_none() => self.move_on(row, next, row.now).await?,
            // What is too young now is looked at again, from the start of this stretch.
            Some(_) => self.age(row, row.from_index, bite.younger_at, rule).await?,
            None if ages_until > row.now => {
                self.age(row, row.from_index, bite.younger_at, rule).await?;
            }
            None => self.finish_rule(row).await?,
        }
        let more = bite.next_index.is_some() && bite.younger_at.is_none();
        Ok(Bite { looked_at: limit, removed: to_u64(bite.removed), more })
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
        self.move_on(row, from, next.min(at_end.max(row.now))).await
    }

    async fn move_on(&self, row: &DueRow, from: i64, due_at: i64) -> Result<(), StoreError> {
        sqlx::query_file!("sql/cleanup/move_on.sql", row.task, row.rule, from, due_at)
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
