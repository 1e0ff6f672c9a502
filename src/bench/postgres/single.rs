//! Statements that are a transaction of their own.

use std::sync::Arc;

use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;

use super::drive::Client;
use super::{EVENTS, MeasureError};

/// What a client does in each transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statement {
    Insert,
    InsertNumbered,
    InsertNotify,
    Notify,
}

impl Statement {
    /// Those that keep an event.
    pub(super) const INSERTS: [Self; 3] = [Self::Insert, Self::InsertNumbered, Self::InsertNotify];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::InsertNumbered => "insert-numbered",
            Self::InsertNotify => "insert-notify",
            Self::Notify => "notify",
        }
    }

    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Insert => "one event per transaction",
            Self::InsertNumbered => "one event, numbered by its task",
            Self::InsertNotify => "one event, NOTIFY inside",
            Self::Notify => "NOTIFY alone, not flushed",
        }
    }

    /// Returns what a rate of it counts.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Insert | Self::InsertNumbered | Self::InsertNotify => EVENTS,
            Self::Notify => "transactions/s",
        }
    }

    /// Returns how a client of this kind connects.
    pub(super) fn connect(self, options: &PgConnectOptions) -> PgConnectOptions {
        match self {
            Self::Insert | Self::InsertNumbered | Self::InsertNotify => options.clone(),
            // A wake that is lost in a crash is made up for by reading, so
            // nobody needs to wait for it to reach the disk.
            Self::Notify => options.clone().options([("synchronous_commit", "off")]),
        }
    }
}

/// A client with a task of its own.
pub(super) struct Single {
    connection: PgConnection,
    statement: Statement,
    task: i64,
    next_index: i64,
    data: Arc<str>,
}

impl Single {
    pub(super) fn new(
        connection: PgConnection,
        statement: Statement,
        task: i64,
        data: Arc<str>,
    ) -> Self {
        Self { connection, statement, task, next_index: 0, data }
    }
}

impl Client for Single {
    async fn step(&mut self) -> Result<u32, MeasureError> {
        let (task, index, data) = (self.task, self.next_index, &*self.data);
        self.next_index += 1;
        let connection = &mut self.connection;
        match self.statement {
            Statement::Insert => {
                sqlx::query_file!("sql/bench/insert.sql", task, index, data)
                    .execute(connection)
                    .await?
            }
            Statement::InsertNumbered => {
                sqlx::query_file!("sql/bench/insert_numbered.sql", task, data)
                    .execute(connection)
                    .await?
            }
            Statement::InsertNotify => {
                sqlx::query_file!("sql/bench/insert_notify.sql", task, index, data)
                    .execute(connection)
                    .await?
            }
            Statement::Notify => {
                sqlx::query_file!("sql/bench/notify.sql", task, index).execute(connection).await?
            }
        };
        Ok(1)
    }
}
