//! Endpoints of the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use super::{PRIVATE, deliveries, every, note, settled, task_with};
use crate::support::client::{column, number_of, text_of};
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;
use crate::support::{Backend, on_every_store};

on_every_store![
    endpoints_hear_of_every_task_or_of_some_types,
    what_is_owed_to_an_endpoint_that_is_gone_for_a_day_is_cancelled,
    instances_that_do_not_know_an_endpoint_leave_it_alone,
];

async fn start(backend: &Backend, endpoints: &Value) -> Server {
    backend.start_with(&[("TASKCAST_WEBHOOK__ENDPOINTS", &endpoints.to_string())]).await
}

/// Rules: W20
async fn endpoints_hear_of_every_task_or_of_some_types(backend: Backend) {
    let receiver = Receiver::start().await;
    let endpoints = json!([
        {"url": receiver.url("/every"), "filter": {"types": ["note"]}, "secret": "of the operator"},
        {"url": receiver.url("/chats"), "taskTypes": ["chat.*"], "wrap": false,
         "filter": {"includeStatus": false}},
        {"url": receiver.url("/every").replace("http://", "http://user:pass%20word@"),
         "filter": {"levels": ["error"]}}
    ]);
    let server = start(&backend, &endpoints).await;
    let chat = text_of(&server.create(json!({"type": "chat.short"})).await["id"]);
    let other = text_of(&server.create(json!({"type": "other"})).await["id"]);
    let plain = server.new_task().await;
    for task in [&chat, &other, &plain] {
        server.publish(task, note(1)).await;
    }
    server.publish(&chat, json!({"type": "oops", "level": "error"})).await;
    for task in [&chat, &other, &plain] {
        settled(&server, task).await;
    }
    let received = receiver.received();
    let to =
        |path: &str| received.iter().filter(|one| one.line.ends_with(path)).collect::<Vec<_>>();
    let (every, chats) = (to("/every"), to("/chats"));
    assert_eq!((every.len(), chats.len()), (4, 2));
    let verifier = standardwebhooks::Webhook::from_bytes(b"of the operator".to_vec()).unwrap();
    let with_password =
        |one: &&&crate::support::receiver::Received| one.headers.contains_key("authorization");
    for one in every.iter().filter(|one| !with_password(one)) {
        verifier.verify(&one.body, &one.headers).unwrap();
    }
    let with_password: Vec<_> = every.iter().filter(with_password).collect();
    assert_eq!(with_password.len(), 1);
    assert_eq!(with_password[0].header("authorization"), "Basic dXNlcjpwYXNzIHdvcmQ=");
    assert_eq!(with_password[0].json()["type"], "oops");
    assert!(
        chats.iter().all(|one| one.json()["taskId"] == *chat && one.json().get("id").is_some())
    );

    let all = deliveries(&server, &chat).await;
    assert_eq!(all.len(), 4);
    for one in &all {
        assert!(one.get("url").is_none() && one.get("hook").is_none(), "{one}");
        let id = format!("{}-{}", text_of(&one["eventId"]), text_of(&one["endpoint"]));
        assert_eq!(one["id"], id);
        assert!(received.iter().any(|request| request.header("webhook-id") == id));
    }
}

/// Rules: W21
async fn what_is_owed_to_an_endpoint_that_is_gone_for_a_day_is_cancelled(backend: Backend) {
    // Nothing of a memory store outlives its configuration; there the task is
    // the same one and only Postgres has a second configuration.
    let Backend::Postgres(database) = &backend else { return in_memory(&backend).await };
    let broken = Receiver::behaving(|_| Reply::Status(500)).await;
    let endpoint = |path: &str| {
        json!({"url": broken.url(path), "filter": {"types": ["note"]},
               "retry": {"backoff": "fixed", "initialDelayMs": 1_500, "retries": 100}})
    };
    let first = start(&backend, &json!([endpoint("/gone"), endpoint("/kept")])).await;
    let id = first.new_task().await;
    first.publish(&id, note(1)).await;
    broken.wait_for(2).await;
    first.terminate();
    first.ended().await;
    // A day passes.
    database.execute("UPDATE taskcast.delivery SET next_at = next_at - 90000000").await;

    let mut changed = endpoint("/kept");
    changed["retry"]["retries"] = json!(0);
    changed["secret"] = json!("new");
    let second = start(&backend, &json!([changed])).await;
    let mut states: Vec<(String, u64)> = settled(&second, &id)
        .await
        .iter()
        .map(|one| (text_of(&one["state"]), number_of(&one["attempts"])))
        .collect();
    states.sort();
    assert_eq!(states[0].0, "cancelled");
    assert_eq!(states[1].0, "failed");
    let gone = broken.received().iter().filter(|one| one.line.ends_with("/gone")).count();
    assert_eq!(gone, 1);
}

async fn in_memory(backend: &Backend) {
    let server = start(backend, &json!([])).await;
    let id = server.new_task().await;
    server.publish(&id, note(1)).await;
    assert!(deliveries(&server, &id).await.is_empty());
}

/// Rules: W32
async fn instances_that_do_not_know_an_endpoint_leave_it_alone(backend: Backend) {
    // A rollout takes two instances over one database.
    let Backend::Postgres(_) = &backend else { return in_memory(&backend).await };
    let status = Arc::new(AtomicU16::new(500));
    let shown = status.clone();
    let receiver = Receiver::behaving(move |_| Reply::Status(shown.load(Ordering::SeqCst))).await;
    let retry = json!({"backoff": "fixed", "initialDelayMs": 500, "retries": 100});
    let endpoints =
        json!([{"url": receiver.url("/new"), "filter": {"types": ["news"]}, "retry": retry}]);
    let environment = [PRIVATE, ("TASKCAST_WEBHOOK__ENDPOINTS", "[]")];
    let old = backend.start_with(&environment).await;
    let new = start(&backend, &endpoints).await;
    let id = new.new_task().await;
    new.publish(&id, json!(vec![json!({"type": "news"}); 5])).await;
    receiver.wait_for(5).await;
    new.terminate();
    new.ended().await;
    // The old instance looks for what is due once the others are.
    let witness = Receiver::behaving(|_| Reply::Status(500)).await;
    let later = json!([{"url": witness.url("/"), "retry": every(2_000, 1)}]);
    let witnessed = task_with(&old, later).await;
    old.publish(&witnessed, note(1)).await;
    witness.wait_for(2).await;

    status.store(200, Ordering::SeqCst);
    let new = start(&backend, &endpoints).await;
    let all = settled(&new, &id).await;
    let states = column(&all, "state");
    assert_eq!(states, vec![json!("delivered"); 5]);
}
