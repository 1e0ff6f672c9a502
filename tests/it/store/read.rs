//! Reading stretches of logs, holes included.

use std::sync::Arc;

use taskcast::domain::{EventDraft, SeriesMode, TaskStatus};
use taskcast::store::{ReadRange, Store, TaskRef, View};

use super::open::Fresh;
use super::{
    create, delta, draft, enter, head, in_series, indexes, latest, log, pages, publish, range,
    read_one,
};
use crate::support::{Backend, on_every_store};

on_every_store![
    a_page_holds_what_was_asked_for_and_says_how_far_it_got,
    pages_of_any_size_add_up_to_the_log,
    a_page_stops_at_its_bytes_but_never_before_its_first_event,
    superseded_events_are_left_out_and_their_places_are_covered,
    a_long_hole_is_passed_over_page_by_page,
    superseding_within_one_request_keeps_the_newest,
    a_view_without_deltas_leaves_out_accumulate_series_alone,
    a_read_beyond_the_head_promises_nothing_about_what_is_to_come,
    many_stretches_of_many_tasks_are_read_at_once,
    who_sees_an_event_sees_every_one_before_it,
];

async fn task(store: &dyn Store, id: &str, events: Vec<EventDraft>) -> TaskRef {
    let id = create(store, id).await.spec.id;
    publish(store, &id, events).await;
    head(store, &id).await.task
}

async fn a_page_holds_what_was_asked_for_and_says_how_far_it_got(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let numbered = (0..20).map(|n| draft("n", &n.to_string())).collect();
    let task = task(&*store, "log", numbered).await;
    let page = read_one(&*store, range(&task, 5, 12)).await;
    assert_eq!((indexes(&page.events), page.covers_to), ((5..12).collect(), 12));
    let page = read_one(&*store, ReadRange { max_events: 4, ..range(&task, 5, 12) }).await;
    assert_eq!((indexes(&page.events), page.covers_to), ((5..9).collect(), 9));
    let page = read_one(&*store, range(&task, 20, 20)).await;
    assert_eq!((page.events.len(), page.covers_to), (0, 20));
}

async fn pages_of_any_size_add_up_to_the_log(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let events = (0..300).map(|n| match n % 7 {
        0 => latest("l", n),
        1 | 2 => delta("d", "x"),
        _ => draft("n", &n.to_string()),
    });
    let task = task(&*store, "log", events.collect()).await;
    let whole = pages(&*store, range(&task, 0, 300)).await;
    assert_eq!(whole.len(), 300 - 42);
    for max_events in [1, 3, 64, 257, 1_000] {
        let paged = pages(&*store, ReadRange { max_events, ..range(&task, 0, 300) }).await;
        assert_eq!(paged, whole);
    }
    for max_bytes in [1, 17, 400] {
        let paged = pages(&*store, ReadRange { max_bytes, ..range(&task, 0, 300) }).await;
        assert_eq!(paged, whole);
    }
    let stretch = pages(&*store, ReadRange { max_events: 5, ..range(&task, 77, 191) }).await;
    let expected: Vec<Arc<_>> =
        whole.iter().filter(|event| (77..191).contains(&event.index)).cloned().collect();
    assert_eq!(stretch, expected);
}

async fn a_page_stops_at_its_bytes_but_never_before_its_first_event(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let payload = format!("\"{}\"", "x".repeat(10_000));
    let task = task(&*store, "log", vec![draft("big", &payload); 10]).await;
    let page = read_one(&*store, ReadRange { max_bytes: 25_000, ..range(&task, 0, 10) }).await;
    assert!((1..=4).contains(&page.events.len()), "{}", page.events.len());
    assert_eq!(page.covers_to, page.events.len() as u64);
    let page = read_one(&*store, ReadRange { max_bytes: 1, ..range(&task, 3, 10) }).await;
    assert_eq!(indexes(&page.events), [3]);
}

async fn superseded_events_are_left_out_and_their_places_are_covered(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "log").await.spec.id;
    for n in 0..6 {
        publish(&*store, &id, vec![latest("a", n), draft("n", "1"), latest("b", n)]).await;
    }
    let task = head(&*store, &id).await.task;
    let events = log(&*store, &id).await;
    assert_eq!(indexes(&events), [1, 4, 7, 10, 13, 15, 16, 17]);
    let page = read_one(&*store, range(&task, 2, 4)).await;
    assert_eq!((page.events.len(), page.covers_to), (0, 4));
}

async fn a_long_hole_is_passed_over_page_by_page(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "log").await.spec.id;
    publish(&*store, &id, vec![draft("first", "1")]).await;
    for batch in 0..5_u64 {
        publish(&*store, &id, (0..700).map(|n| latest("l", batch * 700 + n)).collect()).await;
    }
    publish(&*store, &id, vec![draft("last", "1")]).await;
    let task = head(&*store, &id).await.task;
    for max_events in [1, 2, 500] {
        let events = pages(&*store, ReadRange { max_events, ..range(&task, 0, 3_502) }).await;
        assert_eq!(indexes(&events), [0, 3_500, 3_501]);
        assert_eq!(events[1].draft.data.as_str(), "3499");
    }
}

async fn superseding_within_one_request_keeps_the_newest(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "log").await.spec.id;
    let events = publish(&*store, &id, vec![latest("l", 1), latest("l", 2), latest("l", 3)]).await;
    // Live readers see each of them, so the append returns them all.
    assert_eq!(indexes(&events), [0, 1, 2]);
    let events = log(&*store, &id).await;
    assert_eq!((indexes(&events), events[0].draft.data.as_str()), (vec![2], "3"));
    // Superseding does not look at type or level.
    let other = in_series("l", SeriesMode::Latest, draft("another.type", "4"));
    publish(&*store, &id, vec![other]).await;
    assert_eq!(indexes(&log(&*store, &id).await), [3]);
}

async fn a_view_without_deltas_leaves_out_accumulate_series_alone(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let kept = in_series("k", SeriesMode::KeepAll, draft("k", "1"));
    let events = vec![
        draft("n", "1"),
        delta("d", "x"),
        kept,
        delta("e", "y"),
        latest("l", 1),
        latest("l", 2),
    ];
    let task = task(&*store, "log", events).await;
    enter(&*store, &task.id, TaskStatus::Running).await;
    for max_events in [1, 100] {
        let view = ReadRange { view: View::WithoutDeltas, max_events, ..range(&task, 0, 7) };
        assert_eq!(indexes(&pages(&*store, view).await), [0, 2, 5, 6]);
    }
    let page =
        read_one(&*store, ReadRange { view: View::WithoutDeltas, ..range(&task, 3, 5) }).await;
    assert_eq!((page.events.len(), page.covers_to), (0, 5));
}

async fn a_read_beyond_the_head_promises_nothing_about_what_is_to_come(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = task(&*store, "log", vec![draft("n", "0"), latest("l", 1)]).await;
    let page = read_one(&*store, range(&task, 1, 1_000)).await;
    assert_eq!((indexes(&page.events), page.covers_to), (vec![1], 2));
    let page = read_one(&*store, range(&task, 2, 1_000)).await;
    assert_eq!((page.events.len(), page.covers_to), (0, 2));
}

async fn many_stretches_of_many_tasks_are_read_at_once(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let mut ranges = Vec::new();
    let mut expected: Vec<Vec<String>> = Vec::new();
    for n in 0..12_u64 {
        let events = (0..10).map(|event| draft("n", &(100 * n + event).to_string())).collect();
        let task = task(&*store, &format!("task-{n}"), events).await;
        ranges.push(ReadRange { max_events: 3 + n as usize % 3, ..range(&task, n % 10, 10) });
        expected.push(
            (n % 10..10)
                .take(3 + n as usize % 3)
                .map(|event| (100 * n + event).to_string())
                .collect(),
        );
    }
    ranges.reverse();
    expected.reverse();
    let pages = store.read(&ranges).await.unwrap();
    let data: Vec<Vec<String>> = pages
        .iter()
        .map(|page| page.events.iter().map(|event| event.draft.data.as_str().to_owned()).collect())
        .collect();
    assert_eq!(data, expected);
    assert!(store.read(&[]).await.unwrap().is_empty());
    let twice = store.read(&[ranges[0].clone(), ranges[0].clone()]).await.unwrap();
    assert_eq!(twice[0].events, twice[1].events);
}

async fn who_sees_an_event_sees_every_one_before_it(backend: Backend) {
    let (writer, reader) = Fresh::open_two(&backend).await;
    let id = create(&*writer, "log").await.spec.id;
    let task = head(&*writer, &id).await.task;
    let writers: Vec<_> = (0..6)
        .map(|_| {
            let (writer, id) = (writer.clone(), id.clone());
            tokio::spawn(async move {
                for _ in 0..40 {
                    publish(&*writer, &id, vec![draft("n", "1"), draft("n", "2")]).await;
                }
            })
        })
        .collect();
    let mut seen = 0;
    while seen < 480 {
        let page = read_one(&*reader, range(&task, seen, u64::MAX >> 20)).await;
        let expected: Vec<u64> = (seen..page.covers_to).collect();
        assert_eq!(indexes(&page.events), expected, "a hole that a later read might fill");
        seen = page.covers_to;
    }
    for writer in writers {
        writer.await.unwrap();
    }
}
