//! The journal: what was committed since a mark, everywhere.

use std::collections::HashMap;

use taskcast::domain::{TaskNumber, TaskStatus};
use taskcast::store::{Journal, JournalEntry, JournalMark, Store};

use super::open::Fresh;
use super::{create, draft, enter, publish};
use crate::support::postgres::Database;
use crate::support::{Backend, on_every_store};

on_every_store![
    without_a_mark_the_journal_begins_now,
    the_journal_tells_of_every_event_of_every_instance_once,
    a_reader_that_follows_along_misses_nothing,
];

async fn journal(store: &dyn Store, mark: Option<&JournalMark>) -> Journal {
    let journal = store.journal(mark).await.unwrap();
    assert!(!journal.has_gap);
    journal
}

/// Checks that the entries of every task join up from zero, and returns where
/// each ends.
fn ends(entries: &[JournalEntry]) -> HashMap<TaskNumber, u64> {
    let mut ends = HashMap::new();
    for entry in entries {
        let end = ends.entry(entry.number).or_insert(0);
        assert_eq!(entry.from, *end, "{entries:?}");
        assert!(entry.next_index > entry.from);
        *end = entry.next_index;
    }
    ends
}

async fn without_a_mark_the_journal_begins_now(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = create(&*store, "task").await;
    publish(&*store, &task.spec.id, vec![draft("n", "1")]).await;
    let now = journal(&*store, None).await;
    assert!(now.entries.is_empty());
    assert!(journal(&*store, Some(&now.mark)).await.entries.is_empty());
    publish(&*store, &task.spec.id, vec![draft("n", "2"), draft("n", "3")]).await;
    let next = journal(&*store, Some(&now.mark)).await;
    assert_eq!(next.entries.len(), 1);
    let entry = next.entries[0];
    assert_eq!((entry.number, entry.from, entry.next_index), (task.number, 1, 3));
    assert!(next.mark.covers(&entry) && !now.mark.covers(&entry));
    assert!(journal(&*store, Some(&next.mark)).await.entries.is_empty());
}

async fn the_journal_tells_of_every_event_of_every_instance_once(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let start = journal(&*first, None).await.mark;
    let (a, b) = (create(&*first, "a").await, create(&*second, "b").await);
    for _ in 0..3 {
        for store in [&first, &second] {
            publish(&**store, &a.spec.id, vec![draft("n", "1")]).await;
            publish(&**store, &b.spec.id, vec![draft("n", "1"), draft("n", "2")]).await;
        }
    }
    enter(&*second, &a.spec.id, TaskStatus::Cancelled).await;
    for store in [&first, &second] {
        let read = journal(&**store, Some(&start)).await;
        assert_eq!(ends(&read.entries), [(a.number, 7), (b.number, 12)].into());
        assert!(read.entries.iter().all(|entry| read.mark.covers(entry)));
        let mut sequences: HashMap<_, u64> = HashMap::new();
        for entry in &read.entries {
            let before = sequences.insert((entry.source, entry.number), entry.sequence);
            assert!(before < Some(entry.sequence), "sequences of a source rise along each task");
        }
    }
}

async fn a_reader_that_follows_along_misses_nothing(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let mut mark = journal(&*second, None).await.mark;
    let mut tasks = Vec::new();
    for n in 0..10 {
        tasks.push(create(&*first, &format!("task-{n}")).await);
    }
    let writers: Vec<_> = tasks
        .iter()
        .enumerate()
        .map(|(n, task)| {
            let (store, id) =
                (if n % 2 == 0 { first.clone() } else { second.clone() }, task.spec.id.clone());
            tokio::spawn(async move {
                for _ in 0..25 {
                    publish(&*store, &id, vec![draft("n", "1")]).await;
                }
            })
        })
        .collect();
    let mut entries = Vec::new();
    while entries.len() < 250 {
        let read = journal(&*second, Some(&mark)).await;
        entries.extend(read.entries);
        mark = read.mark;
        let told: u64 = ends(&entries).values().sum();
        if told == 250 {
            break;
        }
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(ends(&entries), tasks.iter().map(|task| (task.number, 25)).collect());
    assert!(journal(&*second, Some(&mark)).await.entries.is_empty());
}

/// A lane is retired when its process was silent, and its receipts go a minute
/// later; a reader that was suspended for longer has not seen them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_gone_leaves_a_gap_for_who_was_away_and_none_for_who_was_not() {
    let database = Database::migrated().await;
    let backend = Backend::Postgres(database.clone());
    let (writer, reader) = Fresh::open_two(&backend).await;
    let task = create(&*writer, "task").await;
    publish(&*writer, &task.spec.id, vec![draft("n", "1")]).await;
    let mark = journal(&*reader, None).await.mark;
    publish(&*writer, &task.spec.id, vec![draft("n", "2")]).await;
    let seen = journal(&*reader, Some(&mark)).await.mark;
    for gone in ["lane", "lane_heartbeat", "receipt"] {
        database.execute(&format!("DELETE FROM taskcast.{gone}")).await;
    }
    assert!(!reader.journal(Some(&seen)).await.unwrap().has_gap);
    let JournalMark(read, at) = mark;
    let away = JournalMark(read, at - 60_000);
    let back = reader.journal(Some(&away)).await.unwrap();
    assert!(back.has_gap && back.entries.is_empty());
    assert!(!reader.journal(Some(&back.mark)).await.unwrap().has_gap);
}
