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
    /// The tasks, and how many events each has.
    tasks: Vec<(i64, i64)>,
    /// Where among the tasks the next statement begins.
    turn: usize,
    events: u32,
    data: Arc<str>,
}

impl Appender {
    pub(super) fn new(
        connection: PgConnection,
        tasks: Range<i64>,
        events: u32,
        data: Arc<str>,
    ) -> Self {
        let lane = tasks.start;
        let tasks = tasks.map(|task| (task, 0)).collect();
        Self { connection, lane, batch: 0, tasks, turn: 0, events: events.max(1), data }
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
        let moved = columns.send(&mut self.connection, self.lane, self.batch).await?;
        if moved != chosen.len() {
            return Err(MeasureError::Lost { expected: chosen.len(), moved });
        }
        Ok(self.events)
    }
}

/// A batch of plain events as the statement takes it.
#[derive(Default)]
struct Columns<'a> {
    task: Vec<i64>,
    seen_index: Vec<i64>,
    status: Vec<i16>,
    next_index: Vec<i64>,
    has_transition: Vec<bool>,
    entry_task: Vec<i64>,
    entry_index: Vec<i64>,
    level: Vec<i16>,
    mode: Vec<Option<i16>>,
    event_type: Vec<&'a str>,
    no_text: Vec<Option<&'a str>>,
    data: Vec<&'a str>,
    is_delta: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, task: i64, next_index: i64, events: u32, data: &'a str) {
        let after = next_index + i64::from(events);
        self.task.push(task);
        self.seen_index.push(next_index);
        self.status.push(RUNNING);
        self.next_index.push(after);
        self.has_transition.push(false);
        for index in next_index..after {
            self.entry_task.push(task);
            self.entry_index.push(index);
            self.level.push(INFO);
            self.mode.push(None);
            self.event_type.push("bench.delta");
            self.no_text.push(None);
            self.data.push(data);
            self.is_delta.push(false);
        }
    }

    /// Sends the batch; returns how many tasks it moved.
    async fn send(
        &self,
        connection: &mut PgConnection,
        lane: i64,
        batch: i64,
    ) -> Result<usize, MeasureError> {
        let (numbers, codes): (&[i64], &[i16]) = (&[], &[]);
        let (names, texts): (&[&str], &[Option<&str>]) = (&[], &[]);
        let rows = sqlx::query_file!(
            "sql/lanes/append.sql",
            lane,
            batch,
            &self.task,
            &self.seen_index,
            &self.status,
            &self.next_index,
            &self.status,
            &self.has_transition,
            &self.entry_task,
            &self.entry_index,
            &self.level,
            &self.mode as &[Option<i16>],
            &self.event_type as &[&str],
            &self.no_text as &[Option<&str>],
            &self.no_text as &[Option<&str>],
            &self.data as &[&str],
            &self.is_delta,
            // No series, and no task that ends.
            numbers,
            names as &[&str],
            codes,
            codes,
            names as &[&str],
            texts as &[Option<&str>],
            texts as &[Option<&str>],
            numbers,
            numbers,
            numbers,
            numbers,
            texts as &[Option<&str>],
            texts as &[Option<&str>],
        )
        .fetch_all(connection)
        .await?;
        Ok(rows.iter().filter(|row| row.task.is_some()).count())
    }
}
