//! Requests that may be repeated.

/// Marks a request so that a repeat of it takes effect once.
///
/// Both digests are made where the request is read; a store only compares
/// them. Only a request that changed something leaves its key behind: what
/// was refused is judged anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Digest of the caller, the route with its task, and the key as sent.
    pub key: [u8; 32],
    /// Digest of the request's body.
    pub request: [u8; 32],
}

/// How long a key is remembered at least, in milliseconds: a day.
pub const IDEMPOTENCY_LIFE_MS: u64 = 86_400_000;
