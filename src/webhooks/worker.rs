//! The loop that claims deliveries, attempts them and notes how they ended.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::attempt::Attempts;
use super::{WebhookOptions, endpoint_keys};
use crate::domain::DeliveryId;
use crate::store::{
    Attempted, ClaimedDelivery, Commit, CommitListener, DeliveryClaim, DeliveryOutcome,
    DeliveryState, Store, StoreError,
};

/// How often the store is asked for what nobody told of: deliveries of other
/// instances, and retries planned there.
const POLL: Duration = Duration::from_millis(700);

/// How long nothing is asked of a store that failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Most deliveries of one receiver to claim at a time. As many may be in the
/// air already, so twice that is the most one receiver gets at once.
const PER_CLAIM: usize = 4;

/// What is left of a claim when an attempt took its whole time.
const LEASE_MARGIN: Duration = Duration::from_secs(4);

/// How long claims are made to last for a hook that takes longer than others.
const LONG_MEMORY: Duration = Duration::from_mins(1);

/// Most planned retries to remember; the poll finds the others.
const MOST_PLANNED: usize = 4_096;

/// How long is kept of the time for finishing to note what was cut off.
const NOTE_WITHIN: Duration = Duration::from_millis(500);

/// Tells the worker that a commit of this instance owes something.
#[derive(Debug, Default)]
pub struct Bell(Notify);

impl CommitListener for Bell {
    fn committed(&self, commits: &[Commit]) {
        if commits.iter().any(|commit| commit.owes) {
            self.0.notify_one();
        }
    }
}

/// Sends what is owed to webhooks.
#[derive(Clone)]
pub struct Worker(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    attempts: Arc<Attempts>,
    concurrency: usize,
    /// How long an attempt takes at most, where a hook does not say.
    usual_timeout: Duration,
    bell: Arc<Bell>,
    /// Cancelled when nothing more shall be claimed.
    draining: CancellationToken,
    /// Cancelled when attempts shall end now.
    cutting: CancellationToken,
    /// Cancelled when the loop has ended.
    ended: CancellationToken,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("concurrency", &self.0.concurrency).finish_non_exhaustive()
    }
}

impl Worker {
    /// Makes a worker over a store; `bell` rings for commits that owe.
    pub fn new(store: Arc<dyn Store>, options: &WebhookOptions, bell: Arc<Bell>) -> Self {
        let own =
            options.endpoints.iter().map(|endpoint| options.default_retry.with(&endpoint.retry));
        let longest = own.map(|policy| policy.timeout_ms).max().unwrap_or(0);
        let usual_timeout = longest.max(options.default_retry.timeout_ms);
        Self(Arc::new(Shared {
            store,
            attempts: Arc::new(Attempts::new(options, endpoint_keys(&options.endpoints))),
            concurrency: options.concurrency.max(1),
            usual_timeout: Duration::from_millis(usual_timeout),
            bell,
            draining: CancellationToken::new(),
            cutting: CancellationToken::new(),
            ended: CancellationToken::new(),
        }))
    }

    /// Sends until [`Worker::drain`] and until nothing is in the air.
    pub async fn run(self) {
        Round::new(&self.0).run().await;
        self.0.ended.cancel();
    }

    /// Claims nothing more; what is in the air goes on.
    pub fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Drains, and waits up to `patience` until the loop has ended. Attempts
    /// that take longer are cut off and due again at once.
    pub async fn finish(&self, patience: Duration) {
        self.drain();
        let ended = self.0.ended.cancelled();
        if timeout(patience.saturating_sub(NOTE_WITHIN), ended).await.is_err() {
            self.0.cutting.cancel();
            let _ = timeout(NOTE_WITHIN, self.0.ended.cancelled()).await;
        }
    }
}

/// An attempt in the air.
struct Flight {
    id: DeliveryId,
    attempt: u32,
    receiver: u64,
}

/// The state of the loop, from one start to the next.
struct Round<'a> {
    shared: &'a Shared,
    in_air: JoinSet<DeliveryOutcome>,
    flights: HashMap<Id, Flight>,
    /// Attempts in the air by receiver.
    receivers: HashMap<u64, usize>,
    /// Outcomes the store does not know of yet.
    unsettled: Vec<DeliveryOutcome>,
    /// When retries planned here are due.
    planned: BinaryHeap<Reverse<Instant>>,
    /// Whether there may be something to claim.
    look: bool,
    /// Whether the last claim took all there was room for.
    was_full: bool,
    /// Whether it left something behind of a receiver that had enough.
    was_crowded: bool,
    /// When to look without being told to.
    poll_at: Instant,
    /// A timeout longer than usual, and when it was last met.
    long: Option<(Duration, Instant)>,
}

impl<'a> Round<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            in_air: JoinSet::new(),
            flights: HashMap::new(),
            receivers: HashMap::new(),
            unsettled: Vec::new(),
            planned: BinaryHeap::new(),
            look: true,
            was_full: false,
            was_crowded: false,
            poll_at: Instant::now(),
            long: None,
        }
    }

    async fn run(mut self) {
        loop {
            let draining = self.shared.draining.is_cancelled();
            if draining && self.in_air.is_empty() && self.unsettled.is_empty() {
                return;
            }
            if self.shared.cutting.is_cancelled() {
                self.cut_off().await;
                return;
            }
            if self.look && !draining && self.room() > 0 {
                self.claim().await;
            }
            self.wait(draining).await;
            self.land();
            self.settle().await;
        }
    }

    /// How many more attempts may be in the air.
    fn room(&self) -> usize {
        // With outcomes that cannot be noted, more would only pile up.
        if !self.unsettled.is_empty() {
            return 0;
        }
        self.shared.concurrency.saturating_sub(self.in_air.len())
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, draining: bool) {
        if !self.unsettled.is_empty() || (self.look && !draining && self.room() > 0) {
            return;
        }
        let planned = self.planned.peek().map_or(self.poll_at, |Reverse(at)| *at);
        let wake_at = planned.min(self.poll_at);
        tokio::select! {
            biased;
            () = self.shared.cutting.cancelled() => {}
            Some(joined) = self.in_air.join_next_with_id() => self.landed(joined),
            () = self.shared.draining.cancelled(), if !draining => {}
            () = self.shared.bell.0.notified() => self.look = true,
            () = sleep_until(wake_at) => {
                self.look = true;
                let now = Instant::now();
                self.poll_at = self.poll_at.max(now + POLL);
                while self.planned.peek().is_some_and(|Reverse(at)| *at <= now) {
                    self.planned.pop();
                }
            }
        }
    }

    /// Takes what else has ended by now, so that it is noted in one go.
    fn land(&mut self) {
        while let Some(joined) = self.in_air.try_join_next_with_id() {
            self.landed(joined);
        }
    }

    fn landed(&mut self, joined: Result<(Id, DeliveryOutcome), JoinError>) {
        let id = match &joined {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(flight) = self.flights.remove(&id) else { return };
        let count = self.receivers.entry(flight.receiver).or_default();
        *count = count.saturating_sub(1);
        self.look |= self.was_full || (self.was_crowded && *count <= PER_CLAIM);
        if *count == 0 {
            self.receivers.remove(&flight.receiver);
        }
        match joined {
            Ok((_, outcome)) => self.unsettled.push(outcome),
            // Its claim runs out, and somebody tries again.
            Err(error) => tracing::error!(delivery.id = %flight.id, %error, "an attempt panicked"),
        }
    }

    async fn settle(&mut self) {
        if self.unsettled.is_empty() {
            return;
        }
        match self.shared.store.settle(&self.unsettled).await {
            Ok(()) => {
                let now = Instant::now();
                for outcome in self.unsettled.drain(..) {
                    if outcome.state == DeliveryState::Pending && self.planned.len() < MOST_PLANNED
                    {
                        let pause = Duration::from_millis(outcome.retry_in_ms);
                        self.planned.push(Reverse(now + pause));
                    }
                }
            }
            Err(error) => self.rest(&error, "could not note how deliveries ended").await,
        }
    }

    /// Waits a while before the store is asked anything again.
    async fn rest(&mut self, error: &StoreError, what: &'static str) {
        tracing::debug!(%error, "{what}");
        self.poll_at = Instant::now() + STORE_PAUSE;
        tokio::select! {
            () = sleep(STORE_PAUSE) => {}
            () = self.shared.cutting.cancelled() => {}
        }
    }

    async fn claim(&mut self) {
        self.look = false;
        let room = self.room();
        let patience = self.claimed_for();
        let busy = self.receivers.iter().filter(|(_, count)| **count > PER_CLAIM);
        let claim = DeliveryClaim {
            limit: room,
            per_receiver: PER_CLAIM,
            except: busy.map(|(receiver, _)| *receiver).collect(),
            lease_ms: u64::try_from((patience + LEASE_MARGIN).as_millis()).unwrap_or(u64::MAX),
        };
        let claimed = match self.shared.store.claim(&claim).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.rest(&error, "could not claim deliveries").await;
                return;
            }
        };
        let mut taken: HashMap<u64, usize> = HashMap::new();
        for delivery in &claimed {
            *taken.entry(delivery.receiver).or_default() += 1;
        }
        let has_crowd = taken.values().any(|count| *count >= PER_CLAIM);
        self.was_full = claimed.len() >= room;
        self.was_crowded = has_crowd || !claim.except.is_empty();
        // A receiver may be owed more than one claim takes.
        self.look = self.was_full || has_crowd;
        for delivery in claimed {
            self.launch(delivery, patience);
        }
    }

    /// Starts an attempt, or gives the delivery back; `claimed_for` is how long
    /// the attempt may take within the claim.
    fn launch(&mut self, delivery: ClaimedDelivery, claimed_for: Duration) {
        let event = delivery.event.id();
        let id = DeliveryId { event, hook: delivery.hook.clone() };
        let patience = self.shared.attempts.timeout(&delivery);
        if patience > self.shared.usual_timeout {
            let longest = self.long.map_or(patience, |(known, _)| known.max(patience));
            self.long = Some((longest, Instant::now()));
        }
        // The claim may have been made as the signal to stop came, or may be
        // too short for this hook. The next one is not.
        if patience > claimed_for || self.shared.draining.is_cancelled() {
            self.unsettled.push(DeliveryOutcome {
                id,
                attempt: delivery.attempt,
                last: None,
                state: DeliveryState::Pending,
                retry_in_ms: 0,
            });
            return;
        }
        *self.receivers.entry(delivery.receiver).or_default() += 1;
        let flight = Flight { id, attempt: delivery.attempt, receiver: delivery.receiver };
        let attempts = self.shared.attempts.clone();
        let handle = self.in_air.spawn(async move { attempts.make(delivery).await });
        self.flights.insert(handle.id(), flight);
    }

    /// Returns how long attempts may take within the next claim.
    ///
    /// Nobody can tell a claim of a dead instance from a slow attempt, so
    /// claims hold no longer than the hooks that were met lately need.
    fn claimed_for(&mut self) -> Duration {
        if self.long.is_some_and(|(_, met)| met.elapsed() > LONG_MEMORY) {
            self.long = None;
        }
        self.long.map_or(self.shared.usual_timeout, |(timeout, _)| timeout)
    }

    /// Ends every attempt now, and notes that it was one.
    async fn cut_off(&mut self) {
        self.land();
        self.in_air.abort_all();
        let cut = self.flights.drain().map(|(_, flight)| DeliveryOutcome {
            id: flight.id,
            attempt: flight.attempt,
            last: Some(Attempted { status: None, problem: Some("the server stopped".into()) }),
            state: DeliveryState::Pending,
            retry_in_ms: 0,
        });
        self.unsettled.extend(cut);
        if !self.unsettled.is_empty()
            && let Err(error) = self.shared.store.settle(&self.unsettled).await
        {
            tracing::debug!(%error, "could not note how deliveries ended");
        }
    }
}
