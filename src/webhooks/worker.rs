//! The loop that claims deliveries, attempts them and notes how they ended.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempts, Made, id_of};
use super::candidates::Candidates;
use super::circuit::{Circuits, Passage};
use super::slots::{Ended, Slot, Slots, YOUNG};
use super::{WebhookOptions, endpoint_keys};
use crate::domain::{DeliveryId, endpoint_receiver};
use crate::store::{
    Attempted, ClaimedDelivery, Commit, CommitListener, DeliveryClaim, DeliveryOutcome,
    DeliveryState, Store, StoreError,
};

/// How often the store is asked for what nobody told of: deliveries of other
/// instances, and retries planned there.
const POLL: Duration = Duration::from_millis(700);

/// How long nothing is asked of a store that failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Receivers to find at a time.
const PAGE: usize = 1_000;

/// Quick receivers that are asked for while there are more pages of others.
const QUICK_BESIDE: usize = 128;

/// Deliveries of a receiver to claim beyond those that may be attempted while
/// some URL is not asked, so that the others need not wait behind its own.
const PUT_OFF_BESIDE: usize = 32;

/// How long what is owed to an endpoint that no instance knows is kept: a day.
const UNCLAIMED_MS: u64 = 86_400_000;

/// How often that is looked for, and how much of it is cancelled at a time.
const CANCEL_EVERY: Duration = Duration::from_mins(1);
const CANCEL_AT_ONCE: usize = 500;

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
    /// How long an attempt at a task's webhook takes at most, where that does
    /// not say.
    usual_timeout: Duration,
    /// Endpoints this instance knows, and how long an attempt takes at most.
    endpoints: HashMap<u64, Duration>,
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
        let keys = endpoint_keys(&options.endpoints);
        let timeout = |retry| Duration::from_millis(options.default_retry.with(retry).timeout_ms);
        let receivers = keys.iter().map(endpoint_receiver);
        let timeouts = options.endpoints.iter().map(|endpoint| timeout(&endpoint.retry));
        let usual_ms = options.default_retry.within_bounds().timeout_ms;
        Self(Arc::new(Shared {
            endpoints: receivers.zip(timeouts).collect(),
            store,
            attempts: Arc::new(Attempts::new(options, keys)),
            concurrency: options.concurrency.max(1),
            usual_timeout: Duration::from_millis(usual_ms),
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
    circuit: u64,
    slot: Slot,
    /// Ends the attempt as if its time were up.
    hurry: CancellationToken,
}

/// The state of the loop, from one start to the next.
struct Round<'a> {
    shared: &'a Shared,
    in_air: JoinSet<Made>,
    flights: HashMap<Id, Flight>,
    slots: Slots,
    circuits: Circuits,
    /// Attempts by when they began, as far as they use up slots.
    young: VecDeque<(Instant, Id)>,
    /// Attempts that no longer do, longest under way first; some have ended.
    old: VecDeque<Id>,
    /// Outcomes the store does not know of yet.
    unsettled: Vec<DeliveryOutcome>,
    /// When retries planned here are due.
    planned: BinaryHeap<Reverse<Instant>>,
    candidates: Candidates,
    /// When to look without being told to.
    poll_at: Instant,
    /// When to look for deliveries to cancel.
    cancel_at: Instant,
    /// A timeout longer than usual, and when it was last met.
    long: Option<(Duration, Instant)>,
}

impl<'a> Round<'a> {
    fn new(shared: &'a Shared) -> Self {
        let now = Instant::now();
        let mut candidates = Candidates::default();
        candidates.look();
        Self {
            shared,
            in_air: JoinSet::new(),
            flights: HashMap::new(),
            slots: Slots::new(shared.concurrency),
            circuits: Circuits::default(),
            young: VecDeque::new(),
            old: VecDeque::new(),
            unsettled: Vec::new(),
            planned: BinaryHeap::new(),
            candidates,
            poll_at: now,
            cancel_at: now,
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
            // With outcomes that cannot be noted, more would only pile up.
            let is_idle = if draining || !self.unsettled.is_empty() {
                true
            } else {
                self.find().await;
                self.claim().await
            };
            self.wait(draining, is_idle).await;
            self.land();
            self.grow_old();
            self.settle().await;
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, draining: bool, is_idle: bool) {
        if !self.unsettled.is_empty() || !is_idle {
            return;
        }
        let planned = self.planned.peek().map(|Reverse(at)| *at);
        let aging = self.young.front().map(|(began, _)| *began + YOUNG);
        let wake_at = [planned, aging].into_iter().flatten().fold(self.poll_at, Instant::min);
        tokio::select! {
            biased;
            () = self.shared.cutting.cancelled() => {}
            Some(joined) = self.in_air.join_next_with_id() => self.landed(joined),
            () = self.shared.draining.cancelled(), if !draining => {}
            () = self.shared.bell.0.notified() => self.candidates.look(),
            () = sleep_until(wake_at) => {}
        }
        let now = Instant::now();
        if now >= self.poll_at {
            self.poll_at = now + POLL;
            self.candidates.look();
        }
        while self.planned.peek().is_some_and(|Reverse(at)| *at <= now) {
            self.planned.pop();
            self.candidates.look();
        }
    }

    /// Takes what else has ended by now, so that it is noted in one go.
    fn land(&mut self) {
        while let Some(joined) = self.in_air.try_join_next_with_id() {
            self.landed(joined);
        }
    }

    fn landed(&mut self, joined: Result<(Id, Made), JoinError>) {
        let id = match &joined {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(flight) = self.flights.remove(&id) else { return };
        let ended = joined.as_ref().map_or(Ended::Otherwise, |(_, made)| made.ended);
        self.slots.end(flight.slot, ended);
        match joined {
            Ok((_, made)) => {
                match made.failed {
                    Some(true) => {
                        self.circuits.failed(flight.circuit, flight.receiver, Instant::now());
                    }
                    Some(false) => self.circuits.succeeded(flight.circuit),
                    None => self.circuits.abandoned(flight.circuit),
                }
                self.unsettled.push(made.outcome);
            }
            Err(error) => {
                self.circuits.abandoned(flight.circuit);
                // Its claim runs out, and somebody tries again.
                tracing::error!(delivery.id = %flight.id, %error, "an attempt panicked");
            }
        }
    }

    /// Takes slots back from attempts that take long. When too many do, the
    /// longest under way ends.
    fn grow_old(&mut self) {
        let now = Instant::now();
        while let Some((began, id)) = self.young.front().copied() {
            // Those that have ended are not worth waiting for.
            if self.flights.contains_key(&id) && began + YOUNG > now {
                break;
            }
            self.young.pop_front();
            let Some(flight) = self.flights.get_mut(&id) else { continue };
            self.old.push_back(id);
            if self.slots.grow_old(&mut flight.slot) {
                let slot = flight.slot;
                self.end_oldest(&slot);
            }
        }
        while self.old.front().is_some_and(|id| !self.flights.contains_key(id)) {
            self.old.pop_front();
        }
        if self.old.len() > 2 * self.flights.len() + 64 {
            self.old.retain(|id| self.flights.contains_key(id));
        }
    }

    /// Ends the attempt of the same kind that is longest under way, rather one
    /// at a receiver that was not known to be quick.
    fn end_oldest(&self, slot: &Slot) {
        let flights = || {
            let flights = self.old.iter().filter_map(|id| self.flights.get(id));
            flights.filter(|flight| !flight.hurry.is_cancelled() && flight.slot.is_like(slot))
        };
        let unproven = flights().find(|flight| !flight.slot.was_quick());
        if let Some(flight) = unproven.or_else(|| flights().next()) {
            flight.hurry.cancel();
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

    /// Finds receivers that something is due for, a page of them.
    async fn find(&mut self) {
        if !self.slots.has_room() {
            return;
        }
        let Some(from) = self.candidates.next_page(&self.slots) else { return };
        match self.shared.store.due_receivers(from, PAGE).await {
            Ok(page) => {
                if from == 0 {
                    let endpoints = self.shared.endpoints.iter();
                    self.candidates.add(endpoints.map(|(receiver, _)| *receiver));
                }
                if page.next.is_some() {
                    // Those that answer shall not wait until the others were looked through.
                    self.candidates.add(self.slots.quick(QUICK_BESIDE).into_iter());
                }
                self.candidates.add(page.receivers.into_iter());
                self.candidates.found(page.next);
            }
            Err(error) => return self.rest(&error, "could not look for deliveries").await,
        }
        if Instant::now() >= self.cancel_at {
            self.cancel_at = Instant::now() + CANCEL_EVERY;
            self.cancel().await;
        }
    }

    /// Claims what there are slots for, and tells whether there was nothing to
    /// claim and nothing more to find.
    async fn claim(&mut self) -> bool {
        let plan = self.slots.plan(self.candidates.iter());
        if plan.is_empty() {
            return !self.candidates.may_find(&self.slots);
        }
        let patience = self.claimed_for();
        let open_at = self.circuits.open_at();
        let claims: Vec<DeliveryClaim> = plan
            .iter()
            .map(|(receiver, count)| {
                let endpoint = self.shared.endpoints.get(receiver);
                let lease = endpoint.copied().unwrap_or(patience) + LEASE_MARGIN;
                DeliveryClaim {
                    receiver: *receiver,
                    limit: if open_at.contains(receiver) { count + PUT_OFF_BESIDE } else { *count },
                    lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
                }
            })
            .collect();
        let claimed = match self.shared.store.claim(&claims).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.rest(&error, "could not claim deliveries").await;
                return false;
            }
        };
        let mut left: HashMap<u64, usize> = plan.into_iter().collect();
        let mut taken: HashMap<u64, usize> = HashMap::new();
        for delivery in claimed {
            *taken.entry(delivery.receiver).or_default() += 1;
            let room = left.entry(delivery.receiver).or_default();
            if self.launch(delivery, patience, *room > 0) {
                *room -= 1;
            }
        }
        let has_more = |claim: &DeliveryClaim| {
            taken.get(&claim.receiver).is_some_and(|count| *count >= claim.limit)
        };
        let served: Vec<(u64, bool)> =
            claims.iter().map(|claim| (claim.receiver, has_more(claim))).collect();
        self.candidates.claimed(&served);
        false
    }

    /// Starts an attempt and tells so, or gives the delivery back or puts it
    /// off; `claimed_for` is how long an attempt for a task's webhook may take
    /// within the claim.
    fn launch(&mut self, delivery: ClaimedDelivery, claimed_for: Duration, has_room: bool) -> bool {
        let attempts = &self.shared.attempts;
        let patience = attempts.timeout(&delivery);
        let is_endpoint = self.shared.endpoints.contains_key(&delivery.receiver);
        if !is_endpoint && patience > self.shared.usual_timeout {
            let longest = self.long.map_or(patience, |(known, _)| known.max(patience));
            self.long = Some((longest, Instant::now()));
        }
        let circuit = attempts.circuit(&delivery);
        let now = Instant::now();
        // The claim may have been made as the signal to stop came, or may be
        // too short for this hook. The next one is not.
        let is_too_short = !is_endpoint && patience > claimed_for;
        if is_too_short || self.shared.draining.is_cancelled() {
            self.unsettled.push(given_back(&delivery));
            return false;
        }
        if !has_room {
            let outcome = match self.circuits.look(circuit, now) {
                Passage::PutOff { pause, counts } => attempts.put_off(&delivery, pause, counts),
                Passage::Open => given_back(&delivery),
            };
            self.unsettled.push(outcome);
            return false;
        }
        if let Passage::PutOff { pause, counts } = self.circuits.pass(circuit, now) {
            self.unsettled.push(attempts.put_off(&delivery, pause, counts));
            return false;
        }
        let hurry = CancellationToken::new();
        let flight = Flight {
            id: id_of(&delivery),
            attempt: delivery.attempt,
            receiver: delivery.receiver,
            circuit,
            slot: self.slots.begin(delivery.receiver, now),
            hurry: hurry.clone(),
        };
        let attempts = attempts.clone();
        let handle = self.in_air.spawn(async move { attempts.make(delivery, hurry).await });
        self.young.push_back((now, handle.id()));
        self.flights.insert(handle.id(), flight);
        true
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

    /// Cancels what is owed to endpoints that no instance has known for long.
    async fn cancel(&mut self) {
        let known: Vec<u64> = self.shared.endpoints.keys().copied().collect();
        match self.shared.store.cancel_unclaimed(&known, UNCLAIMED_MS, CANCEL_AT_ONCE).await {
            Ok(cancelled) => {
                if cancelled.len() >= CANCEL_AT_ONCE {
                    self.cancel_at = Instant::now();
                }
                for delivery in cancelled {
                    self.shared.attempts.cancelled(delivery);
                }
            }
            Err(error) => self.rest(&error, "could not look for deliveries to cancel").await,
        }
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

/// Returns the outcome of a delivery that was claimed and not attempted.
fn given_back(delivery: &ClaimedDelivery) -> DeliveryOutcome {
    DeliveryOutcome {
        id: id_of(delivery),
        attempt: delivery.attempt,
        last: None,
        state: DeliveryState::Pending,
        retry_in_ms: 0,
    }
}
