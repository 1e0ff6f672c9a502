//! Secrets of webhooks, looked for everywhere.

use std::time::Duration;

use serde_json::{Value, json};
use taskcast::domain::{Filter, RetryOverrides, TargetPolicy, Webhook, WebhookSecret};
use taskcast::webhooks::{Endpoint, WebhookOptions};

use super::targets::{hook, outcomes, start};
use super::{PRIVATE, deliveries, every, note, settled};
use crate::support::client::text_of;
use crate::support::everything::Everything;
use crate::support::receiver::{Receiver, Reply};
use crate::support::{Backend, on_every_store};

on_every_store![a_secret_is_shown_nowhere, what_was_sent_is_in_no_error];

const SECRET: &str = "canary-secret-6f1a";
const OPERATORS: &str = "canary-operator-93bd";
const QUERY: &str = "canary-query-77c2";

/// Rules: W4, W5
async fn a_secret_is_shown_nowhere(backend: Backend) {
    let receiver = Receiver::behaving(|received| {
        Reply::Status(if received.line.contains("fails") { 500 } else { 200 })
    })
    .await;
    let fails = receiver.url(&format!("/fails?token={QUERY}"));
    let endpoints = json!([{"url": fails, "secret": OPERATORS, "filter": {"types": ["note"]},
                            "retry": every(1, 1)}]);
    let environment = [
        PRIVATE,
        ("TASKCAST_LOG_LEVEL", "debug"),
        ("TASKCAST_WEBHOOK__ENDPOINTS", &endpoints.to_string()),
    ];
    let server = backend.start_with(&environment).await;
    let webhooks = json!([
        {"url": receiver.url("/works"), "secret": SECRET},
        {"url": fails, "secret": SECRET, "wrap": true, "retry": every(1, 1)}
    ]);
    let created = server.post("/tasks", json!({"id": "t", "webhooks": webhooks})).await.expect(201);
    let mut shown = webhooks.clone();
    for webhook in shown.as_array_mut().unwrap() {
        webhook.as_object_mut().unwrap().remove("secret");
    }
    assert_eq!(created.json()["webhooks"], shown);
    let mut stream = server.stream("t", "").await;
    let mut answers = vec![created.text];
    let started = server.patch("/tasks/t/status", json!({"status": "running"})).await.expect(200);
    let published = server.post("/tasks/t/events", note(1)).await.expect(201);
    answers.extend([started.text, published.text]);
    let failed = settled(&server, "t").await;
    let failed = failed.iter().find(|one| one["state"] == "failed").unwrap();
    let path = format!("/tasks/t/webhooks/{}/redeliver", text_of(&failed["id"]));
    answers.push(server.send(server.request(reqwest::Method::POST, &path)).await.expect(202).text);
    settled(&server, "t").await;
    server.enter("t", "completed").await;
    for path in
        ["/tasks/t", "/tasks", "/tasks/t/webhooks", "/tasks/t/events/history", "/health/detail"]
    {
        answers.push(server.get(path).await.expect(200).text);
    }
    assert_eq!(server.task("t").await["webhooks"], shown);
    answers.extend(stream.rest().await.into_iter().map(|frame| frame.raw));
    for answer in answers {
        assert!(!answer.contains(SECRET) && !answer.contains(OPERATORS), "{answer}");
    }
    for received in receiver.wait_for(5).await {
        let text = format!("{received:?}");
        assert!(!text.contains(SECRET) && !text.contains(OPERATORS), "{text}");
    }
    let log = server.log().text();
    assert!(log.contains("webhook delivered") && log.contains("webhook failed"), "{log}");
    for canary in [SECRET, OPERATORS, QUERY] {
        let line = log.lines().find(|line| line.contains(canary));
        assert_eq!(line, None);
    }
    assert!(!deliveries(&server, "t").await.is_empty());
}

/// Rules: W5
async fn what_was_sent_is_in_no_error(backend: Backend) {
    let server = backend.start_with(&[("TASKCAST_LOG_LEVEL", "debug")]).await;
    let good = json!({"url": "https://hooks.example.com/", "secret": SECRET});
    let with = |name: &str, value: Value| {
        let mut webhook = good.clone();
        webhook[name] = value;
        webhook
    };
    let long = SECRET.repeat(40);
    for webhook in [
        with("secret", json!(long)),
        with("secret", json!(format!("whsec_{SECRET}"))),
        with("secret", json!(format!("{SECRET}\u{0}"))),
        with("secret", json!([SECRET])),
        with("secret", json!({ SECRET: SECRET })),
        with("url", json!(SECRET)),
        with("url", json!(format!("{SECRET}://x"))),
        with("url", json!(format!("https://u:{SECRET}@hooks.example.com/"))),
        with("url", json!(format!("https://10.0.0.1/{SECRET}"))),
        with("wrap", json!(SECRET)),
        with("filter", json!(SECRET)),
        with("filter", json!({"types": [format!("{SECRET}**")]})),
        with("filter", json!({"levels": [SECRET]})),
        with("retry", json!({"backoff": SECRET})),
        with("retry", json!({"retries": SECRET})),
        json!(SECRET),
    ] {
        let reply = server.post("/tasks", json!({"webhooks": [webhook]})).await;
        let refusal = reply.refused(400, "invalid_request");
        assert!(text_of(&refusal["path"]).starts_with("/webhooks/0"), "{refusal}");
        assert!(!reply.text.contains(SECRET), "{}", reply.text);
    }
    let reply = server.post("/tasks", json!({"webhooks": SECRET})).await;
    reply.refused_at(400, "invalid_request", "/webhooks");
    assert!(!reply.text.contains(SECRET));
    let cut = format!(r#"{{"webhooks":[{{"url":"https://h.example/","secret":"{SECRET}"}}"#);
    let reply = server.post("/tasks", cut).await;
    reply.refused(400, "invalid_json");
    assert!(!reply.text.contains(SECRET));
    assert!(!server.log().text().contains(SECRET));
}

async fn send_and_look(backend: Backend) {
    let (logged, _guard) = Everything::logged_here();
    let receiver = Receiver::behaving(|received| {
        Reply::Status(if received.line.contains("fails") { 500 } else { 200 })
    })
    .await;
    let url = |path: &str| receiver.url(&format!("{path}?token={QUERY}"));
    let endpoint = Endpoint {
        url: url("/works").into(),
        filter: Filter::default(),
        secret: Some(WebhookSecret::new(OPERATORS)),
        wrap: true,
        retry: RetryOverrides::default(),
        task_types: Vec::new(),
    };
    let options = WebhookOptions {
        endpoints: vec![endpoint],
        targets: TargetPolicy::new(true, Vec::new()),
        ..WebhookOptions::default()
    };
    assert!(!format!("{options:?}").contains(OPERATORS));
    let service = start(&backend, options).await;
    let secret = Some(WebhookSecret::new(SECRET));
    let urls = [
        url("/works"),
        url("/fails"),
        format!("http://127.0.0.1:1/?token={QUERY}"),
        format!("https://127.0.0.1:1/?token={QUERY}"),
        format!("http://nowhere.invalid/?token={QUERY}"),
    ];
    let webhooks = urls.map(|url| Webhook { secret: secret.clone(), ..hook(&url, 1) });
    outcomes(&service, webhooks.into()).await;
    service.stop(Duration::from_secs(5)).await;
    let text = logged.text();
    assert!(text.contains("TRACE") && text.contains("webhook delivered"), "{text}");
    for canary in [SECRET, OPERATORS, QUERY] {
        assert_eq!(text.lines().find(|line| line.contains(canary)), None);
    }
}

// One thread, so that what is logged on it is all there is.
#[tokio::test(flavor = "current_thread")]
async fn nothing_secret_is_logged_at_any_level_over_memory() {
    send_and_look(Backend::Memory).await;
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_secret_is_logged_at_any_level_over_postgres() {
    send_and_look(Backend::postgres().await).await;
}
