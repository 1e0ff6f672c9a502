//! Folding `accumulate` series, at the head and anywhere before it.

use std::collections::HashMap;

use taskcast::domain::{Event, EventDraft, SeriesMode, SeriesTag};
use taskcast::store::{SeriesSpan, Store};

use super::open::Fresh;
use super::{create, delta, draft, head, in_series, latest, publish};
use crate::support::{Backend, on_every_store};

on_every_store![
    a_span_says_where_a_series_began_and_stood,
    a_snapshot_is_the_newest_event_with_the_whole_text,
    a_snapshot_can_be_taken_at_any_earlier_point,
    text_is_joined_as_it_was_sent,
    an_event_without_the_field_adds_nothing_and_gets_the_text,
    a_named_field_is_the_one_that_accumulates,
    a_long_series_is_folded_whole_at_every_point,
    interleaved_series_do_not_mix,
];

async fn spans(store: &dyn Store, id: &taskcast::domain::TaskId, to: u64) -> Vec<SeriesSpan> {
    let number = head(store, id).await.task.number;
    let mut spans = store.series_spans(number, to).await.unwrap();
    spans.sort_by(|a, b| a.id.cmp(&b.id));
    spans
}

async fn snapshot(store: &dyn Store, id: &taskcast::domain::TaskId, to: u64) -> Event {
    let spans = spans(store, id, to).await;
    assert_eq!(spans.len(), 1, "{spans:?}");
    let task = head(store, id).await.task;
    store.snapshot(&task, &spans[0]).await.unwrap().unwrap()
}

fn named(field: &str, data: &str) -> EventDraft {
    let tag =
        SeriesTag { id: "s".into(), mode: Some(SeriesMode::Accumulate), field: Some(field.into()) };
    EventDraft { series: Some(tag), ..draft("llm.delta", data) }
}

fn raw(data: &str) -> EventDraft {
    in_series("s", SeriesMode::Accumulate, draft("llm.delta", data))
}

async fn a_span_says_where_a_series_began_and_stood(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    assert!(spans(&*store, &id, 0).await.is_empty());
    let events = vec![
        draft("n", "1"),
        delta("a", "x"),
        latest("l", 1),
        delta("b", "x"),
        in_series("k", SeriesMode::KeepAll, draft("k", "1")),
        delta("a", "y"),
        delta("b", "y"),
    ];
    publish(&*store, &id, events).await;
    let places = async |to| -> Vec<(String, u64, u64)> {
        let spans = spans(&*store, &id, to).await;
        spans.iter().map(|span| (span.id.to_string(), span.first_index, span.last_index)).collect()
    };
    let span = |id: &str, first, last| (id.to_owned(), first, last);
    assert_eq!(places(7).await, [span("a", 1, 5), span("b", 3, 6)]);
    assert_eq!(places(6).await, [span("a", 1, 5), span("b", 3, 3)]);
    assert_eq!(places(5).await, [span("a", 1, 1), span("b", 3, 3)]);
    assert_eq!(places(3).await, [span("a", 1, 1)]);
    assert_eq!(places(1).await, []);
    assert!(spans(&*store, &id, 7).await.iter().all(|span| span.field.as_deref() == Some("text")));
}

async fn a_snapshot_is_the_newest_event_with_the_whole_text(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    publish(&*store, &id, vec![raw(r#"{"text":"Hel","n":1}"#), draft("n", "1")]).await;
    let events = publish(&*store, &id, vec![raw(r#"{"n":2.0,"text":"lo","z":null}"#)]).await;
    let snapshot = snapshot(&*store, &id, 3).await;
    assert_eq!(snapshot.draft.data.as_str(), r#"{"n":2.0,"text":"Hello","z":null}"#);
    assert_eq!((snapshot.id(), snapshot.index), (events[0].id(), 2));
    assert_eq!((snapshot.timestamp_ms, snapshot.task), (events[0].timestamp_ms, id));
    assert_eq!(snapshot.draft.series, events[0].draft.series);
}

async fn a_snapshot_can_be_taken_at_any_earlier_point(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    for letter in ["a", "b", "c", "d"] {
        publish(&*store, &id, vec![delta("s", letter), draft("n", "1")]).await;
    }
    for (to, index, text) in [(1, 0, "a"), (2, 0, "a"), (3, 2, "ab"), (6, 4, "abc"), (8, 6, "abcd")]
    {
        let snapshot = snapshot(&*store, &id, to).await;
        assert_eq!(
            (snapshot.index, snapshot.draft.data.as_str()),
            (index, &*format!(r#"{{"text":"{text}"}}"#))
        );
    }
}

async fn text_is_joined_as_it_was_sent(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    // Halves of a surrogate pair, spelled escapes, a NUL: none of it is decoded.
    for body in [r"\ud83d", r"\ude00", r"\/", r"\u0000", "\u{e9}\u{1f600}", r"\u00e9", r#"\""#, ""]
    {
        publish(&*store, &id, vec![delta("s", body)]).await;
    }
    let expected = "{\"text\":\"\\ud83d\\ude00\\/\\u0000\u{e9}\u{1f600}\\u00e9\\\"\"}";
    assert_eq!(snapshot(&*store, &id, 8).await.draft.data.as_str(), expected);
}

async fn an_event_without_the_field_adds_nothing_and_gets_the_text(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    publish(&*store, &id, vec![raw(r#"{"other":1}"#), raw(r#"{"delta":"ab"}"#)]).await;
    publish(&*store, &id, vec![raw(r#"{"text":"not this field"}"#)]).await;
    let expected = r#"{"text":"not this field","delta":"ab"}"#;
    assert_eq!(snapshot(&*store, &id, 3).await.draft.data.as_str(), expected);
    publish(&*store, &id, vec![raw("null")]).await;
    assert_eq!(snapshot(&*store, &id, 4).await.draft.data.as_str(), r#"{"delta":"ab"}"#);
    publish(&*store, &id, vec![raw("{}"), raw(r#"{"delta":"c"}"#)]).await;
    assert_eq!(snapshot(&*store, &id, 5).await.draft.data.as_str(), r#"{"delta":"ab"}"#);
    assert_eq!(snapshot(&*store, &id, 6).await.draft.data.as_str(), r#"{"delta":"abc"}"#);
}

async fn a_named_field_is_the_one_that_accumulates(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    publish(
        &*store,
        &id,
        vec![named("out", r#"{"text":"no","out":"a"}"#), raw(r#"{"out":"b","text":"no"}"#)],
    )
    .await;
    assert_eq!(snapshot(&*store, &id, 2).await.draft.data.as_str(), r#"{"out":"ab","text":"no"}"#);
}

async fn a_long_series_is_folded_whole_at_every_point(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    let filler = "x".repeat(200);
    let mut texts = Vec::new();
    let mut text = String::new();
    for batch in 0..6 {
        let mut events = Vec::new();
        for n in 0..500 {
            let part = format!("{batch}.{n}{}|", &filler[..n % 200]);
            text.push_str(&part);
            texts.push(text.len());
            events.push(delta("s", &part));
        }
        publish(&*store, &id, events).await;
    }
    for to in [1, 2, 99, 1_000, 1_023, 1_024, 1_025, 2_047, 2_048, 2_999, 3_000] {
        let snapshot = snapshot(&*store, &id, to).await;
        assert_eq!(snapshot.index, to - 1);
        let expected = &text[..texts[to as usize - 1]];
        assert_eq!(
            snapshot.draft.data.as_str(),
            format!(r#"{{"text":"{expected}"}}"#),
            "up to {to}"
        );
    }
}

async fn interleaved_series_do_not_mix(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    let mut texts: HashMap<String, String> = HashMap::new();
    for round in 0..30_u64 {
        let mut events = vec![draft("n", "1"), latest("l", round)];
        for n in 0..10 {
            let (series, part) = (format!("s{}", (round * 7 + n) % 10), format!("{round}."));
            texts.entry(series.clone()).or_default().push_str(&part);
            events.push(delta(&series, &part));
        }
        publish(&*store, &id, events).await;
    }
    let head = head(&*store, &id).await;
    let spans = spans(&*store, &id, head.next_index).await;
    assert_eq!(spans.len(), 10);
    for span in spans {
        let snapshot = store.snapshot(&head.task, &span).await.unwrap().unwrap();
        assert_eq!(snapshot.index, span.last_index);
        let expected = format!(r#"{{"text":"{}"}}"#, texts[&*span.id]);
        assert_eq!(snapshot.draft.data.as_str(), expected);
    }
}
