//! What receivers answer, and what comes of it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{PRIVATE, attempts, every, note, settled, start, task_with};
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    an_answer_that_cannot_change_ends_a_delivery,
    everything_else_is_tried_again_until_the_attempts_are_used_up,
    pauses_are_as_long_as_asked_for,
    what_a_webhook_leaves_out_is_as_configured,
    a_receiver_that_is_slow_delays_only_itself,
];

/// Reads the status a receiver shall answer with from the path.
fn as_asked(received: &Received) -> Reply {
    let path = received.line.rsplit('/').next().unwrap();
    match path {
        "hang" => Reply::Hang,
        "reset" => Reply::Reset,
        status => Reply::Status(status.parse().unwrap()),
    }
}

/// Rules: W11, W12
async fn an_answer_that_cannot_change_ends_a_delivery(backend: Backend) {
    let server = start(&backend).await;
    let elsewhere = Receiver::start().await;
    let to = elsewhere.url("/");
    let receiver = Receiver::behaving(move |received| match as_asked(received) {
        Reply::Status(status @ 300..=399) => Reply::With(status, "location", to.clone()),
        other => other,
    })
    .await;
    let statuses = [200, 201, 204, 299, 301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 422];
    let webhooks = statuses
        .map(|status| json!({"url": receiver.url(&format!("/{status}")), "retry": every(1, 5)}));
    let id = task_with(&server, json!(webhooks)).await;
    server.publish(&id, note(1)).await;
    let all = settled(&server, &id).await;
    assert_eq!(all.len(), statuses.len());
    for delivery in &all {
        let position = usize::try_from(delivery["hook"].as_u64().unwrap()).unwrap();
        let status = statuses[position];
        assert_eq!(delivery["lastStatus"], status);
        assert_eq!(delivery["state"], if status < 300 { "delivered" } else { "failed" });
        assert_eq!(delivery.get("lastError").is_none(), status < 300);
        assert_eq!(attempts(delivery), 1, "{delivery}");
        assert!(delivery.get("nextAttemptAt").is_none());
    }
    assert_eq!(receiver.received().len(), statuses.len());
    assert!(elsewhere.received().is_empty(), "redirects are not followed");
}

/// Rules: W13
async fn everything_else_is_tried_again_until_the_attempts_are_used_up(backend: Backend) {
    let server = start(&backend).await;
    let receiver = Receiver::behaving(as_asked).await;
    // Nobody listens where somebody did.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let paths = ["408", "425", "429", "500", "502", "503", "599", "hang", "reset"];
    let mut webhooks: Vec<Value> = paths
        .iter()
        .map(|path| {
            let mut retry = every(1, 2);
            retry["timeoutMs"] = json!(if *path == "hang" { 1_000 } else { 20_000 });
            json!({"url": receiver.url(&format!("/{path}")), "retry": retry})
        })
        .collect();
    webhooks.push(json!({"url": format!("http://{gone}/"), "retry": every(1, 2)}));
    webhooks.push(json!({"url": "http://nowhere.invalid/", "retry": every(1, 2)}));
    let id = task_with(&server, json!(webhooks)).await;
    server.publish(&id, note(1)).await;
    let all = settled(&server, &id).await;
    assert_eq!(all.len(), webhooks.len());
    for delivery in &all {
        let position = usize::try_from(delivery["hook"].as_u64().unwrap()).unwrap();
        assert_eq!((&delivery["state"], attempts(delivery)), (&json!("failed"), 3), "{delivery}");
        let status = paths.get(position).and_then(|path| path.parse::<u16>().ok());
        assert_eq!(delivery.get("lastStatus"), status.map(Value::from).as_ref());
        let problem = delivery["lastError"].as_str().unwrap();
        assert!(!problem.contains("127.0.0.1") && !problem.contains("invalid"), "{problem}");
    }
    for path in paths {
        let received = receiver.received();
        let of_path: Vec<&Received> =
            received.iter().filter(|one| one.line.ends_with(&format!("/{path}"))).collect();
        // A request that is lost with a kept connection is sent again at once.
        let most = if path == "reset" { 6 } else { 3 };
        assert!((3..=most).contains(&of_path.len()), "{path}: {}", of_path.len());
        let first = of_path[0].header("webhook-id");
        assert!(of_path.iter().all(|one| one.header("webhook-id") == first), "{path}");
    }
}

/// Rules: W14
async fn pauses_are_as_long_as_asked_for(backend: Backend) {
    let server = start(&backend).await;
    let receiver = Receiver::behaving(|received| match &*received.line {
        "POST /later" => Reply::With(503, "retry-after", "1".to_owned()),
        "POST /much-later" => Reply::With(429, "retry-after", "3600".to_owned()),
        _ => Reply::Status(500),
    })
    .await;
    let retry = |backoff: &str, initial: u64, most: u64, retries: u64| json!({"backoff": backoff, "initialDelayMs": initial, "maxDelayMs": most, "retries": retries});
    let kinds = [
        ("/fixed", retry("fixed", 200, 30_000, 3), vec![160, 160, 160]),
        ("/linear", retry("linear", 100, 30_000, 3), vec![80, 160, 240]),
        ("/exponential", retry("exponential", 100, 30_000, 3), vec![80, 160, 320]),
        ("/capped", retry("exponential", 20_000, 100, 3), vec![80, 80, 80]),
        ("/later", retry("fixed", 1, 30_000, 1), vec![1_000]),
        ("/much-later", retry("fixed", 1, 300, 1), vec![300]),
    ];
    let webhooks: Vec<Value> = kinds
        .iter()
        .map(|(path, retry, _)| json!({"url": receiver.url(path), "retry": retry}))
        .collect();
    let id = task_with(&server, json!(webhooks)).await;
    server.publish(&id, note(1)).await;
    settled(&server, &id).await;
    let received = receiver.received();
    for (path, _, least) in kinds {
        let times: Vec<_> =
            received.iter().filter(|one| one.line.ends_with(path)).map(|one| one.at).collect();
        let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses.len(), least.len(), "{path}");
        for (pause, least) in pauses.iter().zip(least) {
            assert!(*pause >= Duration::from_millis(least), "{path}: {pauses:?}");
        }
    }
}

/// Rules: W15
async fn what_a_webhook_leaves_out_is_as_configured(backend: Backend) {
    let environment = [
        PRIVATE,
        ("TASKCAST_WEBHOOK__DEFAULT_RETRY__RETRIES", "4"),
        ("TASKCAST_WEBHOOK__DEFAULT_RETRY__BACKOFF", "fixed"),
        ("TASKCAST_WEBHOOK__DEFAULT_RETRY__INITIAL_DELAY_MS", "1"),
        ("TASKCAST_WEBHOOK__DEFAULT_RETRY__TIMEOUT_MS", "100"),
    ];
    let server = backend.start_with(&environment).await;
    let receiver = Receiver::behaving(as_asked).await;
    let id = task_with(
        &server,
        json!([
            {"url": receiver.url("/500")},
            {"url": receiver.url("/500"), "retry": {"retries": 1}},
            {"url": receiver.url("/500"), "retry": {"maxDelayMs": 5}},
            {"url": receiver.url("/hang"), "retry": {"retries": 0}}
        ]),
    )
    .await;
    server.publish(&id, note(1)).await;
    let mut all = settled(&server, &id).await;
    all.sort_by_key(|delivery| delivery["hook"].as_u64());
    assert_eq!(all.iter().map(attempts).collect::<Vec<_>>(), [5, 2, 5, 1]);
}

/// Rules: W16
async fn a_receiver_that_is_slow_delays_only_itself(backend: Backend) {
    let server = start(&backend).await;
    let slow = Receiver::behaving(|_| Reply::Hang).await;
    let quick = Receiver::start().await;
    let patient = json!({"timeoutMs": 300_000});
    let stuck = task_with(&server, json!([{"url": slow.url("/"), "retry": patient}])).await;
    let many: Vec<Value> = (0..300).map(note).collect();
    server.publish(&stuck, json!(many)).await;
    slow.wait_for(2).await;

    let id = task_with(&server, json!([{"url": quick.url("/")}])).await;
    server.publish(&id, json!(many)).await;
    quick.wait_for(300).await;
    assert!(slow.received().len() <= 8, "no more attempts at a time than eight");
    let all = until("all are noted", || async {
        let all = super::deliveries(&server, &id).await;
        all.iter().all(|one| one["state"] == "delivered").then_some(all)
    })
    .await;
    assert_eq!(all.len(), 300);
}
