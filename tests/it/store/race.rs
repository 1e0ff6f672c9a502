//! Races for the last word: exactly one terminal transition, ever.

use futures_util::future::join_all;
use taskcast::domain::{NewTask, Refusal, TaskStatus};
use taskcast::store::Appended;

use super::open::Fresh;
use super::{create_as, draft, enter, head, log, new_task, publication, step};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    of_24_concurrent_terminal_transitions_exactly_one_wins,
    of_the_deadline_and_a_transition_exactly_one_wins,
    nothing_follows_the_terminal_event_however_many_publish,
    of_many_concurrent_starts_exactly_one_wins,
];

const ENDS: [TaskStatus; 4] =
    [TaskStatus::Completed, TaskStatus::Failed, TaskStatus::Cancelled, TaskStatus::Timeout];

fn is_terminal_event(data: &str) -> bool {
    ENDS.iter().any(|end| data == format!(r#"{{"status":"{end}"}}"#))
}

async fn of_24_concurrent_terminal_transitions_exactly_one_wins(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    for round in 0..5 {
        let id = create_as(&*first, new_task(&format!("race-{round}"))).await.spec.id;
        enter(&*first, &id, TaskStatus::Running).await;
        let attempts = (0..24_usize).map(|n| {
            let store = if n < 12 { first.clone() } else { second.clone() };
            let (append, to) = (step(&id, ENDS[n % 4]), ENDS[n % 4]);
            tokio::spawn(async move { (to, store.append(append).await.unwrap()) })
        });
        let mut winners = Vec::new();
        let mut losers = Vec::new();
        for attempt in join_all(attempts).await {
            match attempt.unwrap() {
                (to, won) if won.is_stored() => winners.push(to),
                (to, Appended::Refused(refusal)) => losers.push((to, refusal)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        for (to, refusal) in losers {
            assert_eq!(refusal, Refusal::IllegalTransition { from: winners[0], to });
        }
        let task = second.find(&id).await.unwrap().unwrap();
        assert_eq!(task.status, winners[0]);
        let events = log(&*second, &id).await;
        let ends =
            events.iter().filter(|event| is_terminal_event(event.draft.data.as_str())).count();
        assert_eq!((ends, events.len()), (1, 2));
    }
}

async fn of_the_deadline_and_a_transition_exactly_one_wins(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let mut ids = Vec::new();
    for n in 0..12 {
        let task = NewTask { ttl_seconds: Some(1), ..new_task(&format!("race-{n}")) };
        let id = create_as(&*first, task).await.spec.id;
        enter(&*first, &id, TaskStatus::Running).await;
        ids.push(id);
    }
    let overdue = until("every task is overdue", || async {
        let overdue = second.overdue(100).await.unwrap();
        (overdue.len() == ids.len()).then_some(overdue)
    })
    .await;
    let attempts = overdue.iter().flat_map(|id| {
        [(first.clone(), TaskStatus::Completed), (second.clone(), TaskStatus::Timeout)].map(
            |(store, to)| {
                let append = step(id, to);
                tokio::spawn(async move { store.append(append).await.unwrap() })
            },
        )
    });
    let verdicts = join_all(attempts).await;
    let won = verdicts.iter().filter(|v| v.as_ref().unwrap().is_stored()).count();
    assert_eq!(won, ids.len());
    for id in &ids {
        let events = log(&*first, id).await;
        assert_eq!(events.len(), 2, "one start and one end");
        assert!(is_terminal_event(events[1].draft.data.as_str()));
    }
    assert!(first.overdue(100).await.unwrap().is_empty());
}

async fn nothing_follows_the_terminal_event_however_many_publish(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let id = create_as(&*first, new_task("closing")).await.spec.id;
    enter(&*first, &id, TaskStatus::Running).await;
    let attempts = (0..60).map(|n| {
        let store = if n % 2 == 0 { first.clone() } else { second.clone() };
        let append = match n {
            30 => step(&id, TaskStatus::Completed),
            _ => publication(&id, vec![draft("n", &n.to_string())]),
        };
        tokio::spawn(async move { store.append(append).await.unwrap() })
    });
    let verdicts = join_all(attempts).await;
    let accepted = verdicts.iter().filter(|v| v.as_ref().unwrap().is_stored()).count();
    let events = log(&*second, &id).await;
    assert_eq!(events.len(), accepted + 1, "all that was accepted, and the start");
    assert!(is_terminal_event(events.last().unwrap().draft.data.as_str()));
    assert_eq!(head(&*first, &id).await.next_index, events.len() as u64);
}

async fn of_many_concurrent_starts_exactly_one_wins(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let id = create_as(&*first, new_task("starting")).await.spec.id;
    let attempts = (0..12).map(|n| {
        let store = if n % 2 == 0 { first.clone() } else { second.clone() };
        let append = step(&id, TaskStatus::Running);
        tokio::spawn(async move { store.append(append).await.unwrap() })
    });
    let verdicts = join_all(attempts).await;
    let won = verdicts.iter().filter(|v| v.as_ref().unwrap().is_stored()).count();
    assert_eq!(won, 1);
    assert_eq!(log(&*second, &id).await.len(), 1);
}
