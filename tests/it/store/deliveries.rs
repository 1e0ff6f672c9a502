//! What is owed to webhooks.

use std::sync::Arc;

use taskcast::domain::{
    Append, AppendRules, DeliveryId, ENDPOINT_RECEIVERS, EndpointHook, Filter, HookKey, NewTask,
    TaskStatus, Webhook,
};
use taskcast::store::{
    Attempted, ClaimedDelivery, DeliveryClaim, DeliveryOutcome, DeliveryState, DueReceivers, Store,
    TaskRef,
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
    receivers_are_found_page_by_page_once_something_is_due,
    what_no_instance_claims_for_an_endpoint_is_cancelled_in_the_end,
];

const LEASE_MS: u64 = 60_000;

/// The receiver of an endpoint of the configuration.
const ENDPOINT: u64 = ENDPOINT_RECEIVERS + 7;

fn hook(url: &str) -> Webhook {
    Webhook { url: url.into(), filter: None, secret: None, wrap: None, retry: None }
}

async fn task_with(store: &dyn Store, id: &str, hooks: Vec<Webhook>) -> TaskRef {
    let task = create_as(store, NewTask { webhooks: Some(hooks), ..new_task(id) }).await;
    TaskRef::from(&task)
}

/// Claims up to `limit` deliveries for each receiver that something is due for.
pub(super) async fn claim(store: &dyn Store, limit: usize) -> Vec<ClaimedDelivery> {
    claim_for(store, limit, LEASE_MS).await
}

async fn claim_for(store: &dyn Store, limit: usize, lease_ms: u64) -> Vec<ClaimedDelivery> {
    let receivers = store.due_receivers(0, 1_000).await.unwrap().receivers;
    let claims = receivers.into_iter().map(|receiver| DeliveryClaim { receiver, limit, lease_ms });
    store.claim(&claims.collect::<Vec<_>>()).await.unwrap()
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
    let claimed = claim(&*store, 100).await;
    let mut seen: Vec<_> =
        claimed.iter().map(|one| (one.event.index, one.hook.as_str().to_owned())).collect();
    seen.sort();
    assert_eq!(seen, [(0, "0".into()), (1, "0".into()), (1, "1".into()), (2, "0".into())]);
    let note = claimed.iter().find(|one| one.event.index == 2).unwrap();
    assert_eq!(*note.event, *events[1]);
    assert_eq!((note.attempt, note.webhook.as_ref()), (1, Some(&hook("http://a/"))));
    assert!(claim(&*store, 100).await.is_empty());
    let owes: Vec<bool> = store.commits.all().iter().map(|commit| commit.owes).collect();
    assert_eq!(owes, [true, true]);
}

async fn endpoints_of_the_configuration_hear_of_the_types_they_name(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let endpoint = EndpointHook {
        key: HookKey::of_endpoint("ab12"),
        task_types: types(&["chat.*"]).types,
        filter: Filter { include_status: false, ..Filter::default() },
        receiver: ENDPOINT,
    };
    let rules =
        Arc::new(AppendRules { series_text_limit: SERIES_TEXT_LIMIT, endpoints: vec![endpoint] });
    for (id, task_type) in [("a", Some("chat.x")), ("b", Some("other")), ("c", None)] {
        let task = NewTask { task_type: task_type.map(Arc::from), ..new_task(id) };
        let id = create_as(&*store, task).await.spec.id;
        let append = Append { rules: rules.clone(), ..publication(&id, vec![draft("n", "1")]) };
        assert!(store.append(append).await.unwrap().is_stored());
    }
    assert!(claim(&*store, 100).await.is_empty(), "an instance claims for endpoints it knows");
    let known = DeliveryClaim { receiver: ENDPOINT, limit: 100, lease_ms: LEASE_MS };
    let claimed = store.claim(&[known]).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].event.task.as_str(), "a");
    assert_eq!((claimed[0].hook.as_str(), claimed[0].receiver), ("cab12", ENDPOINT));
    assert!(claimed[0].webhook.is_none());
}

async fn a_claim_holds_for_its_lease_and_is_claimed_anew_after_it(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let task = task_with(&*first, "t", vec![hook("http://a/")]).await;
    publish(&*first, &task.id, vec![draft("n", "1")]).await;
    let lost = claim_for(&*first, 1, 50).await;
    assert_eq!(lost.len(), 1);
    let again = until("the lease has ended", async || {
        let claimed = claim(&*second, 1).await;
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
        let (one, two) = tokio::join!(claim(&*first, 7), claim(&*second, 7));
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
    let old = claim_for(&*store, 1, 0).await;
    let new = until("it is due again", async || {
        let claimed = claim(&*store, 1).await;
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
    let claimed = claim(&*store, 3).await;
    let of = |name: &str| claimed.iter().filter(|one| one.event.task.as_str() == name).count();
    assert_eq!((of("loud"), of("quiet")), (3, 1));
    let slow = claimed.iter().find(|one| one.event.task.as_str() == "loud").unwrap().receiver;
    assert_eq!(store.due_receivers(0, 10).await.unwrap().receivers, [slow]);
    let least = DeliveryClaim { receiver: slow, limit: 1, lease_ms: LEASE_MS };
    let next = store.claim(&[least]).await.unwrap();
    assert_eq!(ids(&next).len(), 1);
    assert!(!ids(&claimed).contains(&id_of(&next[0])));
}

async fn a_failed_delivery_can_be_sent_again(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    let published = publish(&*store, &task.id, vec![latest("s", 1)]).await;
    let claimed = claim(&*store, 1).await;
    store.settle(&[answered(&claimed[0], 404, DeliveryState::Failed)]).await.unwrap();
    assert!(claim(&*store, 1).await.is_empty());
    let failed = store.deliveries(&task, None, 10).await.unwrap().remove(0);
    assert_eq!(
        (failed.state, failed.attempts, failed.next_at_ms),
        (DeliveryState::Failed, 1, None)
    );
    assert_eq!(failed.last.unwrap().status, Some(404));
    let due = store.redeliver(&task, &failed.id).await.unwrap().unwrap();
    assert_eq!((due.state, due.attempts), (DeliveryState::Pending, 0));
    let again = claim(&*store, 1).await;
    assert_eq!((ids(&again), again[0].attempt), (ids(&claimed), 1));
    assert_eq!(*again[0].event, *published[0]);
    let other = DeliveryId { hook: HookKey::of_task(7), ..failed.id };
    assert!(store.redeliver(&task, &other).await.unwrap().is_none());
}

async fn a_delivery_that_was_not_attempted_is_handed_back(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    publish(&*store, &task.id, vec![draft("n", "1")]).await;
    let claimed = claim(&*store, 1).await;
    let back = DeliveryOutcome { last: None, ..answered(&claimed[0], 200, DeliveryState::Pending) };
    store.settle(&[back]).await.unwrap();
    let again = until("it is due again", async || {
        let claimed = claim(&*store, 1).await;
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
    assert!(claim(&*first, 10).await.is_empty());
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
        let claimed = claim(&*store, 400).await;
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
    let claimed = claim(&*store, 1).await;
    store.settle(&[answered(&claimed[0], 200, DeliveryState::Delivered)]).await.unwrap();
    assert_eq!(store.prune_deliveries(100).await.unwrap(), 0);
    assert_eq!(state_of(&*store, &task).await, DeliveryState::Delivered);
}

async fn receivers_are_found_page_by_page_once_something_is_due(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let hooks: Vec<Webhook> = (0..7).map(|n| hook(&format!("http://r{n}/"))).collect();
    let task = task_with(&*store, "t", hooks).await;
    publish(&*store, &task.id, vec![draft("n", "1"), draft("n", "2")]).await;
    let (mut found, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let page = store.due_receivers(from, 3).await.unwrap();
        assert!(page.receivers.len() <= 3);
        found.extend(page.receivers);
        next = page.next;
    }
    assert_eq!(found.len(), 7);
    assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
    // What is claimed is not due; what was put off is, when its time comes.
    let claimed = claim(&*store, 2).await;
    assert_eq!(store.due_receivers(0, 10).await.unwrap(), DueReceivers::default());
    let later = |one: &ClaimedDelivery, retry_in_ms| DeliveryOutcome {
        retry_in_ms,
        ..answered(one, 500, DeliveryState::Pending)
    };
    store.settle(&[later(&claimed[0], 50), later(&claimed[2], 3_600_000)]).await.unwrap();
    let due = until("one of them is due again", async || {
        let due = store.due_receivers(0, 10).await.unwrap().receivers;
        (!due.is_empty()).then_some(due)
    })
    .await;
    assert_eq!(due, [claimed[0].receiver]);
    assert_eq!(ids(&claim(&*store, 9).await), [id_of(&claimed[0])]);
}

async fn what_no_instance_claims_for_an_endpoint_is_cancelled_in_the_end(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let endpoint = |digest: &str, receiver| EndpointHook {
        key: HookKey::of_endpoint(digest),
        task_types: Vec::new(),
        filter: Filter::default(),
        receiver,
    };
    let endpoints = vec![endpoint("a1", ENDPOINT), endpoint("b2", ENDPOINT + 1)];
    let rules = Arc::new(AppendRules { series_text_limit: SERIES_TEXT_LIMIT, endpoints });
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    let append = Append { rules, ..publication(&task.id, vec![draft("n", "1"), draft("n", "2")]) };
    assert!(store.append(append).await.unwrap().is_stored());
    let day_ms = 86_400_000;
    assert_eq!(store.cancel_unclaimed(&[], day_ms, 100).await.unwrap(), []);
    let first = store.cancel_unclaimed(&[ENDPOINT + 1], 0, 1).await.unwrap();
    let second = store.cancel_unclaimed(&[ENDPOINT + 1], 0, 100).await.unwrap();
    assert_eq!((first.len(), second.len()), (1, 1));
    let one = &first[0];
    assert_eq!((one.task.as_str(), one.id.hook.as_str(), one.attempts), ("t", "ca1", 0));
    let all = store.deliveries(&task, None, 100).await.unwrap();
    let of = |hook: &str| -> Vec<DeliveryState> {
        all.iter().filter(|one| one.id.hook.as_str() == hook).map(|one| one.state).collect()
    };
    assert_eq!(of("ca1"), [DeliveryState::Cancelled; 2]);
    assert_eq!(of("cb2"), [DeliveryState::Pending; 2]);
    assert_eq!(of("0"), [DeliveryState::Pending; 2]);
}

/// Cleanup looks for what is owed, and removes events some time later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_is_sent_again_takes_its_event_along() {
    let database = Database::migrated().await;
    let store = Fresh::open(&Backend::Postgres(database.clone())).await;
    let task = task_with(&*store, "t", vec![hook("http://a/")]).await;
    let published = publish(&*store, &task.id, vec![draft("n", "1")]).await;
    let claimed = claim(&*store, 1).await;
    store.settle(&[answered(&claimed[0], 200, DeliveryState::Delivered)]).await.unwrap();
    let id = id_of(&claimed[0]);
    store.redeliver(&task, &id).await.unwrap().unwrap();
    database.execute("DELETE FROM taskcast.event").await;
    let again = claim(&*store, 1).await;
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
    let claimed = claim(&*store, 2).await;
    assert_eq!(claimed.iter().map(|one| one.event.index).collect::<Vec<_>>(), [1]);
    let ended = store.deliveries(&task, None, 10).await.unwrap().remove(1);
    assert_eq!((ended.state, ended.next_at_ms), (DeliveryState::Failed, None));
    assert!(ended.last.unwrap().problem.unwrap().contains("removed"));
    assert!(store.redeliver(&task, &ended.id).await.unwrap().is_none());
}
