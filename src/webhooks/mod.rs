//! Sends what is owed to webhooks.
//!
//! What is owed stands in the store, put there together with the events. The
//! [`Worker`] claims deliveries that are due, makes an attempt for each, and
//! notes how it ended; a crash in between is an attempt of unknown outcome,
//! made again once the claim ran out. So a receiver gets every event at least
//! once, knows a repeat by its `webhook-id`, and no order is promised.
//!
//! Attempts for the hooks of tasks and those for endpoints of the
//! configuration never share a connection: the former go only where the
//! [`TargetPolicy`] lets them, judged by the very address that is dialled.

mod attempt;
mod candidates;
mod circuit;
mod client;
mod connector;
mod endpoint;
mod request;
mod resolver;
mod slots;
mod worker;

use std::sync::Arc;

pub use connector::{Dial, Network, Resolve};
pub use endpoint::{Endpoint, endpoint_keys};
pub use worker::{Bell, Worker};

use crate::domain::{DeliveryId, RetryPolicy, TargetPolicy, TaskId};
use crate::store::Attempted;

/// How webhooks are sent.
#[derive(Clone)]
pub struct WebhookOptions {
    /// How deliveries are retried where their hook does not say.
    pub default_retry: RetryPolicy,
    /// Endpoints that hear of every task's events.
    pub endpoints: Vec<Endpoint>,
    /// Where hooks of tasks may lead.
    pub targets: TargetPolicy,
    /// Most attempts at webhooks of tasks that are young, up to half a second,
    /// at a time, and as many at endpoints. Eight times as many may be older.
    pub concurrency: usize,
    /// How names are resolved and addresses dialled.
    pub network: Network,
    /// Who hears how attempts ended.
    pub listeners: Vec<Arc<dyn DeliveryListener>>,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            default_retry: RetryPolicy::default(),
            endpoints: Vec::new(),
            targets: TargetPolicy::default(),
            concurrency: 64,
            network: Network::default(),
            listeners: Vec::new(),
        }
    }
}

impl std::fmt::Debug for WebhookOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookOptions")
            .field("default_retry", &self.default_retry)
            .field("endpoints", &self.endpoints)
            .field("targets", &self.targets)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// Writes bytes in hexadecimal.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut digits, byte| {
        digits.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or_default());
        digits.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or_default());
        digits
    })
}

/// What an attempt means for its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The receiver took it.
    Delivered,
    /// It is tried again later.
    Retried,
    /// It is given up.
    Failed,
    /// Nobody is left to send it to; no attempt was made.
    Cancelled,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Retried, Self::Failed, Self::Cancelled];

    /// Returns its name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct AttemptReport {
    /// The task the event belongs to.
    pub task: TaskId,
    /// The delivery.
    pub delivery: DeliveryId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// What it means.
    pub verdict: Verdict,
    /// What came of it; `None` when it was not made.
    pub outcome: Option<Attempted>,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// Hears how attempts end.
pub trait DeliveryListener: Send + Sync {
    /// Takes the report of an attempt; must not wait.
    ///
    /// It comes before the store knows of the outcome.
    fn attempted(&self, report: &AttemptReport);
}
