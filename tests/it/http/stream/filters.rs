//! Filters, and the numbers they give.

use serde_json::{Value, json};

use super::super::{delta, latest};
use crate::support::client::{column, text_of};
use crate::support::server::Server;
use crate::support::sse::members;
use crate::support::{Backend, on_every_store};

on_every_store![
    every_condition_has_to_hold,
    a_star_stands_alone_or_after_a_final_dot,
    levels_are_a_list_of_known_levels,
    empty_conditions_are_none,
    status_events_can_be_left_out,
    a_number_counts_what_passes_the_filter,
    a_number_is_the_same_on_every_way_to_an_event,
    replaced_and_folded_events_count,
];

const KINDS: [(&str, &str); 8] = [
    ("llm", "info"),
    ("llm.delta", "info"),
    ("llm.a.b", "warn"),
    ("llmx", "error"),
    ("tool.call", "debug"),
    ("tool.call", "warn"),
    ("LLM.delta", "info"),
    ("llm.delta", "error"),
];

/// A running task with one event of each kind after its status event.
async fn sample(server: &Server) -> String {
    let id = server.running_task().await;
    let events: Vec<_> =
        KINDS.iter().map(|(name, level)| json!({"type": name, "level": level})).collect();
    server.publish(&id, json!(events)).await;
    id
}

/// Checks what passes a filter: replayed, live and in the history.
async fn passes(server: &Server, query: &str, expected: &[u64]) {
    let id = server.new_task().await;
    let mut live = server.stream(&id, query).await;
    server.enter(&id, "running").await;
    let events: Vec<_> =
        KINDS.iter().map(|(name, level)| json!({"type": name, "level": level})).collect();
    server.publish(&id, json!(events)).await;
    assert_eq!(column(&server.history(&id, query).await, "index"), expected, "history{query}");
    server.enter(&id, "cancelled").await;
    for mut frames in [live.rest().await, server.stream(&id, query).await.rest().await] {
        assert!(frames.pop().unwrap().is_done());
        let mut indexes = members(&frames, "rawIndex");
        if indexes.last() == Some(&json!(9)) {
            indexes.pop();
        }
        assert_eq!(indexes, expected, "{query}");
    }
}

/// Rules: S23
async fn every_condition_has_to_hold(backend: Backend) {
    let server = backend.start().await;
    passes(&server, "?types=llm.*", &[2, 3, 8]).await;
    passes(&server, "?levels=warn", &[3, 6]).await;
    passes(&server, "?types=llm.*&levels=warn", &[3]).await;
    passes(&server, "?types=tool.call,taskcast:status&levels=info,debug", &[0, 5]).await;
    passes(&server, "?types=taskcast:status&includeStatus=false", &[]).await;
    passes(&server, "?types=*&levels=info&includeStatus=false", &[1, 2, 7]).await;
}

/// Rules: S24, S25
async fn a_star_stands_alone_or_after_a_final_dot(backend: Backend) {
    let server = backend.start().await;
    passes(&server, "?types=*", &[0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
    passes(&server, "?types=llm", &[1]).await;
    passes(&server, "?types=llm.a.*", &[3]).await;
    passes(&server, "?types=llm,llm.*,llm.*", &[1, 2, 3, 8]).await;
    passes(&server, "?types=nothing", &[]).await;
    let id = sample(&server).await;
    for bad in ["llm*", "*.delta", "l*m", "**", "llm.*,x*", "*.*", "llm.*.b"] {
        for route in ["events", "events/history"] {
            let reply = server.get(&format!("/tasks/{id}/{route}?types={bad}")).await;
            reply.refused_at(400, "invalid_request", "/query/types");
        }
    }
}

/// Rules: S26
async fn levels_are_a_list_of_known_levels(backend: Backend) {
    let server = backend.start().await;
    passes(&server, "?levels=debug", &[5]).await;
    passes(&server, "?levels=error,debug", &[4, 5, 8]).await;
    passes(&server, "?levels=debug,info,warn,error", &[0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
    let id = sample(&server).await;
    for bad in ["loud", "INFO", "info,loud", "*"] {
        for route in ["events", "events/history"] {
            let reply = server.get(&format!("/tasks/{id}/{route}?levels={bad}")).await;
            reply.refused_at(400, "invalid_request", "/query/levels");
        }
    }
}

/// Rules: S27
async fn empty_conditions_are_none(backend: Backend) {
    let server = backend.start().await;
    passes(&server, "?types=&levels=", &[0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
    passes(&server, "?types=&levels=error", &[4, 8]).await;
    passes(&server, "?types=llm&levels=", &[1]).await;
}

/// Rules: S28
async fn status_events_can_be_left_out(backend: Backend) {
    let server = backend.start().await;
    passes(&server, "?includeStatus=true", &[0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
    passes(&server, "?includeStatus=false", &[1, 2, 3, 4, 5, 6, 7, 8]).await;
    let id = sample(&server).await;
    for bad in [
        "includeStatus=no",
        "includeStatus=1",
        "includeStatus=",
        "includeStatus=TRUE",
        "wrap=1",
        "wrap=no",
    ] {
        let (name, _) = bad.split_once('=').unwrap();
        let reply = server.get(&format!("/tasks/{id}/events?{bad}")).await;
        reply.refused_at(400, "invalid_request", &format!("/query/{name}"));
    }
}

/// Rules: S29
async fn a_number_counts_what_passes_the_filter(backend: Backend) {
    let server = backend.start().await;
    let id = sample(&server).await;
    let mut all = server.stream(&id, "").await;
    let frames = all.take(9).await;
    assert_eq!(members(&frames, "filteredIndex"), members(&frames, "rawIndex"));
    let mut some = server.stream(&id, "?types=llm.*").await;
    let frames = some.take(3).await;
    assert_eq!(members(&frames, "filteredIndex"), [0, 1, 2]);
    assert_eq!(members(&frames, "rawIndex"), [2, 3, 8]);
    server.publish(&id, json!([{"type": "other"}, {"type": "llm.delta"}])).await;
    let live = some.one().await;
    assert_eq!((live.get("filteredIndex"), live.get("rawIndex")), (json!(3), json!(10)));
}

/// Rules: S30
async fn a_number_is_the_same_on_every_way_to_an_event(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let id = first.new_task().await;
    let filter = "types=llm.*,p";
    let mut live = first.stream(&id, &format!("?{filter}")).await;
    let mut live_there = second.stream(&id, &format!("?{filter}&seriesFormat=accumulated")).await;
    for round in 0..20 {
        let body = json!([{"type": "p", "data": round}, {"type": "other"}, delta("s", "x"), delta("t", "y"), latest("l", round)]);
        first.publish(&id, body).await;
    }
    first.enter(&id, "running").await;
    first.publish(&id, json!({"type": "p", "data": "last"})).await;
    let truth: Vec<(Value, Value)> = live
        .take(61)
        .await
        .iter()
        .map(|frame| (frame.get("eventId"), frame.get("filteredIndex")))
        .collect();
    let number_of =
        |id: &Value| truth.iter().find(|(known, _)| known == id).map(|(_, number)| number.clone());
    assert_eq!(
        truth.iter().map(|(_, number)| number.clone()).collect::<Vec<_>>(),
        (0..61).collect::<Vec<_>>()
    );
    let mut frames = live_there.take(61).await;
    let middle = text_of(&truth[33].0);
    let queries = [
        String::new(),
        "&limit=1".into(),
        "&limit=7".into(),
        "&seriesFormat=accumulated".into(),
        format!("&since.id={middle}"),
        "&since.index=40".into(),
        "&since.index=40&seriesFormat=accumulated".into(),
        "&since.timestamp=0".into(),
        "&wrap=true".into(),
    ];
    for server in [&first, &second] {
        for query in &queries {
            let mut stream = server.stream(&id, &format!("?{filter}{query}")).await;
            frames.extend(stream.up_to(|frame| frame.get("data") == "last").await);
        }
    }
    for frame in frames {
        assert_eq!(
            Some(frame.get("filteredIndex")),
            number_of(&frame.get("eventId")),
            "{}",
            frame.raw
        );
    }
}

/// Rules: S31
async fn replaced_and_folded_events_count(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    for n in 0..5 {
        server.publish(&id, json!([latest("l", n), delta("s", "x")])).await;
    }
    server.publish(&id, json!({"type": "end"})).await;
    let frames = server.stream(&id, "").await.take(3).await;
    assert_eq!(members(&frames, "filteredIndex"), [8, 9, 10]);
    let frames = server.stream(&id, "?types=progress,end").await.take(2).await;
    assert_eq!(members(&frames, "filteredIndex"), [4, 5]);
    let frames = server.stream(&id, "?types=llm.*,end").await.take(2).await;
    assert_eq!(members(&frames, "filteredIndex"), [4, 5]);
}
