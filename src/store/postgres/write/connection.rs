//! The connection of a lane: runs a statement until its outcome is known.
//!
//! This is the one place that retries. A statement is sent again after a
//! transient error and, over a new connection, after a lost one; then an
//! earlier copy may have taken effect, or may still do, and the statement is
//! told so. What a lane relies on to make that harmless is the receipt (see
//! [`super::append`]).

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use tokio::time::{sleep, timeout_at};

use super::super::error::{Failure, classify, to_store_error};
use super::super::primary::{Need, Primary};
use super::super::session::{Route, Session};
use super::super::settings::Settings;
use crate::store::StoreError;

/// First pause before a broken connection is tried again; doubles up to 16 times.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Minimum time that an attempt to connect gets.
const MIN_CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How many sessions that cannot serve a statement are replaced for it.
const MAX_BAD_SESSIONS: u32 = 3;

/// A statement that may be sent several times.
pub(super) trait Statement: Send {
    /// What it returns.
    type Output: Send;

    /// Sends it once. `is_repeat` says that an earlier copy may have taken
    /// effect, or may still do.
    fn run(
        &mut self,
        session: &mut Session,
        is_repeat: bool,
    ) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send;
}

/// Why a statement was given up.
#[derive(Debug)]
pub(super) enum WriteError {
    /// Another session holds a row or a key that it needs. Did not happen.
    LockTimeout(StoreError),
    /// A row with the same key is in a table already. Did not happen.
    Conflict(StoreError),
    /// One of its rows cannot be stored. Did not happen.
    Data(StoreError),
    /// Did not happen, and would not the next time.
    Failed(StoreError),
    /// Did or did not happen, or will.
    Unknown(StoreError),
}

impl WriteError {
    /// Returns the error for the caller of a write.
    pub(super) fn into_store_error(self) -> StoreError {
        match self {
            Self::LockTimeout(error)
            | Self::Conflict(error)
            | Self::Data(error)
            | Self::Failed(error)
            | Self::Unknown(error) => error,
        }
    }

    /// Returns the error of a statement that changes nothing.
    pub(super) fn of_read(self) -> StoreError {
        match self.into_store_error() {
            StoreError::OutcomeUnknown(why) => StoreError::Unavailable(why),
            error => error,
        }
    }
}

/// A connection that is made again when it breaks.
pub(super) struct Connection {
    options: PgConnectOptions,
    route: Route,
    /// How long the callers of a write wait; a reply that takes half of that
    /// counts as lost.
    write_timeout: Duration,
    primary: Arc<Primary>,
    session: Option<Session>,
}

impl Connection {
    pub(super) fn new(
        options: PgConnectOptions,
        route: Route,
        write_timeout: Duration,
        primary: Arc<Primary>,
    ) -> Self {
        Self { options, route, write_timeout, primary, session: None }
    }

    /// Runs a statement until its outcome is known, up to `until`.
    pub(super) async fn run<S: Statement>(
        &mut self,
        until: Instant,
        statement: &mut S,
    ) -> Result<S::Output, WriteError> {
        let (mut is_repeat, mut bad_sessions) = (false, 0);
        if self.session.as_ref().is_some_and(|session| !session.is_current()) {
            self.disconnect();
        }
        loop {
            if is_repeat && Instant::now() >= until {
                let why = "the database did not answer in time".into();
                return Err(WriteError::Unknown(StoreError::OutcomeUnknown(why)));
            }
            let session = match self.connect(until).await {
                Ok(session) => session,
                Err(error) if is_repeat => {
                    let error = StoreError::OutcomeUnknown(error.to_string());
                    return Err(WriteError::Unknown(error));
                }
                Err(error) => return Err(WriteError::Failed(error)),
            };
            let error = match statement.run(session, is_repeat).await {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            match classify(&error) {
                Failure::Transient if Instant::now() < until => {}
                Failure::Transient if is_repeat => {
                    let error = StoreError::OutcomeUnknown(error.to_string());
                    return Err(WriteError::Unknown(error));
                }
                Failure::ConnectionLost => {
                    is_repeat = true;
                    self.disconnect();
                }
                // It did not happen there; earlier copies are as unknown as before.
                Failure::ReadOnly if Instant::now() < until => self.disconnect(),
                Failure::BadSession if bad_sessions < MAX_BAD_SESSIONS => {
                    bad_sessions += 1;
                    self.disconnect();
                }
                Failure::ReadOnly | Failure::BadSession => {
                    self.disconnect();
                    let why = error.to_string();
                    return Err(if is_repeat {
                        WriteError::Unknown(StoreError::OutcomeUnknown(why))
                    } else {
                        WriteError::Failed(StoreError::Unavailable(why))
                    });
                }
                // Perhaps an earlier copy that still runs holds it.
                Failure::LockTimeout if is_repeat => {}
                Failure::LockTimeout => {
                    return Err(WriteError::LockTimeout(to_store_error(&error)));
                }
                Failure::Conflict(_) => {
                    return Err(WriteError::Conflict(to_store_error(&error)));
                }
                Failure::DataError => return Err(WriteError::Data(to_store_error(&error))),
                Failure::Transient | Failure::Rejected => {
                    return Err(WriteError::Failed(to_store_error(&error)));
                }
            }
        }
    }

    /// Returns the session, making one if there is none.
    async fn connect(&mut self, until: Instant) -> Result<&mut Session, StoreError> {
        if let Err(error) = self.make_session(until).await {
            self.primary.note_unreachable();
            return Err(error);
        }
        self.session.as_mut().ok_or_else(|| StoreError::Unavailable("no connection".into()))
    }

    async fn make_session(&mut self, until: Instant) -> Result<(), StoreError> {
        let mut pause = RECONNECT_PAUSE;
        while self.session.is_none() {
            if Instant::now() >= until + MIN_CONNECT_TIMEOUT {
                // One that is made but never gets an answer is not made again.
                return Err(StoreError::Unavailable("connections break".into()));
            }
            let attempt = Session::connect(
                &self.options,
                self.route,
                Settings::Lane,
                self.write_timeout / 2,
                &self.primary,
                Need::Writes,
            );
            // Late or not, a database that is there has the time to say so.
            let deadline = until.max(Instant::now() + MIN_CONNECT_TIMEOUT);
            match timeout_at(deadline.into(), attempt).await {
                Ok(Ok(session)) => self.session = Some(session),
                Ok(Err(error)) if Instant::now() + pause >= until => {
                    return Err(StoreError::Unavailable(error.to_string()));
                }
                Err(_) => return Err(StoreError::Unavailable("no connection in time".into())),
                Ok(Err(_)) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(RECONNECT_PAUSE * 16);
                }
            }
        }
        Ok(())
    }

    fn disconnect(&mut self) {
        self.session = None;
    }
}
