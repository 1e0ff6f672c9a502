//! Deliveries and the end of the server that makes them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PRIVATE, deliveries, every, note, task_with};
use crate::support::client::{column, number_of, text_of};
use crate::support::receiver::{Receiver, Reply};
use crate::support::{Backend, until};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// How long the receiver does everything wrong.
const TROUBLE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_though_receiver_and_server_fail() {
    let began = Instant::now();
    let calls = AtomicUsize::new(0);
    let receiver = Receiver::behaving(move |_| {
        if began.elapsed() > TROUBLE {
            return Reply::Status(200);
        }
        match calls.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => Reply::Status(500),
            1 => Reply::Reset,
            _ => Reply::Hang,
        }
    })
    .await;
    let backend = Backend::postgres().await;
    let environment = [PRIVATE, ("TASKCAST_WEBHOOK__DEFAULT_RETRY__TIMEOUT_MS", "500")];
    let mut server = backend.start_with(&environment).await;
    let mut retry = every(200, 20);
    retry["timeoutMs"] = json!(500);
    let webhooks = json!([{"url": receiver.url("/"), "secret": SECRET, "retry": retry,
                           "filter": {"types": ["note"]}}]);
    let id = task_with(&server, webhooks).await;
    let mut published: Vec<Value> = Vec::new();
    for round in 0..3 {
        for number in 0..10 {
            let events = json!([note(number), {"type": "ignored"}, note(number)]);
            let events = server.publish(&id, events).await;
            let events = events.as_array().unwrap();
            let notes = events.iter().filter(|event| event["type"] == "note");
            published.extend(notes.map(|event| event["id"].clone()));
        }
        // In the middle of it.
        receiver.wait_for(receiver.received().len() + 3).await;
        if round < 2 {
            server.kill();
            server.ended().await;
            server = backend.start_with(&environment).await;
        }
    }
    assert_eq!(published.len(), 60);
    let all = until("everything is delivered", || async {
        let all = deliveries(&server, &id).await;
        all.iter().all(|one| one["state"] == "delivered").then_some(all)
    })
    .await;
    let owed: BTreeSet<String> = column(&all, "id").iter().map(text_of).collect();
    let expected: BTreeSet<String> =
        published.iter().map(|event| format!("{}-0", text_of(event))).collect();
    assert_eq!(owed, expected);

    let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
    let mut taken = BTreeSet::new();
    for one in receiver.received() {
        verifier.verify(&one.body, &one.headers).unwrap();
        let webhook_id = one.header("webhook-id").to_owned();
        assert_eq!(webhook_id, format!("{}-0", text_of(&one.json()["eventId"])));
        if one.answered == 200 {
            taken.insert(webhook_id);
        }
    }
    assert_eq!(taken, expected, "every matching event arrives at least once");
    assert!(receiver.received().len() > 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_gives_back_what_it_could_not_finish() {
    let receiver = Receiver::behaving(|_| Reply::Hang).await;
    let backend = Backend::postgres().await;
    let first = backend.start_with(&[PRIVATE]).await;
    let patient = json!({"timeoutMs": 300_000, "retries": 5});
    let id = task_with(&first, json!([{"url": receiver.url("/"), "retry": patient}])).await;
    first.publish(&id, note(1)).await;
    receiver.wait_for(1).await;
    first.terminate();
    assert!(first.ended().await.success());

    let third = backend.start_with(&[PRIVATE]).await;
    // The claim of the first would hold for minutes.
    receiver.wait_for(2).await;
    let delivery = deliveries(&third, &id).await.remove(0);
    assert_eq!(delivery["lastError"], "the server stopped");
    assert_eq!(number_of(&delivery["attempts"]), 2);
}
