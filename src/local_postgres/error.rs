//! What can go wrong with a private cluster, as sentences for a person.
//!
//! The sentences hold their reasons, so no error names another as its source:
//! a chain of them would say everything twice.

use std::io;
use std::path::PathBuf;

/// The reason a private cluster could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalPostgresError {
    /// No Postgres 14 or newer is installed.
    #[error("no Postgres 14 or newer is installed on this machine")]
    NoBinaries,
    /// The programs that made the cluster are gone.
    #[error(
        "the private database in {} was made by Postgres {major}, which is not installed any more; \
         install it again, or move that directory away to begin with an empty database",
        directory.display()
    )]
    WrongVersion {
        /// The directory of the cluster.
        directory: PathBuf,
        /// The major version that made it.
        major: u32,
    },
    /// The process runs as root and there is no account to switch to.
    #[error(
        "Postgres does not run as root, and this machine has no `postgres` or `nobody` account"
    )]
    NoAccount,
    /// A file or directory could not be used.
    #[error("cannot use {} for a private database: {reason}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The reason given by the system.
        reason: io::Error,
    },
    /// A Postgres program could not be run or signalled.
    #[error("cannot control the private database server: {reason}")]
    Process {
        /// The reason given by the system.
        reason: io::Error,
    },
    /// `initdb` refused.
    #[error("cannot create a private database in {}: {output}", directory.display())]
    Initialise {
        /// The directory of the cluster.
        directory: PathBuf,
        /// What `initdb` wrote.
        output: String,
    },
    /// The cluster exists, but the password that opens it does not.
    #[error(
        "the password of the private database in {} is missing or wrong; \
         move that directory away to begin with an empty database",
        directory.display()
    )]
    Password {
        /// The directory of the cluster.
        directory: PathBuf,
    },
    /// The server ended while it was starting.
    #[error("the private database in {} did not start: {log}", directory.display())]
    Exited {
        /// The directory of the cluster.
        directory: PathBuf,
        /// The end of the server's log.
        log: String,
    },
    /// The server was not ready in time, or another process kept the lock.
    #[error("the private database in {} was not ready in time", directory.display())]
    Timeout {
        /// The directory of the cluster.
        directory: PathBuf,
    },
    /// The server answers, but a database in it could not be made.
    #[error("cannot create database `{database}`: {reason}")]
    Database {
        /// The name of the database.
        database: String,
        /// The reason given by the server.
        reason: sqlx::Error,
    },
}

impl LocalPostgresError {
    pub(super) fn process(reason: io::Error) -> Self {
        Self::Process { reason }
    }

    /// Makes the mapping from a system error on a path.
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |reason| Self::File { path, reason }
    }
}
