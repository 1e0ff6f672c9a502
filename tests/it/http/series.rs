//! Series: what they accept and how they read back.

use serde_json::{Value, json};

use super::{delta, latest, plain};
use crate::support::client::column;
use crate::support::{Backend, on_every_store};

on_every_store![
    a_mode_needs_an_id_and_plain_series_are_plain,
    text_joins_in_the_field_the_series_has,
    text_is_joined_as_it_was_sent,
    an_event_that_contradicts_its_series_is_refused,
];

/// Rules: H72
async fn a_mode_needs_an_id_and_plain_series_are_plain(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let events = format!("/tasks/{id}/events");
    for mode in ["keep-all", "accumulate", "latest"] {
        let alone = json!({"type": "a", "seriesMode": mode});
        server.post(&events, &alone).await.refused_at(400, "invalid_request", "/seriesMode");
        server.post(&events, json!([plain("a", 1), alone])).await.refused_at(
            400,
            "invalid_request",
            "/1/seriesMode",
        );
    }
    let unknown = json!({"type": "a", "seriesId": "s", "seriesMode": "sum"});
    server.post(&events, unknown).await.refused_at(400, "invalid_request", "/seriesMode");
    let sent: Vec<Value> = (0..4)
        .map(|n| match n % 2 {
            0 => json!({"type": "a", "data": {"text": n.to_string()}, "seriesId": "carried"}),
            _ => json!({"type": "a", "data": {"text": n.to_string()}, "seriesId": "kept", "seriesMode": "keep-all"}),
        })
        .collect();
    server.publish(&id, json!(sent)).await;
    for query in ["?types=a", "?types=a&seriesFormat=accumulated"] {
        let history = server.history(&id, query).await;
        assert_eq!(column(&history, "data"), column(&sent, "data"));
        assert_eq!(column(&history, "seriesId"), ["carried", "kept", "carried", "kept"]);
        assert_eq!(
            column(&history, "seriesMode"),
            [Value::Null, json!("keep-all"), Value::Null, json!("keep-all")]
        );
    }
    server.enter(&id, "completed").await;
    let frames = server.stream(&id, "?types=a").await.rest().await;
    assert_eq!(frames.len(), 5);
}

/// Rules: H73
async fn text_joins_in_the_field_the_series_has(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let piece = |series: &str, data: Value| json!({"type": "t", "data": data, "seriesId": series, "seriesMode": "accumulate"});
    let mut named = piece("named", json!({"text": "no", "out": "a"}));
    named["seriesAccField"] = json!("out");
    let body = json!([
        named,
        piece("named", json!({"out": "b", "text": "not"})),
        piece("text", json!({"delta": "no", "text": "a"})),
        piece("text", json!({"text": "b"})),
        piece("delta", json!({"other": 1})),
        piece("delta", json!({"delta": "a"})),
        piece("delta", json!({"text": "not joined", "delta": "b"})),
        piece("last", json!({"text": "a"})),
        piece("last", json!({"n": 1})),
        piece("scalar", json!({"text": "a"})),
        piece("scalar", json!(7)),
        piece("none", json!({"n": 1})),
    ]);
    server.publish(&id, body).await;
    let snapshots = server.history(&id, "?seriesFormat=accumulated&types=t").await;
    let expected = [
        ("named", json!({"out": "ab", "text": "not"})),
        ("text", json!({"text": "ab"})),
        ("delta", json!({"text": "not joined", "delta": "ab"})),
        ("last", json!({"n": 1, "text": "a"})),
        ("scalar", json!({"text": "a"})),
        ("none", json!({"n": 1})),
    ];
    assert_eq!(column(&snapshots, "seriesId"), expected.clone().map(|(series, _)| series));
    assert_eq!(column(&snapshots, "data"), expected.map(|(_, data)| data));
    assert!(snapshots.iter().all(|snapshot| snapshot["seriesSnapshot"] == true));
}

/// Rules: H73, H19
async fn text_is_joined_as_it_was_sent(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let parts =
        [r"\ud83d", r"\ude00", r"\u0000\/", "\u{1f600}\u{e9}", r"\u00e9", r#"\"\\"#, "", r"\n"];
    for part in parts {
        let body = format!(
            r#"{{"type":"t","data":{{"n":1.0,"text":"{part}"}},"seriesId":"s","seriesMode":"accumulate"}}"#
        );
        server.post(&format!("/tasks/{id}/events"), body).await.expect(201);
    }
    let joined = format!(r#""data":{{"n":1.0,"text":"{}"}}"#, parts.concat());
    let history =
        server.get(&format!("/tasks/{id}/events/history?seriesFormat=accumulated")).await.text;
    assert!(history.contains(&joined), "{history}");
    let mut stream = server.stream(&id, "?types=t").await;
    assert!(stream.one().await.raw.contains(&joined));
}

/// Rules: H74
async fn an_event_that_contradicts_its_series_is_refused(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let events = format!("/tasks/{id}/events");
    let mut named =
        json!({"type": "n", "data": {"out": "x"}, "seriesId": "named", "seriesMode": "accumulate"});
    named["seriesAccField"] = json!("out");
    let kept = json!({"type": "k", "seriesId": "kept", "seriesMode": "keep-all"});
    server.publish(&id, json!([delta("text", "a"), latest("latest", 1), named, kept])).await;
    let with = |base: &Value, name: &str, value: Value| {
        let mut event = base.clone();
        event[name] = value;
        event
    };
    let text = delta("text", "b");
    let contradictions = [
        with(&text, "seriesMode", json!("latest")),
        with(&text, "seriesMode", json!("keep-all")),
        with(&text, "data", json!({"text": 1})),
        with(&text, "data", json!({"text": null})),
        with(&text, "data", json!({"text": {"nested": "x"}})),
        with(&text, "type", json!("llm.other")),
        with(&text, "level", json!("warn")),
        with(&text, "seriesAccField", json!("delta")),
        with(&named, "seriesAccField", json!("text")),
        with(&latest("latest", 1), "seriesMode", json!("accumulate")),
        with(&latest("latest", 1), "seriesMode", json!("keep-all")),
        with(&latest("kept", 1), "seriesMode", json!("latest")),
        with(&delta("new", "x"), "data", json!({"text": []})),
    ];
    for event in contradictions {
        server.post(&events, &event).await.refused(400, "series_conflict");
        let refusal = server.post(&events, json!([plain("a", 1), delta("text", "z"), event])).await;
        refusal.refused(400, "series_conflict");
    }
    let mut other_latest = latest("latest", 2);
    other_latest["type"] = json!("another.type");
    other_latest["level"] = json!("error");
    let mut named_again = delta("text", "b");
    named_again["seriesAccField"] = json!("text");
    server.publish(&id, json!([text, other_latest, named_again])).await;
    assert_eq!(server.history(&id, "").await.len(), 7);
    let snapshot = server.history(&id, "?seriesFormat=accumulated&types=llm.*").await;
    assert_eq!(snapshot[0]["data"], json!({"text": "abb"}));
}
