//! Watching how far back the oldest snapshot in the database reaches.
//!
//! While somebody holds a snapshot, no row version that is newer can be
//! vacuumed. Appends insert only, so they do not slow down; but receipts, roll-ups
//! of `latest` series and whatever cleanup removes pile up until it is released,
//! and so does all that the user's own tables supersede.

use std::time::Duration;

use super::session::Reads;
use crate::store::report::Reporter;
use crate::store::{Report, SnapshotAge};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(15);

/// Age from which the log warns; again when it has doubled.
const WARN_AFTER: Duration = Duration::from_mins(10);

/// Reports the age of the oldest snapshot, until it is stopped.
pub(super) async fn watch(reads: Reads, reporter: Reporter) {
    let mut warn_at = WARN_AFTER;
    loop {
        match look(&reads).await {
            Ok(oldest) => {
                reporter.report(&Report::OldestSnapshot(oldest));
                if oldest.age >= warn_at {
                    tracing::warn!(
                        age_seconds = oldest.age.as_secs(),
                        transactions = oldest.transactions,
                        "a session holds an old snapshot; what was removed since cannot be \
                         vacuumed. pg_stat_activity (backend_xmin, xact_start) names it"
                    );
                    warn_at = oldest.age * 2;
                } else if oldest.age < WARN_AFTER {
                    warn_at = WARN_AFTER;
                }
            }
            Err(error) => tracing::debug!(%error, "could not look for old snapshots"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn look(reads: &Reads) -> Result<SnapshotAge, sqlx::Error> {
    let row = sqlx::query_file!("sql/checks/oldest_snapshot.sql").fetch_one(reads).await?;
    Ok(SnapshotAge {
        age: Duration::from_millis(u64::try_from(row.age_ms).unwrap_or(0)),
        transactions: u64::try_from(row.transactions).unwrap_or(0),
    })
}
