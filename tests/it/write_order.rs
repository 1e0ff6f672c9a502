//! The order in which the append statements write, and what undoes them: run as
//! they stand in `sql/write`, on a connection of the test's own.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use crate::support::postgres::Database;
use crate::support::until;

const EVENTS: &str = include_str!("../../sql/write/append_events.sql");
const WHOLE: &str = include_str!("../../sql/write/append.sql");

/// A lane that is registered, with two running tasks.
async fn prepared() -> (Database, PgConnection) {
    let database = Database::migrated().await;
    for statement in [
        "INSERT INTO taskcast.lane VALUES (7)",
        "INSERT INTO taskcast.task (id, nonce, created_at) VALUES ('a', 1, 0), ('b', 2, 0)",
        "INSERT INTO taskcast.head (task, status, updated_at) SELECT number, 1, 0 FROM taskcast.task",
    ] {
        database.execute(statement).await;
    }
    let connection = database.connect().await;
    (database, connection)
}

/// What a batch does to task 1: one event, or the end.
#[derive(Debug, Clone, Copy)]
struct Batch {
    number: i64,
    index: i64,
    key: Option<[u8; 1]>,
    completes: bool,
}

async fn run_id(connection: &mut PgConnection) -> i64 {
    let statement = include_str!("../../sql/write/server.sql");
    connection.fetch_one(AssertSqlSafe(statement)).await.unwrap().get(0)
}

/// Runs a statement; returns the time it was stored at, if it was.
async fn append(
    connection: &mut PgConnection,
    statement: &'static str,
    batch: Batch,
) -> Result<Option<i64>, sqlx::Error> {
    let server = run_id(connection).await;
    let (none, no_code, no_text) = (Vec::<i64>::new(), Vec::<i16>::new(), Vec::<String>::new());
    let mut query = sqlx::query(AssertSqlSafe(statement))
        .bind(7_i64)
        .bind(batch.number)
        .bind(server)
        .bind(vec![1_i64])
        .bind(vec![batch.index])
        .bind(vec![batch.index + 1])
        .bind(vec![1_i16])
        .bind(vec![1_i64])
        .bind(vec![batch.index])
        .bind(vec![0_i64])
        .bind(vec![1_i16])
        .bind(vec![None::<i16>])
        .bind(vec!["n"])
        .bind(vec![None::<String>])
        .bind(vec![None::<String>])
        .bind(vec![None::<String>])
        .bind(vec![None::<i64>])
        .bind(vec!["null"]);
    if statement == WHOLE {
        let ends = usize::from(batch.completes);
        let of = |value: i64| if batch.completes { vec![value] } else { Vec::new() };
        let keys: Vec<Vec<u8>> = batch.key.iter().map(|key| key.to_vec()).collect();
        let keyed = |value: i64| vec![value; keys.len()];
        query = query
            .bind(of(1))
            .bind(vec![1_i16; ends])
            .bind(of(batch.index))
            .bind(vec![2_i16; ends])
            .bind(of(batch.index + 1))
            .bind(of(0))
            .bind(vec![None::<String>; ends])
            .bind(vec![None::<String>; ends])
            .bind(keys.clone())
            .bind(keys.clone())
            .bind(keyed(1))
            .bind(keyed(batch.index))
            .bind(keyed(0))
            .bind(none.clone())
            .bind(no_text.clone())
            .bind(no_code.clone())
            .bind(no_code)
            .bind(no_text.clone())
            .bind(no_text.clone())
            .bind(none.clone())
            .bind(none.clone())
            .bind(none.clone())
            .bind(no_text)
            .bind(none.clone())
            .bind(none);
    }
    query.fetch_one(connection).await.map(|row: PgRow| row.get("at"))
}

fn violated(outcome: Result<Option<i64>, sqlx::Error>) -> String {
    let error = outcome.expect_err("a key is violated");
    error.as_database_error().and_then(|error| error.table()).unwrap_or_default().to_owned()
}

async fn events(database: &Database) -> i64 {
    let mut connection = database.connect().await;
    sqlx::query_scalar("SELECT count(*) FROM taskcast.event")
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

const FIRST: Batch = Batch { number: 1, index: 0, key: None, completes: false };

/// Rule 4. A batch that is sent again violates its receipt's key and the log's.
/// It has to hear of the receipt, or it would take its own events for those of
/// another writer.
#[tokio::test]
async fn a_batch_that_is_sent_again_hears_of_its_receipt_before_the_log() {
    for statement in [EVENTS, WHOLE] {
        let (database, mut connection) = prepared().await;
        assert!(append(&mut connection, statement, FIRST).await.unwrap().is_some());
        assert_eq!(violated(append(&mut connection, statement, FIRST).await), "receipt");
        let other = Batch { number: 2, ..FIRST };
        assert_eq!(violated(append(&mut connection, statement, other).await), "event");
        assert_eq!(events(&database).await, 1);
    }
}

/// Rule 4. Of a request that was carried out before, the key is violated before
/// the log.
#[tokio::test]
async fn a_repeated_request_hears_of_its_key_before_the_log() {
    let (_database, mut connection) = prepared().await;
    let keyed = Batch { key: Some([9]), ..FIRST };
    assert!(append(&mut connection, WHOLE, keyed).await.unwrap().is_some());
    let again = Batch { number: 2, ..keyed };
    assert_eq!(violated(append(&mut connection, WHOLE, again).await), "idempotency");
}

/// Rule 5. The head changes between the moment a transition reads it and the
/// moment it locks it. The conditional UPDATE then matches nothing, and no
/// status event may stay without its transition.
#[tokio::test]
async fn a_transition_whose_head_changed_meanwhile_writes_nothing() {
    let (database, mut connection) = prepared().await;
    let mut other = database.connect().await;
    let mut holder = other.begin().await.unwrap();
    holder.execute("UPDATE taskcast.head SET status = 5 WHERE task = 1").await.unwrap();
    let end = Batch { completes: true, ..FIRST };
    let ending = tokio::spawn(async move { append(&mut connection, WHOLE, end).await });
    until("the transition waits for the head", || async {
        let mut connection = database.connect().await;
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    holder.commit().await.unwrap();
    let error = ending.await.unwrap().expect_err("the head changed");
    assert_eq!(
        error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref(),
        Some("TC001")
    );
    assert_eq!(events(&database).await, 0);
}

/// Rules 1 and 2. Whatever a batch is based on that does not hold any more, the
/// statement says so and writes nothing.
#[tokio::test]
async fn an_append_based_on_outdated_state_writes_nothing() {
    for outdated in [
        "UPDATE taskcast.head SET status = 9 WHERE task = 1",
        "UPDATE taskcast.head SET floor = 1 WHERE task = 1",
        "DELETE FROM taskcast.lane",
    ] {
        for statement in [EVENTS, WHOLE] {
            let (database, mut connection) = prepared().await;
            database.execute(outdated).await;
            assert_eq!(
                append(&mut connection, statement, FIRST).await.unwrap(),
                None,
                "{outdated}"
            );
            assert_eq!(events(&database).await, 0, "{outdated}");
        }
    }
}
