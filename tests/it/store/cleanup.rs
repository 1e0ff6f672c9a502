//! Cleanup rules.

use taskcast::domain::{
    CleanupRule, CleanupRules, DeliveryId, Filter, Level, NewTask, TaskId, TaskStatus, Webhook,
};
use taskcast::store::{Attempted, Cleaned, DeliveryOutcome, DeliveryState, Store};

use super::open::Fresh;
use super::{
    at_level, create_as, delta, draft, enter, head, indexes, latest, log, new_task, publish, types,
};
use crate::support::{Backend, on_every_store, until, within};

on_every_store![
    a_task_goes_when_it_finished_and_its_time_has_come,
    rules_act_on_the_tasks_they_name,
    a_rule_of_a_task_acts_on_that_task_alone,
    events_go_by_type_and_level_and_what_remains_keeps_its_place,
    an_accumulate_series_goes_whole_or_not_at_all,
    events_of_one_mode_go_and_others_stay,
    events_stay_until_they_have_their_age,
    what_is_owed_to_a_webhook_waits,
    a_long_log_goes_in_bounded_bites,
    a_rule_that_is_no_more_does_nothing,
    one_instance_leads_at_a_time,
    an_instance_without_rules_leaves_those_of_others_alone,
    many_short_logs_are_cleaned_like_one,
    what_waits_is_counted,
];

/// Most rows of one bite, in cases that are not about bites.
const LIMIT: usize = 10_000;

fn rule(text: &str) -> CleanupRule {
    serde_json::from_str(text).unwrap()
}

fn rules(texts: &[&str]) -> CleanupRules {
    CleanupRules::new(texts.iter().map(|text| rule(text)).collect())
}

async fn finished(store: &dyn Store, task: NewTask, end: TaskStatus) -> TaskId {
    let id = create_as(store, task).await.spec.id;
    enter(store, &id, TaskStatus::Running).await;
    enter(store, &id, end).await;
    id
}

/// Carries out everything that is due now.
async fn clean_up(store: &dyn Store, rules: &CleanupRules) -> Cleaned {
    let mut sum = Cleaned::default();
    while store.schedule_cleanup(rules, LIMIT).await.unwrap() > 0 {}
    loop {
        let cleaned = store.clean(rules, LIMIT).await.unwrap();
        sum.tasks += cleaned.tasks;
        sum.events += cleaned.events;
        if !cleaned.more {
            return sum;
        }
    }
}

async fn exists(store: &dyn Store, id: &TaskId) -> bool {
    store.find(id).await.unwrap().is_some()
}

async fn a_task_goes_when_it_finished_and_its_time_has_come(backend: Backend) {
    let (store, other) = Fresh::open_two(&backend).await;
    let rules = rules(&[r#"{"target":"all","trigger":{"afterMs":300}}"#]);
    let running = create_as(&*store, new_task("running")).await.spec.id;
    enter(&*store, &running, TaskStatus::Running).await;
    let done = finished(&*store, new_task("done"), TaskStatus::Completed).await;
    while store.schedule_cleanup(&rules, LIMIT).await.unwrap() > 0 {}
    assert!(exists(&*store, &done).await, "the time has not come");
    until("the rule has acted", async || {
        other.clean(&rules, LIMIT).await.unwrap();
        (!exists(&*store, &done).await).then_some(())
    })
    .await;
    assert!(exists(&*store, &running).await);
    let told = other.commits.all().iter().any(|commit| commit.deleted && commit.task.id == done);
    assert!(told, "readers hear of it");
}

async fn rules_act_on_the_tasks_they_name(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let rules = rules(&[
        r#"{"target":"task","match":{"taskTypes":["llm.*"],"status":["failed","cancelled"]}}"#,
    ]);
    let typed =
        |id: &str, task_type: &str| NewTask { task_type: Some(task_type.into()), ..new_task(id) };
    let gone = finished(&*store, typed("a", "llm.x"), TaskStatus::Failed).await;
    let other_end = finished(&*store, typed("b", "llm.x"), TaskStatus::Completed).await;
    let other_type = finished(&*store, typed("c", "job"), TaskStatus::Failed).await;
    let untyped = finished(&*store, new_task("d"), TaskStatus::Failed).await;
    assert_eq!(clean_up(&*store, &rules).await.tasks, 1);
    assert!(!exists(&*store, &gone).await);
    for id in [other_end, other_type, untyped] {
        assert!(exists(&*store, &id).await, "{id}");
    }
}

async fn a_rule_of_a_task_acts_on_that_task_alone(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let own = NewTask { cleanup: Some(vec![rule(r#"{"target":"task"}"#)]), ..new_task("own") };
    let own = finished(&*store, own, TaskStatus::Completed).await;
    let other = finished(&*store, new_task("other"), TaskStatus::Completed).await;
    assert_eq!(clean_up(&*store, &CleanupRules::default()).await.tasks, 1);
    assert!(!exists(&*store, &own).await);
    assert!(exists(&*store, &other).await);
}

async fn events_go_by_type_and_level_and_what_remains_keeps_its_place(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let rules =
        rules(&[r#"{"target":"events","eventFilter":{"types":["log.*"],"levels":["debug"]}}"#]);
    let id = create_as(&*store, new_task("t")).await.spec.id;
    enter(&*store, &id, TaskStatus::Running).await;
    let noise = || at_level(Level::Debug, draft("log.line", "0"));
    publish(&*store, &id, vec![noise(), draft("log.line", "1"), noise()]).await;
    publish(&*store, &id, vec![at_level(Level::Debug, draft("step", "2")), noise()]).await;
    enter(&*store, &id, TaskStatus::Completed).await;
    let before = log(&*store, &id).await;
    let number = head(&*store, &id).await.task.number;
    let positions: Vec<u64> = (0..=7).collect();
    let filters = [Filter::default(), types(&["log.*"]), types(&["step"])];
    let mut counts = Vec::new();
    for filter in &filters {
        counts.push(store.count(number, &positions, filter).await.unwrap());
    }
    assert_eq!(clean_up(&*store, &rules).await.events, 3);
    let left = log(&*store, &id).await;
    assert_eq!(indexes(&left), [0, 2, 4, 6]);
    for event in &left {
        assert_eq!(event, &before[usize::try_from(event.index).unwrap()]);
    }
    for (filter, counts) in filters.iter().zip(counts) {
        assert_eq!(store.count(number, &positions, filter).await.unwrap(), counts);
    }
    assert_eq!(store.position_of(number, &types(&["log.*"]), 3).await.unwrap(), Some(5));
    assert_eq!(head(&*store, &id).await.next_index, 7);
}

async fn an_accumulate_series_goes_whole_or_not_at_all(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let rules = rules(&[r#"{"target":"events","eventFilter":{"types":["llm.*"]}}"#]);
    let id = create_as(&*store, new_task("t")).await.spec.id;
    enter(&*store, &id, TaskStatus::Running).await;
    let kept = |text: &str| {
        let mut event = delta("kept", text);
        event.event_type = "other".into();
        event
    };
    for n in 0..700 {
        publish(&*store, &id, vec![delta("gone", "x"), kept(&(n % 10).to_string())]).await;
    }
    enter(&*store, &id, TaskStatus::Completed).await;
    let task = head(&*store, &id).await;
    let end = task.next_index;
    assert_eq!(store.series_spans(task.task.number, end).await.unwrap().len(), 2);
    assert_eq!(clean_up(&*store, &rules).await.events, 700);
    let spans = store.series_spans(task.task.number, end).await.unwrap();
    assert_eq!(spans.len(), 1);
    let snapshot = store.snapshot(&task.task, &spans[0]).await.unwrap().unwrap();
    assert_eq!(snapshot.draft.data.as_str().len(), r#"{"text":""}"#.len() + 700);
    assert_eq!(log(&*store, &id).await.len(), 702);
}

async fn events_of_one_mode_go_and_others_stay(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let rules = rules(&[r#"{"target":"events","eventFilter":{"seriesMode":"latest"}}"#]);
    let id = create_as(&*store, new_task("t")).await.spec.id;
    enter(&*store, &id, TaskStatus::Running).await;
    publish(&*store, &id, vec![latest("s", 1), delta("d", "x"), latest("s", 2), draft("n", "1")])
        .await;
    enter(&*store, &id, TaskStatus::Completed).await;
    clean_up(&*store, &rules).await;
    assert_eq!(indexes(&log(&*store, &id).await), [0, 2, 4, 5]);
}

async fn events_stay_until_they_have_their_age(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let rules = rules(&[r#"{"target":"events","eventFilter":{"olderThanMs":3600000}}"#]);
    let id = finished(&*store, new_task("young"), TaskStatus::Completed).await;
    assert_eq!(clean_up(&*store, &rules).await, Cleaned::default());
    assert_eq!(log(&*store, &id).await.len(), 2);
}

async fn what_is_owed_to_a_webhook_waits(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let rules = rules(&[r#"{"target":"all"}"#]);
    let url = "http://a/".into();
    let hook = Webhook { url, filter: None, secret: None, wrap: None, retry: None };
    let task = NewTask { webhooks: Some(vec![hook]), ..new_task("owing") };
    let id = finished(&*store, task, TaskStatus::Completed).await;
    assert_eq!(clean_up(&*store, &rules).await.tasks, 0);
    let outcomes: Vec<DeliveryOutcome> = super::deliveries::claim(&*store, 10)
        .await
        .iter()
        .map(|claimed| DeliveryOutcome {
            id: DeliveryId { event: claimed.event.id(), hook: claimed.hook.clone() },
            attempt: claimed.attempt,
            last: Some(Attempted { status: Some(200), problem: None }),
            state: DeliveryState::Delivered,
            retry_in_ms: 0,
        })
        .collect();
    assert_eq!(outcomes.len(), 2);
    store.settle(&outcomes).await.unwrap();
    until("the task goes once nothing is owed", async || {
        store.clean(&rules, LIMIT).await.unwrap();
        (!exists(&*store, &id).await).then_some(())
    })
    .await;
}

async fn a_long_log_goes_in_bounded_bites(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let rules = rules(&[r#"{"target":"events","eventFilter":{"types":["n"]}}"#]);
    let id = create_as(&*store, new_task("long")).await.spec.id;
    enter(&*store, &id, TaskStatus::Running).await;
    for _ in 0..5 {
        publish(&*store, &id, (0..500).map(|n| draft("n", &n.to_string())).collect()).await;
    }
    enter(&*store, &id, TaskStatus::Completed).await;
    store.schedule_cleanup(&rules, LIMIT).await.unwrap();
    let (mut bites, mut events) = (0, 0);
    within("the log is cleaned", async {
        while events < 2500 {
            let cleaned = store.clean(&rules, 400).await.unwrap();
            assert!(cleaned.events <= 400, "{cleaned:?}");
            bites += 1;
            events += cleaned.events;
        }
    })
    .await;
    assert!(bites >= 7, "{bites}");
    assert_eq!(indexes(&log(&*store, &id).await), [0, 2501]);
}

async fn a_rule_that_is_no_more_does_nothing(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = finished(&*store, new_task("t"), TaskStatus::Completed).await;
    store.schedule_cleanup(&rules(&[r#"{"target":"all"}"#]), LIMIT).await.unwrap();
    store.clean(&CleanupRules::default(), LIMIT).await.unwrap();
    assert!(exists(&*store, &id).await);
}

async fn one_instance_leads_at_a_time(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let rules = rules(&[r#"{"target":"all"}"#]);
    assert!(first.lead_cleanup(1, &rules, 100).await.unwrap().is_ours);
    let again = first.lead_cleanup(1, &rules, 100).await.unwrap();
    assert!(again.is_ours, "who leads may go on");
    until("the lease of the first has ended", async || {
        second.lead_cleanup(2, &rules, 60_000).await.unwrap().is_ours.then_some(())
    })
    .await;
    assert!(!first.lead_cleanup(1, &rules, 100).await.unwrap().is_ours);
}

async fn an_instance_without_rules_leaves_those_of_others_alone(backend: Backend) {
    let (with_rules, without) = Fresh::open_two(&backend).await;
    let (rules, none) = (rules(&[r#"{"target":"all"}"#]), CleanupRules::default());
    let id = finished(&*with_rules, new_task("t"), TaskStatus::Completed).await;
    assert!(without.lead_cleanup(2, &none, 60_000).await.unwrap().is_ours);
    let lead = with_rules.lead_cleanup(1, &rules, 60_000).await.unwrap();
    assert!(lead.is_ours, "who has no rules is in nobody's way");
    while with_rules.schedule_cleanup(&rules, LIMIT).await.unwrap() > 0 {}
    // It neither forgets what was scheduled nor carries it out.
    while without.schedule_cleanup(&none, LIMIT).await.unwrap() > 0 {}
    without.clean(&none, LIMIT).await.unwrap();
    assert!(exists(&*with_rules, &id).await);
    until("the rule has acted", async || {
        clean_up(&*with_rules, &rules).await;
        (!exists(&*with_rules, &id).await).then_some(())
    })
    .await;
}

async fn many_short_logs_are_cleaned_like_one(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let own = NewTask {
        cleanup: Some(vec![rule(r#"{"target":"events","eventFilter":{"seriesMode":"latest"}}"#)]),
        ..new_task("own")
    };
    let mut ids = vec![create_as(&*store, own).await.spec.id];
    for n in 0..40 {
        ids.push(create_as(&*store, new_task(&format!("t-{n}"))).await.spec.id);
    }
    for (n, id) in ids.iter().enumerate() {
        enter(&*store, id, TaskStatus::Running).await;
        let mut events = vec![draft("log.a", "1"), draft("step", "2"), latest("l", 1)];
        events.extend((0..n % 3).map(|_| delta("d", "x")));
        events.extend([latest("l", 2), draft("log.b", "3")]);
        publish(&*store, id, events).await;
        enter(&*store, id, TaskStatus::Completed).await;
    }
    let rules = rules(&[r#"{"target":"events","eventFilter":{"types":["log.*","llm.*"]}}"#]);
    let removed = std::sync::atomic::AtomicU64::new(0);
    until("every log is cleaned", async || {
        let now = clean_up(&*store, &rules).await.events;
        // Two lines of each log, the deltas, and what is left of the series of one.
        let before = removed.fetch_add(now, std::sync::atomic::Ordering::Relaxed);
        (before + now > 41 * 2 + 40).then_some(())
    })
    .await;
    for (n, id) in ids.iter().enumerate() {
        let deltas = (n % 3) as u64;
        let newest = 4 + deltas;
        let (status, end) = (0, newest + 2);
        let left = if n == 0 { vec![status, 2, end] } else { vec![status, 2, newest, end] };
        assert_eq!(indexes(&log(&*store, id).await), left, "{id}");
        let task = head(&*store, id).await.task;
        let counted = store.count(task.number, &[end + 1], &types(&["log.*", "llm.*"])).await;
        assert_eq!(counted.unwrap(), [2 + deltas], "{id}: what is gone still counts");
    }
}

async fn what_waits_is_counted(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let rules = rules(&[r#"{"target":"all"}"#]);
    for n in 0..3 {
        finished(&*store, new_task(&format!("t-{n}")), TaskStatus::Completed).await;
    }
    while store.schedule_cleanup(&rules, LIMIT).await.unwrap() > 0 {}
    until("three rules are due", async || {
        (store.backlog().await.unwrap().due_cleanups == 3).then_some(())
    })
    .await;
    assert_eq!(clean_up(&*store, &rules).await.tasks, 3);
    let backlog = store.backlog().await.unwrap();
    assert_eq!(backlog.due_cleanups, 0);
    assert!([0, 3].contains(&backlog.deleted_tasks), "{backlog:?}");
}
