//! How many rows Postgres reads for a stream of an old task.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use taskcast::dispatcher::{Entry, StreamRequest};
use taskcast::domain::{BLOCK_LEN, Cursor, EventDraft, FAN_OUT, Filter, cover};

use super::log::{Instance, LONG, Log, answer, filters, mixture};
use super::truth::{Truth, compare};
use crate::support::postgres::Database;
use crate::support::until;

/// Most rows one stream may read to catch up, whatever the age of its task:
/// the open end of the log as a page, the series of its events, the open end
/// once more as kinds, and what sums up the rest.
const MAX_ROWS: i64 = (3 * BLOCK_LEN + 4 * FAN_OUT).cast_signed();

/// How far before the end a reader resumes who was gone for a moment.
const MISSED: u64 = 200;

/// Rows read so far, by table, as they were fetched through indexes or, where
/// an index answered alone, as entries of that index.
const ROWS_READ: &str = "
    SELECT t.relname::text, t.seq_tup_read + greatest(
        coalesce(t.idx_tup_fetch, 0),
        coalesce((SELECT sum(i.idx_tup_read) FROM pg_stat_user_indexes i WHERE i.relid = t.relid), 0)
    )::bigint
    FROM pg_stat_user_tables t
    WHERE t.schemaname = 'taskcast'";

const SESSIONS: &str = "
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// Reads the statistics when nothing is missing in them: a session hands in
/// what it read at its end, before it goes from the list of sessions.
pub(super) async fn settled_rows(database: &Database) -> BTreeMap<String, i64> {
    async fn others(connection: &mut PgConnection) -> i64 {
        sqlx::query_scalar(SESSIONS).fetch_one(connection).await.unwrap()
    }
    until("the sessions of closed instances end", || async {
        let mut connection = database.connect().await;
        if others(&mut connection).await > 0 {
            return None;
        }
        let rows: Vec<(String, i64)> =
            sqlx::query_as(ROWS_READ).fetch_all(&mut connection).await.unwrap();
        Some(rows.into_iter().collect())
    })
    .await
}

/// Opens a stream on an instance of its own and reads until it has caught up;
/// checks how many rows that took.
async fn read_counted(database: &Database, log: &Log, request: StreamRequest) -> Vec<Entry> {
    let before = settled_rows(database).await;
    let instance = Instance::open(database).await;
    let entries = instance.read(request).await;
    instance.close().await;
    let mut rows = settled_rows(database).await;
    for (table, rows) in &mut rows {
        *rows -= before.get(table).copied().unwrap_or_default();
    }
    assert!(rows.values().sum::<i64>() <= MAX_ROWS, "{rows:?}");
    // Of the sums only those that cover the log, for one cursor, to number what
    // follows it, and twice to find what is no delta: all of them would be few
    // here, but more as it ages.
    let blocks = log.length() / BLOCK_LEN;
    let nodes: u64 =
        cover(blocks).into_iter().map(|(_, ordinals)| ordinals.end - ordinals.start).sum();
    for table in ["rollup", "text_chunk"] {
        assert!(rows[table] <= 6 * nodes.cast_signed() + 8, "{rows:?}");
    }
    entries
}

/// Makes an old log in a database that has those of other tasks too: whole
/// tables that fit a few pages are read as the cheapest way to find a row.
async fn old_log(event: fn(u64) -> EventDraft) -> (Database, Log) {
    let database = Database::migrated().await;
    database.execute("INSERT INTO taskcast.rollup SELECT 9000 + n % 200, 0, n / 200, '{}' FROM generate_series(0, 19999) n").await;
    database.execute("INSERT INTO taskcast.text_chunk SELECT 9000 + n % 200, 'answer', 0, n / 200, 0, 'text' FROM generate_series(0, 19999) n").await;
    let instance = Instance::open(&database).await;
    let mut log = Log::create(&instance).await;
    log.grow(&instance, LONG, event).await;
    log.await_sums(&database).await;
    instance.close().await;
    (database, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_and_resuming_an_old_accumulate_series_reads_few_rows() {
    let (database, log) = old_log(answer).await;
    let (all, filter) = (Filter::default(), Filter { include_status: false, ..Filter::default() });
    let truth = Truth::new(&log, &filter);
    let last_seen = LONG - 1 - MISSED;
    let number = i64::try_from(truth.passed_before[last_seen as usize]).unwrap();
    // Plans must be good before Postgres knows what is in its tables, and after.
    for preparation in ["SELECT", "ANALYZE"] {
        database.execute(preparation).await;
        let joined = read_counted(&database, &log, log.request(&all, Cursor::default())).await;
        compare(&joined, &Truth::new(&log, &all).collapsed(0, LONG), "late join");
        let resumed =
            read_counted(&database, &log, log.request(&filter, log.after(last_seen))).await;
        compare(&resumed, &truth.single(last_seen + 1), "by id");
        let by_number = Cursor { filtered_index: Some(number), ..Cursor::default() };
        let resumed = read_counted(&database, &log, log.request(&filter, by_number)).await;
        compare(&resumed, &truth.single(last_seen + 1), "by number");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_an_old_log_of_replaced_events_reads_few_rows() {
    let (database, log) = old_log(mixture).await;
    database.execute("ANALYZE").await;
    for filter in filters().into_iter().filter(|filter| !filter.is_all()) {
        let truth = Truth::new(&log, &filter);
        let last_seen = LONG - 1 - MISSED;
        let request = log.request(&filter, log.after(last_seen));
        let resumed = read_counted(&database, &log, request).await;
        compare(&resumed, &truth.single(last_seen + 1), &format!("{filter:?}"));
    }
}
