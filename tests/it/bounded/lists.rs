//! What a page of a list reads, whatever it is asked for and however many
//! tasks there are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::Connection as _;
use taskcast::domain::{ListQuery, TaskGrant, TaskId, TaskStatus, TypePattern};
use taskcast::store::{Store, StoreError};

use super::log::Instance;
use crate::support::postgres::Database;
use crate::support::until;

/// Tasks in the database: so many that reading all of them would show.
const TASKS: i64 = 60_000;

/// Most rows and index entries that a page may read: a few thousand entries of
/// each index it goes by, and a thousand tasks with their heads.
const MAX_ROWS: i64 = 30_000;

/// Tasks of some types, some tags, in every state; every thousandth is rare in
/// each way, and every other one has a type of its own behind a prefix.
const FILL: &str = "
    WITH fresh AS (
        INSERT INTO taskcast.task (id, nonce, type, tags, created_at)
        SELECT
            'task-' || n, n,
            CASE
                WHEN n % 1000 = 7 THEN 'rare.x'
                WHEN n % 2 = 0 THEN 'own.' || n
                ELSE 'llm.' || n % 5
            END,
            CASE WHEN n % 3 = 0 THEN ARRAY['third'] || CASE WHEN n % 1000 = 9 THEN ARRAY['rare'] ELSE '{}' END END,
            n
        FROM generate_series(1, $1::bigint) n
        RETURNING number, tags, created_at
    ),
    tagged AS (
        INSERT INTO taskcast.task_tag (tag, task)
        SELECT unnest(f.tags), f.number FROM fresh f
    )
    INSERT INTO taskcast.head (task, status, updated_at)
    SELECT f.number, CASE WHEN f.created_at % 1000 = 11 THEN 3 ELSE (f.created_at % 3)::smallint END, 0
    FROM fresh f";

async fn filled() -> Database {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    sqlx::query(FILL).bind(TASKS).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    database.execute("VACUUM ANALYZE").await;
    database
}

fn every_task() -> ListQuery {
    ListQuery {
        statuses: Vec::new(),
        types: Vec::new(),
        tags: Vec::new(),
        before: None,
        grant: TaskGrant::Every,
        limit: 50,
        max_bytes: 4 << 20,
    }
}

fn types(patterns: &[&str]) -> ListQuery {
    let types = patterns.iter().map(|pattern| TypePattern::parse(pattern).unwrap()).collect();
    ListQuery { types, ..every_task() }
}

fn tags(tags: &[&str]) -> ListQuery {
    ListQuery { tags: tags.iter().map(|tag| (*tag).into()).collect(), ..every_task() }
}

fn queries() -> Vec<ListQuery> {
    let failed = vec![TaskStatus::Failed];
    let many: Vec<String> = (0..100).map(|n| format!("none.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let ids = (0..50).map(|n| TaskId::parse(&format!("task-{}", n * 1000)).unwrap()).collect();
    vec![
        every_task(),
        types(&["llm.1"]),
        types(&["llm.*"]),
        types(&["rare.*"]),
        types(&["own.*"]),
        types(&["own.*", "rare.x"]),
        types(&many),
        tags(&["third"]),
        tags(&["rare"]),
        tags(&["third", "rare"]),
        ListQuery { statuses: failed.clone(), ..every_task() },
        ListQuery { statuses: vec![TaskStatus::Running, TaskStatus::Pending], ..every_task() },
        ListQuery { statuses: vec![TaskStatus::Cancelled], ..every_task() },
        ListQuery { grant: TaskGrant::Only(ids), ..every_task() },
        ListQuery { tags: tags(&["third"]).tags, ..types(&["llm.1", "llm.2"]) },
        ListQuery { statuses: vec![TaskStatus::Pending], ..tags(&["third"]) },
        ListQuery { statuses: failed, tags: tags(&["third"]).tags, ..types(&["llm.*"]) },
        ListQuery { statuses: vec![TaskStatus::Running], ..types(&["own.*"]) },
    ]
}

/// Rows read so far in the tables of tasks, and entries of their indexes.
async fn rows_read(database: &Database) -> i64 {
    let mut connection = database.connect().await;
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT t.relname::text, (t.seq_tup_read + coalesce((
            SELECT sum(i.idx_tup_read) FROM pg_stat_user_indexes i WHERE i.relid = t.relid
        ), 0))::bigint
        FROM pg_stat_user_tables t
        WHERE t.schemaname = 'taskcast' AND t.relname IN ('task', 'task_tag', 'head')",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    rows.into_iter().collect::<BTreeMap<_, _>>().values().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_any_filter_reads_a_bounded_number_of_rows() {
    let database = filled().await;
    for query in queries() {
        // Statistics are handed in when a session ends.
        let before = settled(&database, 0).await;
        let one = Instance::open(&database).await;
        let page = one.opened.store.list(&query).await.unwrap();
        one.close().await;
        let read = settled(&database, before).await - before;
        assert!(read <= MAX_ROWS, "{read} rows for {query:?}");
        assert!(page.tasks.iter().all(|task| query.admits(task)), "{query:?}");
    }
}

/// Returns the count of rows read once it stands still at `least` or more.
async fn settled(database: &Database, least: i64) -> i64 {
    until("statistics stand still", || async {
        let now = rows_read(database).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        (rows_read(database).await == now && now >= least).then_some(now)
    })
    .await
}

/// Lists every task that a query admits, page by page.
async fn follow(store: &dyn Store, query: &ListQuery) -> Vec<String> {
    let (mut ids, mut query) = (Vec::new(), query.clone());
    loop {
        let page = store.list(&query).await.unwrap();
        assert!(page.next.is_none() || page.next != query.before, "{query:?} does not get on");
        ids.extend(page.tasks.iter().map(|task| task.spec.id.to_string()));
        match page.next {
            None => return ids,
            next => query.before = next,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_of_a_list_show_each_task_of_it_once_newest_first() {
    let database = filled().await;
    let instance = Instance::open(&database).await;
    let store = &*instance.opened.store;
    let every = follow(store, &ListQuery { limit: 500, ..every_task() }).await;
    let expected: Vec<String> = (1..=TASKS).rev().map(|n| format!("task-{n}")).collect();
    assert!(every == expected, "{} tasks", every.len());
    let number = |id: &String| id["task-".len()..].parse::<i64>().unwrap();
    let kept = |keep: fn(i64) -> bool| -> Vec<String> {
        expected.iter().filter(|id| keep(number(id))).cloned().collect()
    };
    let large = |query: ListQuery| ListQuery { limit: 500, ..query };
    for (query, expected) in [
        (types(&["rare.*"]), kept(|n| n % 1000 == 7)),
        (large(types(&["own.*"])), kept(|n| n % 2 == 0 && n % 1000 != 7)),
        (tags(&["third", "rare"]), kept(|n| n % 3 == 0 && n % 1000 == 9)),
        (
            ListQuery { statuses: vec![TaskStatus::Failed], ..tags(&["third"]) },
            kept(|n| n % 3 == 0 && n % 1000 == 11),
        ),
        (
            large(ListQuery { statuses: vec![TaskStatus::Running], ..types(&["own.*"]) }),
            kept(|n| n % 2 == 0 && n % 3 == 1 && n % 1000 != 11),
        ),
    ] {
        let listed = follow(store, &query).await;
        assert!(listed == expected, "{} of {}: {query:?}", listed.len(), expected.len());
    }
    instance.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_reads_no_more_text_than_it_shows() {
    let database = Database::migrated().await;
    // Text that does not compress, so that its length is what is stored.
    let fill = "
        WITH fresh AS (
            INSERT INTO taskcast.task (id, nonce, params, created_at)
            SELECT 'task-' || n, n, (
                SELECT '\"' || string_agg(md5(n || '.' || i), '') || '\"' FROM generate_series(1, 31250) i
            ), n
            FROM generate_series(1, 20) n
            RETURNING number
        )
        INSERT INTO taskcast.head (task, status, updated_at) SELECT number, 0, 0 FROM fresh";
    database.execute(fill).await;
    let toast_rows = "
        SELECT coalesce(sum(s.idx_tup_fetch), 0)::bigint
        FROM pg_class c
        JOIN pg_stat_all_tables s ON s.relid = c.reltoastrelid
        WHERE c.oid = 'taskcast.task'::regclass";
    let instance = Instance::open(&database).await;
    let page = instance.opened.store.list(&every_task()).await.unwrap();
    assert_eq!(page.tasks.len(), 4);
    assert!(page.next.is_some());
    instance.close().await;
    let read: i64 = until("what was read is counted", || async {
        let mut connection = database.connect().await;
        let read: i64 = sqlx::query_scalar(toast_rows).fetch_one(&mut connection).await.unwrap();
        (read > 0).then_some(read)
    })
    .await;
    // A megabyte is 501 to 510 rows of its own.
    assert!(read <= 5 * 520, "{read} rows of text for four tasks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_wait_end_in_postgres_too_and_leave_room_for_others() {
    let database = Database::migrated().await;
    let instance = Instance::open(&database).await;
    let mut connection = database.connect().await;
    let mut in_the_way = connection.begin().await.unwrap();
    sqlx::query("LOCK TABLE taskcast.task_tag IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *in_the_way)
        .await
        .unwrap();
    let store = &*instance.opened.store;
    let query = tags(&["a"]);
    let lists = join_all((0..20).map(|_| store.list(&query)));
    let others = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let began = Instant::now();
            store.find(&TaskId::parse("none").unwrap()).await.unwrap();
            slowest = slowest.max(began.elapsed());
        }
        slowest
    };
    let began = Instant::now();
    let (lists, slowest) = tokio::join!(lists, others);
    for list in lists {
        assert!(matches!(list, Err(StoreError::Unavailable(_))), "{list:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    until("no list is under way any more", || async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND state = 'active' AND query LIKE '%task_tag%'
                AND pid <> pg_backend_pid()";
        let mut connection = database.connect().await;
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut connection).await.unwrap();
        (count == 0).then_some(())
    })
    .await;
    in_the_way.rollback().await.unwrap();
    assert!(store.list(&query).await.unwrap().tasks.is_empty());
    instance.close().await;
}
