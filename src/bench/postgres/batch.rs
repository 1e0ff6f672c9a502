//! The statement the service appends batches with, without the service.

use std::ops::Range;
use std::sync::Arc;

use sqlx::PgConnection;

use super::MeasureError;
use super::drive::Client;

/// `head.status` of a running task.
const RUNNING: i16 = 1;

/// `event.level` of most events.
const INFO: i16 = 1;

/// A connection that appends to tasks nobody else writes to, as a lane does.
pub(super) struct Appender {
    connection: PgConnection,
    lane: i64,
    batch: i64,
    /// When the server was started, which the statement checks.
    server: i64,
    /// The tasks, and how many events each has.
    tasks: Vec<(i64, i64)>,
    /// Where among the tasks the next statement begins.
    turn: usize,
    events: u32,
    data: Arc<str>,
}

impl Appender {
    /// Registers a lane for these tasks.
    pub(super) async fn register(
        mut connection: PgConnection,
        tasks: Range<i64>,
        events: u32,
        data: Arc<str>,
    ) -> Result<Self, MeasureError> {
        let lane = tasks.start;
        sqlx::query_file!("sql/write/register.sql", lane).execute(&mut connection).await?;
        let server = sqlx::query_file!("sql/write/server.sql").fetch_one(&mut connection).await?;
        let tasks = tasks.map(|task| (task, 0)).collect();
        let (server, events) = (server.started_at, events.max(1));
        Ok(Self { connection, lane, batch: 0, server, tasks, turn: 0, events, data })
    }

    /// Chooses the tasks whose turn it is, sorted, and how many events each gets.
    fn choose(&mut self) -> Vec<(usize, u32)> {
        let count = self.tasks.len().min(self.events as usize);
        let mut chosen: Vec<usize> =
            (self.turn..self.turn + count).map(|at| at % self.tasks.len()).collect();
        chosen.sort_unstable();
        self.turn = (self.turn + count) % self.tasks.len();
        let (each, more) = (self.events / count as u32, self.events as usize % count);
        chosen.into_iter().zip(0..).map(|(at, nth)| (at, each + u32::from(nth < more))).collect()
    }
}

impl Client for Appender {
    async fn step(&mut self) -> Result<u32, MeasureError> {
        let chosen = self.choose();
        self.batch += 1;
        let mut columns = Columns::default();
        for (at, events) in &chosen {
            let (task, next_index) = &mut self.tasks[*at];
            columns.push(*task, *next_index, *events, &self.data);
            *next_index += i64::from(*events);
        }
        let id = (self.lane, self.batch, self.server);
        if !columns.send(&mut self.connection, id).await? {
            return Err(MeasureError::Lost { expected: chosen.len(), moved: 0 });
        }
        Ok(self.events)
    }
}

/// A batch of plain events as the statement takes it.
#[derive(Default)]
struct Columns<'a> {
    task: Vec<i64>,
    from_index: Vec<i64>,
    next_index: Vec<i64>,
    status: Vec<i16>,
    event_task: Vec<i64>,
    event_index: Vec<i64>,
    floor_at: Vec<i64>,
    level: Vec<i16>,
    mode: Vec<Option<i16>>,
    event_type: Vec<&'a str>,
    no_text: Vec<Option<&'a str>>,
    no_number: Vec<Option<i64>>,
    data: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, task: i64, next_index: i64, events: u32, data: &'a str) {
        let after = next_index + i64::from(events);
        self.task.push(task);
        self.from_index.push(next_index);
        self.next_index.push(after);
        self.status.push(RUNNING);
        for index in next_index..after {
            self.event_task.push(task);
            self.event_index.push(index);
            self.floor_at.push(0);
            self.level.push(INFO);
            self.mode.push(None);
            self.event_type.push("bench.delta");
            self.no_text.push(None);
            self.no_number.push(None);
            self.data.push(data);
        }
    }

    /// Sends the batch; tells whether it was written.
    async fn send(
        &self,
        connection: &mut PgConnection,
        (lane, batch, server): (i64, i64, i64),
    ) -> Result<bool, MeasureError> {
        let row = sqlx::query_file!(
            "sql/write/append_events.sql",
            lane,
            batch,
            server,
            &self.task,
            &self.from_index,
            &self.next_index,
            &self.status,
            &self.event_task,
            &self.event_index,
            &self.floor_at,
            &self.level,
            &self.mode as &[Option<i16>],
            &self.event_type as &[&str],
            &self.no_text as &[Option<&str>],
            &self.no_text as &[Option<&str>],
            &self.no_text as &[Option<&str>],
            &self.no_number as &[Option<i64>],
            &self.data as &[&str],
        )
        .fetch_one(connection)
        .await?;
        Ok(row.at.is_some())
    }
}
