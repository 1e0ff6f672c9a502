//! The port of cleanup, and of what is kept for a time only.

use async_trait::async_trait;

use super::StoreError;
use crate::domain::CleanupRules;

/// What a bite of cleanup removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Tasks removed.
    pub tasks: u64,
    /// Events removed, those of removed tasks apart.
    pub events: u64,
    /// Whether more is due at once.
    pub more: bool,
}

/// Whose turn it is to carry rules out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lead {
    /// Whether it is the caller's.
    pub is_ours: bool,
    /// Whether another instance carries out rules that differ from the caller's.
    pub rules_differ: bool,
}

/// What waits to be removed, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Deleted tasks of which something is left.
    pub deleted_tasks: u64,
    /// Rules that are due for a task.
    pub due_cleanups: u64,
}

/// Carrying out cleanup rules.
///
/// A rule acts on finished tasks alone. What is still owed to a webhook makes
/// a task wait. What remains of a log keeps its indexes and its counts.
#[async_trait]
pub trait Cleanup: Send + Sync {
    /// Takes or keeps the right to carry `rules` out for `ttl_ms`, unless
    /// another instance has it. `holder` names the caller.
    ///
    /// Without rules this is about those that tasks brought along, and keeps
    /// nobody from carrying out rules of the configuration.
    async fn lead_cleanup(
        &self,
        holder: u64,
        rules: &CleanupRules,
        ttl_ms: u64,
    ) -> Result<Lead, StoreError>;

    /// Notes for up to `limit` finished tasks which rules hold and when they
    /// fall due; returns how many tasks were looked at.
    ///
    /// Every finished task is looked at once for each set of rules; without
    /// rules only tasks that brought some along.
    async fn schedule_cleanup(
        &self,
        rules: &CleanupRules,
        limit: usize,
    ) -> Result<usize, StoreError>;

    /// Carries out what is due, up to about `limit` rows, oldest first; without
    /// rules only those that tasks brought along.
    async fn clean(&self, rules: &CleanupRules, limit: usize) -> Result<Cleaned, StoreError>;

    /// Counts what waits, at little cost.
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// Forgets up to `limit` idempotency keys that are old enough.
    async fn prune_keys(&self, limit: usize) -> Result<usize, StoreError>;
}
