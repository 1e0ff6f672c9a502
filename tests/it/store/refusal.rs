//! What a store refuses, and that a refusal leaves no trace.

use futures_util::future::join_all;
use taskcast::domain::{
    Append, EventDraft, Level, Refusal, SeriesConflict, SeriesMode, SeriesTag, TaskStatus,
};
use taskcast::store::{Appended, Store};

use super::open::Fresh;
use super::{
    create, delta, draft, enter, head, in_series, indexes, latest, log, payloads, publication,
    publish, rules, step,
};
use crate::support::{Backend, on_every_store};

on_every_store![
    every_transition_that_is_not_in_the_table_is_refused,
    a_finished_task_takes_nothing_more,
    an_event_that_does_not_fit_its_series_refuses_its_whole_request,
    a_request_is_judged_against_what_its_earlier_events_began,
    a_series_that_would_grow_too_long_stays_as_it_was,
    a_refused_request_opens_no_series,
    series_are_remembered_however_many_events_lie_between,
    two_requests_that_open_one_series_at_once_agree_on_what_it_is,
    neighbours_of_refused_requests_are_not_affected,
];

async fn refused(store: &dyn Store, append: Append) -> Refusal {
    match store.append(append).await.unwrap() {
        Appended::Refused(refusal) => refusal,
        other => panic!("the append should be refused, not {other:?}"),
    }
}

async fn every_transition_that_is_not_in_the_table_is_refused(backend: Backend) {
    let store = Fresh::open(&backend).await;
    for from in TaskStatus::ALL {
        for to in TaskStatus::ALL {
            let id = create(&*store, &format!("{from}-{to}")).await.spec.id;
            if !matches!(from, TaskStatus::Pending | TaskStatus::Cancelled) {
                enter(&*store, &id, TaskStatus::Running).await;
            }
            if from.is_terminal() {
                enter(&*store, &id, from).await;
            }
            let before = head(&*store, &id).await;
            if from.may_become(to) {
                enter(&*store, &id, to).await;
                assert_eq!(store.find(&id).await.unwrap().unwrap().status, to);
                continue;
            }
            let refusal = refused(&*store, step(&id, to)).await;
            assert_eq!(refusal, Refusal::IllegalTransition { from, to });
            assert_eq!(head(&*store, &id).await, before);
            assert_eq!(store.find(&id).await.unwrap().unwrap().status, from);
        }
    }
}

async fn a_finished_task_takes_nothing_more(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "finished").await.spec.id;
    enter(&*store, &id, TaskStatus::Cancelled).await;
    for events in [vec![draft("late", "1")], Vec::new()] {
        let refusal = refused(&*store, publication(&id, events)).await;
        assert_eq!(refusal, Refusal::Closed(TaskStatus::Cancelled));
    }
    assert_eq!(head(&*store, &id).await.next_index, 1);
}

async fn an_event_that_does_not_fit_its_series_refuses_its_whole_request(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    let named = |field: &str, data: &str| {
        let tag = SeriesTag {
            id: "named".into(),
            mode: Some(SeriesMode::Accumulate),
            field: Some(field.into()),
        };
        EventDraft { series: Some(tag), ..draft("llm.delta", data) }
    };
    let opening = vec![delta("text", "a"), latest("latest", 1), named("out", r#"{"out":"x"}"#)];
    publish(&*store, &id, opening).await;
    publish(&*store, &id, vec![in_series("kept", SeriesMode::KeepAll, draft("k", "1"))]).await;
    let accumulate = |data| in_series("text", SeriesMode::Accumulate, draft("llm.delta", data));
    let cases = [
        (accumulate(r#"{"text":1}"#), SeriesConflict::NotText("text".into())),
        (accumulate(r#"{"text":null}"#), SeriesConflict::NotText("text".into())),
        (
            EventDraft { event_type: "other".into(), ..delta("text", "b") },
            SeriesConflict::Type("llm.delta".into()),
        ),
        (
            EventDraft { level: Level::Warn, ..delta("text", "b") },
            SeriesConflict::Level(Level::Info),
        ),
        (named("text", r#"{"text":"x"}"#), SeriesConflict::Field("text".into())),
        (
            in_series("text", SeriesMode::Latest, draft("llm.delta", "1")),
            SeriesConflict::Mode(SeriesMode::Accumulate),
        ),
        (
            in_series("latest", SeriesMode::KeepAll, draft("p", "1")),
            SeriesConflict::Mode(SeriesMode::Latest),
        ),
        (
            in_series("kept", SeriesMode::Latest, draft("k", "1")),
            SeriesConflict::Mode(SeriesMode::KeepAll),
        ),
    ];
    let before = head(&*store, &id).await;
    for (bad, conflict) in cases {
        let events = vec![draft("good", "1"), delta("text", "z"), bad, draft("good", "2")];
        let refusal = refused(&*store, publication(&id, events)).await;
        assert_eq!(refusal, Refusal::Series { position: 2, conflict });
        assert_eq!(head(&*store, &id).await, before);
    }
    let fitting = vec![
        delta("text", "b"),
        named("out", "{}"),
        in_series("latest", SeriesMode::Latest, draft("q", "2")),
    ];
    assert_eq!(indexes(&publish(&*store, &id, fitting).await), [4, 5, 6]);
}

async fn a_request_is_judged_against_what_its_earlier_events_began(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    let events = vec![latest("s", 1), delta("s", "x")];
    let refusal = refused(&*store, publication(&id, events)).await;
    let conflict = SeriesConflict::Mode(SeriesMode::Latest);
    assert_eq!(refusal, Refusal::Series { position: 1, conflict });
    publish(&*store, &id, vec![delta("s", "x"), delta("s", "y")]).await;
    assert_eq!(head(&*store, &id).await.next_index, 2);
}

async fn a_series_that_would_grow_too_long_stays_as_it_was(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    let limited = |events| Append { rules: rules(10), ..publication(&id, events) };
    super::accepted(store.append(limited(vec![delta("s", "12345"), delta("s", "6789")])).await);
    let refusal = refused(&*store, limited(vec![delta("s", "0"), delta("s", "1")])).await;
    assert_eq!(refusal, Refusal::SeriesTooLong { position: 1, limit_bytes: 10 });
    super::accepted(store.append(limited(vec![delta("s", "0")])).await);
    let refusal = refused(&*store, limited(vec![delta("s", "1")])).await;
    assert_eq!(refusal, Refusal::SeriesTooLong { position: 0, limit_bytes: 10 });
    super::accepted(store.append(limited(vec![delta("s", ""), delta("other", "1")])).await);
    assert_eq!(head(&*store, &id).await.next_index, 5);
}

async fn a_refused_request_opens_no_series(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    let bad = in_series("s", SeriesMode::Accumulate, draft("llm.delta", r#"{"text":7}"#));
    refused(&*store, publication(&id, vec![latest("new", 1), bad])).await;
    publish(&*store, &id, vec![delta("new", "x"), latest("s", 1)]).await;
    assert_eq!(indexes(&log(&*store, &id).await), [0, 1]);
}

async fn series_are_remembered_however_many_events_lie_between(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "task").await.spec.id;
    let opened: Vec<_> = (0..50).map(|n| delta(&format!("s{n}"), "x")).collect();
    publish(&*store, &id, opened).await;
    publish(&*store, &id, vec![draft("noise", "1"); 1_000]).await;
    publish(&*store, &id, vec![draft("noise", "1"); 1_000]).await;
    for n in 0..50 {
        let refusal = refused(&*store, publication(&id, vec![latest(&format!("s{n}"), 1)])).await;
        let conflict = SeriesConflict::Mode(SeriesMode::Accumulate);
        assert_eq!(refusal, Refusal::Series { position: 0, conflict });
    }
}

async fn two_requests_that_open_one_series_at_once_agree_on_what_it_is(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let id = create(&*first, "task").await.spec.id;
    for round in 0..10 {
        let series = format!("s{round}");
        let attempts = (0..8).map(|n| {
            let store = if n % 2 == 0 { &first } else { &second };
            let event = if n % 4 < 2 { delta(&series, "x") } else { latest(&series, 1) };
            let append = publication(&id, vec![event]);
            async move { store.append(append).await.unwrap() }
        });
        let verdicts = join_all(attempts).await;
        let accepted = |modes: &[usize]| modes.iter().filter(|n| verdicts[**n].is_stored()).count();
        let (deltas, values) = (accepted(&[0, 1, 4, 5]), accepted(&[2, 3, 6, 7]));
        assert!((deltas, values) == (4, 0) || (deltas, values) == (0, 4), "{deltas} and {values}");
    }
}

async fn neighbours_of_refused_requests_are_not_affected(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let shared = create(&*store, "shared").await.spec.id;
    let closed = create(&*store, "closed").await.spec.id;
    enter(&*store, &closed, TaskStatus::Cancelled).await;
    publish(&*store, &shared, vec![delta("s", "0")]).await;
    let appends = (0..200).map(|n| {
        let append = match n % 5 {
            0 => publication(&closed, vec![draft("late", "1")]),
            1 => publication(&shared, vec![draft("lost", "1"), latest("s", 1)]),
            2 => step(&shared, TaskStatus::Completed),
            3 => publication(&super::task_id("nobody"), vec![draft("x", "1")]),
            _ => publication(&shared, vec![draft("good", &n.to_string())]),
        };
        let store = store.clone();
        tokio::spawn(async move { (n, store.append(append).await.unwrap()) })
    });
    for verdict in join_all(appends).await {
        let (n, appended) = verdict.unwrap();
        match n % 5 {
            4 => assert!(appended.is_stored(), "{appended:?}"),
            3 => assert!(matches!(appended, Appended::NoSuchTask), "{appended:?}"),
            _ => assert!(matches!(appended, Appended::Refused(_)), "{appended:?}"),
        }
    }
    let events = log(&*store, &shared).await;
    assert_eq!(indexes(&events), (0..41).collect::<Vec<_>>());
    let mut kept: Vec<u32> =
        payloads(&events[1..]).iter().map(|data| data.parse().unwrap()).collect();
    kept.sort_unstable();
    assert_eq!(kept, (0..200).filter(|n| n % 5 == 4).collect::<Vec<_>>());
    assert_eq!(head(&*store, &closed).await.next_index, 1);
}
