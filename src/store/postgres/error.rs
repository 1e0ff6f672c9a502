//! What an error of the driver means for the statement that met it.

use std::io;

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::postgres::PgDatabaseError;

use crate::store::StoreError;

/// A table whose key tells writers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// The log: another writer took the index.
    Log,
    /// Receipts: the batch was carried out before.
    Receipt,
    /// Idempotency keys: the request was carried out before.
    Idempotency,
    /// Another one.
    Other,
}

/// What is known about a statement that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It did not happen; the same statement may succeed now.
    Transient,
    /// It did not happen; somebody else holds a row it needs.
    LockTimeout,
    /// It did not happen; this table has a row with its key already.
    Conflict(Table),
    /// It did not happen; one of its rows cannot be stored.
    DataError,
    /// The connection is gone; it may have happened.
    ConnectionLost,
    /// It did not happen; the server takes no writes, because it is a standby
    /// or read-only. Another server may be the primary by now.
    ReadOnly,
    /// It did not happen; the session is in a state in which it cannot serve
    /// the statement. A new session can.
    BadSession,
    /// It did not happen and would not the next time.
    Rejected,
}

/// Raised by `taskcast.write_conflict()`: a head changed under a transition.
const WRITE_CONFLICT: &str = "TC001";

/// Says what `error` means.
pub(super) fn classify(error: &sqlx::Error) -> Failure {
    let sqlx::Error::Database(database) = error else {
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Failure::ConnectionLost,
            _ => Failure::Rejected,
        };
    };
    if database.kind() == ErrorKind::UniqueViolation {
        return Failure::Conflict(table_of(&**database));
    }
    let code = database.code().unwrap_or_default();
    match &*code {
        WRITE_CONFLICT => Failure::Conflict(Table::Log),
        "25006" => Failure::ReadOnly,
        // A prepared statement whose tables were altered since.
        "0A000" if is_outdated_plan(&**database) => Failure::BadSession,
        // A prepared statement that is there already, behind a pooler.
        "42P05" => Failure::BadSession,
        // Lock timeout; statement timeout, which waiting for locks comes to.
        "55P03" | "57014" => Failure::LockTimeout,
        // The database takes no connections at the moment; it ended a session
        // whose transaction was idle or took too long; it cannot say whether a
        // transaction committed.
        "55000" | "25P03" | "25P04" | "40003" => Failure::ConnectionLost,
        _ => match code.get(..2) {
            // A statement in a transaction that failed or is not there; a
            // prepared statement or a portal that the session does not know.
            // Such a session was used by somebody else.
            Some("25" | "26" | "34") => Failure::BadSession,
            // Transactions that were rolled back; a snapshot that is too old.
            Some("40" | "72") => Failure::Transient,
            // Data exceptions, integrity violations.
            Some("22" | "23") => Failure::DataError,
            // Connection exceptions, operator intervention (a terminated
            // backend may have committed), insufficient resources, failures of
            // the server's disk; and what a new connection may meet: wrong
            // credentials, no such database.
            Some("08" | "57" | "53" | "58" | "28" | "3D") => Failure::ConnectionLost,
            _ => Failure::Rejected,
        },
    }
}

/// Tells whether a prepared statement would now return other columns. By the
/// routine that says so, since the code has many meanings.
fn is_outdated_plan(error: &dyn DatabaseError) -> bool {
    let error = error.try_downcast_ref::<PgDatabaseError>();
    error.and_then(PgDatabaseError::routine) == Some("RevalidateCachedQuery")
}

/// Tells whether a session is of no use after an error. A server that is short
/// of something says so over a session that works.
pub(super) fn is_session_lost(error: &sqlx::Error) -> bool {
    let is_shortage = matches!(error, sqlx::Error::Database(database)
        if database.code().is_some_and(|code| code.starts_with("53") || code.starts_with("58")));
    let failure = classify(error);
    matches!(failure, Failure::ConnectionLost | Failure::ReadOnly | Failure::BadSession)
        && !is_shortage
}

/// Returns the error of an attempt to get a session. Whatever the server says
/// then, it says nothing of the statement that was to be sent.
pub(super) fn of_connecting(error: sqlx::Error) -> sqlx::Error {
    match classify(&error) {
        Failure::ConnectionLost => error,
        _ => sqlx::Error::Io(io::Error::other(error)),
    }
}

/// Returns the table whose key was violated. By table, since the text of the
/// message depends on the server's language.
fn table_of(error: &dyn DatabaseError) -> Table {
    match error.table() {
        Some("event") => Table::Log,
        Some("receipt") => Table::Receipt,
        Some("idempotency") => Table::Idempotency,
        _ => Table::Other,
    }
}

/// Tells whether `error` is a violated key of `table`.
pub(super) fn is_conflict(error: &sqlx::Error, table: Table) -> bool {
    classify(error) == Failure::Conflict(table)
}

/// Turns an error of a read, or of a write that did not happen, into the port's.
pub(super) fn to_store_error(error: &sqlx::Error) -> StoreError {
    match classify(error) {
        Failure::Transient
        | Failure::LockTimeout
        | Failure::ConnectionLost
        | Failure::ReadOnly
        | Failure::BadSession
        | Failure::Conflict(Table::Log | Table::Receipt | Table::Idempotency) => {
            StoreError::Unavailable(error.to_string())
        }
        Failure::Conflict(Table::Other) | Failure::DataError | Failure::Rejected => {
            StoreError::Unexpected(error.to_string())
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        to_store_error(&error)
    }
}
