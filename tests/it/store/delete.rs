//! Deleting and purging.

use taskcast::domain::{Filter, TaskStatus};
use taskcast::store::{Appended, HeadStatus};

use super::open::Fresh;
use super::{
    create, delete, delta, draft, enter, every_task, head, latest, log, publication, publish,
    range, step,
};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    a_deleted_task_is_gone_for_everyone,
    a_task_can_be_deleted_in_every_state,
    the_id_of_a_deleted_task_begins_anew_with_another_number,
    a_deletion_is_told_to_those_who_ask_for_its_number,
    purging_goes_in_bounded_steps_and_leaves_others_alone,
    an_append_that_races_a_deletion_is_before_it_or_refused,
];

async fn a_deleted_task_is_gone_for_everyone(backend: Backend) {
    let (store, other) = Fresh::open_two(&backend).await;
    let task = create(&*store, "doomed").await;
    let id = task.spec.id.clone();
    publish(&*store, &id, vec![draft("n", "1"), delta("s", "x")]).await;
    let reference = head(&*store, &id).await.task;
    assert!(delete(&*store, &id).await);
    for store in [&store, &other] {
        assert!(store.find(&id).await.unwrap().is_none());
        assert!(store.head(&id).await.unwrap().is_none());
        assert!(store.list(&every_task()).await.unwrap().tasks.is_empty());
        assert!(!delete(&**store, &id).await);
        for append in [publication(&id, vec![draft("n", "2")]), step(&id, TaskStatus::Running)] {
            assert!(matches!(store.append(append).await.unwrap(), Appended::NoSuchTask));
        }
        let page = store.read(&[range(&reference, 0, 2)]).await.unwrap().remove(0);
        assert!(page.events.is_empty());
    }
}

async fn a_task_can_be_deleted_in_every_state(backend: Backend) {
    let store = Fresh::open(&backend).await;
    for status in TaskStatus::ALL {
        let id = create(&*store, status.as_str()).await.spec.id;
        if status != TaskStatus::Pending {
            enter(&*store, &id, TaskStatus::Running).await;
        }
        if status.is_terminal() {
            enter(&*store, &id, status).await;
        }
        assert!(delete(&*store, &id).await, "{status}");
        assert!(store.find(&id).await.unwrap().is_none(), "{status}");
    }
}

async fn the_id_of_a_deleted_task_begins_anew_with_another_number(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let first = create(&*store, "again").await;
    let id = first.spec.id.clone();
    publish(&*store, &id, vec![delta("s", "old"), latest("l", 1), draft("n", "1")]).await;
    let old = head(&*store, &id).await.task;
    delete(&*store, &id).await;
    let second = create(&*store, "again").await;
    assert!(second.number > first.number);
    assert_eq!(head(&*store, &id).await.next_index, 0);
    assert!(log(&*store, &id).await.is_empty());
    // Nothing of the old series binds the new task.
    publish(&*store, &id, vec![latest("s", 1), delta("l", "new")]).await;
    assert_eq!(log(&*store, &id).await.len(), 2);
    let page = store.read(&[range(&old, 0, 3)]).await.unwrap().remove(0);
    assert!(page.events.is_empty(), "the old log must not show through");
}

async fn a_deletion_is_told_to_those_who_ask_for_its_number(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let (doomed, kept) = (create(&*store, "doomed").await, create(&*store, "kept").await);
    delete(&*store, &doomed.spec.id).await;
    let heads = store.heads(&[doomed.number, kept.number]).await.unwrap();
    for head in &heads {
        let deleted = head.status == HeadStatus::Deleted;
        assert_eq!(deleted, head.task.number == doomed.number, "{head:?}");
    }
    // Purged at once or told as deleted: never shown as if it were there.
    assert!(heads.iter().any(|head| head.task.number == kept.number));
    until("nothing is left to purge", || async {
        (store.purge(1_000).await.unwrap() == 0).then_some(())
    })
    .await;
    let heads = store.heads(&[doomed.number, kept.number]).await.unwrap();
    assert!(heads.iter().all(|head| head.status != HeadStatus::Is(TaskStatus::Pending)
        || head.task.number == kept.number));
}

async fn purging_goes_in_bounded_steps_and_leaves_others_alone(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let kept = create(&*store, "kept").await.spec.id;
    publish(&*store, &kept, vec![delta("s", "abc"), latest("l", 1), draft("n", "1")]).await;
    for n in 0..3 {
        let id = create(&*store, &format!("doomed-{n}")).await.spec.id;
        for _ in 0..3 {
            publish(&*store, &id, (0..500).map(|n| delta(&format!("s{}", n % 5), "xyz")).collect())
                .await;
        }
        delete(&*store, &id).await;
    }
    let mut steps = 0;
    loop {
        let gone = store.purge(200).await.unwrap();
        // "About": a step may finish what belongs together.
        assert!(gone <= 2_000, "{gone} rows in one step");
        if gone == 0 {
            break;
        }
        steps += 1;
        assert!(steps < 10_000, "purging does not come to an end");
    }
    assert_eq!(log(&*store, &kept).await.len(), 3);
    let head = head(&*store, &kept).await;
    let spans = store.series_spans(head.task.number, 3).await.unwrap();
    let snapshot = store.snapshot(&head.task, &spans[0]).await.unwrap().unwrap();
    assert_eq!(snapshot.draft.data.as_str(), r#"{"text":"abc"}"#);
    assert_eq!(store.count(head.task.number, &[3], &Filter::default()).await.unwrap(), [3]);
}

async fn an_append_that_races_a_deletion_is_before_it_or_refused(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    for round in 0..5 {
        let id = create(&*first, "contested").await.spec.id;
        let appends: Vec<_> = (0..20)
            .map(|n| {
                let (store, id) =
                    (if n % 2 == 0 { first.clone() } else { second.clone() }, id.clone());
                tokio::spawn(async move {
                    store.append(publication(&id, vec![draft("n", "1")])).await.unwrap()
                })
            })
            .collect();
        assert!(delete(&*second, &id).await);
        let mut accepted = Vec::new();
        for append in appends {
            match append.await.unwrap() {
                Appended::Events(events) => accepted.push(events[0].index),
                Appended::NoSuchTask => {}
                other => panic!("{other:?}"),
            }
        }
        accepted.sort_unstable();
        assert_eq!(accepted, (0..accepted.len() as u64).collect::<Vec<_>>(), "round {round}");
    }
}
