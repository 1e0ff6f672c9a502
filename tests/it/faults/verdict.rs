//! What came of a run.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checker::{Counts, Findings};
use super::history::{History, Outcome, Publication, Truth};
use super::instance::Instance;
use crate::support::postgres::Database;
use crate::support::private_postgres::PrivatePostgres;

/// The judgement of a run, with what it rests on.
pub struct Verdict {
    /// The seed that repeats the run.
    pub seed: u64,
    /// What the checker found.
    pub findings: Findings,
    /// What everyone saw.
    pub history: History,
    /// What the log holds.
    pub truth: Truth,
    /// Tasks that were written to until the end of the load.
    pub lasting: Vec<usize>,
    /// How long subscribers took to arrive at the end of the log after the
    /// last publication.
    pub settled: Duration,
    /// Servers that ended by themselves.
    pub crashed: usize,
    /// The servers, which still run.
    pub instances: Vec<Arc<Instance>>,
    /// The database.
    pub database: Database,
    pub(super) _postgres: Option<PrivatePostgres>,
}

impl Verdict {
    /// Returns the counts of what must not happen.
    pub fn counts(&self) -> &Counts {
        &self.findings.counts
    }

    /// Checks the criterion every scenario shares: of what must not happen,
    /// nothing did, and no server ended by itself.
    pub fn assert_base(&self) {
        assert_eq!(*self.counts(), Counts::default(), "{self}");
        assert_eq!(self.crashed, 0, "servers ended by themselves; {self}");
        assert!(self.acknowledged() > 0, "nothing happened; {self}");
    }

    /// Returns how many events were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.publications(|one| one.outcome == Outcome::Acknowledged)
            .map(|one| one.labels.len())
            .sum()
    }

    /// Returns how many publications ended with nobody knowing.
    pub fn unknown(&self) -> usize {
        self.publications(|one| one.outcome == Outcome::Unknown).count()
    }

    /// Returns how many publications a server refused, those to closed tasks apart.
    pub fn refused(&self) -> usize {
        self.publications(|one| matches!(one.outcome, Outcome::Refused(500.., _))).count()
    }

    /// Returns how many publications a server failed at with an error of its own.
    pub fn failed(&self) -> usize {
        self.publications(|one| matches!(one.outcome, Outcome::Refused(500, _))).count()
    }

    fn publications(
        &self,
        wanted: impl Fn(&Publication) -> bool,
    ) -> impl Iterator<Item = &Publication> {
        self.history.publications.iter().filter(move |one| wanted(one))
    }

    /// Returns the longest a publication waited for the answer of its last attempt.
    pub fn slowest_answer(&self) -> Duration {
        let waits = self.publications(|_| true).map(|one| one.answered - one.asked_last);
        waits.max().unwrap_or_default()
    }

    /// Returns how long after `from` every task that was written to until the
    /// end was written to again; the longest of them.
    pub fn resumed_after(&self, from: Instant) -> Duration {
        let first = |task: &usize| {
            let is_later = |one: &Publication| {
                one.task == *task && one.outcome == Outcome::Acknowledged && one.answered >= from
            };
            let first = self.publications(is_later).map(|one| one.answered).min();
            first.map_or(Duration::MAX, |at| at - from)
        };
        self.lasting.iter().map(first).max().unwrap_or(Duration::MAX)
    }

    /// Checks that every task was written to again within this time.
    pub fn assert_resumed_within(&self, from: Instant, limit: Duration) {
        let took = self.resumed_after(from);
        assert!(took <= limit, "appends flowed again only after {took:?}; {self}");
    }

    /// Returns how long events that were acknowledged from `from` to `to` took to
    /// reach subscribers that had come by then; `percent` of them took no longer.
    /// Waiting in vain and reconnecting is part of it.
    pub fn lag(&self, percent: usize, from: Instant, to: Instant) -> Duration {
        let mut lags = self.lags(from, to);
        lags.sort_unstable();
        let position = lags.len() * percent / 100;
        lags.get(position.min(lags.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    fn lags(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let mut answered = std::collections::HashMap::new();
        for one in self.publications(|one| one.outcome == Outcome::Acknowledged) {
            for place in &one.places {
                answered.insert((one.task, place.index), one.answered);
            }
        }
        let mut lags = Vec::new();
        for reader in &self.history.readers {
            let Some(came) = reader.connections.first().map(|first| first.opened) else { continue };
            for connection in &reader.connections {
                for seen in &connection.seen {
                    let Some(at) = answered.get(&(reader.task, seen.place.index)) else {
                        continue;
                    };
                    if (from..to).contains(at) {
                        let since = (*at).max(came);
                        lags.push(seen.at.saturating_duration_since(since));
                    }
                }
            }
        }
        lags
    }

    /// Counts log lines with this message, of all servers.
    pub fn logged(&self, message: &str) -> usize {
        self.instances.iter().map(|instance| instance.logged(message)).sum()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored: usize = self.truth.iter().map(Vec::len).sum();
        write!(
            f,
            "seed {}: acknowledged {}, stored {stored}, refused {}, unknown {}, settled in {:?}; {}",
            self.seed,
            self.acknowledged(),
            self.refused(),
            self.unknown(),
            self.settled,
            self.findings.counts
        )?;
        for offence in &self.findings.offences {
            write!(f, "\n  {offence}")?;
        }
        Ok(())
    }
}
