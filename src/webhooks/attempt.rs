//! One delivery: from the claim to its outcome.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Answer, Clients};
use super::{AttemptReport, DeliveryListener, Verdict, WebhookOptions, request};
use crate::domain::{DeliveryId, HookKey, RetryPolicy, Webhook};
use crate::store::clock::now_ms;
use crate::store::{Attempted, ClaimedDelivery, DeliveryOutcome, DeliveryState};

/// Makes attempts.
pub(super) struct Attempts {
    clients: Clients,
    endpoints: HashMap<HookKey, Webhook>,
    default_retry: RetryPolicy,
    listeners: Vec<Arc<dyn DeliveryListener>>,
}

/// What an answer means for a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Delivered,
    /// Another attempt may do; the receiver asked for a pause, or not.
    Again {
        asked_ms: Option<u64>,
    },
    Failed,
}

impl Attempts {
    pub(super) fn new(options: &WebhookOptions, keys: Vec<HookKey>) -> Self {
        let named = keys.into_iter().zip(&options.endpoints);
        Self {
            clients: Clients::new(&options.network, Arc::new(options.targets.clone())),
            endpoints: named.map(|(key, endpoint)| (key, endpoint.as_webhook())).collect(),
            default_retry: options.default_retry,
            listeners: options.listeners.clone(),
        }
    }

    /// Returns the hook a delivery is for, `None` when it is gone.
    fn hook<'a>(&'a self, delivery: &'a ClaimedDelivery) -> Option<&'a Webhook> {
        match delivery.hook.position() {
            Some(_) => delivery.webhook.as_ref(),
            None => self.endpoints.get(&delivery.hook),
        }
    }

    fn policy(&self, hook: Option<&Webhook>) -> RetryPolicy {
        let overrides = hook.and_then(|hook| hook.retry).unwrap_or_default();
        self.default_retry.with(&overrides)
    }

    /// Returns how long an attempt of a delivery may take.
    pub(super) fn timeout(&self, delivery: &ClaimedDelivery) -> Duration {
        Duration::from_millis(self.policy(self.hook(delivery)).timeout_ms)
    }

    /// Makes an attempt and returns how it ended.
    pub(super) async fn make(&self, delivery: ClaimedDelivery) -> DeliveryOutcome {
        let started = Instant::now();
        let id = DeliveryId { event: delivery.event.id(), hook: delivery.hook.clone() };
        let hook = self.hook(&delivery);
        let policy = self.policy(hook);
        let (judgement, last) = match hook {
            None => (None, None),
            Some(hook) => {
                let answer = self.ask(hook, &delivery, &id, policy).await;
                (Some(judge(answer)), Some(describe(answer)))
            }
        };
        let (verdict, state, retry_in_ms) = match judgement {
            None => (Verdict::Cancelled, DeliveryState::Cancelled, 0),
            Some(Judgement::Delivered) => (Verdict::Delivered, DeliveryState::Delivered, 0),
            Some(Judgement::Failed) => (Verdict::Failed, DeliveryState::Failed, 0),
            Some(Judgement::Again { asked_ms }) => {
                match policy.pause_ms(delivery.attempt, asked_ms, rand::random()) {
                    Some(pause_ms) => (Verdict::Retried, DeliveryState::Pending, pause_ms),
                    None => (Verdict::Failed, DeliveryState::Failed, 0),
                }
            }
        };
        self.report(&AttemptReport {
            task: delivery.event.task.clone(),
            delivery: id.clone(),
            attempt: delivery.attempt,
            verdict,
            outcome: last.clone(),
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        let attempt = delivery.attempt;
        DeliveryOutcome { id, attempt, last, state, retry_in_ms }
    }

    async fn ask(
        &self,
        hook: &Webhook,
        delivery: &ClaimedDelivery,
        id: &DeliveryId,
        policy: RetryPolicy,
    ) -> Answer {
        let Some(request) = request::build(hook, &delivery.event, id, now_ms() / 1000) else {
            // The rules for URLs exclude it; if not, asking again will not help.
            return Answer::Forbidden;
        };
        let is_trusted = delivery.hook.position().is_none();
        let patience = Duration::from_millis(policy.timeout_ms);
        self.clients.send(request, is_trusted, patience).await
    }

    fn report(&self, report: &AttemptReport) {
        let outcome = report.outcome.as_ref();
        tracing::debug!(
            delivery.id = %report.delivery,
            delivery.attempt = report.attempt,
            delivery.status = outcome.and_then(|outcome| outcome.status),
            delivery.problem = outcome.and_then(|outcome| outcome.problem.as_deref()),
            elapsed_ms = report.elapsed_ms,
            "webhook {}",
            report.verdict.as_str(),
        );
        for listener in &self.listeners {
            listener.attempted(report);
        }
    }
}

/// Decides what an answer means.
///
/// A receiver that understood the request and refused it will refuse it again,
/// and one that moved has to be told to the server; everything else may pass.
fn judge(answer: Answer) -> Judgement {
    match answer {
        Answer::Status { code: 200..=299, .. } => Judgement::Delivered,
        Answer::Status { code: 408 | 425, .. } | Answer::Nothing(_) => {
            Judgement::Again { asked_ms: None }
        }
        Answer::Status { code: 429 | 503, retry_after_ms } => {
            Judgement::Again { asked_ms: retry_after_ms }
        }
        Answer::Status { code: 300..=499, .. } | Answer::Forbidden => Judgement::Failed,
        Answer::Status { .. } => Judgement::Again { asked_ms: None },
    }
}

fn describe(answer: Answer) -> Attempted {
    match answer {
        Answer::Status { code, .. } => {
            let problem = match code {
                200..=299 => None,
                300..=399 => Some("redirects are not followed".into()),
                _ => Some(format!("answered with {code}").into()),
            };
            Attempted { status: Some(code), problem }
        }
        Answer::Forbidden => {
            Attempted { status: None, problem: Some("the target is not allowed".into()) }
        }
        Answer::Nothing(problem) => Attempted { status: None, problem: Some(problem.into()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_the_documentation_says() {
        let status = |code| judge(Answer::Status { code, retry_after_ms: Some(7) });
        for code in [200, 201, 204, 299] {
            assert_eq!(status(code), Judgement::Delivered, "{code}");
        }
        for code in [300, 301, 302, 307, 308, 400, 401, 404, 410, 422, 499] {
            assert_eq!(status(code), Judgement::Failed, "{code}");
        }
        for code in [408, 425, 500, 502, 504, 599, 999] {
            assert_eq!(status(code), Judgement::Again { asked_ms: None }, "{code}");
        }
        for code in [429, 503] {
            assert_eq!(status(code), Judgement::Again { asked_ms: Some(7) }, "{code}");
        }
        assert_eq!(judge(Answer::Nothing("…")), Judgement::Again { asked_ms: None });
        assert_eq!(judge(Answer::Forbidden), Judgement::Failed);
    }
}
