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
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo,
};
use sqlx::{
    AssertSqlSafe, Connection as _, Describe, Either, Error, Execute, Executor, PgConnection,
    PgPool, Postgres, SqlSafeStr, SqlStr,
};

use tokio::time::timeout;

use super::error::{Failure, classify, is_session_lost, of_connecting, to_store_error};
use super::primary::{Need, Primary, Role};
use super::query::{Repeatable, Unnamed};
use super::settings::Settings;
use crate::store::report::Reporter;
use crate::store::{Report, StorePart};

/// How long a read may take: far longer than any that is bounded needs.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a statement of a transaction may take; Postgres ends it before.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(35);

/// How often a statement is sent whose sessions turn out to be lost.
const MAX_ATTEMPTS: usize = 3;

/// How soon a session that died while it was idle says so. What is lost later
/// was at work, and may be why.
const LOST_WITHIN: Duration = Duration::from_secs(1);

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
///
/// An idle session may have died since it was used last: a restart, a
/// failover, an administrator. A statement finds out when it is sent. Nothing
/// has been handed on then, so it is sent again over a new session, and every
/// other session that is as old is closed. An earlier copy may have taken
/// effect: **whatever writes through here must be harmless when it runs
/// twice.**
#[derive(Debug, Clone)]
pub(super) struct Reads {
    pool: PgPool,
    route: Route,
    reporter: Reporter,
    primary: Arc<Primary>,
    /// Sessions that are older are not lent any more.
    trusted_from: Arc<Mutex<Instant>>,
}

impl Reads {
    /// Opens a pool. Its sessions are asked what their server is, and closed
    /// when they are outdated.
    pub(super) async fn connect(
        pool: PgPoolOptions,
        options: PgConnectOptions,
        route: Route,
        reporter: Reporter,
        primary: Arc<Primary>,
    ) -> Result<Self, Error> {
        let (admitting, checking) = (primary.clone(), primary.clone());
        let trusted_from = Arc::new(Mutex::new(Instant::now()));
        let trusted = trusted_from.clone();
        let pool = pool
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let primary = admitting.clone();
                let admit = async move {
                    primary.admit(connection, route, Settings::Read, Need::Reads).await
                };
                within(READ_TIMEOUT, admit).boxed()
            })
            .before_acquire(move |_, session| {
                let made_at = Instant::now().checked_sub(session.age);
                let is_usable = made_at.is_none_or(|made_at| {
                    checking.is_current(made_at) && made_at >= *trusted.lock()
                });
                std::future::ready(Ok(is_usable)).boxed()
            })
            .connect_with(options)
            .await?;
        Ok(Self { pool, route, reporter, primary, trusted_from })
    }

    /// Returns the pool, to look how full it is and to close it.
    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Returns how the sessions reach Postgres.
    pub(super) fn route(&self) -> Route {
        self.route
    }

    /// Asks what the server is.
    pub(super) async fn role(&self) -> Result<Role, Error> {
        let answer = sqlx::query_file!("sql/checks/role.sql").fetch_one(self).await?;
        Ok(Role::of(answer.is_standby, answer.is_read_only))
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
            Failure::ConnectionLost
                | Failure::ReadOnly
                | Failure::BadSession
                | Failure::LockTimeout
                | Failure::Rejected
        ) {
            self.reporter.failed(StorePart::Reader, &to_store_error(error));
        }
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Session, Error> {
        self.note_wait();
        let begun = self.begin_on_a_live_session().await;
        begun.inspect_err(|error| self.note_failure(error))
    }

    async fn begin_on_a_live_session(&self) -> Result<Session, Error> {
        let mut attempt = 1;
        loop {
            let connection = Connection::Lent(self.pool.acquire().await.map_err(of_connecting)?);
            let sent_at = Instant::now();
            let primary = self.primary.clone();
            let mut session =
                Session::new(connection, self.route, Settings::Read, TRANSACTION_TIMEOUT, primary);
            match session.begin().await {
                Ok(()) => return Ok(session),
                Err(error) => self.try_another(&error, attempt, sent_at).ok_or(error)?,
            }
            attempt += 1;
        }
    }

    /// Runs a query on a connection of the pool.
    async fn run<'q, E>(&self, query: E) -> Result<Vec<Step>, Error>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let query = Repeatable::of(query)?;
        let mut attempt = 1;
        loop {
            let acquired = self.pool.acquire().await.map_err(of_connecting)?;
            let sent_at = Instant::now();
            let mut lent = Lent { connection: acquired, is_free: false };
            match self.run_once(&mut lent.connection, query.clone()).await {
                Ok(steps) => {
                    lent.is_free = true;
                    return Ok(steps);
                }
                Err(error) => {
                    let retry = self.try_another(&error, attempt, sent_at);
                    lent.is_free = retry.is_none() && !is_session_lost(&error);
                    drop(lent);
                    retry.ok_or(error)?;
                }
            }
            attempt += 1;
        }
    }

    async fn run_once(
        &self,
        connection: &mut PgConnection,
        query: Repeatable,
    ) -> Result<Vec<Step>, Error> {
        match self.route {
            Route::Direct => within(READ_TIMEOUT, connection.fetch_many(query).try_collect()).await,
            Route::Pooled => {
                within(READ_TIMEOUT, run_pinned(connection, Settings::Read, query)).await
            }
        }
    }

    /// Says whether to try another session after an error of a statement that
    /// was sent at a time.
    fn try_another(&self, error: &Error, attempt: usize, sent_at: Instant) -> Option<()> {
        if classify(error) == Failure::ReadOnly {
            let is_news = self.primary.check().is_ok();
            self.primary.note_refusal();
            if !is_news {
                return None;
            }
        }
        let was_idle = sent_at.elapsed() < LOST_WITHIN;
        if attempt >= MAX_ATTEMPTS || !was_idle || !is_session_lost(error) {
            return None;
        }
        // Where one is dead others are, too.
        let mut trusted_from = self.trusted_from.lock();
        *trusted_from = sent_at.max(*trusted_from);
        Some(())
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
    /// Whether it is of no use any more.
    is_lost: bool,
    made_at: Instant,
    primary: Arc<Primary>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a connection of its own, on which each reply may take so long, to
    /// a server that does what is needed.
    pub(super) async fn connect(
        options: &PgConnectOptions,
        route: Route,
        settings: Settings,
        timeout_after: Duration,
        primary: &Arc<Primary>,
        need: Need,
    ) -> Result<Self, Error> {
        let connect = within(timeout_after, PgConnection::connect_with(options));
        let mut connection = connect.await.map_err(of_connecting)?;
        let admit = primary.admit(&mut connection, route, settings, need);
        within(timeout_after, admit).await.map_err(of_connecting)?;
        let connection = Connection::Own(connection);
        Ok(Self::new(connection, route, settings, timeout_after, primary.clone()))
    }

    /// Opens a connection that is not asked what its server is.
    pub(super) async fn connect_anywhere(
        options: &PgConnectOptions,
        route: Route,
    ) -> Result<Self, Error> {
        let connection = PgConnection::connect_with(options).await?;
        let (settings, primary) = (Settings::Read, Arc::default());
        Ok(Self::new(Connection::Own(connection), route, settings, READ_TIMEOUT, primary))
    }

    fn new(
        connection: Connection,
        route: Route,
        settings: Settings,
        timeout_after: Duration,
        primary: Arc<Primary>,
    ) -> Self {
        Self {
            connection,
            route,
            settings,
            timeout_after,
            in_transaction: false,
            is_silent: false,
            is_lost: false,
            made_at: Instant::now(),
            primary,
        }
    }

    /// Tells whether its server is the one to use, as far as is known.
    pub(super) fn is_current(&self) -> bool {
        self.primary.is_current(self.made_at)
    }

    /// Notes what an error says of the session.
    fn note(&mut self, error: &Error) {
        self.is_silent |= is_silence(error);
        self.is_lost |= is_session_lost(error);
        if classify(error) == Failure::ReadOnly {
            self.primary.note_refusal();
        }
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
        done.map(drop).inspect_err(|error| self.note(error))
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
        steps.inspect_err(|error| self.note(error))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let is_spoilt = self.in_transaction || self.is_silent || self.is_lost;
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
