//! Idempotency keys: a request with one takes effect once.

use futures_util::future::join_all;
use taskcast::domain::{Append, IdempotencyKey, NewTask, Refusal, TaskStatus};
use taskcast::store::{Appended, Created};

use super::open::Fresh;
use super::{create, delete, draft, enter, log, new_task, publication, publish, step};
use crate::support::{Backend, on_every_store};

on_every_store![
    a_repeated_write_is_answered_with_what_the_first_did,
    a_repeat_is_answered_when_it_could_no_longer_be_carried_out,
    a_key_sent_with_another_request_is_a_conflict_and_writes_nothing,
    a_refused_request_leaves_no_key,
    of_concurrent_repeats_on_two_instances_one_takes_effect,
    of_concurrent_repeated_creations_one_takes_effect,
    a_repeated_creation_returns_the_task_as_it_was_created,
    keys_that_are_young_are_not_pruned,
];

fn key(key: u8, request: u8) -> IdempotencyKey {
    IdempotencyKey { key: [key; 32], request: [request; 32] }
}

fn keyed(append: Append, key: IdempotencyKey) -> Append {
    Append { key: Some(key), ..append }
}

async fn a_repeated_write_is_answered_with_what_the_first_did(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let id = create(&*first, "t").await.spec.id;
    publish(&*first, &id, vec![draft("other", "0")]).await;
    let events = || vec![draft("a", "1"), draft("b", "2")];
    let request = || keyed(publication(&id, events()), key(1, 1));
    let Appended::Events(written) = first.append(request()).await.unwrap() else {
        panic!("the first request is carried out")
    };
    for store in [&first, &second, &first] {
        match store.append(request()).await.unwrap() {
            Appended::Replayed(events) => assert_eq!(events, written),
            other => panic!("{other:?}"),
        }
    }
    let start = || keyed(step(&id, TaskStatus::Running), key(2, 2));
    let started = second.append(start()).await.unwrap().into_stored().expect("carried out");
    match first.append(start()).await.unwrap() {
        Appended::Replayed(events) => assert_eq!(events, started),
        other => panic!("{other:?}"),
    }
    assert_eq!(log(&*first, &id).await.len(), 4);
}

async fn a_repeat_is_answered_when_it_could_no_longer_be_carried_out(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let id = create(&*first, "t").await.spec.id;
    enter(&*first, &id, TaskStatus::Running).await;
    let last = || keyed(publication(&id, vec![draft("last", "1")]), key(1, 1));
    let end = || keyed(step(&id, TaskStatus::Completed), key(2, 2));
    first.append(last()).await.unwrap();
    first.append(end()).await.unwrap();
    for store in [&first, &second] {
        assert!(matches!(store.append(last()).await.unwrap(), Appended::Replayed(_)));
        assert!(matches!(store.append(end()).await.unwrap(), Appended::Replayed(_)));
        let late = store.append(publication(&id, vec![draft("late", "1")])).await.unwrap();
        assert!(matches!(late, Appended::Refused(Refusal::Closed(TaskStatus::Completed))));
    }
    assert!(delete(&*second, &id).await);
    assert!(matches!(first.append(last()).await.unwrap(), Appended::Replayed(_)));
}

async fn a_key_sent_with_another_request_is_a_conflict_and_writes_nothing(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let id = create(&*first, "t").await.spec.id;
    first.append(keyed(publication(&id, vec![draft("a", "1")]), key(1, 1))).await.unwrap();
    for store in [&first, &second] {
        let other = keyed(publication(&id, vec![draft("b", "2")]), key(1, 2));
        assert!(matches!(store.append(other).await.unwrap(), Appended::KeyConflict));
    }
    let created = first.create(new_task("one"), Some(key(3, 3))).await.unwrap();
    assert!(matches!(created, Created::New(_)));
    let other = second.create(new_task("two"), Some(key(3, 4))).await.unwrap();
    assert!(matches!(other, Created::KeyConflict));
    assert!(first.find(&new_task("two").id).await.unwrap().is_none());
    assert_eq!(log(&*first, &id).await.len(), 1);
}

async fn a_refused_request_leaves_no_key(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "t").await.spec.id;
    let end = || keyed(step(&id, TaskStatus::Completed), key(1, 1));
    assert!(matches!(store.append(end()).await.unwrap(), Appended::Refused(_)));
    enter(&*store, &id, TaskStatus::Running).await;
    assert!(store.append(end()).await.unwrap().is_stored());
    let taken = store.create(new_task("t"), Some(key(2, 2))).await.unwrap();
    assert!(matches!(taken, Created::Exists));
    assert!(delete(&*store, &id).await);
    let free = store.create(new_task("t"), Some(key(2, 2))).await.unwrap();
    assert!(matches!(free, Created::New(_)));
}

async fn of_concurrent_repeats_on_two_instances_one_takes_effect(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let id = create(&*first, "t").await.spec.id;
    for round in 0..20_u8 {
        let attempts = (0..8).map(|n| {
            let store = if n % 2 == 0 { first.clone() } else { second.clone() };
            let request =
                keyed(publication(&id, vec![draft("n", &round.to_string())]), key(round, round));
            async move { store.append(request).await.unwrap() }
        });
        let (mut written, mut replayed) = (Vec::new(), Vec::new());
        for appended in join_all(attempts).await {
            match appended {
                Appended::Events(events) => written.push(events),
                Appended::Replayed(events) => replayed.push(events),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((written.len(), replayed.len()), (1, 7));
        assert!(replayed.iter().all(|events| *events == written[0]));
    }
    assert_eq!(log(&*first, &id).await.len(), 20);
}

async fn of_concurrent_repeated_creations_one_takes_effect(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    for round in 0..20_u8 {
        let attempts = (0..8).map(|n| {
            let store = if n % 2 == 0 { first.clone() } else { second.clone() };
            // As a server would that makes an id for each request.
            let task = new_task(&format!("made-{round}-{n}"));
            async move { store.create(task, Some(key(round, 1))).await.unwrap() }
        });
        let (mut new, mut replayed) = (Vec::new(), Vec::new());
        for created in join_all(attempts).await {
            match created {
                Created::New(task) => new.push(task.spec.id.clone()),
                Created::Replayed(task) => replayed.push(task.spec.id.clone()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((new.len(), replayed.len()), (1, 7));
        assert!(replayed.iter().all(|id| *id == new[0]));
    }
}

async fn a_repeated_creation_returns_the_task_as_it_was_created(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = |id: &str| NewTask { ttl_seconds: Some(60), ..new_task(id) };
    let Created::New(made) = store.create(task("made-1"), Some(key(1, 1))).await.unwrap() else {
        panic!("the id is free")
    };
    enter(&*store, &made.spec.id, TaskStatus::Running).await;
    match store.create(task("made-2"), Some(key(1, 1))).await.unwrap() {
        Created::Replayed(again) => {
            assert_eq!((&again.spec.id, again.number), (&made.spec.id, made.number));
            assert_eq!(again.status, TaskStatus::Pending);
            assert_eq!(again.created_at_ms, made.created_at_ms);
            assert_eq!(again.spec.ttl_seconds, Some(60));
        }
        other => panic!("{other:?}"),
    }
}

async fn keys_that_are_young_are_not_pruned(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "t").await.spec.id;
    let request = || keyed(publication(&id, vec![draft("a", "1")]), key(1, 1));
    store.append(request()).await.unwrap();
    assert_eq!(store.prune_keys(100).await.unwrap(), 0);
    assert!(matches!(store.append(request()).await.unwrap(), Appended::Replayed(_)));
}
