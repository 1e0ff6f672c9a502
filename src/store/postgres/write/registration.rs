//! Registration of lanes: readers of the journal find a lane's receipts by it.
//! Lanes tell that they are alive, and those of dead processes are retired.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Statement;
use super::post_commit::PostCommit;
use crate::store::postgres::session::{Reads, Session};

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
pub(in super::super) async fn keep_lanes(post_commit: Arc<PostCommit>, reads: Reads) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let lanes = post_commit.lanes();
        let noted =
            sqlx::query_file_scalar!("sql/write/heartbeat.sql", &lanes).fetch_all(&reads).await;
        if noted.is_err() {
            continue;
        }
        let reaped = async {
            sqlx::query_file!("sql/write/reap.sql", LANE_LIFE_MS).execute(&reads).await?;
            sqlx::query_file!("sql/write/bury.sql", RETIRED_LIFE_MS).execute(&reads).await
        };
        if let Err(error) = reaped.await {
            tracing::debug!(%error, "could not retire lanes");
        }
    }
}
