//! Cursors: where a stream continues.

use reqwest::Method;
use serde_json::{Value, json};

use super::super::{delta, latest, plain};
use crate::support::client::{column, number_of, text_of};
use crate::support::server::Server;
use crate::support::sse::{Stream, members};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    an_id_continues_after_its_event_whatever_the_filter,
    an_index_continues_after_its_number,
    a_time_continues_with_later_events,
    of_several_cursors_the_most_binding_counts,
    the_header_goes_before_all,
    the_id_of_a_replaced_event_keeps_its_place,
    an_unknown_id_begins_anew_and_is_announced,
];

/// A running task with four events, each of a time of its own, and an end.
async fn sample(server: &Server) -> (String, Vec<Value>) {
    let id = server.running_task().await;
    for n in 1..5 {
        let event = server.publish(&id, plain(if n % 2 == 0 { "even" } else { "odd" }, n)).await;
        until("the clock moves on", || async {
            let now = number_of(&server.create("{}").await["createdAt"]);
            (now > number_of(&event["timestamp"])).then_some(())
        })
        .await;
    }
    server.enter(&id, "completed").await;
    let history = server.history(&id, "").await;
    (id, history)
}

async fn rest(mut stream: Stream) -> Vec<Value> {
    let mut frames = stream.rest().await;
    assert!(frames.pop().unwrap().is_done());
    members(&frames, "rawIndex")
}

/// Rules: S32
async fn an_id_continues_after_its_event_whatever_the_filter(backend: Backend) {
    let server = backend.start().await;
    let (id, all) = sample(&server).await;
    for (n, event) in all.iter().enumerate().take(5) {
        let cursor = text_of(&event["id"]);
        let expected: Vec<_> = (n + 1..6).collect();
        assert_eq!(rest(server.stream(&id, &format!("?since.id={cursor}")).await).await, expected);
        let even: Vec<_> = [2, 4].into_iter().filter(|index| *index > n).collect();
        assert_eq!(
            rest(server.stream(&id, &format!("?since.id={cursor}&types=even")).await).await,
            even
        );
    }
}

/// Rules: S33
async fn an_index_continues_after_its_number(backend: Backend) {
    let server = backend.start().await;
    let (id, _) = sample(&server).await;
    for (query, expected) in [
        ("since.index=-1", vec![0, 1, 2, 3, 4, 5]),
        ("since.index=0", vec![1, 2, 3, 4, 5]),
        ("since.index=4", vec![5]),
        ("since.index=5", vec![]),
        ("since.index=1000000", vec![]),
        ("since.index=0&types=even", vec![4]),
        ("since.index=-1&types=even", vec![2, 4]),
        ("since.index=1&types=even", vec![]),
    ] {
        assert_eq!(rest(server.stream(&id, &format!("?{query}")).await).await, expected, "{query}");
    }
    let open = server.running_task().await;
    // Beyond what there is: the event after that number is what is waited for.
    let mut ahead = server.stream(&open, "?since.index=2").await;
    server
        .publish(&open, json!([plain("a", 1), plain("a", 2), plain("a", 3), plain("a", 4)]))
        .await;
    assert_eq!(members(&ahead.take(2).await, "rawIndex"), [3, 4]);
    for bad in ["-2", "1.5", "x", "", "1e3", "99999999999999999999"] {
        let reply = server.get(&format!("/tasks/{id}/events?since.index={bad}")).await;
        reply.refused_at(400, "invalid_request", "/query/since.index");
    }
}

/// Rules: S34
async fn a_time_continues_with_later_events(backend: Backend) {
    let server = backend.start().await;
    let (id, all) = sample(&server).await;
    let times: Vec<_> = column(&all, "timestamp").iter().map(number_of).collect();
    for at in times.iter().flat_map(|time| [time - 1, *time]).chain([0]) {
        let expected: Vec<_> = (0..6).filter(|n| times[*n] > at).collect();
        assert_eq!(
            rest(server.stream(&id, &format!("?since.timestamp={at}")).await).await,
            expected
        );
    }
    for bad in ["-1", "x", "", "1.5"] {
        let reply = server.get(&format!("/tasks/{id}/events?since.timestamp={bad}")).await;
        reply.refused_at(400, "invalid_request", "/query/since.timestamp");
    }
}

/// Rules: S35
async fn of_several_cursors_the_most_binding_counts(backend: Backend) {
    let server = backend.start().await;
    let (id, all) = sample(&server).await;
    let (event, time) = (text_of(&all[3]["id"]), number_of(&all[1]["timestamp"]));
    for (query, expected) in [
        (format!("since.timestamp={time}&since.index=0&since.id={event}"), vec![4, 5]),
        (format!("since.timestamp={time}&since.index=2"), vec![3, 4, 5]),
        (format!("since.index=4&since.timestamp={time}"), vec![5]),
        (format!("since.id={event}&since.timestamp={time}"), vec![4, 5]),
    ] {
        assert_eq!(rest(server.stream(&id, &format!("?{query}")).await).await, expected, "{query}");
    }
}

/// Rules: S36
async fn the_header_goes_before_all(backend: Backend) {
    let server = backend.start().await;
    let (id, all) = sample(&server).await;
    let (header, other) = (text_of(&all[3]["id"]), text_of(&all[0]["id"]));
    for query in [
        format!("?since.id={other}"),
        "?since.index=-1".into(),
        "?since.timestamp=0".into(),
        "?limit=1".into(),
        String::new(),
    ] {
        assert_eq!(rest(server.resume(&id, &query, &header).await).await, [4, 5], "{query}");
    }
}

/// Rules: S37
async fn the_id_of_a_replaced_event_keeps_its_place(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let mut ids = Vec::new();
    for n in 0..6 {
        let events = server.publish(&id, json!([latest("l", n), plain("p", n)])).await;
        ids.extend(column(events.as_array().unwrap(), "id").iter().map(text_of));
    }
    server.enter(&id, "cancelled").await;
    for (n, cursor) in ids.iter().enumerate() {
        let left = [1, 3, 5, 7, 9, 10, 11, 12];
        let expected: Vec<_> = left.into_iter().filter(|index| *index > n).collect();
        let mut resumed = server.resume(&id, "", cursor).await;
        let mut frames = resumed.rest().await;
        assert!(frames.pop().unwrap().is_done());
        assert_eq!(members(&frames, "rawIndex"), expected);
        assert!(resumed.comments.is_empty());
        assert_eq!(rest(server.stream(&id, &format!("?since.id={cursor}")).await).await, expected);
    }
}

/// Rules: S38
async fn an_unknown_id_begins_anew_and_is_announced(backend: Backend) {
    let server = backend.start().await;
    let (id, all) = sample(&server).await;
    let other = server.running_task().await;
    server.publish(&other, json!([delta("s", "x"), plain("a", 1)])).await;
    let foreign = text_of(&server.history(&other, "").await[1]["id"]);
    let real = text_of(&all[2]["id"]);
    let other_digit = if &real[9..10] == "0" { "1" } else { "0" };
    let other_time = [&real[..9], other_digit, &real[10..]].concat();
    let beyond = format!("{}Z", &text_of(&all[5]["id"])[..25]);
    let unknown = [
        "nonsense",
        &foreign,
        "0",
        &real.to_lowercase(),
        &format!("{real}~"),
        &format!("{real}~x"),
        &beyond,
        &format!("{real}~9999"),
        "-1",
        // The place is right, and the event there has another time.
        &other_time,
    ];
    for cursor in unknown {
        for mut stream in [
            server.resume(&id, "", cursor).await,
            server.stream(&id, &format!("?since.id={cursor}")).await,
        ] {
            let first = stream.one().await;
            assert_eq!(first.get("rawIndex"), 0, "{cursor}");
            assert_eq!(stream.comments, ["reset"], "{cursor}");
            assert_eq!(stream.rest().await.len(), 6, "{cursor}");
        }
        // Another cursor beside it could pass over what the reader has not seen.
        let time = number_of(&all[4]["timestamp"]);
        for query in [
            format!("?since.id={real}"),
            "?since.index=3".into(),
            format!("?since.timestamp={time}"),
        ] {
            let frames = server.resume(&id, &query, cursor).await.rest().await;
            assert_eq!(frames[0].get("rawIndex"), 0, "{cursor} {query}");
            assert_eq!(frames[0].get("reset"), true, "{cursor} {query}");
            assert!(frames[1..].iter().all(|frame| frame.data().get("reset").is_none()));
            let path = format!("/tasks/{id}/events/history{query}");
            let request = server.request(Method::GET, &path).header("Last-Event-ID", cursor);
            let history = server.send(request).await;
            assert_eq!(history.header("taskcast-reset"), "true", "{cursor} {query}");
            assert_eq!(history.json().as_array().unwrap().len(), all.len());
        }
    }
    let mut known = server.resume(&id, "", &real).await;
    known.rest().await;
    assert!(known.comments.is_empty());
}
