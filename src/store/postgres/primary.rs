//! Failover: whether the server that sessions reach takes writes.
//!
//! A session that outlives a switchover is worse than one that breaks: on what
//! is now a standby, reads are outdated, wakes never come, and every write is
//! refused. So each new session is asked what its server is before it is used.
//! One that meets a standby, or that is refused a write because its server is
//! read-only, tells this monitor. The monitor then connects again and again
//! until it reaches a server that takes writes, and renews every session that
//! is older than that. Meanwhile the service is not ready.
//!
//! A primary that is read-only, as managed services make it when a disk is
//! full, still serves reads.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Error, Executor, Postgres, Row as _};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::session::{Reads, Route, Session};
use super::settings::Settings;
use crate::store::StoreError;

/// How often the server is asked while nothing is wrong: nobody else would
/// notice on an instance that writes nothing.
const INTERVAL: Duration = Duration::from_secs(1);

/// Pause between two attempts to reach a server that takes writes.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Says what the server of a session is.
const QUESTION: &str = include_str!("../../../sql/checks/role.sql");

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes writes.
    Primary,
    /// It would, but transactions are read-only.
    ReadOnly,
    /// It follows another server.
    Standby,
}

impl Role {
    pub(super) fn of(is_standby: bool, is_read_only: bool) -> Self {
        match (is_standby, is_read_only) {
            (true, _) => Self::Standby,
            (false, true) => Self::ReadOnly,
            (false, false) => Self::Primary,
        }
    }

    /// Returns the error for a session that needs another role.
    fn refusal(self) -> Error {
        let text = match self {
            Self::Primary => "the server takes writes",
            Self::ReadOnly => "the database is read-only",
            Self::Standby => "the server is a standby",
        };
        io::Error::other(text).into()
    }
}

/// What a session needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A server that takes writes.
    Writes,
    /// A server that has everything that was committed.
    Reads,
}

/// Completes the settings of a new session, and asks what its server is.
async fn ask<'c, C>(connection: C, route: Route, settings: Settings) -> Result<Role, Error>
where
    C: Executor<'c, Database = Postgres>,
{
    // In one round trip.
    let question = match route {
        Route::Direct => format!("{}; {QUESTION}", settings.complete()),
        Route::Pooled => format!("{}; {QUESTION}; COMMIT", settings.begin()),
    };
    let rows = connection.fetch_all(AssertSqlSafe(question)).await?;
    let row = rows.iter().rev().find(|row| row.len() == 2).ok_or(Error::RowNotFound)?;
    Ok(Role::of(row.try_get(0)?, row.try_get(1)?))
}

/// What is wrong with the server that sessions reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// A lane got no session.
    Unreachable,
    /// It takes no writes.
    NoWrites(Role),
}

/// The monitor that all sessions of a process share.
#[derive(Debug)]
pub(super) struct Primary {
    trouble: Mutex<Option<Trouble>>,
    noted: Notify,
    /// Sessions that are older are not used any more.
    renewed_at: watch::Sender<Instant>,
}

impl Default for Primary {
    fn default() -> Self {
        Self {
            trouble: Mutex::default(),
            noted: Notify::new(),
            renewed_at: watch::Sender::new(Instant::now()),
        }
    }
}

impl Primary {
    /// Returns an error while no write can succeed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let why = match *self.trouble.lock() {
            None => return Ok(()),
            Some(Trouble::Unreachable) => "no connection for writing".to_owned(),
            Some(Trouble::NoWrites(role)) => role.refusal().to_string(),
        };
        Err(StoreError::Unavailable(why))
    }

    /// Tells whether a session that was made at a time may still be used.
    pub(super) fn is_current(&self, made_at: Instant) -> bool {
        made_at >= *self.renewed_at.borrow()
    }

    /// Waits until sessions that exist now may not be used any more.
    pub(super) async fn renewed(&self) {
        // Fails when the sender is gone, which this process outlives by nothing.
        let _ = self.renewed_at.subscribe().changed().await;
    }

    /// Prepares a new session and refuses it if its server is not what it needs.
    pub(super) async fn admit<'c, C>(
        &self,
        connection: C,
        route: Route,
        settings: Settings,
        need: Need,
    ) -> Result<(), Error>
    where
        C: Executor<'c, Database = Postgres>,
    {
        let role = ask(connection, route, settings).await?;
        if role == Role::Primary {
            return Ok(());
        }
        self.note(Trouble::NoWrites(role));
        match (role, need) {
            (Role::ReadOnly, Need::Reads) => Ok(()),
            _ => Err(role.refusal()),
        }
    }

    /// Notes that a write was refused by the server.
    pub(super) fn note_refusal(&self) {
        self.note(Trouble::NoWrites(Role::ReadOnly));
    }

    /// Notes that a lane gets no session.
    pub(super) fn note_unreachable(&self) {
        self.note(Trouble::Unreachable);
    }

    /// Notes what a server said of itself.
    pub(super) fn note_role(&self, role: Role) {
        if role != Role::Primary {
            self.note(Trouble::NoWrites(role));
        }
    }

    fn note(&self, trouble: Trouble) {
        let mut current = self.trouble.lock();
        // Sessions have to be renewed after a server that takes no writes,
        // whatever else was wrong before.
        let is_news = match *current {
            None => true,
            Some(Trouble::Unreachable) => trouble != Trouble::Unreachable,
            Some(Trouble::NoWrites(_)) => false,
        };
        if !is_news {
            return;
        }
        *current = Some(trouble);
        drop(current);
        if let Trouble::NoWrites(role) = trouble {
            tracing::warn!(why = %role.refusal(), "the database takes no writes");
        }
        self.noted.notify_one();
    }

    /// Notes that a server takes writes.
    fn clear(&self) {
        let trouble = self.trouble.lock().take();
        if let Some(Trouble::NoWrites(_)) = trouble {
            self.renewed_at.send_replace(Instant::now());
            tracing::info!("the database takes writes again; sessions are renewed");
        }
    }

    /// Watches the server, until it is stopped.
    pub(super) async fn watch(self: Arc<Self>, reads: Reads, options: PgConnectOptions) {
        loop {
            tokio::select! {
                () = self.noted.notified() => {}
                () = sleep(INTERVAL) => {
                    // What cannot be asked is down, as everybody else finds out.
                    if let Ok(role) = reads.role().await {
                        self.note_role(role);
                    }
                }
            }
            while self.check().is_err() {
                if self.reach(reads.route(), &options).await.is_ok() {
                    self.clear();
                } else {
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn reach(
        self: &Arc<Self>,
        route: Route,
        options: &PgConnectOptions,
    ) -> Result<(), Error> {
        let attempt = Session::connect(options, route, Settings::Read, TIMEOUT, self, Need::Writes);
        attempt.await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_renewed_once_a_server_takes_writes_that_did_not() {
        let (primary, before) = (Primary::default(), Instant::now());
        primary.note_unreachable();
        assert!(primary.check().is_err());
        primary.clear();
        assert!(primary.check().is_ok() && primary.is_current(before));
        primary.note_unreachable();
        primary.note_refusal();
        primary.note_unreachable();
        assert!(primary.is_current(before));
        primary.clear();
        assert!(primary.check().is_ok() && !primary.is_current(before));
        assert!(primary.is_current(Instant::now()));
    }
}
