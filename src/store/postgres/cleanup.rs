//! The port of cleanup over SQL.
//!
//! A finished task is looked at once for each set of rules; what then holds
//! for it waits in a table of its own until it is due. Tasks go through the
//! lanes like every deletion. Events go in chunks, after the end of the log was
//! rolled up, so that counts and numbers stay what they were.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::columns::{of_level, of_mode, to_i64, to_level, to_number, to_status, to_u64};
use super::read::like_pattern;
use super::rows::{from_text, to_task_id};
use super::short_logs::is_short;
use super::{PostgresStore, rollup};
use crate::domain::{CleanupRule, CleanupRules, IDEMPOTENCY_LIFE_MS, SeriesMode};
use crate::store::{Backlog, Cleaned, Cleanup, Lead, StoreError, TaskRef, Tasks as _};

/// The lease of instances that have rules.
const CLEANUP_LEASE: &str = "cleanup";

/// Rules looked at at once.
const DUE_AT_ONCE: i64 = 500;

/// How long a task waits for its webhooks before it is looked at again.
const POSTPONE_MS: i64 = 5_000;

/// How often a rule looks whether more events have reached their age.
const AGEING_MS: u64 = 5_000;

/// What is counted of a backlog at most: counting shall cost little.
const BACKLOG: i64 = 50_000;

/// A rule that is due for a task.
#[derive(Debug)]
pub(super) struct DueRow {
    pub(super) task: i64,
    pub(super) rule: String,
    pub(super) from_index: i64,
    pub(super) next_index: i64,
    pub(super) updated_at: i64,
    pub(super) id: String,
    pub(super) cleanup: Option<String>,
    pub(super) now: i64,
}

/// What remains to be noted of rules that were carried out, as columns.
#[derive(Debug, Default)]
pub(super) struct Rest {
    done_task: Vec<i64>,
    done_rule: Vec<String>,
    task: Vec<i64>,
    rule: Vec<String>,
    next_index: Vec<i64>,
    due_at: Vec<i64>,
}

impl Rest {
    /// Notes that a rule has nothing left to do for a task.
    pub(super) fn finish(&mut self, row: &DueRow) {
        self.done_task.push(row.task);
        self.done_rule.push(row.rule.clone());
    }

    fn reschedule(&mut self, row: &DueRow, from: i64, due_at: i64) {
        self.task.push(row.task);
        self.rule.push(row.rule.clone());
        self.next_index.push(from);
        self.due_at.push(due_at);
    }

    /// Lets a rule rest until more events are old enough.
    pub(super) fn age(
        &mut self,
        row: &DueRow,
        from: i64,
        younger_at: Option<i64>,
        rule: &CleanupRule,
    ) {
        let age = to_i64(rule.older_than_ms());
        let at_end = row.updated_at + age;
        let next = younger_at.map_or(at_end, |at| at + age).max(row.now + to_i64(AGEING_MS));
        self.reschedule(row, from, next.min(at_end.max(row.now)));
    }
}

/// Which events a rule removes, as columns; `None` admits all.
pub(super) struct RuleColumns {
    pub(super) types: Option<Vec<String>>,
    pub(super) levels: Option<Vec<i16>>,
    pub(super) mode: Option<i16>,
}

/// Returns which events a rule removes.
pub(super) fn columns_of(rule: &CleanupRule) -> RuleColumns {
    let filter = rule.event_filter.as_ref();
    let types = filter.and_then(|filter| filter.types.as_ref());
    let levels = filter.and_then(|filter| filter.levels.as_ref());
    RuleColumns {
        types: types.map(|types| types.iter().map(like_pattern).collect()),
        levels: levels.map(|levels| levels.iter().map(|level| of_level(*level)).collect()),
        mode: filter.and_then(|filter| filter.series_mode).map(of_mode),
    }
}

/// Due rules by what is to be done.
#[derive(Default)]
struct Sorted {
    /// Tasks that go whole.
    doomed: Vec<(TaskRef, DueRow)>,
    /// By rule: tasks with short logs.
    short: HashMap<String, (CleanupRule, Vec<DueRow>)>,
    /// Tasks whose logs are cleaned one after the other.
    long: Vec<(DueRow, CleanupRule)>,
    rest: Rest,
}

impl Sorted {
    fn push(&mut self, row: DueRow, rules: &CleanupRules) -> Result<(), StoreError> {
        let own = own_rules(row.cleanup.as_ref())?;
        let Some(rule) = rules.find(&own, &row.rule) else {
            self.rest.finish(&row);
            return Ok(());
        };
        if rule.removes_task() {
            let task = TaskRef { id: to_task_id(&row.id)?, number: to_number(row.task)? };
            self.doomed.push((task, row));
        } else if is_short(&row) {
            // Rules of tasks are told apart by what they say.
            let said = serde_json::to_string(rule).unwrap_or_default();
            self.short.entry(said).or_insert_with(|| (rule.clone(), Vec::new())).1.push(row);
        } else {
            self.long.push((row, rule.clone()));
        }
        Ok(())
    }
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
    async fn lead_cleanup(
        &self,
        holder: u64,
        rules: &CleanupRules,
        ttl_ms: u64,
    ) -> Result<Lead, StoreError> {
        // Without rules there is only what tasks brought along; whoever has
        // some must not wait for that.
        let name = if rules.is_empty() { "cleanup-of-tasks" } else { CLEANUP_LEASE };
        let digest = digest(rules);
        let row = sqlx::query_file!(
            "sql/cleanup/acquire_lease.sql",
            name,
            holder.cast_signed(),
            to_i64(ttl_ms),
            digest,
            CLEANUP_LEASE
        )
        .fetch_one(&self.reads)
        .await?;
        let rules_differ = row.others_rules.is_some_and(|others| others != digest);
        Ok(Lead { is_ours: row.is_ours, rules_differ })
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
        let due = sqlx::query_file_as!(DueRow, "sql/cleanup/due.sql", most, rules.is_empty())
            .fetch_all(&self.reads)
            .await?;
        let mut cleaned = Cleaned { more: to_i64(due.len() as u64) == most, ..Cleaned::default() };
        let mut sorted = Sorted::default();
        for row in due {
            sorted.push(row, rules)?;
        }
        let Sorted { doomed, short, mut long, mut rest } = sorted;
        let mut left = to_i64(limit as u64);
        for (rule, rows) in short.into_values() {
            let mut fits = Vec::new();
            for row in rows {
                if row.next_index <= left {
                    left -= row.next_index;
                    fits.push(row);
                } else {
                    cleaned.more = true;
                    // A log longer than all that may be looked at goes in chunks.
                    if row.next_index > to_i64(limit as u64) {
                        long.push((row, rule.clone()));
                    }
                }
            }
            let chunk = self.clean_short(&fits, &rule, &mut rest).await?;
            cleaned.events += chunk.removed;
            let alone = fits.into_iter().filter(|row| chunk.left.contains(&row.task));
            long.extend(alone.map(|row| (row, rule.clone())));
        }
        for (row, rule) in long {
            if left <= 0 {
                cleaned.more = true;
                break;
            }
            let chunk = self.clean_chunk(&row, &rule, left, &mut rest).await?;
            left -= chunk.looked_at;
            cleaned.events += chunk.removed;
            cleaned.more |= chunk.more;
        }
        self.note_rest(&rest).await?;
        // At once, so that they share the lanes' batches.
        let deleted = doomed.iter().map(|(task, _)| self.delete(task));
        for deleted in futures_util::future::join_all(deleted).await {
            cleaned.tasks += u64::from(deleted?);
        }
        // They would be passed over in what is due until they are purged.
        let mut gone = Rest::default();
        for (_, row) in &doomed {
            gone.finish(row);
        }
        self.note_rest(&gone).await?;
        Ok(cleaned)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let row =
            sqlx::query_file!("sql/cleanup/backlog.sql", BACKLOG).fetch_one(&self.reads).await?;
        Ok(Backlog {
            deleted_tasks: to_u64(row.deleted_tasks),
            due_cleanups: to_u64(row.due_cleanups),
        })
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
    /// Notes what remains to be done, for all rules at once.
    async fn note_rest(&self, rest: &Rest) -> Result<(), StoreError> {
        if !rest.task.is_empty() {
            sqlx::query_file!(
                "sql/cleanup/reschedule.sql",
                &rest.task,
                &rest.rule,
                &rest.next_index,
                &rest.due_at
            )
            .execute(&self.reads)
            .await?;
        }
        if !rest.done_task.is_empty() {
            sqlx::query_file!("sql/cleanup/done.sql", &rest.done_task, &rest.done_rule)
                .execute(&self.reads)
                .await?;
        }
        Ok(())
    }

    /// Removes events of one task, of a bounded stretch of its log.
    async fn clean_chunk(
        &self,
        row: &DueRow,
        rule: &CleanupRule,
        limit: i64,
        rest: &mut Rest,
    ) -> Result<Chunk, StoreError> {
        if !rollup::roll_up_finished(&self.reads, row.task, to_u64(row.next_index)).await? {
            // Somebody is at it; the rule stays due.
            return Ok(Chunk { looked_at: 1, removed: 0, more: false });
        }
        let horizon = row.now - to_i64(rule.older_than_ms());
        self.drop_series(row, rule, horizon).await?;
        let RuleColumns { types, levels, mode } = columns_of(rule);
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
            Some(next) if chunk.younger_at.is_none() => rest.reschedule(row, next, row.now),
            // What is too young now is looked at again, from the start of this stretch.
            Some(_) => rest.age(row, row.from_index, chunk.younger_at, rule),
            None if ages_until > row.now => {
                rest.age(row, row.from_index, chunk.younger_at, rule);
            }
            None => rest.finish(row),
        }
        let more = chunk.next_index.is_some() && chunk.younger_at.is_none();
        Ok(Chunk { looked_at: limit, removed: to_u64(chunk.removed), more })
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
            let of = vec![row.task; gone.len()];
            sqlx::query_file!("sql/cleanup/drop_series.sql", &of, &gone)
                .execute(&self.reads)
                .await?;
        }
        Ok(())
    }
}
