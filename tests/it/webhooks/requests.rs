//! What a task may ask for, and what a receiver gets.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::verify::is_genuine;
use super::{deliveries, note, settled, start, task_with};
use crate::support::client::{column, number_of};
use crate::support::receiver::{Received, Receiver};
use crate::support::{Backend, on_every_store};

on_every_store![
    malformed_webhooks_are_refused_with_their_place,
    every_event_that_passes_the_filter_is_sent,
    the_body_is_the_envelope_or_the_event,
    headers_name_the_event_and_the_delivery,
    requests_are_signed_for_both_kinds_of_receivers,
    a_library_of_standard_webhooks_takes_a_plain_secret_in_its_raw_form,
];

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Rules: W1, W2, W3
async fn malformed_webhooks_are_refused_with_their_place(backend: Backend) {
    let server = backend.start().await;
    let good = json!({"url": "https://hooks.example.com/x", "unknown": [1]});
    let with = |name: &str, value: Value| {
        let mut webhook = good.clone();
        webhook[name] = value;
        webhook
    };
    let url = |text: &str| with("url", text.into());
    for (webhook, path) in [
        (json!(1), ""),
        (json!({}), "/url"),
        (url("hooks.example.com"), "/url"),
        (url("ftp://hooks.example.com"), "/url"),
        (url("https://u:p@hooks.example.com"), "/url"),
        (url(&format!("https://hooks.example.com/{}", "x".repeat(2_048))), "/url"),
        (with("secret", "".into()), "/secret"),
        (with("secret", "x".repeat(513).into()), "/secret"),
        (with("secret", "whsec_no base64".into()), "/secret"),
        (with("wrap", "yes".into()), "/wrap"),
        (with("filter", json!({"levels": ["loud"]})), "/filter/levels/0"),
        (with("filter", json!({"types": ["a", "b*"]})), "/filter/types/1"),
        (with("retry", json!({"retries": 101})), "/retry/retries"),
        (with("retry", json!({"backoff": "random"})), "/retry/backoff"),
        (with("retry", json!({"initialDelayMs": -1})), "/retry/initialDelayMs"),
        (with("retry", json!({"initialDelayMs": 3_600_001})), "/retry/initialDelayMs"),
        (with("retry", json!({"maxDelayMs": 86_400_001})), "/retry/maxDelayMs"),
        (with("retry", json!({"timeoutMs": 300_001})), "/retry/timeoutMs"),
    ] {
        let body = json!({"id": "refused", "webhooks": [good, webhook]});
        let reply = server.post("/tasks", body).await;
        reply.refused_at(400, "invalid_request", &format!("/webhooks/1{path}"));
    }
    let reply = server.post("/tasks", json!({"id": "refused", "webhooks": {}})).await;
    reply.refused_at(400, "invalid_request", "/webhooks");
    let many = json!({"id": "refused", "webhooks": vec![good.clone(); 21]});
    let refusal = server.post("/tasks", many).await;
    assert_eq!(refusal.refused_at(400, "limit_exceeded", "/webhooks")["limit"], 20);
    server.get("/tasks/refused").await.refused(404, "task_not_found");

    let most = server.create(json!({"webhooks": vec![good; 20]})).await;
    assert_eq!(most["webhooks"].as_array().unwrap().len(), 20);
}

/// Rules: W6
async fn every_event_that_passes_the_filter_is_sent(backend: Backend) {
    let (server, receiver) = (start(&backend).await, Receiver::start().await);
    let id = task_with(
        &server,
        json!([
            {"url": receiver.url("/all"), "filter": {}},
            {"url": receiver.url("/some"), "filter": {"types": ["llm.*"], "levels": ["warn", "error"]}},
            {"url": receiver.url("/quiet"), "filter": {"includeStatus": false}}
        ]),
    )
    .await;
    server
        .publish(
            &id,
            json!([
                {"type": "llm.a", "level": "warn"},
                {"type": "llm.b", "level": "info"},
                {"type": "other", "level": "error"}
            ]),
        )
        .await;
    server.enter(&id, "completed").await;
    settled(&server, &id).await;
    let indexes = |path: &str| {
        let received = receiver.received().into_iter().filter(|one| one.line.contains(path));
        let mut indexes: Vec<u64> =
            received.map(|one| number_of(&one.json()["rawIndex"])).collect();
        indexes.sort_unstable();
        indexes
    };
    assert_eq!(indexes("POST /all"), [0, 1, 2, 3, 4]);
    assert_eq!(indexes("POST /some"), [1]);
    assert_eq!(indexes("POST /quiet"), [1, 2, 3]);
    assert_eq!(receiver.received().len(), 9);
}

/// Rules: W7
async fn the_body_is_the_envelope_or_the_event(backend: Backend) {
    let (server, receiver) = (start(&backend).await, Receiver::start().await);
    let id = task_with(
        &server,
        json!([{"url": receiver.url("/wrapped")}, {"url": receiver.url("/bare"), "wrap": false}]),
    )
    .await;
    let published = json!([
        {"type": "a", "data": {"number": 1.0, "text": "ä\u{0}"}},
        {"type": "llm.delta", "data": {"text": "one "}, "seriesId": "s", "seriesMode": "accumulate"},
        {"type": "llm.delta", "data": {"text": "two"}, "seriesId": "s", "seriesMode": "accumulate"}
    ]);
    let mut stream = server.stream(&id, "?includeStatus=false").await;
    server.publish(&id, published).await;
    let mut frames = Vec::new();
    while frames.len() < 3 {
        frames.push(stream.next().await.unwrap());
    }
    let history = server.history(&id, "?since.index=0").await;
    let received = receiver.wait_for(6).await;
    for index in 0..3 {
        let body = |path: &str| {
            let is_it = |one: &&Received| {
                let body = one.json();
                one.line.contains(path)
                    && [&body["rawIndex"], &body["index"]].contains(&&json!(index + 1))
            };
            let found = received.iter().find(is_it).expect("each event should have come");
            String::from_utf8(found.body.to_vec()).unwrap()
        };
        let (number, envelope) = frames[index].text.split_once(',').unwrap();
        assert!(number.contains("filteredIndex"), "{number}");
        assert_eq!(body("/wrapped"), format!("{{{envelope}"));
        assert_eq!(serde_json::from_str::<Value>(&body("/bare")).unwrap(), history[index]);
    }
}

/// Rules: W8, W9
async fn headers_name_the_event_and_the_delivery(backend: Backend) {
    let (server, receiver) = (start(&backend).await, Receiver::start().await);
    let webhooks = json!([{"url": receiver.url("/a?token=t")}, {"url": receiver.url("/b")}]);
    let id = task_with(&server, webhooks).await;
    let events = json!([{"type": "plain.type"}, {"type": "ä 100%"}]);
    let events = server.publish(&id, events).await;
    let received = receiver.wait_for(4).await;
    let mut ids: Vec<&str> = received.iter().map(|one| one.header("webhook-id")).collect();
    ids.sort_unstable();
    let mut known: Vec<String> = column(&settled(&server, &id).await, "id")
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    known.sort_unstable();
    assert_eq!(ids, known);
    ids.dedup();
    assert_eq!(ids.len(), 4);
    for one in &received {
        assert!(["POST /a?token=t", "POST /b"].contains(&&*one.line), "{}", one.line);
        assert_eq!(one.header("content-type"), "application/json");
        let version = server.get("/").await.json()["version"].clone();
        assert_eq!(one.header("user-agent"), format!("taskcast/{}", version.as_str().unwrap()));
        let (event_type, event) = match number_of(&one.json()["rawIndex"]) {
            1 => ("plain.type", &events[0]),
            _ => ("%C3%A4%20100%25", &events[1]),
        };
        assert_eq!(one.header("x-taskcast-event"), event_type);
        assert!(one.header("webhook-id").starts_with(event["id"].as_str().unwrap()));
        let at: u64 = one.header("x-taskcast-timestamp").parse().unwrap();
        assert!(now().abs_diff(at) < 60);
        assert_eq!(one.header("webhook-timestamp"), one.header("x-taskcast-timestamp"));
        assert!(one.headers.get("x-taskcast-signature").is_none());
        assert!(one.headers.get("webhook-signature").is_none());
        assert!(one.headers.get("authorization").is_none());
    }
}

/// Rules: W10
async fn requests_are_signed_for_both_kinds_of_receivers(backend: Backend) {
    let (server, receiver) = (start(&backend).await, Receiver::start().await);
    let secrets = ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "just some words"];
    let webhooks = json!([
        {"url": receiver.url("/0"), "secret": secrets[0]},
        {"url": receiver.url("/1"), "secret": secrets[1], "wrap": false}
    ]);
    let id = task_with(&server, webhooks).await;
    server.publish(&id, note("ä")).await;
    for one in receiver.wait_for(2).await {
        let at = usize::from(one.line.ends_with("/1"));
        let (secret, other) = (secrets[at], secrets[1 - at]);
        let mut own = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        own.update(&one.body);
        let digits = own
            .finalize()
            .into_bytes()
            .iter()
            .fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"));
        assert_eq!(one.header("x-taskcast-signature"), format!("sha256={digits}"));
        let verifier = match at {
            0 => standardwebhooks::Webhook::new(secret).unwrap(),
            _ => standardwebhooks::Webhook::from_bytes(secret.as_bytes().to_vec()).unwrap(),
        };
        verifier.verify(&one.body, &one.headers).unwrap();
        let genuine = |secret: &str, body: &[u8], now: u64| {
            let (id, timestamp) = (one.header("webhook-id"), one.header("webhook-timestamp"));
            is_genuine(secret, id, timestamp, one.header("webhook-signature"), body, now)
        };
        assert!(genuine(secret, &one.body, now()));
        assert!(!genuine(other, &one.body, now()));
        assert!(!genuine(secret, b"{}", now()));
        assert!(!genuine(secret, &one.body, now() + 3_600));
    }
    assert_eq!(deliveries(&server, &id).await.len(), 2);
}

/// Rules: W10
async fn a_library_of_standard_webhooks_takes_a_plain_secret_in_its_raw_form(backend: Backend) {
    let (server, receiver) = (start(&backend).await, Receiver::start().await);
    // A library that is given one of these as it is takes it for base64, or
    // refuses it; either way it has another key.
    let plain = ["just some words", "s3cret", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "0123456789ab"];
    let hooks: Vec<Value> = plain
        .iter()
        .enumerate()
        .map(|(at, secret)| json!({"url": receiver.url(&format!("/{at}")), "secret": secret}))
        .collect();
    let id = task_with(&server, json!(hooks)).await;
    server.publish(&id, note(1)).await;
    for one in receiver.wait_for(plain.len()).await {
        let at: usize = one.line.rsplit('/').next().unwrap().parse().unwrap();
        let as_it_is = standardwebhooks::Webhook::new(plain[at]);
        let verifies =
            |library: standardwebhooks::Webhook| library.verify(&one.body, &one.headers).is_ok();
        assert!(!as_it_is.is_ok_and(verifies), "{}", plain[at]);
        let raw = standardwebhooks::Webhook::from_bytes(plain[at].as_bytes().to_vec()).unwrap();
        assert!(verifies(raw), "{}", plain[at]);
        // Both of the ways that the documentation names.
        let encoded = base64::engine::general_purpose::STANDARD.encode(plain[at]);
        let prefixed = standardwebhooks::Webhook::new(&format!("whsec_{encoded}")).unwrap();
        assert!(verifies(prefixed), "{}", plain[at]);
    }
    let page = include_str!("../../../docs/webhooks.md");
    assert!(page.contains("Standard Webhooks libraries expect a `whsec_` secret"));
}
