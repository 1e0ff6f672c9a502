//! Series in a stream: collapsed replays, cursors into them, running totals.

use serde_json::{Value, json};

use super::super::{delta, latest, plain};
use crate::support::client::text_of;
use crate::support::server::Server;
use crate::support::sse::{Frame, members};
use crate::support::{Backend, on_every_store};

on_every_store![
    live_events_come_as_published,
    a_replay_holds_the_newest_of_a_latest_series,
    a_replay_without_a_cursor_is_collapsed,
    frames_before_a_snapshot_carry_the_state_of_the_replay,
    a_collapsed_replay_can_be_cut_anywhere,
    a_cursor_gets_the_single_pieces,
    accumulated_format_sends_running_totals,
    a_limit_keeps_the_newest_frames,
    a_limit_with_a_cursor_has_no_effect,
];

/// Rules: S39
async fn live_events_come_as_published(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    server.publish(&id, json!([delta("s", "a"), latest("l", 0)])).await;
    let mut stream = server.stream(&id, "").await;
    stream.take(2).await;
    for n in 1..4 {
        server.publish(&id, json!([delta("s", "b"), latest("l", n)])).await;
        let frames = stream.take(2).await;
        assert_eq!(members(&frames, "data"), [json!({"text": "b"}), json!(n)]);
        assert_eq!(members(&frames, "seriesSnapshot"), [Value::Null, Value::Null]);
    }
}

/// Rules: S40
async fn a_replay_holds_the_newest_of_a_latest_series(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let mut other_type = latest("l", 3);
    other_type["type"] = json!("other");
    server
        .publish(&id, json!([latest("l", 1), plain("p", 1), latest("l", 2), latest("m", 1)]))
        .await;
    let cursor = text_of(&server.history(&id, "").await[0]["id"]);
    server.publish(&id, other_type).await;
    server.enter(&id, "cancelled").await;
    for (query, expected) in [
        (String::new(), vec![1, 3, 4, 5]),
        ("?types=progress".into(), vec![3]),
        ("?types=other".into(), vec![4]),
        (format!("?since.id={cursor}"), vec![3, 4, 5]),
        ("?since.index=-1&types=progress".into(), vec![3]),
        ("?seriesFormat=accumulated".into(), vec![1, 3, 4, 5]),
    ] {
        let mut frames = server.stream(&id, &query).await.rest().await;
        frames.pop();
        assert_eq!(members(&frames, "rawIndex"), expected, "{query}");
    }
}

/// Rules: S41
async fn a_replay_without_a_cursor_is_collapsed(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let body = json!([
        plain("p", 0),
        delta("a", "1"),
        delta("b", "x"),
        delta("a", "2"),
        plain("p", 4),
        delta("c", "only"),
        delta("b", "y"),
        plain("p", 7)
    ]);
    let published = server.publish(&id, body).await;
    for query in ["", "?limit=100", "?seriesFormat=accumulated"] {
        let frames = server.stream(&id, query).await.take(6).await;
        assert_eq!(members(&frames, "rawIndex"), [0, 3, 4, 5, 6, 7], "{query}");
        assert_eq!(members(&frames, "filteredIndex"), [0, 3, 4, 5, 6, 7], "{query}");
        let texts = [
            json!(0),
            json!({"text": "12"}),
            json!(4),
            json!({"text": "only"}),
            json!({"text": "xy"}),
            json!(7),
        ];
        assert_eq!(members(&frames, "data"), texts, "{query}");
        for (n, frame) in [(1, 3_usize), (3, 5), (4, 6)].map(|(n, index)| (index, &frames[n])) {
            assert_eq!(frame.get("eventId"), published[n]["id"]);
            assert_eq!(frame.get("seriesSnapshot"), true);
            assert_eq!(frame.get("timestamp"), published[n]["timestamp"]);
        }
        assert_eq!(frames[0].get("seriesSnapshot"), Value::Null);
    }
}

/// Returns the index a frame's id adds to the event's, if it does.
fn state_of(frame: &Frame) -> Option<u64> {
    let id = frame.id.clone().unwrap();
    let (event, state) =
        id.split_once('~').map_or((&*id, None), |(event, state)| (event, Some(state)));
    assert_eq!(frame.get("eventId"), event);
    state.map(|state| state.parse().unwrap())
}

/// Rules: S42, S7
async fn frames_before_a_snapshot_carry_the_state_of_the_replay(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    // Frames: 0, snapshot 3 (folds 1), 4, snapshot 5 (folds nothing), snapshot 6 (folds 2), 7.
    let body = json!([
        plain("p", 0),
        delta("a", "1"),
        delta("b", "x"),
        delta("a", "2"),
        plain("p", 4),
        delta("c", "only"),
        delta("b", "y"),
        plain("p", 7)
    ]);
    server.publish(&id, body).await;
    let frames = server.stream(&id, "").await.take(6).await;
    let states: Vec<_> = frames.iter().map(state_of).collect();
    assert_eq!(states, [Some(7), Some(7), Some(7), Some(7), None, None]);
    // Under a filter only the snapshots that are sent count.
    let frames = server.stream(&id, "?types=p").await.take(3).await;
    assert!(frames.iter().all(|frame| state_of(frame).is_none()));
    let alone = server.new_task().await;
    server.publish(&alone, json!([plain("p", 0), delta("a", "1"), plain("p", 2)])).await;
    let mut stream = server.stream(&alone, "").await;
    assert!(stream.take(3).await.iter().all(|frame| state_of(frame).is_none()));
    server.publish(&alone, delta("a", "2")).await;
    assert_eq!(state_of(&stream.one().await), None);
}

/// Reads a task's stream in pieces: cut after every `every` frames, resumed by
/// the last id each time, while `between` happens at every cut.
async fn in_pieces(
    server: &Server,
    id: &str,
    query: &str,
    every: usize,
    by_header: bool,
) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut stream = match &cursor {
            None => server.stream(id, query).await,
            Some(cursor) if by_header => server.resume(id, query, cursor).await,
            Some(cursor) => {
                let separator = if query.is_empty() { '?' } else { '&' };
                server.stream(id, &format!("{query}{separator}since.id={cursor}")).await
            }
        };
        for _ in 0..every {
            let frame = stream.one().await;
            if frame.is_done() {
                return frames;
            }
            let ends = frame.ends_task();
            frames.push(frame);
            if ends {
                // Cut here a browser would be told to stop, not given a stream.
                assert!(stream.one().await.is_done());
                return frames;
            }
        }
        assert!(stream.comments.is_empty(), "{:?}", stream.comments);
        cursor = stream.last_event_id.clone();
    }
}

/// Rules: S43
async fn a_collapsed_replay_can_be_cut_anywhere(backend: Backend) {
    let server = backend.start().await;
    let id = server.running_task().await;
    let mut events = Vec::new();
    for round in 0..6 {
        events.extend([
            delta("a", &format!("a{round}")),
            plain("p", round),
            delta(&format!("once-{round}"), "x"),
            latest("l", round),
            delta("b", &format!("b{round}")),
        ]);
    }
    server.publish(&id, json!(events)).await;
    let mut first = server.stream(&id, "").await;
    let whole = first.take(16).await;
    // What comes after the replay began is single, also for who resumes into it.
    server
        .publish(
            &id,
            json!([delta("a", "+"), plain("p", "live"), delta("b", "+"), latest("l", "live")]),
        )
        .await;
    let live = first.take(4).await;
    for cut in 1..=16 {
        let cursor = whole[cut - 1].id.clone().unwrap();
        for by_header in [true, false] {
            let mut resumed = if by_header {
                server.resume(&id, "", &cursor).await
            } else {
                server.stream(&id, &format!("?since.id={cursor}")).await
            };
            let rest = resumed.up_to(|frame| frame.raw == live[3].raw).await;
            // The value of the latest series was replaced meanwhile.
            let left = whole[cut..].iter().filter(|frame| frame.get("seriesId") != "l");
            let expected: Vec<_> = left.chain(&live).map(|frame| &frame.raw).collect();
            let found: Vec<_> = rest.iter().map(|frame| &frame.raw).collect();
            assert_eq!(found, expected, "cut after {cut}");
        }
    }
    server.enter(&id, "completed").await;
    let complete = server.stream(&id, "").await.rest().await;
    for every in [1, 2, 3, 7] {
        for by_header in [true, false] {
            let pieces = in_pieces(&server, &id, "?includeStatus=true", every, by_header).await;
            let raw =
                |frames: &[Frame]| frames.iter().map(|frame| frame.raw.clone()).collect::<Vec<_>>();
            assert_eq!(raw(&pieces), raw(&complete[..complete.len() - 1]), "{every}");
        }
    }
}

/// Rules: S44
async fn a_cursor_gets_the_single_pieces(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let body =
        json!([delta("s", "a"), plain("p", 1), delta("s", "b"), delta("s", "c"), plain("p", 4)]);
    let published = server.publish(&id, body).await;
    let at = |n: usize| text_of(&published[n]["id"]);
    for query in [format!("?since.id={}", at(0)), "?since.index=0".into()] {
        let frames = server.stream(&id, &query).await.take(4).await;
        assert_eq!(members(&frames, "rawIndex"), [1, 2, 3, 4]);
        assert_eq!(members(&frames, "data")[1], json!({"text": "b"}));
        assert!(frames.iter().all(|frame| state_of(frame).is_none()));
    }
    let frames = server.stream(&id, "?since.timestamp=0").await.take(5).await;
    assert_eq!(members(&frames, "rawIndex"), [0, 1, 2, 3, 4]);
    let frames = server.stream(&id, "?since.index=-1").await.take(5).await;
    assert_eq!(members(&frames, "seriesSnapshot"), vec![Value::Null; 5]);
}

/// Rules: S45
async fn accumulated_format_sends_running_totals(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let body = json!([
        delta("s", "a"),
        delta("t", "1"),
        delta("s", "b"),
        plain("p", 3),
        delta("s", "c"),
        latest("l", 1)
    ]);
    let published = server.publish(&id, body).await;
    let cursor = text_of(&published[2]["id"]);
    let mut fresh = server.stream(&id, "?seriesFormat=accumulated").await;
    assert_eq!(members(&fresh.take(4).await, "rawIndex"), [1, 3, 4, 5]);
    let mut resumed =
        server.stream(&id, &format!("?seriesFormat=accumulated&since.id={cursor}")).await;
    let replay = resumed.take(3).await;
    assert_eq!(members(&replay, "rawIndex"), [3, 4, 5]);
    assert_eq!(members(&replay, "data"), [json!(3), json!({"text": "abc"}), json!(1)]);
    assert_eq!(replay[1].get("seriesSnapshot"), true);
    let mut bare = server.stream(&id, "?seriesFormat=accumulated&wrap=false&since.index=5").await;
    server
        .publish(
            &id,
            json!([
                delta("s", "d"),
                delta("s", "e"),
                plain("p", 8),
                delta("t", "2"),
                delta("u", "new")
            ]),
        )
        .await;
    let totals = [
        json!({"text": "abcd"}),
        json!({"text": "abcde"}),
        json!(8),
        json!({"text": "12"}),
        json!({"text": "new"}),
    ];
    for stream in [&mut fresh, &mut resumed, &mut bare] {
        let live = stream.take(5).await;
        assert_eq!(members(&live, "data"), totals);
    }
    for bad in ["both", "", "Delta"] {
        let reply = server.get(&format!("/tasks/{id}/events?seriesFormat={bad}")).await;
        reply.refused_at(400, "invalid_request", "/query/seriesFormat");
    }
}

/// Rules: S46
async fn a_limit_keeps_the_newest_frames(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let body = json!([
        plain("p", 0),
        delta("s", "a"),
        plain("p", 2),
        latest("l", 1),
        delta("s", "b"),
        latest("l", 2),
        plain("p", 6)
    ]);
    server.publish(&id, body).await;
    let whole = server.stream(&id, "").await.take(5).await;
    assert_eq!(members(&whole, "rawIndex"), [0, 2, 4, 5, 6]);
    for limit in 1..=6_usize {
        let mut stream = server.stream(&id, &format!("?limit={limit}")).await;
        let kept = stream.take(limit.min(5)).await;
        assert_eq!(
            members(&kept, "rawIndex"),
            members(&whole[5 - limit.min(5)..], "rawIndex"),
            "{limit}"
        );
        assert_eq!(members(&kept, "filteredIndex"), members(&kept, "rawIndex"));
        let next = server.publish(&id, plain("extra", 0)).await;
        assert_eq!(
            stream.one().await.get("eventId"),
            next["id"],
            "nothing is skipped before what is live"
        );
        // Leaves the log as it was for the next round, as far as the filter sees it.
        let filtered = server.stream(&id, "?types=p&limit=2").await.take(2).await;
        assert_eq!(members(&filtered, "filteredIndex"), [1, 2]);
        if limit < 6 {
            server.delete(&format!("/tasks/{id}")).await.expect(204);
            server.create(json!({"id": id})).await;
            let body = json!([
                plain("p", 0),
                delta("s", "a"),
                plain("p", 2),
                latest("l", 1),
                delta("s", "b"),
                latest("l", 2),
                plain("p", 6)
            ]);
            server.publish(&id, body).await;
        }
    }
    for bad in ["0", "-1", "x", "", "1.5"] {
        let reply = server.get(&format!("/tasks/{id}/events?limit={bad}")).await;
        reply.refused_at(400, "invalid_request", "/query/limit");
    }
}

/// Rules: S47
async fn a_limit_with_a_cursor_has_no_effect(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let published = server
        .publish(&id, json!([plain("p", 0), plain("p", 1), plain("p", 2), plain("p", 3)]))
        .await;
    let cursor = text_of(&published[0]["id"]);
    for query in [format!("?limit=1&since.id={cursor}"), "?limit=1&since.index=0".into()] {
        let frames = server.stream(&id, &query).await.take(3).await;
        assert_eq!(members(&frames, "rawIndex"), [1, 2, 3], "{query}");
    }
    let frames = server.resume(&id, "?limit=1", &cursor).await.take(3).await;
    assert_eq!(members(&frames, "rawIndex"), [1, 2, 3]);
    let frames = server.stream(&id, "?limit=1&since.timestamp=0").await.take(4).await;
    assert_eq!(members(&frames, "rawIndex"), [0, 1, 2, 3]);
}
