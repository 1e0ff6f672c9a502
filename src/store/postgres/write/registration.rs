//! Registration of lanes: readers of the journal find a lane's receipts by it.
//! Lanes tell that they are alive, and those of dead processes are retired.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::connection::Statement;
use super::lane::Lane;
use super::post_commit::PostCommit;
use crate::store::postgres::session::{Reads, Session};
use crate::store::postgres::wake::PostgresBus;

/// How often lanes tell that they are alive, and dead ones are looked for.
const INTERVAL: Duration = Duration::from_secs(30);

/// A lane silent this long is retired, in milliseconds; far past any retry.
const LANE_LIFE_MS: i64 = 600_000;

/// How long receipts of a retired lane stay, in milliseconds: longer than a
/// statement may run that still found its lane, and many polls longer.
const RETIRED_LIFE_MS: i64 = 60_000;

/// Registers a lane.
pub(super) struct Register {
    pub(super) lane: i64,
}

impl Statement for Register {
    /// Which run of which server answered.
    type Output = i64;

    async fn run(&mut self, session: &mut Session, _: bool) -> Result<i64, sqlx::Error> {
        sqlx::query_file!("sql/write/register.sql", self.lane).execute(&mut *session).await?;
        let server = sqlx::query_file!("sql/write/server.sql").fetch_one(session).await?;
        Ok(server.started_at)
    }
}

/// Sends heartbeats and retires lanes whose process is gone, until it is stopped.
pub(in super::super) async fn keep_lanes(
    post_commit: Arc<PostCommit>,
    reads: Reads,
    bus: Arc<PostgresBus>,
) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let kept = async {
            if keep(&post_commit, &reads).await? > 0 {
                // This process was away for so long that others took it for dead.
                bus.rescan();
            }
            sqlx::query_file!("sql/write/reap.sql", LANE_LIFE_MS).execute(&reads).await?;
            sqlx::query_file!("sql/write/bury.sql", RETIRED_LIFE_MS).execute(&reads).await
        };
        if let Err(error) = kept.await {
            tracing::debug!(%error, "could not keep or retire lanes");
        }
    }
}

/// Sends one heartbeat; returns how many lanes turned out to be retired. They
/// register anew before their next batch.
async fn keep(post_commit: &PostCommit, reads: &Reads) -> Result<usize, sqlx::Error> {
    let lanes = post_commit.lanes();
    let noted = sqlx::query_file_scalar!("sql/write/heartbeat.sql", &lanes).fetch_all(reads);
    let noted: HashSet<i64> = noted.await?.into_iter().collect();
    let mut retired = 0;
    for lane in lanes.into_iter().filter(|lane| !noted.contains(lane)) {
        // One that was given up meanwhile is no news.
        retired += usize::from(post_commit.has_lane(lane));
        post_commit.remove_lane(lane);
    }
    Ok(retired)
}

/// A lane that ends, in a panic too, sends no heartbeat any more. Another id is
/// registered when it is started again.
impl Drop for Lane {
    fn drop(&mut self) {
        self.abandon_lane();
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgConnectOptions;

    use super::super::append::BatchId;
    use super::super::queue::LaneQueue;
    use super::*;
    use crate::store::postgres::session::Route;
    use crate::store::{Commit, CommitListener};

    struct Nobody;

    impl CommitListener for Nobody {
        fn committed(&self, _commits: &[Commit]) {}
    }

    #[test]
    fn a_lane_that_ends_sends_no_heartbeat() {
        let post_commit = PostCommit::new(Arc::new(Nobody), Arc::default());
        let (queue, options) = (LaneQueue::new(1), PgConnectOptions::new_without_pgpass());
        let (timeout, primary) = (Duration::ZERO, Arc::default());
        let mut lane =
            Lane::new(queue, options, post_commit.clone(), timeout, Route::Direct, primary);
        lane.id = Some(BatchId { lane: 7, batch: 1, server: 1 });
        post_commit.add_lane(7);
        drop(lane);
        assert!(post_commit.lanes().is_empty());
    }
}
