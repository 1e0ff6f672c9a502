//! What an error of the driver means for the statement that met it.

use crate::store::StoreError;

/// What is known about a statement that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It did not happen; the same statement may succeed now.
    Transient,
    /// It did not happen; somebody else holds a row it needs.
    Held,
    /// It did not happen; one of its rows cannot be stored.
    OfARow,
    /// The connection is gone; it may have happened.
    Lost,
    /// It did not happen and would not the next time.
    Refused,
}

/// Says what `error` means.
pub(super) fn classify(error: &sqlx::Error) -> Failure {
    let sqlx::Error::Database(database) = error else {
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Failure::Lost,
            _ => Failure::Refused,
        };
    };
    let code = database.code().unwrap_or_default();
    match &*code {
        // Serialization failure, deadlock.
        "40001" | "40P01" => Failure::Transient,
        // Lock timeout.
        "55P03" => Failure::Held,
        // The database takes no connections at the moment; it ended a session
        // whose transaction was idle.
        "55000" | "25P03" => Failure::Lost,
        _ => match code.get(..2) {
            // Data exceptions, integrity violations.
            Some("22" | "23") => Failure::OfARow,
            // Connection exceptions, operator intervention (a terminated
            // backend may have committed), insufficient resources; and what a
            // new connection may meet: wrong credentials, no such database.
            Some("08" | "57" | "53" | "28" | "3D") => Failure::Lost,
            _ => Failure::Refused,
        },
    }
}

/// Turns an error of a read, or of a write that did not happen, into the port's.
pub(super) fn to_store_error(error: &sqlx::Error) -> StoreError {
    match classify(error) {
        Failure::Transient | Failure::Held | Failure::Lost => {
            StoreError::Unavailable(error.to_string())
        }
        Failure::OfARow | Failure::Refused => StoreError::Unexpected(error.to_string()),
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        to_store_error(&error)
    }
}
