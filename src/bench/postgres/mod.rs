//! What the database can do by itself.
//!
//! A figure of a server says little without knowing the machine. So this
//! measures, on the same machine and in the same minute, what Postgres does
//! with the statements an event log could be built on: one event per
//! transaction, with and without a notification inside; the statement the
//! service appends batches with; notifications alone; a single commit. The
//! ratio of a server's figure to these means the same everywhere.
//!
//! All of it happens in a database of its own, made beside the one that was
//! named and dropped in the end. The user's own schema is never touched.

mod batch;
mod drive;
mod findings;
mod scratch;
mod single;

use std::sync::Arc;
use std::time::Duration;

use sqlx::{ConnectOptions as _, PgConnection};

use self::batch::Appender;
use self::drive::{Measured, drive};
pub use self::findings::{Figure, Findings, Ours, Server};
use self::scratch::Scratch;
use self::single::{Single, Statement};
use crate::store::postgres::ConnectError;
use crate::store::postgres::migrate::MigrateError;

/// Connections that append batches: with two, one executes while the other flushes.
const LANES: u32 = 2;

/// Unit of what keeps events.
const EVENTS: &str = "events/s";

/// What to measure, and where.
#[derive(Clone)]
pub struct Options {
    /// A database of the server to measure, with a user who may create
    /// databases; no pooler may stand in between.
    pub url: String,
    /// How long each figure is measured; a fifth more goes before, uncounted.
    pub time: Duration,
    /// Numbers of clients for one event per transaction.
    pub clients: Vec<u32>,
    /// Numbers of events per appending statement.
    pub batches: Vec<u32>,
    /// Tasks that batches are spread over.
    pub tasks: u32,
    /// Length of an event's payload in bytes.
    pub payload_bytes: usize,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // URLs hold passwords.
        f.debug_struct("Options").field("time", &self.time).finish_non_exhaustive()
    }
}

/// The database was not measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The URL is none.
    #[error(transparent)]
    Url(#[from] ConnectError),
    /// It cannot be reached.
    #[error("cannot connect to the database: {0}")]
    Connect(sqlx::Error),
    /// The database to measure in could not be made.
    #[error("cannot create a database to measure in, which takes the right CREATEDB: {0}")]
    Create(sqlx::Error),
    /// The database to measure in could not be migrated.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// A statement failed.
    #[error("a statement failed: {0}")]
    Failed(#[from] sqlx::Error),
    /// An append did not move what it should have.
    #[error("an append of {expected} tasks moved {moved}")]
    Lost {
        /// Tasks the statement was for.
        expected: usize,
        /// Tasks it moved.
        moved: usize,
    },
    /// Nothing was done while it was measured.
    #[error("no statement ended within {0:?}; measure for longer")]
    TooSlow(Duration),
    /// A client ended without a result.
    #[error("a client died")]
    Died,
    /// It was told to stop.
    #[error("interrupted")]
    Interrupted,
    /// The database to measure in is still there.
    #[error("cannot drop database {name}: {error}")]
    Drop {
        /// Its name.
        name: String,
        /// Why it cannot be dropped.
        error: sqlx::Error,
    },
}

/// Measures everything, and calls `found` with each figure as it is there.
///
/// Ends early when `stop` does; the database it made is dropped in any case.
///
/// # Errors
///
/// Fails when the server cannot be reached, lets the user create no database,
/// or refuses a statement, and when it was stopped.
pub async fn run(
    options: &Options,
    stop: impl Future<Output = ()> + Send,
    found: impl FnMut(&Figure) + Send,
) -> Result<Findings, MeasureError> {
    let scratch = Scratch::create(&options.url).await?;
    let outcome = tokio::select! {
        outcome = measure(options, &scratch, found) => outcome,
        () = stop => Err(MeasureError::Interrupted),
    };
    let dropped = scratch.drop().await;
    let findings = outcome?;
    dropped?;
    Ok(findings)
}

async fn measure(
    options: &Options,
    scratch: &Scratch,
    found: impl FnMut(&Figure) + Send,
) -> Result<Findings, MeasureError> {
    scratch.migrate().await?;
    let mut connection = scratch.connect().await?;
    let server = sqlx::query_file!("sql/bench/server.sql").fetch_one(&mut connection).await?;
    let server = Server {
        version: server.version,
        fsync: server.fsync,
        synchronous_commit: server.synchronous_commit,
    };
    let mut bench = Bench {
        options,
        scratch,
        connection,
        data: payload(options.payload_bytes),
        next_task: 1,
        figures: Vec::new(),
        found,
    };
    bench.singles().await?;
    bench.batches().await?;
    bench.commit().await?;
    Ok(Findings { server, seconds: options.time.as_secs_f64(), figures: bench.figures })
}

/// Makes a payload of a length, never shorter than an object with a text in it.
fn payload(bytes: usize) -> Arc<str> {
    let frame = r#"{"text":""}"#.len();
    format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes.saturating_sub(frame))).into()
}

/// A run, and what it has found so far.
struct Bench<'a, F> {
    options: &'a Options,
    scratch: &'a Scratch,
    connection: PgConnection,
    data: Arc<str>,
    next_task: i64,
    figures: Vec<Figure>,
    found: F,
}

impl<F: FnMut(&Figure) + Send> Bench<'_, F> {
    async fn singles(&mut self) -> Result<(), MeasureError> {
        for &clients in &self.options.clients {
            for statement in Statement::INSERTS {
                self.single(statement, statement.name(), clients).await?;
            }
        }
        let most = self.options.clients.first().copied().unwrap_or(1);
        self.single(Statement::Notify, Statement::Notify.name(), most).await
    }

    /// One client and one event per transaction: what a commit takes.
    async fn commit(&mut self) -> Result<(), MeasureError> {
        self.single(Statement::Insert, "commit", 1).await
    }

    async fn single(
        &mut self,
        statement: Statement,
        name: &str,
        clients: u32,
    ) -> Result<(), MeasureError> {
        let first = self.make_tasks(clients).await?;
        let mut connected = Vec::new();
        for task in first..self.next_task {
            let connection = statement.connect(self.scratch.options()).connect().await?;
            connected.push(Single::new(connection, statement, task, self.data.clone()));
        }
        let measured = drive(connected, self.options.time).await?;
        let name = if name == "commit" { name.to_owned() } else { format!("{name}-{clients}") };
        let clients_text = if clients == 1 { "client" } else { "clients" };
        let what = format!("{}, {clients} {clients_text}", statement.what());
        self.note(name, what, statement.unit(), clients, &measured);
        Ok(())
    }

    async fn batches(&mut self) -> Result<(), MeasureError> {
        let tasks = self.options.tasks.max(LANES);
        for &events in &self.options.batches {
            let first = self.make_tasks(tasks).await?;
            let each = i64::from(tasks / LANES);
            let mut connected = Vec::new();
            for lane in 0..i64::from(LANES) {
                let own = first + lane * each..first + (lane + 1) * each;
                let connection = self.scratch.connect_lane().await?;
                let data = self.data.clone();
                connected.push(Appender::register(connection, own, events, data).await?);
            }
            let measured = drive(connected, self.options.time).await?;
            let what = format!("{events} events per statement, {tasks} tasks, {LANES} lanes");
            self.note(format!("append-{events}"), what, EVENTS, LANES, &measured);
        }
        Ok(())
    }

    /// Makes running tasks; returns the number of the first.
    async fn make_tasks(&mut self, count: u32) -> Result<i64, MeasureError> {
        let first = self.next_task;
        self.next_task += i64::from(count);
        sqlx::query_file!("sql/bench/tasks.sql", first, self.next_task - 1)
            .execute(&mut self.connection)
            .await?;
        Ok(first)
    }

    fn note(
        &mut self,
        name: String,
        what: String,
        unit: &'static str,
        clients: u32,
        measured: &Measured,
    ) {
        let figure = Figure {
            name,
            what,
            clients,
            rate: measured.rate,
            rate_unit: unit,
            p50: measured.steps.p50,
            p99: measured.steps.p99,
        };
        (self.found)(&figure);
        self.figures.push(figure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_an_object_of_the_length_that_was_asked_for() {
        for bytes in [0, 11, 12, 100] {
            let payload = payload(bytes);
            assert_eq!(payload.len(), bytes.max(11));
            assert!(serde_json::from_str::<serde_json::Value>(&payload).unwrap().is_object());
        }
    }
}
