//! What is owed to webhooks.

use std::sync::Arc;

use taskcast::domain::{
    Append, AppendRules, DeliveryId, EndpointHook, Filter, HookKey, NewTask, TaskStatus, Webhook,
};
use taskcast::store::{
    Attempted, ClaimedDelivery, DeliveryClaim, DeliveryOutcome, DeliveryState, Store, TaskRef,
};

use super::open::Fresh;
use super::{
    SERIES_TEXT_LIMIT, create_as, delete, draft, enter, latest, new_task, publication, publish,
    types,
};
use crate::support::postgres::Database;
use crate::support::{Backend, on_every_store, until};

on_every_store![
    every_matching_event_is_owed_to_each_hook_once,
    endpoints_of_the_configuration_hear_of_the_types_they_name,
    a_claim_holds_for_its_lease_and_is_claimed_anew_after_it,
    two_instances_never_claim_the_same_delivery,
    an_outcome_of_an_older_claim_is_passed_over,
    a_receiver_gets_no_more_than_its_share_of_a_claim,
    a_failed_delivery_can_be_sent_again,
    a_delivery_that_was_not_attempted_is_handed_back,
    deliveries_are_listed_newest_first_and_page_by_page,
    deleting_the_task_cancels_what_is_pending,
    an_event_that_was_superseded_is_still_delivered,
    deliveries_that_are_young_are_not_pruned,
];

const LEASE_MS: u64 = 60_000;

fn hook(url: &str) -> Webhook {
    Webhook { url: url.into(), filter: None, secret: None, wrap: None, retry: None }
}

async fn task_with(store: &dyn Store, id: &str, hooks: Vec<Webhook>) -> TaskRef {
    let task = create_as(store, NewTask { webhooks: Some(hooks), ..new_task(id) }).await;
    TaskRef::from(&task)
}

fn claim(limit: usize) -> DeliveryClaim {
    DeliveryClaim { limit, per_receiver: limit, except: Vec::new(), lease_ms: LEASE_MS }
}

fn ids(claimed: &[ClaimedDelivery]) -> Vec<DeliveryId> {
    claimed.iter().map(id_of).collect()
}

fn id_of(claimed: &ClaimedDelivery) -> DeliveryId {
    DeliveryId { event: claimed.event.id(), hook: claimed.hook.clone() }
}

fn answered(claimed: &ClaimedDelivery, status: u16, state: DeliveryState) -> DeliveryOutcome {
    DeliveryOutcome {
        id: id_of(claimed),
        attempt: claimed.attempt,
        last: Some(Attempted { status: Some(status), problem: None }),
        state,
        retry_in_ms: 0,
    }
}

async fn every_matching_event_is_owed_to_each_hook_once(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let picky = Webhook { filter: Some(types(&["llm.*"])), ..hook("http://b/") };
    let task = task_with(&*store, "t", vec![hook("http://a/"), picky]).await;
    enter(&*store, &task.id, TaskStatus::Running).await;
    let events =
        publish(&*store, &task.id, vec![draft("llm.x", "1"), draft("note", "{\"n\":1.0}")]).await;
    let claimed = store.claim(&claim(100)).await.unwrap();
    let mut seen: Vec<_> =
        claimed.iter().map(|one| (one.event.index, one.hook.as_str().to_owned())).collect();
    seen.sort();
    assert_eq!(seen, [(0, "0".into()), (1, "0".into()), (1, "1".into()), (2, "0".into())]);
    let note = claimed.iter().find(|one| one.event.index == 2).unwrap();
    assert_eq!(*note.event, *events[1]);
    assert_eq!((note.attempt, note.webhook.as_ref()), (1, Some(&hook("http://a/"))));
    assert!(store.claim(&claim(100)).await.unwrap().is_empty());
    let owes: Vec<bool> = store.commits.all().iter().map(|commit| commit.owes).collect();
    assert_eq!(owes, [true, true]);
}

async fn endpoints_of_the_configuration_hear_of_the_types_they_name(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let endpoint = EndpointHook {
        key: HookKey::of_endpoint("ab12"),
        task_types: types(&["chat.*"]).types,
        filter: Filter { include_status: false, ..Filter::default() },
        receiver: u64::MAX,
    };
    let rules =
        Arc::new(AppendRules { series_text_limit: SERIES_TEXT_LIMIT, endpoints: vec![endpoint] });
    for (id, task_type) in [("a", Some("chat.x")), ("b", Some("other")), ("c", None)] {
        let task = NewTask { task_type: task_type.map(Arc::from), ..new_task(id) };
        let id = create_as(&*store, task).await.spec.id;
        let append = Append { rules: rules.clone(), ..publication(&id, vec![draft("n", "1")]) };
        assert!(store.append(append).await.unwrap().is_stored());
    }
    let claimed = store.claim(&claim(100)).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].event.task.as_str(), "a");
    assert_eq!((claimed[0].hook.as_str(), claimed[0].receiver), ("cab12", u64::MAX));
    assert!(claimed[0].webhook.is_none());
}

async fn a_claim_holds_for_its_lease_and_is_claimed_anew_after_it(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let task = task_with(&*first, "t", vec![hook("http://a/")]).await;
    publish(&*first, &task.id, vec![draft("n", "1")]).await;
    let short = DeliveryClaim { lease_ms: 50, ..claim(1) };
    let lost = first.claim(&short).await.unwrap();
    assert_eq!(lost.len(), 1);
    let again = until("the lease has ended", async || {
        let claimed = second.claim(&claim(1)).await.unwrap();
        (!claimed.is_empty()).then_some(claimed)
    })
    .await;
    assert_eq!((ids(&again), again[0].attempt), (ids(&lost), 2));
}

async fn two_instances_never_claim_the_same_delivery(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let task = task_with(&*first, "t", vec![hook("http://a/"), hook("http://b/")]).await;
    publish(&*first, &task.id, (0..50).map(|n| draft("n", &n.to_string())).collect()).await;
    let mut seen = Vec::new();
    loop {
        let few = claim(7);
        let (one, two) = tokio::join!(first.claim(&few), second.claim(&few));
        let (one, two) = (one.unwrap(), two.unwrap());
        if one.is_empty() && two.is_empty() {
            break;
        }
        seen.extend(ids(&one));
        seen.extend(ids(&two));
    }
    let mut distinct: Vec<String> = seen.iter().map(ToString::to_string).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!((seen.len(), distinct.len()), (100, 100));
}

async fn an_outcome_of_an_older_claim_is_passed_over(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    publish(&*store, &task.id, vec![draft("n", "1")]).await;
    let old = store.claim(&DeliveryClaim { lease_ms: 0, ..claim(1) }).await.unwrap();
    let new = until("it is due again", async || {
        let claimed = store.claim(&claim(1)).await.unwrap();
        (!claimed.is_empty()).then_some(claimed)
    })
    .await;
    store.settle(&[answered(&old[0], 500, DeliveryState::Failed)]).await.unwrap();
    assert_eq!(state_of(&*store, &task).await, DeliveryState::Pending);
    store.settle(&[answered(&new[0], 204, DeliveryState::Delivered)]).await.unwrap();
    assert_eq!(state_of(&*store, &task).await, DeliveryState::Delivered);
    store.settle(&[answered(&new[0], 500, DeliveryState::Pending)]).await.unwrap();
    assert_eq!(state_of(&*store, &task).await, DeliveryState::Delivered);
}

async fn state_of(store: &dyn Store, task: &TaskRef) -> DeliveryState {
    store.deliveries(task, None, 1).await.unwrap()[0].state
}

async fn a_receiver_gets_no_more_than_its_share_of_a_claim(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let loud = task_with(&*store, "loud", vec![hook("http://slow/")]).await;
    publish(&*store, &loud.id, (0..50).map(|n| draft("n", &n.to_string())).collect()).await;
    let quiet = task_with(&*store, "quiet", vec![hook("http://quick/")]).await;
    publish(&*store, &quiet.id, vec![draft("n", "1")]).await;
    let fair = DeliveryClaim { per_receiver: 3, ..claim(10) };
    let claimed = store.claim(&fair).await.unwrap();
    let of = |name: &str| claimed.iter().filter(|one| one.event.task.as_str() == name).count();
    assert_eq!((of("loud"), of("quiet")), (3, 1));
    let slow = claimed.iter().find(|one| one.event.task.as_str() == "loud").unwrap().receiver;
    let others = DeliveryClaim { except: vec![slow], ..claim(10) };
    assert!(store.claim(&others).await.unwrap().is_empty());
}

async fn a_failed_delivery_can_be_sent_again(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    let published = publish(&*store, &task.id, vec![latest("s", 1)]).await;
    let claimed = store.claim(&claim(1)).await.unwrap();
    store.settle(&[answered(&claimed[0], 404, DeliveryState::Failed)]).await.unwrap();
    assert!(store.claim(&claim(1)).await.unwrap().is_empty());
    let failed = store.deliveries(&task, None, 10).await.unwrap().remove(0);
    assert_eq!(
        (failed.state, failed.attempts, failed.next_at_ms),
        (DeliveryState::Failed, 1, None)
    );
    assert_eq!(failed.last.unwrap().status, Some(404));
    let due = store.redeliver(&task, &failed.id).await.unwrap().unwrap();
    assert_eq!((due.state, due.attempts), (DeliveryState::Pending, 0));
    let again = store.claim(&claim(1)).await.unwrap();
    assert_eq!((ids(&again), again[0].attempt), (ids(&claimed), 1));
    assert_eq!(*again[0].event, *published[0]);
    let other = DeliveryId { hook: HookKey::of_task(7), ..failed.id };
    assert!(store.redeliver(&task, &other).await.unwrap().is_none());
}

async fn a_delivery_that_was_not_attempted_is_handed_back(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    publish(&*store, &task.id, vec![draft("n", "1")]).await;
    let claimed = store.claim(&claim(1)).await.unwrap();
    let back = DeliveryOutcome { last: None, ..answered(&claimed[0], 200, DeliveryState::Pending) };
    store.settle(&[back]).await.unwrap();
    let again = until("it is due again", async || {
        let claimed = store.claim(&claim(1)).await.unwrap();
        (!claimed.is_empty()).then_some(claimed)
    })
    .await;
    assert_eq!(again[0].attempt, 1);
}

async fn deliveries_are_listed_newest_first_and_page_by_page(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = task_with(&*store, "t", vec![hook("http://a/"), hook("http://b/")]).await;
    publish(&*store, &task.id, (0..5).map(|n| draft("n", &n.to_string())).collect()).await;
    let mut listed: Vec<(u64, String)> = Vec::new();
    let mut before = None;
    loop {
        let page = store.deliveries(&task, before.as_ref(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id.clone());
        listed
            .extend(page.iter().map(|one| (one.id.event.index(), one.id.hook.as_str().to_owned())));
    }
    assert_eq!(listed.len(), 10);
    assert!(listed.is_sorted_by(|a, b| a > b), "{listed:?}");
}

async fn deleting_the_task_cancels_what_is_pending(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let task = task_with(&*first, "t", vec![hook("http://a/")]).await;
    publish(&*first, &task.id, vec![draft("n", "1")]).await;
    assert!(delete(&*second, &task.id).await);
    assert!(first.claim(&claim(10)).await.unwrap().is_empty());
    let again = task_with(&*first, "t", vec![hook("http://a/")]).await;
    assert!(first.deliveries(&again, None, 10).await.unwrap().is_empty());
}

async fn an_event_that_was_superseded_is_still_delivered(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    // Past a block of the log, which is summed up in the background.
    for first in (0..1500).step_by(500) {
        let events = (first..first + 500).map(|n| latest("s", n)).collect();
        publish(&*store, &task.id, events).await;
    }
    let mut values: Vec<u64> = Vec::new();
    loop {
        let claimed = store.claim(&claim(400)).await.unwrap();
        if claimed.is_empty() {
            break;
        }
        values.extend(
            claimed.iter().map(|one| one.event.draft.data.as_str().parse::<u64>().unwrap()),
        );
        let outcomes: Vec<_> =
            claimed.iter().map(|one| answered(one, 200, DeliveryState::Delivered)).collect();
        store.settle(&outcomes).await.unwrap();
    }
    values.sort_unstable();
    assert_eq!(values, (0..1500).collect::<Vec<_>>());
}

async fn deliveries_that_are_young_are_not_pruned(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    publish(&*store, &task.id, vec![draft("n", "1")]).await;
    let claimed = store.claim(&claim(1)).await.unwrap();
    store.settle(&[answered(&claimed[0], 200, DeliveryState::Delivered)]).await.unwrap();
    assert_eq!(store.prune_deliveries(100).await.unwrap(), 0);
    assert_eq!(state_of(&*store, &task).await, DeliveryState::Delivered);
}

/// Cleanup looks for what is owed, and removes events some time later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_is_sent_again_takes_its_event_along() {
    let database = Database::migrated().await;
    let store = Fresh::open(&Backend::Postgres(database.clone())).await;
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    let published = publish(&*store, &task.id, vec![draft("n", "1")]).await;
    let claimed = store.claim(&claim(1)).await.unwrap();
    store.settle(&[answered(&claimed[0], 200, DeliveryState::Delivered)]).await.unwrap();
    let id = id_of(&claimed[0]);
    store.redeliver(&task, &id).await.unwrap().unwrap();
    database.execute("DELETE FROM taskcast.event").await;
    let again = store.claim(&claim(1)).await.unwrap();
    assert_eq!(again.len(), 1, "it can still be sent");
    assert_eq!(*again[0].event, *published[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_whose_event_is_gone_ends_as_failed() {
    let database = Database::migrated().await;
    let store = Fresh::open(&Backend::Postgres(database.clone())).await;
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    publish(&*store, &task.id, vec![draft("n", "1"), draft("n", "2")]).await;
    database.execute("DELETE FROM taskcast.event WHERE index = 0").await;
    let claimed = store.claim(&claim(2)).await.unwrap();
    assert_eq!(claimed.iter().map(|one| one.event.index).collect::<Vec<_>>(), [1]);
    let ended = store.deliveries(&task, None, 10).await.unwrap().remove(1);
    assert_eq!((ended.state, ended.next_at_ms), (DeliveryState::Failed, None));
    assert!(ended.last.unwrap().problem.unwrap().contains("removed"));
    assert!(store.redeliver(&task, &ended.id).await.unwrap().is_none());
}
