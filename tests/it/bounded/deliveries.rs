//! How many rows Postgres reads to find what is due for webhooks.

use std::collections::BTreeMap;

use taskcast::domain::ENDPOINT_RECEIVERS;
use taskcast::store::DeliveryClaim;

use super::log::{Instance, Log, mixture};
use super::rows::settled_rows;
use crate::support::postgres::Database;

/// Receivers that are owed something later.
const WAITING: i64 = 100_000;

/// Makes a database in which many receivers are owed something, and for each
/// of the first `due` of them something is due as well.
async fn owing(due: i64) -> Database {
    let database = Database::migrated().await;
    let instance = Instance::open(&database).await;
    let mut log = Log::create(&instance).await;
    log.grow(&instance, 10, mixture).await;
    let task = log.task.number.get();
    instance.close().await;
    let owe = |receivers: i64, hook: usize, ready: bool, next_at: &str| {
        format!(
            "INSERT INTO taskcast.delivery
                 (task, index, hook, receiver, at, next_at, ready, updated_at)
             SELECT {task}, 1, {hook} || 'x' || n, n, 0, {next_at}, {ready}, 0
             FROM generate_series(1, {receivers}) n"
        )
    };
    database.execute(&owe(WAITING, 0, false, "32503680000000 + n")).await;
    database.execute(&owe(due, 1, true, "n")).await;
    database
}

/// Finds and claims what is due on an instance of its own; returns what was
/// claimed and the rows that were read.
async fn claim_counted(database: &Database) -> (usize, BTreeMap<String, i64>) {
    let before = settled_rows(database).await;
    let instance = Instance::open(database).await;
    let store = instance.opened.store.clone();
    let due = store.due_receivers(0, 1_000).await.unwrap();
    assert_eq!(due.next, None);
    let receivers = due.receivers.into_iter().chain([ENDPOINT_RECEIVERS]);
    let claims: Vec<DeliveryClaim> =
        receivers.map(|receiver| DeliveryClaim { receiver, limit: 4, lease_ms: 60_000 }).collect();
    let claimed = store.claim(&claims).await.unwrap();
    store.cancel_unclaimed(&[], 86_400_000, 100).await.unwrap();
    drop(store);
    instance.close().await;
    let mut rows = settled_rows(database).await;
    for (table, rows) in &mut rows {
        *rows -= before.get(table).copied().unwrap_or_default();
    }
    (claimed.len(), rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claiming_reads_what_is_due_however_many_receivers_are_owed_something() {
    for due in [0, 5] {
        let database = owing(due).await;
        // Plans must be good before Postgres knows what is in its tables, and after.
        for preparation in ["SELECT", "ANALYZE"] {
            database.execute(preparation).await;
            let (claimed, rows) = claim_counted(&database).await;
            assert_eq!(claimed, usize::try_from(due).unwrap());
            assert!(rows["delivery"] <= 20 + 8 * due, "{due} due: {rows:?}");
            database
                .execute(
                    "UPDATE taskcast.delivery SET ready = true, next_at = 1 WHERE attempts > 0",
                )
                .await;
        }
    }
}
