//! Reading the log.

use serde_json::{Value, json};

use super::{delta, latest, plain};
use crate::support::client::{column, number_of, text_of};
use crate::support::server::Server;
use crate::support::{Backend, on_every_store, until};

on_every_store![
    a_history_is_in_order_and_there_in_every_status,
    filters_and_cursors_work_as_for_a_stream,
    a_limit_takes_the_first_after_the_cursor,
    pieces_are_returned_as_published,
    only_the_newest_of_a_latest_series_is_left,
    accumulated_format_returns_one_snapshot_a_series,
    a_long_history_arrives_whole,
];

/// Rules: H75
async fn a_history_is_in_order_and_there_in_every_status(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let mut published = vec![server.publish(&id, plain("a", 1)).await];
    assert_eq!(server.history(&id, "").await, published);
    server.enter(&id, "running").await;
    published.push(server.publish(&id, plain("b", 2)).await);
    server.enter(&id, "completed").await;
    let history = server.history(&id, "").await;
    assert_eq!(column(&history, "index"), [0, 1, 2, 3]);
    assert_eq!((&history[0], &history[2]), (&published[0], &published[1]));
    server.get("/tasks/nobody/events/history").await.refused(404, "task_not_found");
}

async fn sample(server: &Server) -> (String, Vec<Value>) {
    let id = server.running_task().await;
    for (n, (event_type, level)) in
        [("llm.a", "info"), ("llm.b", "warn"), ("tool", "info"), ("tool", "error")]
            .iter()
            .enumerate()
    {
        server.publish(&id, json!({"type": event_type, "level": level, "data": n})).await;
        let history = server.history(&id, "").await;
        let newest = number_of(&history.last().unwrap()["timestamp"]);
        until("the clock moves on", || async {
            (number_of(&server.create("{}").await["createdAt"]) > newest).then_some(())
        })
        .await;
    }
    let history = server.history(&id, "").await;
    (id, history)
}

/// Rules: H76
async fn filters_and_cursors_work_as_for_a_stream(backend: Backend) {
    let server = backend.start().await;
    let (id, all) = sample(&server).await;
    let event_id = |n: usize| text_of(&all[n]["id"]);
    let time = |n: usize| number_of(&all[n]["timestamp"]);
    let foreign = text_of(&server.publish(&server.new_task().await, plain("x", 1)).await["id"]);
    let cases: Vec<(String, &[u64])> = vec![
        ("?types=llm.*".into(), &[1, 2]),
        ("?types=llm.*,tool&levels=info,error".into(), &[1, 3, 4]),
        ("?includeStatus=false".into(), &[1, 2, 3, 4]),
        ("?types=&levels=".into(), &[0, 1, 2, 3, 4]),
        (format!("?since.id={}", event_id(2)), &[3, 4]),
        (format!("?since.id={}&types=llm.*", event_id(3)), &[]),
        (format!("?since.id={}", event_id(4)), &[]),
        ("?since.index=-1".into(), &[0, 1, 2, 3, 4]),
        ("?since.index=0".into(), &[1, 2, 3, 4]),
        ("?types=tool&since.index=0".into(), &[4]),
        ("?types=tool&since.index=7".into(), &[]),
        (format!("?since.timestamp={}", time(2)), &[3, 4]),
        (format!("?since.timestamp={}", time(2) - 1), &[2, 3, 4]),
        (format!("?since.id={}&since.index=0&since.timestamp=0", event_id(3)), &[4]),
        // What another cursor says may lie past what the reader has seen.
        (format!("?since.id={foreign}&since.index=2&since.timestamp=0"), &[0, 1, 2, 3, 4]),
        (format!("?since.id={foreign}&since.timestamp={}", time(3)), &[0, 1, 2, 3, 4]),
        (format!("?since.id={foreign}"), &[0, 1, 2, 3, 4]),
        ("?since.id=nonsense".into(), &[0, 1, 2, 3, 4]),
    ];
    for (query, expected) in cases {
        assert_eq!(column(&server.history(&id, &query).await, "index"), expected, "{query}");
    }
    let path = format!("/tasks/{id}/events/history?since.id={}", event_id(0));
    let request = server.request(reqwest::Method::GET, &path).header("Last-Event-ID", event_id(3));
    let history = server.send(request).await.expect(200).json();
    assert_eq!(column(history.as_array().unwrap(), "index"), [4]);
    // No 204 here: at the end there is just nothing.
    server.enter(&id, "completed").await;
    let end = text_of(&server.history(&id, "").await[5]["id"]);
    let request = server.request(reqwest::Method::GET, &path).header("Last-Event-ID", end);
    assert_eq!(server.send(request).await.expect(200).json(), json!([]));
}

/// Rules: H77
async fn a_limit_takes_the_first_after_the_cursor(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    server
        .publish(
            &id,
            json!(
                (0..9)
                    .map(|n| plain(if n % 2 == 0 { "even" } else { "odd" }, n))
                    .collect::<Vec<_>>()
            ),
        )
        .await;
    for (query, expected) in [
        ("?limit=3", vec![0, 1, 2]),
        ("?limit=2&since.index=3", vec![4, 5]),
        ("?limit=2&types=odd", vec![1, 3]),
        ("?limit=2&types=odd&since.index=1", vec![5, 7]),
        ("?limit=10000", (0..9).collect()),
    ] {
        assert_eq!(column(&server.history(&id, query).await, "index"), expected, "{query}");
    }
    for limit in ["0", "10001", "-1", "x", "", "1.0"] {
        let reply = server.get(&format!("/tasks/{id}/events/history?limit={limit}")).await;
        reply.refused_at(400, "invalid_request", "/query/limit");
    }
}

/// Rules: H78
async fn pieces_are_returned_as_published(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let published = server
        .publish(&id, json!([delta("s", "a"), plain("p", 1), delta("s", "b"), delta("s", "c")]))
        .await;
    for query in ["", "?seriesFormat=delta"] {
        assert_eq!(json!(server.history(&id, query).await), published);
    }
}

/// Rules: H79
async fn only_the_newest_of_a_latest_series_is_left(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let mut other = latest("l", 4);
    other["type"] = json!("done");
    server
        .publish(&id, json!([latest("l", 1), plain("p", 1), latest("l", 2), latest("m", 1)]))
        .await;
    server.publish(&id, latest("l", 3)).await;
    assert_eq!(column(&server.history(&id, "").await, "index"), [1, 3, 4]);
    server.publish(&id, other).await;
    assert_eq!(column(&server.history(&id, "").await, "index"), [1, 3, 5]);
    // The newest is of another type now, and no older one takes its place.
    assert_eq!(column(&server.history(&id, "?types=progress").await, "index"), [3]);
    assert_eq!(server.publish(&id, plain("p", 2)).await["index"], 6);
}

/// Rules: H80
async fn accumulated_format_returns_one_snapshot_a_series(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let body = json!([
        delta("a", "x"),
        plain("p", 1),
        delta("b", "1"),
        delta("a", "y"),
        latest("l", 1),
        delta("b", "2"),
        latest("l", 2)
    ]);
    let published = server.publish(&id, body).await;
    let history = server.history(&id, "?seriesFormat=accumulated").await;
    assert_eq!(column(&history, "index"), [1, 3, 5, 6]);
    assert_eq!(column(&history, "id"), [1, 3, 5, 6].map(|n: usize| published[n]["id"].clone()));
    let texts = column(&history, "data");
    assert_eq!(texts, [json!(1), json!({"text": "xy"}), json!({"text": "12"}), json!(2)]);
    assert_eq!(
        column(&history, "seriesSnapshot"),
        [Value::Null, json!(true), json!(true), Value::Null]
    );
    let after = server.history(&id, "?seriesFormat=accumulated&since.index=3").await;
    assert_eq!(column(&after, "index"), [5, 6]);
    assert_eq!(after[0]["data"], json!({"text": "12"}));
    let limited = server.history(&id, "?seriesFormat=accumulated&limit=2").await;
    assert_eq!(column(&limited, "index"), [1, 3]);
    for format in ["both", "", "DELTA"] {
        let reply = server.get(&format!("/tasks/{id}/events/history?seriesFormat={format}")).await;
        reply.refused_at(400, "invalid_request", "/query/seriesFormat");
    }
}

/// Rules: H75, H77
async fn a_long_history_arrives_whole(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    for round in 0..11 {
        let body: Vec<_> = (0..1_000).map(|n| plain("n", round * 1_000 + n)).collect();
        server.publish(&id, json!(body)).await;
    }
    let history = server.history(&id, "").await;
    assert_eq!(column(&history, "data"), (0..10_000).collect::<Vec<_>>());
    let rest = server.history(&id, "?since.index=9999").await;
    assert_eq!(column(&rest, "data"), (10_000..11_000).collect::<Vec<_>>());
}
