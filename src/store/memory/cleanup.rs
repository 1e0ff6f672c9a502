//! The cleanup port over the maps.

use async_trait::async_trait;

use super::{MemoryStore, State};
use crate::domain::{CleanupRule, CleanupRules, IDEMPOTENCY_LIFE_MS, RuleKey, TaskNumber};
use crate::store::clock::now_ms;
use crate::store::{Backlog, Cleaned, Cleanup, Lead, StoreError};

/// How long a task waits for its webhooks before it is looked at again.
const POSTPONE_MS: u64 = 5_000;

/// How often a rule looks whether more events have reached their age.
const AGEING_MS: u64 = 5_000;

/// When a rule acts for a task.
pub(super) type Due = (u64, TaskNumber, RuleKey);

#[async_trait]
impl Cleanup for MemoryStore {
    async fn lead_cleanup(
        &self,
        holder: u64,
        rules: &CleanupRules,
        ttl_ms: u64,
    ) -> Result<Lead, StoreError> {
        if rules.is_empty() {
            return Ok(Lead { is_ours: true, rules_differ: false });
        }
        let (mut state, now) = (self.state.lock(), now_ms());
        let is_free = state.leader.is_none_or(|(leader, until)| leader == holder || until < now);
        if is_free {
            state.leader = Some((holder, now + ttl_ms));
        }
        // There is one instance, and one set of rules.
        Ok(Lead { is_ours: is_free, rules_differ: false })
    }

    async fn schedule_cleanup(
        &self,
        rules: &CleanupRules,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let mut state = self.state.lock();
        if state.swept_for != rules.digest() {
            // Other rules than before: they look at every finished task anew.
            state.swept_for = rules.digest();
            state.unswept = state.finished.iter().map(|(_, number)| *number).collect();
        }
        let swept: Vec<TaskNumber> = state.unswept.iter().take(limit).copied().collect();
        for number in &swept {
            state.unswept.remove(number);
            let Some(record) = state.records.get(number) else { continue };
            let (spec, status) = (&record.task.spec, record.task.status);
            let own = spec.cleanup.as_deref().unwrap_or_default();
            let ended_at = record.task.updated_at_ms;
            let due: Vec<_> = rules.due(own, spec.task_type.as_deref(), status, ended_at).collect();
            for (key, at) in due {
                state.cleanup.insert((at, *number, key), 0);
            }
        }
        Ok(swept.len())
    }

    async fn clean(&self, rules: &CleanupRules, limit: usize) -> Result<Cleaned, StoreError> {
        let (mut cleaned, mut left) = (Cleaned::default(), limit);
        // One task at a time, so that writers get their turn.
        while left > 0 {
            let mut state = self.state.lock();
            let Some((due, from)) = state.cleanup.first_key_value() else { return Ok(cleaned) };
            if due.0 > now_ms() {
                return Ok(cleaned);
            }
            let (due, from) = (due.clone(), *from);
            state.cleanup.remove(&due);
            left -= self.carry_out(&mut state, rules, due, from, left, &mut cleaned);
        }
        cleaned.more = true;
        Ok(cleaned)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let (state, now) = (self.state.lock(), now_ms());
        let due = state.cleanup.keys().take_while(|(at, ..)| *at <= now).count();
        Ok(Backlog { deleted_tasks: 0, due_cleanups: due as u64 })
    }

    async fn prune_keys(&self, limit: usize) -> Result<usize, StoreError> {
        let mut state = self.state.lock();
        let horizon = now_ms().saturating_sub(IDEMPOTENCY_LIFE_MS);
        let mut gone = 0;
        while gone < limit && state.key_ages.front().is_some_and(|(at, _)| *at < horizon) {
            state.forget_oldest_key();
            gone += 1;
        }
        Ok(gone)
    }
}

impl MemoryStore {
    /// Carries one rule out for one task; returns how much it looked at.
    fn carry_out(
        &self,
        state: &mut State,
        rules: &CleanupRules,
        (_, number, key): Due,
        from: u64,
        limit: usize,
        cleaned: &mut Cleaned,
    ) -> usize {
        let Some(record) = state.records.get(&number) else { return 1 };
        if record.owes() {
            state.cleanup.insert((now_ms() + POSTPONE_MS, number, key), from);
            return 1;
        }
        let own = record.task.spec.cleanup.as_deref().unwrap_or_default();
        let Some(rule) = rules.find(own, key.as_str()).cloned() else { return 1 };
        if rule.removes_task() {
            let gone = state.remove(number);
            cleaned.tasks += 1;
            self.listener.committed(gone.as_slice());
            return 1;
        }
        cleaned.events += state.clean_events(number, key, &rule, from, limit);
        limit
    }
}

impl State {
    /// Removes events of a stretch of a log; returns how many.
    fn clean_events(
        &mut self,
        number: TaskNumber,
        key: RuleKey,
        rule: &CleanupRule,
        from: u64,
        limit: usize,
    ) -> u64 {
        let now = now_ms();
        let Some(record) = self.records.get_mut(&number) else { return 0 };
        let horizon = now.saturating_sub(rule.older_than_ms());
        let ended_at = record.task.updated_at_ms;
        let before = record.size_bytes();
        let bite = record.log.clean(rule, horizon, from, limit);
        self.bytes = self.bytes - before + record.size_bytes();
        let at_end = ended_at + rule.older_than_ms();
        match (bite.younger_at_ms, bite.next_index) {
            (None, Some(next)) => {
                self.cleanup.insert((now, number, key), next);
            }
            (younger, _) if at_end > now => {
                let next = younger.map_or(at_end, |at| at + rule.older_than_ms());
                let due = next.max(now + AGEING_MS).min(at_end);
                self.cleanup.insert((due, number, key), from);
            }
            (_, _) => {}
        }
        bite.removed
    }
}
