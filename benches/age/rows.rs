//! How much Postgres reads for a stream, by its own statistics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use sqlx::PgConnection;
use taskcast::dispatcher::{Entry, Item, OpenedStream, StreamRequest};
use taskcast::domain::{Cursor, EventId, Filter, SeriesMode, TaskNumber, json};
use taskcast::store::{ReadRange, TaskRef, View};

use crate::rig::{Database, Instance};
use crate::text_of;

/// Longest wait for what happens in the background.
const PATIENCE: Duration = Duration::from_mins(5);

/// Pause between two looks at whether it happened.
const PAUSE: Duration = Duration::from_millis(20);

/// How far before the end a reader resumes.
const MISSED: u64 = 200;

/// Rows read since the server started, by table, and index entries returned
/// for them. Entries alone count when an index answers a query by itself, and
/// those of rows that are gone do until Postgres has cleaned up after them.
const ROWS_READ: &str = "
    SELECT
        t.relname::text,
        t.seq_tup_read + coalesce(t.idx_tup_fetch, 0),
        coalesce((SELECT sum(i.idx_tup_read) FROM pg_stat_user_indexes i WHERE i.relid = t.relid), 0)::bigint
    FROM pg_stat_user_tables t
    WHERE t.schemaname = 'taskcast'";

const SESSIONS: &str = "
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";

const BLOCKS: &str = "SELECT count(*) FROM taskcast.rollup WHERE task = $1 AND height = 0";

/// What was read of a table.
#[derive(Clone, Copy, Default)]
struct TableReads {
    rows: i64,
    entries: i64,
}

/// What one stream read.
pub(crate) struct StreamReads {
    /// Events the reader got.
    pub(crate) events: usize,
    tables: BTreeMap<String, TableReads>,
}

impl StreamReads {
    /// Returns the rows read in all.
    pub(crate) fn rows(&self) -> i64 {
        self.tables.values().map(|table| table.rows).sum()
    }

    /// Returns the index entries read in all.
    pub(crate) fn entries(&self) -> i64 {
        self.tables.values().map(|table| table.entries).sum()
    }

    /// Lists the rows by table.
    pub(crate) fn by_table(&self) -> String {
        let read = self.tables.iter().filter(|(_, table)| table.rows > 0);
        read.map(|(name, table)| format!("{name} {}", table.rows)).collect::<Vec<_>>().join(", ")
    }
}

/// Waits until so many blocks of a log are summed up.
pub(crate) async fn await_blocks(
    database: &Database,
    task: TaskNumber,
    blocks: u64,
) -> anyhow::Result<()> {
    let mut connection = database.connect().await?;
    let (task, blocks) = (i64::try_from(task.get())?, i64::try_from(blocks)?);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let found: i64 = sqlx::query_scalar(BLOCKS).bind(task).fetch_one(&mut connection).await?;
        if found >= blocks {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "only {found} of {blocks} blocks were summed up");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Counts for a reader who comes without a cursor.
pub(crate) async fn late_join(
    database: &Database,
    task: &TaskRef,
    mode: Option<SeriesMode>,
) -> anyhow::Result<StreamReads> {
    let request = StreamRequest {
        task: task.id.clone(),
        filter: Filter::default(),
        last_event_id: None,
        cursor: Cursor::default(),
        limit: None,
        accumulated: false,
        guard: None,
    };
    let (entries, next_index, tables) = count(database, request).await?;
    ensure!(entries.len() == 2, "a late reader got {} events", entries.len());
    let newest = &entries[1];
    ensure!(newest.slot.event.index + 1 == next_index, "the newest event is missing");
    if mode == Some(SeriesMode::Accumulate) {
        let data = newest.slot.event.draft.data.as_str();
        let text = json::member(data, "text").and_then(|text| json::string_body(&data[text]));
        // The status event that started the task adds no text.
        let expected: String = (0..next_index - 1).map(text_of).collect();
        ensure!(text == Some(&*expected), "the snapshot does not hold the whole text");
    }
    Ok(StreamReads { events: entries.len(), tables })
}

/// Counts for a reader with a filter who comes back near the end.
pub(crate) async fn filtered_resume(
    database: &Database,
    task: &TaskRef,
    mode: Option<SeriesMode>,
) -> anyhow::Result<StreamReads> {
    let instance = Instance::open(database.storage()).await?;
    let head = instance.store.head(&task.id).await?;
    let Some(head) = head else { bail!("the task is gone") };
    let last_seen = head.next_index - 1 - MISSED;
    let range = ReadRange {
        task: task.clone(),
        from: last_seen,
        to: last_seen + 1,
        view: View::Live,
        max_events: 1,
        max_bytes: 1,
    };
    let pages = instance.store.read(&[range]).await?;
    instance.close().await;
    // One that was replaced is known by a time between those of its neighbours.
    let event = pages.first().and_then(|page| page.events.first());
    let seen_at = event.map_or(head.last_timestamp_ms, |event| event.timestamp_ms);
    let request = StreamRequest {
        task: task.id.clone(),
        // Hides the one event that started the task, so numbers and indexes differ.
        filter: Filter { include_status: false, ..Filter::default() },
        last_event_id: Some(EventId::new(seen_at, task.number, last_seen).to_string()),
        cursor: Cursor::default(),
        limit: None,
        accumulated: false,
        guard: None,
    };
    let (entries, next_index, tables) = count(database, request).await?;
    let left = if mode == Some(SeriesMode::Latest) { 1 } else { MISSED };
    ensure!(entries.len() as u64 == left, "{} events came after resuming", entries.len());
    for (entry, index) in entries.iter().zip(next_index - left..) {
        ensure!(entry.slot.event.index == index, "an event is missing before {index}");
        ensure!(entry.filtered_index == index - 1, "{index} is numbered {}", entry.filtered_index);
    }
    Ok(StreamReads { events: entries.len(), tables })
}

/// Opens a stream on an instance of its own and reads until it has caught up;
/// returns the events, where the log ends, and what was read by table.
async fn count(
    database: &Database,
    request: StreamRequest,
) -> anyhow::Result<(Vec<Entry>, u64, BTreeMap<String, TableReads>)> {
    let mut connection = database.connect().await?;
    let before = settled_reads(&mut connection).await?;
    let task = request.task.clone();
    let instance = Instance::open(database.storage()).await?;
    let entries = catch_up(&instance, request).await?;
    let head = instance.store.head(&task).await?;
    instance.close().await;
    let mut tables = settled_reads(&mut connection).await?;
    for (name, table) in &mut tables {
        let before = before.get(name).copied().unwrap_or_default();
        table.rows -= before.rows;
        table.entries -= before.entries;
    }
    Ok((entries, head.map_or(0, |head| head.next_index), tables))
}

async fn catch_up(instance: &Instance, request: StreamRequest) -> anyhow::Result<Vec<Entry>> {
    let opened = instance.dispatcher.subscribe(request).await?;
    let Some(OpenedStream::Stream(mut stream)) = opened else { bail!("the stream did not open") };
    let mut entries = Vec::new();
    loop {
        let batch = stream.read().await?;
        for item in batch.items {
            let Item::Event(entry) = item else { bail!("{item:?} came instead of an event") };
            entries.push(entry);
        }
        if batch.is_caught_up {
            return Ok(entries);
        }
    }
}

/// Reads the statistics when nothing is missing in them: a session hands in
/// what it read at its end, before it goes from the list of sessions.
async fn settled_reads(
    connection: &mut PgConnection,
) -> anyhow::Result<BTreeMap<String, TableReads>> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let sessions: i64 = sqlx::query_scalar(SESSIONS).fetch_one(&mut *connection).await?;
        if sessions == 0 {
            break;
        }
        ensure!(Instant::now() < give_up, "{sessions} other sessions use the database");
        tokio::time::sleep(PAUSE).await;
    }
    let tables: Vec<(String, i64, i64)> = sqlx::query_as(ROWS_READ).fetch_all(connection).await?;
    let reads = |(name, rows, entries)| (name, TableReads { rows, entries });
    Ok(tables.into_iter().map(reads).collect())
}
