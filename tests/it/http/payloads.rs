//! Payloads come back as they were sent.

use serde_json::{Value, json};

use super::plain;
use crate::support::{Backend, on_every_store};

on_every_store![
    a_payload_comes_back_as_the_text_that_was_sent,
    envelopes_are_objects_and_data_is_anything,
    names_keep_to_their_alphabet_and_length,
];

/// What no parsing and writing again would preserve, compact and spaced out.
const ODD: &str = r#"{"z":1.0,"a":1e400,"z":-0,"n":123456789012345678901234567890.10,"u":"\u0000\ud800\/\u00e9é","w":" a  b ","e":{},"f":[],"l":[[1,2],null,true]}"#;
const ODD_SPACED: &str = "{ \"z\" : 1.0 ,\n\"a\":1e400,\t\"z\":-0,\"n\":123456789012345678901234567890.10,\r\n  \"u\":\"\\u0000\\ud800\\/\\u00e9é\", \"w\":\" a  b \",\"e\":{ },\"f\":[ ],\"l\":[ [1 , 2], null,true ] }";

/// Rules: H19, S11
async fn a_payload_comes_back_as_the_text_that_was_sent(backend: Backend) {
    let server = backend.start().await;
    // Read as text throughout: no JSON library would show it unchanged.
    for (id, sent) in [("compact", ODD), ("spaced", ODD_SPACED)] {
        let contains = |text: &str, member: &str, place: &str| {
            let expected = format!("\"{member}\":{ODD}");
            assert!(text.contains(&expected), "no {expected} in {place}: {text}");
        };
        let body = format!(r#"{{"id":"{id}","params":{sent} , "metadata" : {sent}}}"#);
        let task = server.post("/tasks", body).await.expect(201);
        let (path, status) = (format!("/tasks/{id}"), format!("/tasks/{id}/status"));
        contains(&task.text, "params", "created");
        let mut live = server.stream(id, "").await;
        let mut raw = server.stream(id, "?wrap=false").await;
        server.patch(&status, r#"{"status":"running"}"#).await.expect(200);
        let event = server
            .post(&format!("{path}/events"), format!(r#"{{"type":"odd","data": {sent}}}"#))
            .await;
        contains(&event.expect(201).text, "data", "published");
        let several = server
            .post(&format!("{path}/events"), format!(r#"[{{"data": {sent},"type":"odd"}}]"#))
            .await;
        contains(&several.expect(201).text, "data", "published");
        let error = format!(r#"{{"message":"m","details":{sent}}}"#);
        let body = format!(r#"{{"status":"failed","result":{sent},"error":{error}}}"#);
        let failed = server.patch(&status, body).await.expect(200);
        for (reply, place) in [
            (failed, "failed"),
            (server.get(&path).await, "read"),
            (server.get("/tasks?limit=1").await, "listed"),
        ] {
            for member in ["params", "metadata", "result", "details"] {
                contains(&reply.text, member, place);
            }
        }
        let history = server.get(&format!("{path}/events/history")).await.text;
        for text in [
            history,
            server.stream(id, "").await.rest().await.iter().map(|f| f.raw.clone()).collect(),
        ] {
            assert_eq!(text.matches(&format!("\"data\":{ODD}")).count(), 2, "{text}");
            contains(&text, "result", "status event");
            contains(&text, "details", "status event");
        }
        for stream in [&mut live, &mut raw] {
            let frames = stream.rest().await;
            contains(&frames[1].raw, "data", "live");
            contains(&frames[2].raw, "data", "live");
            contains(&frames[3].raw, "result", "live");
        }
    }
}

/// Rules: H20
async fn envelopes_are_objects_and_data_is_anything(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let status = format!("/tasks/{id}/status");
    for wrong in ["[]", "1", "\"x\"", "true"] {
        for member in ["params", "metadata"] {
            let reply = server.post("/tasks", format!(r#"{{"{member}":{wrong}}}"#)).await;
            reply.refused_at(400, "invalid_request", &format!("/{member}"));
        }
        let reply =
            server.patch(&status, format!(r#"{{"status":"failed","result":{wrong}}}"#)).await;
        reply.refused_at(400, "invalid_request", "/result");
        let body = format!(r#"{{"status":"failed","error":{{"message":"m","details":{wrong}}}}}"#);
        server.patch(&status, body).await.refused_at(400, "invalid_request", "/error/details");
    }
    assert_eq!(server.task(&id).await["status"], "running");
    let values = ["null", "true", "-1.50", "\"\"", "[]", "{}", "[[{}],\"\\ud83d\"]"];
    for data in values {
        server
            .post(&format!("/tasks/{id}/events"), format!(r#"{{"type":"any","data":{data}}}"#))
            .await
            .expect(201);
    }
    let history = server.get(&format!("/tasks/{id}/events/history")).await.text;
    for data in values {
        assert!(history.contains(&format!("\"data\":{data}")), "{data} in {history}");
    }
}

/// Rules: H21
async fn names_keep_to_their_alphabet_and_length(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let events = format!("/tasks/{id}/events");
    let never = [
        json!(""),
        json!("x".repeat(256)),
        json!("\u{e9}".repeat(128)),
        json!("a\nb"),
        json!("\u{0}"),
        json!("\u{7f}"),
        json!("\u{85}"),
        json!(1),
    ];
    let refuse = async |path: &str, body: Value, at: &str| {
        server.post(path, body).await.refused_at(400, "invalid_request", at);
    };
    for wrong in &never {
        refuse("/tasks", json!({"type": wrong}), "/type").await;
        refuse("/tasks", json!({"tags": ["ok", wrong]}), "/tags/1").await;
        refuse(&events, json!({"type": wrong}), "/type").await;
        let event = json!({"type": "a", "seriesId": wrong, "seriesMode": "latest"});
        refuse(&events, event, "/seriesId").await;
    }
    for wrong in ["a,b", "*", "llm.*"] {
        refuse("/tasks", json!({"type": wrong}), "/type").await;
        refuse(&events, plain(wrong, 1), "/type").await;
    }
    let lone = r#"{"type":"a\ud800"}"#;
    server.post("/tasks", lone).await.refused_at(400, "invalid_request", "/type");
    server.post(&events, lone).await.refused_at(400, "invalid_request", "/type");
    server.post("/tasks", r#"{"tags":["\udc00"]}"#).await.refused_at(
        400,
        "invalid_request",
        "/tags/0",
    );
    let event = r#"{"type":"a","seriesId":"\ud800x","seriesMode":"latest"}"#;
    server.post(&events, event).await.refused_at(400, "invalid_request", "/seriesId");
    for good in ["x".repeat(255), "\u{e9}".repeat(127), "a b:c/d \u{1f600}".to_owned()] {
        server.create(json!({"type": good, "tags": [good]})).await;
        let event = json!({"type": good, "seriesId": good, "seriesMode": "latest"});
        assert_eq!(server.publish(&id, event).await["seriesId"], json!(good));
    }
    server.create(json!({"tags": ["a,b", "*"]})).await;
    server.publish(&id, json!({"type": "a", "seriesId": "a,*"})).await;
    server.post("/tasks", r#"{"type":"\ud83d\ude00"}"#).await.expect(201);
    assert_eq!(server.history(&id, "").await.len(), 5);
}
