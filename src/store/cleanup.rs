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

/// Carrying out cleanup rules.
///
/// A rule acts on finished tasks alone. What is still owed to a webhook makes
/// a task wait. What remains of a log keeps its indexes and its counts.
#[async_trait]
pub trait Cleanup: Send + Sync {
    /// Takes or keeps the right to clean for `ttl_ms`; `false` when another
    /// instance has it. `holder` names the caller.
    async fn lead_cleanup(&self, holder: u64, ttl_ms: u64) -> Result<bool, StoreError>;

    /// Notes for up to `limit` finished tasks which rules hold and when they
    /// fall due; returns how many tasks were looked at.
    ///
    /// Every finished task is looked at once for each set of rules.
    async fn schedule_cleanup(
        &self,
        rules: &CleanupRules,
        limit: usize,
    ) -> Result<usize, StoreError>;

    /// Carries out what is due, up to about `limit` rows, oldest first.
    async fn clean(&self, rules: &CleanupRules, limit: usize) -> Result<Cleaned, StoreError>;

    /// Forgets up to `limit` idempotency keys that are old enough.
    async fn prune_keys(&self, limit: usize) -> Result<usize, StoreError>;
}
