//! Running statements, also where a transaction pooler stands in between.
//!
//! Behind such a pooler a connection is a different server session in every
//! transaction. A named statement may then be missing, or be somebody else's,
//! and even an unnamed one may be gone between its preparation and its
//! execution, which the driver sends apart. So on a pooled route every
//! statement is unnamed and runs in a transaction, which pins the session.
//! On a direct route nothing is added.
//!
//! A peer that vanished says nothing, not even that it is gone: a failover, a
//! lost host, a firewall that forgot. Waiting for it would last until the kernel
//! gives up, a quarter of an hour. So every reply is waited for only so long;
//! then the connection counts as lost like one that broke, and is closed.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo,
};
use sqlx::{
    AssertSqlSafe, Connection as _, Describe, Either, Error, Execute, Executor, PgConnection,
    PgPool, Postgres, SqlSafeStr, SqlStr,
};

use tokio::time::timeout;

use super::error::{Failure, classify, to_store_error};
use super::options::Settings;
use crate::store::report::Reporter;
use crate::store::{Report, StorePart};

/// How long a read may take: far longer than any that is bounded needs.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a statement of a transaction may take; Postgres ends it before.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(35);

/// How a connection reaches Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Its session is ours for as long as it lives.
    Direct,
    /// Its session is ours for one transaction.
    Pooled,
}

/// What a statement gives, row by row.
type Step = Either<PgQueryResult, PgRow>;

/// A query whose statement gets no name.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, sqlx::error::BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}

async fn run_unnamed<'q, E>(connection: &mut PgConnection, query: E) -> Result<Vec<Step>, Error>
where
    E: 'q + Execute<'q, Postgres>,
{
    connection.fetch_many(Unnamed(query)).try_collect().await
}

/// Runs a query in a transaction of its own.
async fn run_pinned<'q, E>(
    connection: &mut PgConnection,
    settings: Settings,
    query: E,
) -> Result<Vec<Step>, Error>
where
    E: 'q + Execute<'q, Postgres>,
{
    in_time(connection.execute(AssertSqlSafe(settings.begin()))).await?;
    match run_unnamed(connection, query).await {
        Ok(steps) => {
            connection.execute("COMMIT").await?;
            Ok(steps)
        }
        Err(error) => {
            // A session that cannot even roll back is lost, which is worse news.
            connection.execute("ROLLBACK").await?;
            Err(error)
        }
    }
}

/// Bounds the wait for a session: a pooler takes connections also when it has
/// no session to give, and lets whoever begins wait for minutes.
async fn in_time<T>(begin: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(super::ACQUIRE_TIMEOUT, begin).await.unwrap_or(Err(Error::PoolTimedOut))
}

/// Hands out collected steps one by one.
fn in_steps<'e>(
    steps: impl Future<Output = Result<Vec<Step>, Error>> + Send + 'e,
) -> BoxStream<'e, Result<Step, Error>> {
    let each = |steps: Vec<Step>| stream::iter(steps.into_iter().map(Ok));
    stream::once(steps).map_ok(each).try_flatten().boxed()
}

/// Waits for an answer only so long.
async fn within<T>(
    timeout_after: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(timeout_after, answer).await.unwrap_or_else(|_| Err(silence()))
}

/// What a connection that says nothing any more is reported as.
fn silence() -> Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into()
}

fn is_silence(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

fn first_row(steps: Vec<Step>) -> Option<PgRow> {
    steps.into_iter().find_map(Either::right)
}

/// Connections for everything but the lanes.
#[derive(Debug, Clone)]
pub(super) struct Reads {
    pool: PgPool,
    route: Route,
    reporter: Reporter,
}

impl Reads {
    pub(super) fn new(pool: PgPool, route: Route, reporter: Reporter) -> Self {
        Self { pool, route, reporter }
    }

    /// Tells when a connection is wanted and none is free.
    fn note_wait(&self) {
        if self.pool.num_idle() == 0
            && self.pool.size() >= self.pool.options().get_max_connections()
        {
            self.reporter.report(&Report::PoolWait);
        }
    }

    /// Tells of failures that are not what a statement was about.
    fn note_failure(&self, error: &Error) {
        if matches!(
            classify(error),
            Failure::ConnectionLost | Failure::LockTimeout | Failure::Rejected
        ) {
            self.reporter.failed(StorePart::Reader, &to_store_error(error));
        }
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Session, Error> {
        self.note_wait();
        let acquired = self.pool.acquire().await.inspect_err(|error| self.note_failure(error));
        let connection = Connection::Lent(acquired?);
        let mut session = Session::new(connection, self.route, Settings::Read, TRANSACTION_TIMEOUT);
        session.begin().await?;
        Ok(session)
    }

    /// Runs a query on a connection of the pool.
    async fn run<'q, E>(&self, query: E) -> Result<Vec<Step>, Error>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let mut lent = Lent { connection: self.pool.acquire().await?, is_free: false };
        let connection = &mut *lent.connection;
        let steps = match self.route {
            Route::Direct => within(READ_TIMEOUT, connection.fetch_many(query).try_collect()).await,
            Route::Pooled => {
                within(READ_TIMEOUT, run_pinned(connection, Settings::Read, query)).await
            }
        };
        lent.is_free = !steps.as_ref().is_err_and(is_silence);
        steps
    }
}

/// A connection of the pool while a query is under way on it.
///
/// The pool would wait for the rest of an answer before it lends the
/// connection again, for ever if there is none; so what was given up on, or
/// is of no use to anybody any more, is closed.
struct Lent {
    connection: PoolConnection<Postgres>,
    is_free: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.is_free {
            self.connection.close_on_drop();
        }
    }
}

impl<'c> Executor<'c> for &'c Reads {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.note_wait();
        let steps = in_steps(self.run(query));
        steps.inspect_err(|error| self.note_failure(error)).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.note_wait();
        let row = self.run(query).map_ok(first_row);
        row.inspect_err(|error| self.note_failure(error)).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        (&self.pool).prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        (&self.pool).describe(sql)
    }
}

/// A connection of our own, or one lent by a pool.
enum Connection {
    Own(PgConnection),
    Lent(PoolConnection<Postgres>),
}

impl Connection {
    fn get(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(connection) => connection,
            Self::Lent(connection) => connection,
        }
    }
}

/// One connection, statement by statement or in a transaction.
pub(super) struct Session {
    connection: Connection,
    route: Route,
    /// What its statements rely on.
    settings: Settings,
    /// How long each reply may take.
    timeout_after: Duration,
    in_transaction: bool,
    /// Whether a reply did not come in time.
    is_silent: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a connection of its own, on which each reply may take so long.
    pub(super) async fn connect(
        options: &PgConnectOptions,
        route: Route,
        settings: Settings,
        timeout_after: Duration,
    ) -> Result<Self, Error> {
        let connection = within(timeout_after, PgConnection::connect_with(options)).await?;
        Ok(Self::new(Connection::Own(connection), route, settings, timeout_after))
    }

    fn new(
        connection: Connection,
        route: Route,
        settings: Settings,
        timeout_after: Duration,
    ) -> Self {
        let (in_transaction, is_silent) = (false, false);
        Self { connection, route, settings, timeout_after, in_transaction, is_silent }
    }

    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        // Noted first: who asks may go away before the answer comes.
        self.in_transaction = true;
        // Postgres does not notice either that its peer vanished or was halted,
        // and would keep the rows for it that the transaction locked.
        let mut begin = match self.route {
            Route::Direct => "BEGIN".to_owned(),
            Route::Pooled => self.settings.begin(),
        };
        begin.push_str("; SET LOCAL idle_in_transaction_session_timeout = '3s'");
        self.execute(AssertSqlSafe(begin)).await
    }

    /// Commits; after an error the outcome is open.
    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        let outcome = self.execute("COMMIT").await;
        if matches!(outcome, Ok(()) | Err(Error::Database(_))) {
            self.in_transaction = false;
        }
        outcome
    }

    pub(super) async fn rollback(&mut self) -> Result<(), Error> {
        self.execute("ROLLBACK").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Runs a statement without parameters or rows.
    async fn execute(&mut self, statement: impl SqlSafeStr + Send) -> Result<(), Error> {
        let statement = statement.into_sql_str();
        if self.is_silent {
            return Err(silence());
        }
        let done = within(self.timeout_after, self.connection.get().execute(statement)).await;
        self.is_silent = done.as_ref().is_err_and(is_silence);
        done.map(drop)
    }

    async fn run<'q, E>(&mut self, query: E) -> Result<Vec<Step>, Error>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        if self.is_silent {
            return Err(silence());
        }
        let connection = self.connection.get();
        let steps = match (self.route, self.in_transaction) {
            (Route::Direct, _) => {
                within(self.timeout_after, connection.fetch_many(query).try_collect()).await
            }
            (Route::Pooled, true) => {
                within(self.timeout_after, run_unnamed(connection, query)).await
            }
            (Route::Pooled, false) => {
                within(self.timeout_after, run_pinned(connection, self.settings, query)).await
            }
        };
        self.is_silent = steps.as_ref().is_err_and(is_silence);
        steps
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let is_spoilt = self.in_transaction || self.is_silent;
        if let (true, Connection::Lent(connection)) = (is_spoilt, &mut self.connection) {
            // Its transaction was left open, or nobody answers: nobody shall inherit it.
            connection.close_on_drop();
        }
    }
}

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        in_steps(self.run(query))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move { self.run(query).await.map(first_row) })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.connection.get().prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        self.connection.get().describe(sql)
    }
}
