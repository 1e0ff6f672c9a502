//! Bulkheads: who may have attempts in the air, and how many.
//!
//! A receiver that hangs must cost others nothing, however many there are and
//! however long an attempt may take. Three rules see to that:
//!
//! * Only young attempts use up slots. One that takes longer than [`YOUNG`] is
//!   an open connection and little else; it gives its slot back and counts
//!   among the old ones, which have a higher bound.
//! * Receivers that answered quickly last time go first. The others, and among
//!   them those that timed out, share a part of the slots.
//! * A receiver that timed out gets one attempt at a time until it answers.
//!
//! Webhooks of tasks and endpoints of the configuration have slots apart.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::ENDPOINT_RECEIVERS;

/// How long an attempt uses up a slot.
pub(super) const YOUNG: Duration = Duration::from_millis(500);

/// Most attempts in the air at one receiver.
const PER_RECEIVER: usize = 8;

/// Most attempts that one claim takes for a receiver.
const PER_CLAIM: usize = 4;

/// Most young attempts at a receiver that is not known to be quick.
const UNPROVEN_YOUNG: usize = 2;

/// Old attempts for each slot.
const OLD_PER_SLOT: usize = 8;

/// Most receivers to remember; the older half is forgotten.
const MOST_RECEIVERS: usize = 16_384;

/// What is known of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Health {
    /// It answers while an attempt is young.
    Quick,
    /// It answers later, or nothing is known.
    #[default]
    Unproven,
    /// Its last attempt timed out.
    Silent,
}

/// How an attempt ended, as far as slots go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The receiver answered, whatever it said.
    Answered,
    /// It did not answer in time.
    TimedOut,
    /// There was no connection, or the attempt was not made to its end.
    Otherwise,
}

/// An attempt that has a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    receiver: u64,
    /// What was known of the receiver when the attempt began.
    health: Health,
    is_young: bool,
}

impl Slot {
    /// Tells whether another slot is of the same kind: of tasks, or endpoints.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.receiver < ENDPOINT_RECEIVERS) == (other.receiver < ENDPOINT_RECEIVERS)
    }

    /// Tells whether the receiver was known to be quick.
    pub(super) fn was_quick(&self) -> bool {
        self.health == Health::Quick
    }
}

#[derive(Debug, Clone, Copy)]
struct Receiver {
    health: Health,
    in_air: usize,
    young: usize,
    used_at: Instant,
}

/// Slots of one kind of receivers.
#[derive(Debug, Clone, Copy)]
struct Pool {
    size: usize,
    /// Young attempts, those at unproven receivers, and those at silent ones;
    /// the later are among the earlier.
    young: usize,
    unproven: usize,
    silent: usize,
    old: usize,
}

impl Pool {
    fn new(size: usize) -> Self {
        Self { size, young: 0, unproven: 0, silent: 0, old: 0 }
    }

    /// Returns how many more young attempts there may be at such receivers.
    fn room(&self, health: Health) -> usize {
        let all = self.size.saturating_sub(self.young);
        let unproven = (self.size * 3 / 4).max(1).saturating_sub(self.unproven);
        let silent = (self.size / 4).max(1).saturating_sub(self.silent);
        match health {
            Health::Quick => all,
            Health::Unproven => all.min(unproven),
            Health::Silent => all.min(unproven).min(silent),
        }
    }

    fn add(&mut self, health: Health, count: usize) {
        self.young += count;
        self.unproven += if health == Health::Quick { 0 } else { count };
        self.silent += if health == Health::Silent { count } else { 0 };
    }

    fn take(&mut self, health: Health) {
        self.young = self.young.saturating_sub(1);
        self.unproven = self.unproven.saturating_sub(usize::from(health != Health::Quick));
        self.silent = self.silent.saturating_sub(usize::from(health == Health::Silent));
    }

    /// Tells whether unproven receivers have less than what is set apart.
    fn owes_unproven(&self) -> bool {
        self.unproven < self.size / 4
    }
}

/// The slots of this instance.
#[derive(Debug)]
pub(super) struct Slots {
    tasks: Pool,
    endpoints: Pool,
    receivers: HashMap<u64, Receiver>,
}

impl Slots {
    /// Makes `size` slots for each of the two kinds of receivers.
    pub(super) fn new(size: usize) -> Self {
        let size = size.max(1);
        Self { tasks: Pool::new(size), endpoints: Pool::new(size), receivers: HashMap::new() }
    }

    fn pool(&mut self, receiver: u64) -> &mut Pool {
        if receiver < ENDPOINT_RECEIVERS { &mut self.tasks } else { &mut self.endpoints }
    }

    pub(super) fn health(&self, receiver: u64) -> Health {
        self.receivers.get(&receiver).map_or(Health::Unproven, |known| known.health)
    }

    /// Returns up to `most` receivers that are quick, those used last first.
    pub(super) fn quick(&self, most: usize) -> Vec<u64> {
        let quick = self.receivers.iter().filter(|(_, known)| known.health == Health::Quick);
        let mut quick: Vec<(Instant, u64)> =
            quick.map(|(receiver, known)| (known.used_at, *receiver)).collect();
        quick.sort_unstable_by(|a, b| b.cmp(a));
        quick.into_iter().take(most).map(|(_, receiver)| receiver).collect()
    }

    /// Tells whether any attempt may begin.
    pub(super) fn has_room(&self) -> bool {
        self.tasks.young < self.tasks.size || self.endpoints.young < self.endpoints.size
    }

    /// Returns how many attempts at a receiver may begin by its own bounds.
    fn allowance(&self, receiver: u64) -> (Health, usize) {
        let Some(known) = self.receivers.get(&receiver) else {
            return (Health::Unproven, UNPROVEN_YOUNG);
        };
        let allowance = match known.health {
            Health::Silent => 1_usize.saturating_sub(known.in_air),
            Health::Unproven => PER_RECEIVER
                .saturating_sub(known.in_air)
                .min(UNPROVEN_YOUNG.saturating_sub(known.young)),
            Health::Quick => PER_RECEIVER.saturating_sub(known.in_air).min(PER_CLAIM),
        };
        (known.health, allowance)
    }

    /// Decides for which of `candidates` how many attempts may begin now.
    ///
    /// Earlier candidates come before later ones of the same health. Quick
    /// receivers go first, once unproven ones have a quarter of the slots.
    pub(super) fn plan(&self, candidates: impl Iterator<Item = u64>) -> Vec<(u64, usize)> {
        let mut by_health = [Vec::new(), Vec::new(), Vec::new()];
        for receiver in candidates {
            let (health, allowance) = self.allowance(receiver);
            if allowance > 0 {
                by_health[health as usize].push((receiver, allowance));
            }
        }
        let [quick, unproven, silent] = by_health;
        let mut planned = Vec::new();
        let (mut tasks, mut endpoints) = (self.tasks, self.endpoints);
        let mut grant = |list: &[(u64, usize)], health: Health, only_owed: bool| {
            let mut left = Vec::new();
            for (receiver, allowance) in list {
                let is_task = *receiver < ENDPOINT_RECEIVERS;
                let pool = if is_task { &mut tasks } else { &mut endpoints };
                let count = (*allowance).min(pool.room(health));
                if count == 0 || (only_owed && !pool.owes_unproven()) {
                    left.push((*receiver, *allowance));
                    continue;
                }
                pool.add(health, count);
                planned.push((*receiver, count));
            }
            left
        };
        let unproven = grant(&unproven, Health::Unproven, true);
        grant(&quick, Health::Quick, false);
        grant(&unproven, Health::Unproven, false);
        grant(&silent, Health::Silent, false);
        planned
    }

    /// Takes a slot for an attempt.
    pub(super) fn begin(&mut self, receiver: u64, now: Instant) -> Slot {
        if self.receivers.len() >= MOST_RECEIVERS && !self.receivers.contains_key(&receiver) {
            self.forget();
        }
        let known = self.receivers.entry(receiver).or_insert(Receiver {
            health: Health::Unproven,
            in_air: 0,
            young: 0,
            used_at: now,
        });
        known.in_air += 1;
        known.young += 1;
        known.used_at = now;
        let health = known.health;
        self.pool(receiver).add(health, 1);
        Slot { receiver, health, is_young: true }
    }

    /// Gives back the slot of an attempt that is no longer young, and tells
    /// whether there are now more old ones than there may be.
    pub(super) fn grow_old(&mut self, slot: &mut Slot) -> bool {
        if !slot.is_young {
            return false;
        }
        slot.is_young = false;
        if let Some(known) = self.receivers.get_mut(&slot.receiver) {
            known.young = known.young.saturating_sub(1);
        }
        let pool = self.pool(slot.receiver);
        pool.take(slot.health);
        pool.old += 1;
        pool.old > pool.size * OLD_PER_SLOT
    }

    /// Notes that an attempt has ended.
    pub(super) fn end(&mut self, slot: Slot, ended: Ended) {
        let pool = self.pool(slot.receiver);
        if slot.is_young {
            pool.take(slot.health);
        } else {
            pool.old = pool.old.saturating_sub(1);
        }
        let Some(known) = self.receivers.get_mut(&slot.receiver) else { return };
        known.in_air = known.in_air.saturating_sub(1);
        known.young = known.young.saturating_sub(usize::from(slot.is_young));
        known.health = match ended {
            Ended::Answered if slot.is_young => Health::Quick,
            Ended::TimedOut => Health::Silent,
            Ended::Otherwise if known.health == Health::Silent => Health::Silent,
            Ended::Answered | Ended::Otherwise => Health::Unproven,
        };
    }

    /// Forgets the older half of the receivers that nothing is under way for.
    fn forget(&mut self) {
        let idle = self.receivers.values().filter(|known| known.in_air == 0);
        let mut times: Vec<Instant> = idle.map(|known| known.used_at).collect();
        times.sort_unstable();
        let Some(middle) = times.get(times.len() / 2).copied() else { return };
        self.receivers.retain(|_, known| known.in_air > 0 || known.used_at > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(slots: &Slots, candidates: &[u64]) -> Vec<(u64, usize)> {
        slots.plan(candidates.iter().copied())
    }

    fn begun(slots: &mut Slots, receiver: u64, count: usize) -> Vec<Slot> {
        (0..count).map(|_| slots.begin(receiver, Instant::now())).collect()
    }

    #[test]
    fn a_receiver_gets_more_attempts_once_it_is_known_to_be_quick() {
        let mut slots = Slots::new(64);
        assert_eq!(plan(&slots, &[1]), [(1, 2)]);
        for slot in begun(&mut slots, 1, 2) {
            assert!(plan(&slots, &[1]).is_empty() || slots.health(1) == Health::Quick);
            slots.end(slot, Ended::Answered);
        }
        assert_eq!(plan(&slots, &[1]), [(1, 4)]);
        begun(&mut slots, 1, 6);
        assert_eq!(plan(&slots, &[1]), [(1, 2)], "eight in the air at most");
    }

    #[test]
    fn a_receiver_that_timed_out_gets_one_attempt_until_it_answers() {
        let mut slots = Slots::new(64);
        let [first, second] = begun(&mut slots, 1, 2)[..] else { unreachable!() };
        slots.end(first, Ended::TimedOut);
        assert_eq!(plan(&slots, &[1]), [], "the second is still in the air");
        slots.end(second, Ended::Otherwise);
        assert_eq!(plan(&slots, &[1]), [(1, 1)]);
        let slot = slots.begin(1, Instant::now());
        assert_eq!(plan(&slots, &[1]), []);
        slots.end(slot, Ended::Answered);
        assert_eq!(plan(&slots, &[1]), [(1, 4)]);
    }

    #[test]
    fn old_attempts_give_their_slots_back_up_to_a_bound() {
        let mut slots = Slots::new(4);
        let mut over = 0;
        for receiver in 0..40 {
            let mut slot = slots.begin(receiver, Instant::now());
            assert!(slots.has_room());
            over += usize::from(slots.grow_old(&mut slot));
            assert!(!slots.grow_old(&mut slot), "it grows old once");
        }
        assert_eq!(over, 8);
    }

    #[test]
    fn receivers_that_do_not_answer_leave_slots_to_those_that_do() {
        let mut slots = Slots::new(8);
        let slot = slots.begin(100, Instant::now());
        slots.end(slot, Ended::Answered);
        let silent: Vec<u64> = (200..220).collect();
        for receiver in &silent {
            let slot = slots.begin(*receiver, Instant::now());
            slots.end(slot, Ended::TimedOut);
        }
        assert_eq!(plan(&slots, &silent), [(200, 1), (201, 1)]);
        let unknown: Vec<u64> = (0..20).collect();
        assert_eq!(plan(&slots, &unknown), [(0, 2), (1, 2), (2, 2)]);
        for receiver in 0..3 {
            begun(&mut slots, receiver, 2);
        }
        assert_eq!(plan(&slots, &[3, 200, 100]), [(100, 2)]);
        let endpoint = ENDPOINT_RECEIVERS | 1;
        begun(&mut slots, 100, 2);
        assert_eq!(plan(&slots, &[100, endpoint]), [(endpoint, 2)]);
    }

    #[test]
    fn receivers_that_answer_leave_slots_to_those_not_known_yet() {
        let mut slots = Slots::new(8);
        for receiver in 100..110 {
            let slot = slots.begin(receiver, Instant::now());
            slots.end(slot, Ended::Answered);
        }
        let candidates: Vec<u64> = (100..110).chain([1]).collect();
        assert!(plan(&slots, &candidates).contains(&(1, 2)));
    }

    #[test]
    fn what_is_remembered_of_receivers_is_bounded() {
        let mut slots = Slots::new(8);
        for receiver in 0..2 * MOST_RECEIVERS as u64 {
            let slot = slots.begin(receiver, Instant::now());
            slots.end(slot, Ended::TimedOut);
            assert!(slots.receivers.len() <= MOST_RECEIVERS);
        }
    }
}
