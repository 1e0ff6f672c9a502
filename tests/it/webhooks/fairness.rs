//! What receivers that hang or fail cost the others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PRIVATE, attempts, deliveries, every, note, settled, start, task_with};
use crate::support::client::{Client, text_of};
use crate::support::receiver::{Receiver, Reply};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    hanging_receivers_do_not_delay_a_healthy_one,
    a_receiver_that_timed_out_gets_one_attempt_at_a_time,
    endpoints_have_slots_of_their_own,
    times_of_a_task_s_webhook_are_raised_to_the_floors,
    a_url_that_keeps_failing_is_asked_less_often_and_its_neighbours_are_not,
];

/// Rules: W27
async fn hanging_receivers_do_not_delay_a_healthy_one(backend: Backend) {
    let server = start(&backend).await;
    let _hanging = owe_to_hanging(&server, 16, 100).await;
    let worst = worst_delay_of_a_healthy_receiver(&server, 100).await;
    assert!(worst < Duration::from_secs(2), "a healthy receiver waited {worst:?}");
}

/// 64 hanging receivers are owed 10,000 deliveries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_hanging_receivers_with_a_backlog_do_not_delay_a_healthy_one() {
    let server = start(&Backend::postgres().await).await;
    let _hanging = owe_to_hanging(&server, 64, 160).await;
    let worst = worst_delay_of_a_healthy_receiver(&server, 200).await;
    assert!(worst < Duration::from_secs(2), "a healthy receiver waited {worst:?}");
}

/// Starts receivers that never answer and makes each be owed `events`.
async fn owe_to_hanging(server: &Client, receivers: usize, events: usize) -> Vec<Receiver> {
    let patient = json!({"timeoutMs": 300_000, "retries": 100, "initialDelayMs": 0});
    let mut hanging = Vec::new();
    for _ in 0..receivers {
        hanging.push(Receiver::behaving(|_| Reply::Hang).await);
    }
    for some in hanging.chunks(16) {
        let hook = |one: &Receiver| json!({"url": one.url("/"), "retry": patient});
        let id = task_with(server, some.iter().map(hook).collect()).await;
        let batch: Vec<Value> = (0..events).map(note).collect();
        server.publish(&id, json!(batch)).await;
    }
    hanging
}

/// Publishes one event after another for a healthy receiver and returns the
/// 99th percentile of the times they took to arrive.
async fn worst_delay_of_a_healthy_receiver(server: &Client, events: usize) -> Duration {
    let healthy = Receiver::start().await;
    let id = task_with(server, json!([{"url": healthy.url("/")}])).await;
    let mut sent: HashMap<String, Instant> = HashMap::new();
    for number in 0..events {
        let now = Instant::now();
        let event = server.publish(&id, note(number)).await;
        sent.insert(text_of(&event["id"]), now);
    }
    let received = healthy.wait_for(events).await;
    let mut delays: Vec<Duration> = received
        .iter()
        .map(|one| one.at.duration_since(sent[&text_of(&one.json()["eventId"])]))
        .collect();
    delays.sort();
    delays[delays.len() * 99 / 100]
}

/// Rules: W28
async fn a_receiver_that_timed_out_gets_one_attempt_at_a_time(backend: Backend) {
    let server = start(&backend).await;
    let hanging = Receiver::behaving(|_| Reply::Hang).await;
    let retry = json!({"timeoutMs": 1_000, "retries": 100, "backoff": "fixed",
                       "initialDelayMs": 100});
    let id = task_with(&server, json!([{"url": hanging.url("/"), "retry": retry}])).await;
    server.publish(&id, json!((0..50).map(note).collect::<Vec<_>>())).await;
    let received = hanging.wait_for(9).await;
    // Four begin before the first has used up its second, and on a loaded machine
    // up to two more before that is noted; each of the later ones comes when the
    // one before has.
    let later: Vec<Instant> = received.iter().skip(6).map(|one| one.at).collect();
    for pair in later.windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause >= Duration::from_millis(950), "{pause:?} between two attempts");
    }
}

/// Rules: W27
async fn endpoints_have_slots_of_their_own(backend: Backend) {
    let audit = Receiver::start().await;
    let endpoints = json!([{"url": audit.url("/"), "filter": {"types": ["note"]}}]);
    let environment = [
        PRIVATE,
        ("TASKCAST_WEBHOOK__CONCURRENCY", "1"),
        ("TASKCAST_WEBHOOK__ENDPOINTS", &endpoints.to_string()),
    ];
    let server = backend.start_with(&environment).await;
    let _hanging = owe_to_hanging(&server, 16, 2).await;
    audit.wait_for(2).await;
    let began = Instant::now();
    let id = server.new_task().await;
    server.publish(&id, json!((0..20).map(note).collect::<Vec<_>>())).await;
    let took = audit.wait_for(22).await[21].at - began;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// Rules: W29
async fn times_of_a_task_s_webhook_are_raised_to_the_floors(backend: Backend) {
    let server = start(&backend).await;
    let slow = Receiver::behaving(|received| match &*received.line {
        "POST /hang" => Reply::Hang,
        _ => Reply::Status(500),
    })
    .await;
    let at_once = json!({"timeoutMs": 1, "retries": 2, "backoff": "fixed",
                         "initialDelayMs": 0, "maxDelayMs": 0});
    let webhooks = json!([{"url": slow.url("/hang"), "retry": at_once},
                          {"url": slow.url("/fails"), "retry": at_once}]);
    let id = task_with(&server, webhooks).await;
    assert_eq!(server.task(&id).await["webhooks"][0]["retry"], at_once, "shown as it was given");
    server.publish(&id, note(1)).await;
    let all = settled(&server, &id).await;
    assert_eq!(all.iter().map(attempts).collect::<Vec<_>>(), [3, 3]);
    let received = slow.received();
    for (path, least) in [("/hang", 1_050), ("/fails", 75)] {
        let of_path = received.iter().filter(|one| one.line.ends_with(path));
        let times: Vec<Instant> = of_path.map(|one| one.at).collect();
        for pair in times.windows(2) {
            let pause = pair[1] - pair[0];
            assert!(pause >= Duration::from_millis(least), "{path}: {pause:?}");
        }
    }
}

/// Rules: W30
async fn a_url_that_keeps_failing_is_asked_less_often_and_its_neighbours_are_not(backend: Backend) {
    let server = start(&backend).await;
    let receiver = Receiver::behaving(|received| {
        Reply::Status(if received.line.contains("/bad") { 500 } else { 200 })
    })
    .await;
    let began = Instant::now();
    let bad: Vec<Value> = (0..10)
        .map(|n| json!({"url": receiver.url(&format!("/bad?n={n}")), "retry": every(0, 100)}))
        .collect();
    let id = task_with(&server, json!(bad)).await;
    server.publish(&id, json!((0..50).map(note).collect::<Vec<_>>())).await;
    // One path of a receiver does not speak for another.
    let good = task_with(&server, json!([{"url": receiver.url("/good")}])).await;
    for number in 0..20 {
        server.publish(&good, note(number)).await;
    }
    let delivered = until("the neighbour gets everything", || async {
        let all = deliveries(&server, &good).await;
        all.iter().all(|one| one["state"] == "delivered").then_some(all)
    })
    .await;
    assert_eq!(delivered.len(), 20);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "the neighbour waited {took:?}");
    until("a few seconds of failing pass", || async {
        (began.elapsed() > Duration::from_secs(4)).then_some(())
    })
    .await;
    let asked = receiver.received().iter().filter(|one| one.line.contains("/bad")).count();
    // 500 deliveries, each of them due every tenth of a second.
    assert!((10..=40).contains(&asked), "{asked} requests");
}
