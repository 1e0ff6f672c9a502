//! What can go wrong in a store, outcomes apart.

/// A store could not do its work.
///
/// Outcomes a caller is expected to handle (absent, closed, conflict) are
/// values, not errors.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or does not answer; nothing was changed.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Too many writes are waiting; nothing was changed.
    #[error("too many writes are waiting")]
    Overloaded,
    /// The store has no room left; nothing was changed.
    #[error("the store is full")]
    Full,
    /// The connection broke while a write was on its way and did not come
    /// back in time: it may have happened or not.
    #[error("the write was sent but its outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// Something stored cannot be read.
    #[error("corrupt row: {0}")]
    Corrupt(String),
    /// The store refused a statement it should have accepted.
    #[error("unexpected store failure: {0}")]
    Unexpected(String),
}
