//! Appending: numbers, times, order, and what is reported about it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use taskcast::domain::{EventDraft, Level, SeriesMode, SeriesTag, TaskStatus};
use taskcast::store::{Appended, HeadStatus};

use super::open::Fresh;
use super::{
    create, delete, delta, draft, enter, head, in_series, indexes, log, publication, publish, step,
    task_id,
};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    events_are_numbered_from_zero_and_their_ids_and_times_rise,
    an_event_comes_back_as_it_was_published,
    an_empty_publication_is_accepted_and_changes_nothing,
    nothing_is_appended_to_a_task_that_is_not_there,
    the_head_moves_with_the_log,
    heads_come_for_every_number_that_exists,
    many_writers_share_a_log_without_gap_or_interleaving,
    one_writer_sees_its_events_in_its_order_across_many_tasks,
    a_thousand_large_events_fit_one_append,
    every_append_is_reported_once_and_in_order,
    an_append_whose_caller_goes_away_still_happens,
];

async fn events_are_numbered_from_zero_and_their_ids_and_times_rise(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "log").await.spec.id;
    let mut events = publish(&*store, &id, vec![draft("a", "1"), draft("b", "2")]).await;
    events.push(enter(&*store, &id, TaskStatus::Running).await);
    events.extend(publish(&*store, &id, vec![draft("c", "3")]).await);
    assert_eq!(indexes(&events), [0, 1, 2, 3]);
    assert!(events.is_sorted_by(|a, b| a.timestamp_ms <= b.timestamp_ms));
    assert!(events.is_sorted_by(|a, b| a.id().to_string() < b.id().to_string()));
    assert_eq!(log(&*store, &id).await, events);
}

async fn an_event_comes_back_as_it_was_published(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "log").await.spec.id;
    let tag = |mode, field: Option<&str>| {
        Some(SeriesTag { id: "s, 'quoted' \u{e9}".into(), mode, field: field.map(Into::into) })
    };
    let sent = vec![
        EventDraft {
            level: Level::Debug,
            ..draft("odd", r#"{"b":1.0,"a":1e400,"b":"\u0000\ud800\/"}"#)
        },
        EventDraft { level: Level::Warn, ..draft("typ\u{e9} {}'\"\\$1", "null") },
        EventDraft { level: Level::Error, ..draft("scalar", "-0.0") },
        EventDraft { series: tag(None, None), ..draft("plain", "[[],{}]") },
        EventDraft { series: tag(Some(SeriesMode::KeepAll), Some("f")), ..draft("kept", "\"\"") },
        draft(&"t".repeat(255), "true"),
    ];
    let published = publish(&*store, &id, sent.clone()).await;
    for events in [published, log(&*store, &id).await] {
        let drafts: Vec<_> = events.iter().map(|event| event.draft.clone()).collect();
        assert_eq!(drafts, sent);
        assert!(events.iter().all(|event| event.task == id));
    }
}

async fn an_empty_publication_is_accepted_and_changes_nothing(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "log").await.spec.id;
    assert!(publish(&*store, &id, Vec::new()).await.is_empty());
    assert_eq!(head(&*store, &id).await.next_index, 0);
    assert_eq!(indexes(&publish(&*store, &id, vec![draft("a", "1")]).await), [0]);
}

async fn nothing_is_appended_to_a_task_that_is_not_there(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let nobody = task_id("nobody");
    let published = store.append(publication(&nobody, vec![draft("a", "1")])).await.unwrap();
    assert!(matches!(published, Appended::NoSuchTask));
    let moved = store.append(step(&nobody, TaskStatus::Running)).await.unwrap();
    assert!(matches!(moved, Appended::NoSuchTask));
    assert!(store.find(&nobody).await.unwrap().is_none());
}

async fn the_head_moves_with_the_log(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "log").await.spec.id;
    let fresh = head(&*store, &id).await;
    assert_eq!(fresh.status, HeadStatus::Is(TaskStatus::Pending));
    assert_eq!((fresh.next_index, fresh.last_timestamp_ms), (0, 0));
    let events = publish(&*store, &id, vec![draft("a", "1"), draft("b", "2")]).await;
    let moved = head(&*store, &id).await;
    assert_eq!((moved.next_index, moved.newest_event_id()), (2, events[1].id()));
    enter(&*store, &id, TaskStatus::Running).await;
    let last = enter(&*store, &id, TaskStatus::Failed).await;
    let ended = head(&*store, &id).await;
    assert_eq!(ended.terminal(), Some(TaskStatus::Failed));
    assert_eq!(ended.newest_event_id(), last.id());
}

async fn heads_come_for_every_number_that_exists(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let (a, b) = (create(&*store, "a").await, create(&*store, "b").await);
    publish(&*store, &a.spec.id, vec![draft("x", "1")]).await;
    let unknown = taskcast::domain::TaskNumber::MAX;
    let heads = store.heads(&[b.number, unknown, a.number]).await.unwrap();
    let found: HashMap<_, _> = heads.iter().map(|head| (head.task.number, head.clone())).collect();
    assert_eq!(found.len(), 2);
    assert_eq!(found[&a.number], head(&*store, &a.spec.id).await);
    assert_eq!(found[&b.number], head(&*store, &b.spec.id).await);
    assert!(store.heads(&[]).await.unwrap().is_empty());
}

async fn many_writers_share_a_log_without_gap_or_interleaving(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let id = create(&*first, "shared").await.spec.id;
    let writers = (0..16_u32).map(|writer| {
        let store = if writer % 2 == 0 { first.clone() } else { second.clone() };
        let id = id.clone();
        tokio::spawn(async move {
            for batch in 0..20 {
                let size = 1 + (writer + batch) % 4;
                let drafts =
                    (0..size).map(|n| draft("w", &format!("[{writer},{batch},{n}]"))).collect();
                let events = publish(&*store, &id, drafts).await;
                let expected: Vec<u64> = (events[0].index..).take(size as usize).collect();
                assert_eq!(indexes(&events), expected);
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let events = log(&*first, &id).await;
    assert_eq!(indexes(&events), (0..events.len() as u64).collect::<Vec<_>>());
    assert!(events.is_sorted_by(|a, b| a.timestamp_ms <= b.timestamp_ms));
    let mut last: HashMap<u64, (u64, u64)> = HashMap::new();
    for event in &events {
        let [writer, batch, n]: [u64; 3] = serde_json::from_str(event.draft.data.as_str()).unwrap();
        let before = last.insert(writer, (batch, n));
        let follows = match before {
            None => (batch, n) == (0, 0),
            Some((b, m)) => (batch, n) == (b, m + 1) || (batch, n) == (b + 1, 0),
        };
        assert!(follows, "writer {writer}: {before:?} then {:?}", (batch, n));
    }
    let batches = (0..16_u64).flat_map(|writer| (0..20).map(move |batch| 1 + (writer + batch) % 4));
    assert_eq!(events.len() as u64, batches.sum::<u64>());
}

async fn one_writer_sees_its_events_in_its_order_across_many_tasks(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(create(&*store, &format!("task-{n}")).await.spec.id);
    }
    let writers = ids.iter().map(|id| {
        let store = store.clone();
        let id = id.clone();
        tokio::spawn(async move {
            for n in 0..30_u64 {
                let events = publish(&*store, &id, vec![draft("n", &n.to_string())]).await;
                assert_eq!(indexes(&events), [n]);
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    for id in &ids {
        let data: Vec<_> =
            log(&*store, id).await.iter().map(|e| e.draft.data.as_str().to_owned()).collect();
        assert_eq!(data, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

async fn a_thousand_large_events_fit_one_append(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "large").await.spec.id;
    let payload = format!("\"{}\"", "x".repeat(2_000));
    let events = publish(&*store, &id, vec![draft("big", &payload); 1_000]).await;
    assert_eq!(events.len(), 1_000);
    let one = format!("\"{}\"", "y".repeat(1 << 20));
    publish(&*store, &id, vec![draft("bigger", &one)]).await;
    let stored = log(&*store, &id).await;
    assert_eq!(stored.len(), 1_001);
    assert_eq!(stored[1_000].draft.data.as_str(), one);
}

async fn every_append_is_reported_once_and_in_order(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let ids = ["a", "b", "c"].map(task_id);
    for id in &ids {
        create(&*store, id.as_str()).await;
    }
    let appends = (0..90).map(|n| {
        let (store, id) = (store.clone(), ids[n % 3].clone());
        tokio::spawn(
            async move { publish(&*store, &id, vec![draft("n", "1"), delta("s", "x")]).await },
        )
    });
    for append in join_all(appends).await {
        append.unwrap();
    }
    enter(&*store, &ids[0], TaskStatus::Cancelled).await;
    delete(&*store, &ids[1]).await;
    let commits = until("the deletion was reported", || async {
        let commits = store.commits.all();
        commits.iter().any(|commit| commit.deleted).then_some(commits)
    })
    .await;
    for id in &ids {
        let mine: Vec<_> = commits.iter().filter(|commit| commit.task.id == *id).collect();
        let events: Vec<Arc<_>> = mine.iter().flat_map(|commit| commit.events.clone()).collect();
        let expected: u64 = if *id == ids[0] { 61 } else { 60 };
        assert_eq!(indexes(&events), (0..expected).collect::<Vec<_>>());
        let deletions = mine.iter().filter(|commit| commit.deleted).count();
        assert_eq!(deletions, usize::from(*id == ids[1]));
        if *id != ids[1] {
            assert_eq!(log(&*store, id).await, events);
        }
    }
}

async fn an_append_whose_caller_goes_away_still_happens(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "orphan").await.spec.id;
    let drafts = vec![in_series("s", SeriesMode::Latest, draft("a", "1"))];
    // Polled once, so that it is on its way, and then dropped.
    drop(store.append(publication(&id, drafts)).now_or_never());
    until("the event is in the log", || async {
        (head(&*store, &id).await.next_index == 1).then_some(())
    })
    .await;
    until("the commit was reported", || async { (store.commits.all().len() == 1).then_some(()) })
        .await;
}
