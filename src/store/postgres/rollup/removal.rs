//! Removing superseded events, some time after their roll-up was committed.
//!
//! An append reads the head of a task without a lock, and may then wait for
//! another task. If rows it would have collided with were removed meanwhile,
//! it could take the place of one. So what exposes rows to removal (the floor
//! of a running task, the end or deletion of another) is committed first, and
//! the rows go at least [`REMOVAL_DELAY`] later, when every statement that has
//! not seen it is over. The time is taken by this process, from the moment it
//! saw the commit: it needs no clock to be right.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::session::Reads;
use crate::store::StoreError;

/// How long a statement of a lane may run. Postgres ends it then.
pub(in super::super) const LANE_STATEMENT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long rows stay after what exposes them was committed: the time that a
/// statement may run, and a margin for one that is slow to notice its end.
pub(in super::super) const REMOVAL_DELAY: Duration = Duration::from_secs(5);

/// How often new removals are looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the search still begins before a removal that is done: ids are not
/// committed in their order, and no transaction takes this long.
const SETTLED_AFTER: Duration = Duration::from_mins(1);

/// Removals that are looked at, and carried out, at once.
const MAX_PENDING: usize = 4096;
const MAX_AT_ONCE: usize = 64;

/// The removals that this process knows of.
#[derive(Default)]
struct Pending {
    /// By id, with the time each was first seen to be committed.
    seen: VecDeque<(i64, Instant)>,
    /// Those that are done, with the same time.
    done: VecDeque<(i64, Instant)>,
    /// No removal up to this id is left, or will be.
    behind: i64,
}

/// Carries removals out, until it is stopped.
pub(in super::super) async fn run(reads: Reads, delay: Duration) {
    let mut pending = Pending::default();
    #[cfg_attr(not(feature = "failpoints"), expect(unused_mut, reason = "failpoints change it"))]
    let mut delay = delay;
    // Breaks the rule that rows stay longer than a statement may run.
    failpoint!("remove-at-once", |_| delay = Duration::ZERO);
    let interval = INTERVAL.min(delay + Duration::from_millis(20));
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = pending.advance(&reads, delay).await {
            tracing::debug!(%error, "could not remove superseded events");
        }
    }
}

impl Pending {
    async fn advance(&mut self, reads: &Reads, delay: Duration) -> Result<(), StoreError> {
        let most = i64::try_from(MAX_PENDING).unwrap_or(i64::MAX);
        let ids = sqlx::query_file_scalar!("sql/rollup/pending.sql", self.behind, most)
            .fetch_all(reads)
            .await?;
        self.note(&ids, Instant::now());
        loop {
            let due = self.due(Instant::now(), delay);
            if due.is_empty() {
                return Ok(());
            }
            sqlx::query_file!("sql/rollup/remove.sql", &due).execute(reads).await?;
            self.finish(&due);
        }
    }

    /// Takes what is committed now; what is not there any more was carried out
    /// by another instance.
    fn note(&mut self, ids: &[i64], now: Instant) {
        let mut known = std::mem::take(&mut self.seen).into_iter().peekable();
        for id in ids {
            while let Some(gone) = known.next_if(|(seen, _)| seen < id) {
                self.done.push_back(gone);
            }
            let seen_at = known.next_if(|(seen, _)| seen == id).map_or(now, |(_, at)| at);
            self.seen.push_back((*id, seen_at));
        }
        self.done.extend(known);
        while let Some((id, _)) =
            self.done.pop_front_if(|(_, at)| now.saturating_duration_since(*at) >= SETTLED_AFTER)
        {
            self.behind = self.behind.max(id);
        }
    }

    /// Returns the removals that have waited long enough.
    fn due(&self, now: Instant, delay: Duration) -> Vec<i64> {
        let is_due = |seen_at: Instant| now.saturating_duration_since(seen_at) >= delay;
        self.seen
            .iter()
            .filter(|(_, at)| is_due(*at))
            .map(|(id, _)| *id)
            .take(MAX_AT_ONCE)
            .collect()
    }

    fn finish(&mut self, ids: &[i64]) {
        let (done, left) = self.seen.drain(..).partition(|(id, _)| ids.contains(id));
        let done: VecDeque<(i64, Instant)> = done;
        self.done.extend(done);
        self.seen = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_waits_until_every_statement_that_began_before_it_is_over() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        pending.note(&[3, 4], start);
        pending.note(&[3, 4, 9], start + Duration::from_secs(2));
        assert!(pending.due(start + REMOVAL_DELAY / 2, REMOVAL_DELAY).is_empty());
        assert_eq!(pending.due(start + REMOVAL_DELAY, REMOVAL_DELAY), [3, 4]);
        assert!(REMOVAL_DELAY > LANE_STATEMENT_TIMEOUT + Duration::from_secs(1));
    }

    #[test]
    fn the_search_goes_on_behind_what_is_long_done_and_finds_what_is_committed_late() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        pending.note(&[3, 7], start);
        pending.finish(&[3, 7]);
        pending.note(&[5], start + SETTLED_AFTER / 2);
        assert_eq!(
            (pending.behind, pending.due(start + SETTLED_AFTER, SETTLED_AFTER / 2)),
            (0, vec![5])
        );
        pending.note(&[], start + SETTLED_AFTER);
        assert_eq!(pending.behind, 7);
    }
}
