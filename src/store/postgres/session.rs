//! Running statements, also where a transaction pooler stands in between.
//!
//! Behind such a pooler a connection is a different server session in every
//! transaction. A named statement may then be missing, or be somebody else's,
//! and even an unnamed one may be gone between its preparation and its
//! execution, which the driver sends apart. So on a pooled route every
//! statement is unnamed and runs in a transaction, which pins the session.
//! On a direct route nothing is added.

use std::fmt;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo,
};
use sqlx::{
    Connection as _, Describe, Either, Error, Execute, Executor, PgConnection, PgPool, Postgres,
    SqlStr,
};

use super::error::{Failure, classify, to_store_error};
use crate::store::report::Reporter;
use crate::store::{Report, StorePart};

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
async fn run_pinned<'q, E>(connection: &mut PgConnection, query: E) -> Result<Vec<Step>, Error>
where
    E: 'q + Execute<'q, Postgres>,
{
    let mut transaction = connection.begin().await?;
    let steps = run_unnamed(&mut transaction, query).await?;
    transaction.commit().await?;
    Ok(steps)
}

/// Hands out collected steps one by one.
fn in_steps<'e>(
    steps: impl Future<Output = Result<Vec<Step>, Error>> + Send + 'e,
) -> BoxStream<'e, Result<Step, Error>> {
    let each = |steps: Vec<Step>| stream::iter(steps.into_iter().map(Ok));
    stream::once(steps).map_ok(each).try_flatten().boxed()
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
        if matches!(classify(error), Failure::Lost | Failure::Refused) {
            self.reporter.failed(StorePart::Reader, &to_store_error(error));
        }
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Session, Error> {
        self.note_wait();
        let acquired = self.pool.acquire().await.inspect_err(|error| self.note_failure(error));
        let connection = Connection::Lent(acquired?);
        let mut session = Session { connection, route: self.route, in_transaction: false };
        session.begin().await?;
        Ok(session)
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
        let steps = match self.route {
            Route::Direct => (&self.pool).fetch_many(query),
            Route::Pooled => in_steps(async move {
                let mut connection = self.pool.acquire().await?;
                run_pinned(&mut connection, query).await
            }),
        };
        steps.inspect_err(|error| self.note_failure(error)).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.note_wait();
        let row: BoxFuture<'e, _> = match self.route {
            Route::Direct => (&self.pool).fetch_optional(query),
            Route::Pooled => Box::pin(async move {
                let mut connection = self.pool.acquire().await?;
                run_pinned(&mut connection, query).await.map(first_row)
            }),
        };
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
    in_transaction: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a connection of its own.
    pub(super) async fn connect(options: &PgConnectOptions, route: Route) -> Result<Self, Error> {
        let connection = Connection::Own(PgConnection::connect_with(options).await?);
        Ok(Self { connection, route, in_transaction: false })
    }

    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        self.connection.get().execute("BEGIN").await?;
        self.in_transaction = true;
        Ok(())
    }

    /// Commits; after an error the outcome is open.
    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        self.connection.get().execute("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    pub(super) async fn rollback(&mut self) -> Result<(), Error> {
        self.connection.get().execute("ROLLBACK").await?;
        self.in_transaction = false;
        Ok(())
    }

    async fn run<'q, E>(&mut self, query: E) -> Result<Vec<Step>, Error>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        match (self.route, self.in_transaction) {
            (Route::Direct, _) => self.connection.get().fetch_many(query).try_collect().await,
            (Route::Pooled, true) => run_unnamed(self.connection.get(), query).await,
            (Route::Pooled, false) => run_pinned(self.connection.get(), query).await,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let (true, Connection::Lent(connection)) = (self.in_transaction, &mut self.connection) {
            // Its transaction was left open: nobody else shall inherit it.
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
        match self.route {
            Route::Direct => self.connection.get().fetch_many(query),
            Route::Pooled => in_steps(self.run(query)),
        }
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
