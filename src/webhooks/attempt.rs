//! One delivery: from the claim to its outcome.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Answer, Clients};
use super::slots::Ended;
use super::{AttemptReport, DeliveryListener, Verdict, WebhookOptions, request};
use crate::domain::{DeliveryId, HookKey, RetryPolicy, Webhook, circuit_of};
use crate::store::clock::now_ms;
use crate::store::{Attempted, CancelledDelivery, ClaimedDelivery, DeliveryOutcome, DeliveryState};

/// Makes attempts.
pub(super) struct Attempts {
    clients: Clients,
    endpoints: HashMap<HookKey, Webhook>,
    default_retry: RetryPolicy,
    listeners: Vec<Arc<dyn DeliveryListener>>,
}

/// An attempt that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) outcome: DeliveryOutcome,
    /// What it says of the receiver.
    pub(super) ended: Ended,
    /// What it says of the URL: whether it fails, if anything.
    pub(super) failed: Option<bool>,
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

    /// Returns how a delivery is tried. Endpoints are the operator's word.
    fn policy(&self, delivery: &ClaimedDelivery) -> RetryPolicy {
        let overrides = self.hook(delivery).and_then(|hook| hook.retry).unwrap_or_default();
        let policy = self.default_retry.with(&overrides);
        if delivery.hook.position().is_some() { policy.within_bounds() } else { policy }
    }

    /// Returns how long an attempt of a delivery may take.
    pub(super) fn timeout(&self, delivery: &ClaimedDelivery) -> Duration {
        Duration::from_millis(self.policy(delivery).timeout_ms)
    }

    /// Returns the circuit of a delivery's URL. Endpoints have circuits apart,
    /// so that no task can open theirs.
    pub(super) fn circuit(&self, delivery: &ClaimedDelivery) -> u64 {
        let url = self.hook(delivery).map_or(0, |hook| circuit_of(&hook.url));
        if delivery.hook.position().is_some() { url } else { !url }
    }

    /// Makes an attempt and returns how it ended; `hurry` ends the wait for an
    /// answer as if its time were up.
    pub(super) async fn make(&self, delivery: ClaimedDelivery, hurry: CancellationToken) -> Made {
        let started = Instant::now();
        let id = id_of(&delivery);
        let policy = self.policy(&delivery);
        let Some(hook) = self.hook(&delivery) else {
            let outcome = self.conclude(&delivery, Verdict::Cancelled, None, 0, started);
            return Made { outcome, ended: Ended::Otherwise, failed: None };
        };
        let answer = tokio::select! {
            answer = self.ask(hook, &delivery, &id, policy) => answer,
            () = hurry.cancelled() => Answer::Late,
        };
        let (verdict, retry_in_ms) = match judge(answer) {
            Judgement::Delivered => (Verdict::Delivered, 0),
            Judgement::Failed => (Verdict::Failed, 0),
            Judgement::Again { asked_ms } => {
                match policy.pause_ms(delivery.attempt, asked_ms, rand::random()) {
                    Some(pause_ms) => (Verdict::Retried, pause_ms),
                    None => (Verdict::Failed, 0),
                }
            }
        };
        let last = Some(describe(answer));
        let outcome = self.conclude(&delivery, verdict, last, retry_in_ms, started);
        let (ended, failed) = tell(answer);
        Made { outcome, ended, failed }
    }

    /// Puts a delivery off by `pause` without an attempt, which uses one up if
    /// it `counts`.
    pub(super) fn put_off(
        &self,
        delivery: &ClaimedDelivery,
        pause: Duration,
        counts: bool,
    ) -> DeliveryOutcome {
        let spread = pause + pause.mul_f64(rand::random::<f64>() / 2.0);
        let pause_ms = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX).max(1);
        if !counts {
            return DeliveryOutcome {
                id: id_of(delivery),
                attempt: delivery.attempt,
                last: None,
                state: DeliveryState::Pending,
                retry_in_ms: pause_ms,
            };
        }
        let problem = Some("not sent, since the URL keeps failing".into());
        let last = Some(Attempted { status: None, problem });
        let (verdict, retry_in_ms) =
            match self.policy(delivery).pause_ms(delivery.attempt, None, rand::random()) {
                Some(own_ms) => (Verdict::Retried, own_ms.max(pause_ms)),
                None => (Verdict::Failed, 0),
            };
        self.conclude(delivery, verdict, last, retry_in_ms, Instant::now())
    }

    /// Reports an attempt and returns what the store notes of it.
    fn conclude(
        &self,
        delivery: &ClaimedDelivery,
        verdict: Verdict,
        last: Option<Attempted>,
        retry_in_ms: u64,
        started: Instant,
    ) -> DeliveryOutcome {
        let id = id_of(delivery);
        self.report(&AttemptReport {
            task: delivery.event.task.clone(),
            delivery: id.clone(),
            attempt: delivery.attempt,
            verdict,
            outcome: last.clone(),
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        let state = match verdict {
            Verdict::Delivered => DeliveryState::Delivered,
            Verdict::Retried => DeliveryState::Pending,
            Verdict::Failed => DeliveryState::Failed,
            Verdict::Cancelled => DeliveryState::Cancelled,
        };
        DeliveryOutcome { id, attempt: delivery.attempt, last, state, retry_in_ms }
    }

    /// Reports a delivery that was cancelled, since no instance knows its
    /// endpoint.
    pub(super) fn cancelled(&self, delivery: CancelledDelivery) {
        self.report(&AttemptReport {
            task: delivery.task,
            delivery: delivery.id,
            attempt: delivery.attempts,
            verdict: Verdict::Cancelled,
            outcome: None,
            elapsed_ms: 0,
        });
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
            return Answer::Unusable;
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

pub(super) fn id_of(delivery: &ClaimedDelivery) -> DeliveryId {
    DeliveryId { event: delivery.event.id(), hook: delivery.hook.clone() }
}

/// Decides what an answer says of the receiver, and of the URL: whether it
/// fails, if anything.
fn tell(answer: Answer) -> (Ended, Option<bool>) {
    match answer {
        Answer::Status { code, .. } => (Ended::Answered, Some((500..600).contains(&code))),
        Answer::Late => (Ended::TimedOut, Some(true)),
        Answer::Nothing(_) => (Ended::Otherwise, Some(true)),
        Answer::Unusable => (Ended::Otherwise, None),
    }
}

/// Decides what an answer means.
///
/// A receiver that understood the request and refused it will refuse it again,
/// and one that moved has to be told to the server; everything else may pass.
fn judge(answer: Answer) -> Judgement {
    match answer {
        Answer::Status { code: 200..=299, .. } => Judgement::Delivered,
        Answer::Status { code: 408 | 425, .. } | Answer::Nothing(_) | Answer::Late => {
            Judgement::Again { asked_ms: None }
        }
        Answer::Status { code: 429 | 503, retry_after_ms } => {
            Judgement::Again { asked_ms: retry_after_ms }
        }
        Answer::Status { code: 300..=499, .. } | Answer::Unusable => Judgement::Failed,
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
        Answer::Unusable => {
            Attempted { status: None, problem: Some("nothing can be sent to the URL".into()) }
        }
        Answer::Late => Attempted { status: None, problem: Some("no answer in time".into()) },
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
        assert_eq!(judge(Answer::Late), Judgement::Again { asked_ms: None });
        assert_eq!(judge(Answer::Unusable), Judgement::Failed);
    }
}
