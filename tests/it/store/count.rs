//! Numbers of filtered events, and the way back from them.

use std::sync::Arc;

use taskcast::domain::{Event, Filter, Level, TaskStatus};
use taskcast::store::{Store, TaskRef};

use super::open::Fresh;
use super::{at_level, create, delta, draft, enter, head, latest, log, publish, types};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    a_short_log_is_counted_under_every_filter,
    blocks_of_superseded_events_still_count,
    a_log_of_many_blocks_is_counted_without_reading_it,
    a_number_leads_back_to_its_event,
    a_time_leads_to_the_first_later_event,
];

fn filters() -> Vec<Filter> {
    vec![
        Filter::default(),
        types(&["*"]),
        types(&["progress"]),
        types(&["llm.*"]),
        types(&["llm.*", "n"]),
        types(&["nothing"]),
        Filter { levels: vec![Level::Warn], ..Filter::default() },
        Filter { levels: vec![Level::Debug, Level::Info], ..types(&["n", "progress"]) },
        Filter { include_status: false, ..Filter::default() },
        Filter { include_status: false, ..types(&["taskcast:status", "n"]) },
    ]
}

/// Appends a mixture of kinds and returns every event, superseded ones too.
async fn mixed(
    store: &dyn Store,
    id: &str,
    batches: u64,
    batch: u64,
) -> (TaskRef, Vec<Arc<Event>>) {
    let id = create(store, id).await.spec.id;
    let mut all = vec![enter(store, &id, TaskStatus::Running).await];
    for round in 0..batches {
        let events = (0..batch).map(|n| match (round * batch + n) % 11 {
            0..=3 => latest("l", n),
            4 | 5 => delta("d", "x"),
            6 => at_level(Level::Warn, draft("n", "1")),
            7 => at_level(Level::Debug, draft("n", "1")),
            _ => draft("other", "1"),
        });
        all.extend(publish(store, &id, events.collect()).await);
    }
    (head(store, &id).await.task, all)
}

/// Compares counts with what counting by hand gives.
async fn check_counts(store: &dyn Store, task: &TaskRef, all: &[Arc<Event>], positions: &[u64]) {
    for filter in filters() {
        let expected: Vec<u64> = positions
            .iter()
            .map(|to| {
                all.iter()
                    .take_while(|event| event.index < *to)
                    .filter(|e| filter.admits(e))
                    .count() as u64
            })
            .collect();
        let counted = store.count(task.number, positions, &filter).await.unwrap();
        assert_eq!(counted, expected, "{filter:?} before {positions:?}");
    }
}

async fn a_short_log_is_counted_under_every_filter(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let (task, all) = mixed(&*store, "short", 4, 15).await;
    let positions: Vec<u64> = (0..=all.len() as u64).collect();
    check_counts(&*store, &task, &all, &positions).await;
    check_counts(&*store, &task, &all, &[40, 3, 3, 61, 0]).await;
    assert!(store.count(task.number, &[], &Filter::default()).await.unwrap().is_empty());
}

async fn blocks_of_superseded_events_still_count(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "replaced").await.spec.id;
    let mut all = publish(&*store, &id, vec![draft("n", "1")]).await;
    for _ in 0..5 {
        all.extend(publish(&*store, &id, (0..1_000).map(|n| latest("l", n)).collect()).await);
    }
    all.push(enter(&*store, &id, TaskStatus::Running).await);
    let task = head(&*store, &id).await.task;
    assert_eq!(log(&*store, &id).await.len(), 3);
    check_counts(&*store, &task, &all, &[1, 2, 1_023, 1_024, 1_025, 2_048, 4_000, 5_001, 5_002])
        .await;
    let progress = types(&["progress"]);
    for nth in [0, 1_022, 1_023, 1_024, 3_333, 4_999] {
        assert_eq!(store.position_of(task.number, &progress, nth).await.unwrap(), Some(nth + 1));
    }
    assert_eq!(store.position_of(task.number, &progress, 5_000).await.unwrap(), None);
}

async fn a_log_of_many_blocks_is_counted_without_reading_it(backend: Backend) {
    let store = Fresh::open(&backend).await;
    // More than 32 blocks of 1,024, so that blocks are summed up as well.
    let (task, all) = mixed(&*store, "long", 36, 1_000).await;
    let positions =
        [0, 1, 1_023, 1_024, 1_025, 9_999, 32_767, 32_768, 32_769, 33_000, 35_999, 36_000, 36_001];
    check_counts(&*store, &task, &all, &positions).await;
    for filter in filters() {
        let passing: Vec<u64> = all.iter().filter(|e| filter.admits(e)).map(|e| e.index).collect();
        for nth in [0, 1, 1_024, passing.len() / 2, passing.len().saturating_sub(1), passing.len()]
        {
            let found = store.position_of(task.number, &filter, nth as u64).await.unwrap();
            assert_eq!(found, passing.get(nth).copied(), "{filter:?} number {nth}");
        }
    }
}

async fn a_number_leads_back_to_its_event(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let (task, all) = mixed(&*store, "short", 3, 22).await;
    for filter in filters() {
        let passing: Vec<u64> = all.iter().filter(|e| filter.admits(e)).map(|e| e.index).collect();
        for nth in 0..=passing.len() {
            let found = store.position_of(task.number, &filter, nth as u64).await.unwrap();
            assert_eq!(found, passing.get(nth).copied(), "{filter:?} number {nth}");
        }
    }
}

async fn a_time_leads_to_the_first_later_event(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "timed").await.spec.id;
    let number = head(&*store, &id).await.task.number;
    assert_eq!(store.position_after(number, 5).await.unwrap(), 0);
    let mut times = Vec::new();
    for round in 0..8 {
        // Some events of one time, then the clock moves on.
        let events =
            vec![draft("n", "1"), latest("l", round), latest("l", round + 1), draft("n", "2")];
        times.push(publish(&*store, &id, events).await[0].timestamp_ms);
        until("the clock moves on", || async {
            let event = publish(&*store, &id, vec![latest("clock", round)]).await;
            (event[0].timestamp_ms > times[times.len() - 1]).then_some(())
        })
        .await;
    }
    let left = log(&*store, &id).await;
    let next = head(&*store, &id).await.next_index;
    let asked =
        times.iter().flat_map(|time| [time - 1, *time, time + 1]).chain([0, u64::MAX >> 20]);
    for time in asked {
        let position = store.position_after(number, time).await.unwrap();
        assert!(position <= next);
        for event in &left {
            let is_after = event.index >= position;
            assert_eq!(
                is_after,
                event.timestamp_ms > time,
                "{} at {position} of {time}",
                event.index
            );
        }
    }
}
