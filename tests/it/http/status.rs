//! Changes of status, and the deadline.

use futures_util::future::join_all;
use serde_json::json;

use super::{is_ulid, plain};
use crate::support::client::{number_of, text_of};
use crate::support::server::Server;
use crate::support::{Backend, on_every_store, until};

on_every_store![
    exactly_the_documented_changes_are_made,
    of_concurrent_terminal_changes_exactly_one_succeeds,
    of_the_deadline_and_a_change_exactly_one_succeeds,
    result_and_error_stay_as_supplied_last,
    a_change_moves_the_times_and_publishing_does_not,
    a_change_appends_its_status_event,
    the_terminal_event_is_the_last,
    a_task_times_out_at_its_deadline,
];

const STATUSES: [&str; 6] = ["pending", "running", "completed", "failed", "timeout", "cancelled"];
const ENDS: [&str; 4] = ["completed", "failed", "timeout", "cancelled"];

/// Makes a task in a status.
async fn task_in(server: &Server, status: &str) -> String {
    let id = server.new_task().await;
    if status != "pending" {
        server.enter(&id, "running").await;
    }
    if ENDS.contains(&status) {
        server.enter(&id, status).await;
    }
    id
}

/// Rules: H50, H51
async fn exactly_the_documented_changes_are_made(backend: Backend) {
    let server = backend.start().await;
    for from in STATUSES {
        for to in STATUSES {
            let id = task_in(&server, from).await;
            let before = server.get(&format!("/tasks/{id}")).await.text;
            let reply = server.patch(&format!("/tasks/{id}/status"), json!({"status": to})).await;
            let allowed = match from {
                "pending" => ["running", "cancelled", "timeout"].contains(&to),
                "running" => ENDS.contains(&to),
                _ => false,
            };
            if allowed {
                let task = reply.expect(200).json();
                assert_eq!((&task["id"], &task["status"]), (&json!(id), &json!(to)));
            } else {
                let refusal = reply.refused(409, "invalid_transition");
                assert_eq!((&refusal["from"], &refusal["to"]), (&json!(from), &json!(to)));
                assert_eq!(server.get(&format!("/tasks/{id}")).await.text, before);
            }
        }
    }
}

/// Rules: H52
async fn of_concurrent_terminal_changes_exactly_one_succeeds(backend: Backend) {
    let (first, second) = backend.start_two().await;
    for _ in 0..3 {
        let id = first.running_task().await;
        let path = format!("/tasks/{id}/status");
        let attempts = (0..24_usize).map(|n| {
            let server = if n < 12 { &first } else { &second };
            let (path, to) = (&path, ENDS[n % 4]);
            async move { (to, server.patch(path, json!({"status": to})).await) }
        });
        let mut winners = Vec::new();
        let mut losers = Vec::new();
        for (to, reply) in join_all(attempts).await {
            match reply.status {
                200 => winners.push(to),
                _ => losers.push((to, reply.refused(409, "invalid_transition"))),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        for (to, refusal) in losers {
            assert_eq!((&refusal["from"], &refusal["to"]), (&json!(winners[0]), &json!(to)));
        }
        for server in [&first, &second] {
            assert_eq!(server.task(&id).await["status"], winners[0]);
            let history = server.history(&id, "").await;
            assert_eq!(history.len(), 2);
            assert_eq!(history[1]["data"], json!({"status": winners[0]}));
        }
    }
}

/// Rules: H52, H56
async fn of_the_deadline_and_a_change_exactly_one_succeeds(backend: Backend) {
    let (first, second) = backend.start_two().await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let task = first.create(json!({"ttl": 1})).await;
        let id = text_of(&task["id"]);
        first.enter(&id, "running").await;
        tasks.push(id);
    }
    let races = tasks.iter().enumerate().map(|(n, id)| {
        let server = if n % 2 == 0 { &first } else { &second };
        async move {
            // Attempts fall before, at and after the deadline; "pending" is
            // always refused and says what the task has become.
            let path = format!("/tasks/{id}/status");
            until("the deadline is near", || async {
                let refusal = server
                    .patch(&path, json!({"status": "pending"}))
                    .await
                    .refused(409, "invalid_transition");
                let age = number_of(&server.create("{}").await["createdAt"])
                    - number_of(&server.task(id).await["createdAt"]);
                (refusal["from"] != "running" || age + 40 * (n as u64 % 4) >= 1_000).then_some(())
            })
            .await;
            server.patch(&path, json!({"status": "completed"})).await
        }
    });
    let replies = join_all(races).await;
    for (id, reply) in tasks.iter().zip(replies) {
        let ended = until("the task ends", || async {
            let task = second.task(id).await;
            task.get("completedAt").is_some().then_some(task)
        })
        .await;
        if reply.status == 200 {
            assert_eq!(ended["status"], "completed");
        } else {
            assert_eq!(reply.refused(409, "invalid_transition")["from"], "timeout");
            assert_eq!(ended["status"], "timeout");
        }
        let history = first.history(id, "").await;
        assert_eq!(history.len(), 2, "{history:?}");
    }
}

/// Rules: H53
async fn result_and_error_stay_as_supplied_last(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let status = format!("/tasks/{id}/status");
    let first = json!({"status": "running", "result": {"part": 1}, "error": {"message": "slow"}});
    let task = server.patch(&status, first).await.expect(200).json();
    assert_eq!(
        (&task["result"], &task["error"]),
        (&json!({"part": 1}), &json!({"message": "slow"}))
    );
    let error = json!({"message": "broken", "code": "E7", "details": {"try": 3}});
    let task =
        server.patch(&status, json!({"status": "failed", "error": error})).await.expect(200).json();
    assert_eq!((&task["result"], &task["error"]), (&json!({"part": 1}), &error));
    let read = server.task(&id).await;
    assert_eq!((&read["result"], &read["error"]), (&json!({"part": 1}), &error));
}

/// Rules: H54
async fn a_change_moves_the_times_and_publishing_does_not(backend: Backend) {
    let server = backend.start().await;
    let created = server.create("{}").await;
    let id = text_of(&created["id"]);
    let later = async |than: u64| {
        until("the clock moves on", || async {
            (number_of(&server.create("{}").await["createdAt"]) > than).then_some(())
        })
        .await;
    };
    later(number_of(&created["updatedAt"])).await;
    server.publish(&id, plain("a", 1)).await;
    assert_eq!(server.task(&id).await["updatedAt"], created["updatedAt"]);
    let running = server.enter(&id, "running").await;
    assert!(number_of(&running["updatedAt"]) > number_of(&created["updatedAt"]));
    assert_eq!(running["createdAt"], created["createdAt"]);
    assert!(running.get("completedAt").is_none());
    later(number_of(&running["updatedAt"])).await;
    let ended = server.enter(&id, "cancelled").await;
    assert!(number_of(&ended["updatedAt"]) > number_of(&running["updatedAt"]));
    assert_eq!(ended["completedAt"], ended["updatedAt"]);
}

/// Rules: H55
async fn a_change_appends_its_status_event(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    server.enter(&id, "running").await;
    let (result, error) = (json!({"r": 1}), json!({"message": "m", "details": {"d": []}}));
    let body = json!({"status": "failed", "result": result, "error": error});
    server.patch(&format!("/tasks/{id}/status"), body).await.expect(200);
    let history = server.history(&id, "").await;
    assert_eq!(history.len(), 2);
    for (n, event) in history.iter().enumerate() {
        assert_eq!((&event["type"], &event["level"]), (&json!("taskcast:status"), &json!("info")));
        assert_eq!((&event["index"], &event["taskId"]), (&json!(n), &json!(id)));
        assert!(is_ulid(event["id"].as_str().unwrap()));
    }
    assert_eq!(history[0]["data"], json!({"status": "running"}));
    assert_eq!(history[1]["data"], json!({"status": "failed", "result": result, "error": error}));
}

/// Rules: H55, H68
async fn the_terminal_event_is_the_last(backend: Backend) {
    let (first, second) = backend.start_two().await;
    for end in ENDS {
        let id = first.running_task().await;
        let (events, status) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/status"));
        let attempts = (0..20).map(|n| {
            let server = if n % 2 == 0 { &first } else { &second };
            let (events, status) = (&events, &status);
            async move {
                match n {
                    10 => server.patch(status, json!({"status": end})).await,
                    _ => server.post(events, plain("a", n)).await,
                }
            }
        });
        let replies = join_all(attempts).await;
        let published = replies.iter().filter(|reply| reply.status == 201).count();
        for reply in replies.iter().filter(|reply| reply.status >= 300) {
            reply.refused(400, "task_closed");
        }
        let history = second.history(&id, "").await;
        assert_eq!(history.len(), published + 2);
        assert_eq!(history.last().unwrap()["data"]["status"], end);
    }
}

/// Rules: H56
async fn a_task_times_out_at_its_deadline(backend: Backend) {
    let server = backend.start().await;
    let task = server.create(json!({"ttl": 1})).await;
    let (waiting, started) =
        (text_of(&task["id"]), text_of(&server.create(json!({"ttl": 1})).await["id"]));
    server.enter(&started, "running").await;
    let finished = text_of(&server.create(json!({"ttl": 1})).await["id"]);
    server.enter(&finished, "cancelled").await;
    let patient = text_of(&server.create(json!({"ttl": 3600})).await["id"]);
    for id in [&waiting, &started] {
        let frames = server.stream(id, "").await.rest().await;
        assert_eq!(frames.last().unwrap().data(), json!({"reason": "timeout"}));
        let task = server.task(id).await;
        assert_eq!(task["status"], "timeout");
        assert_eq!(task["completedAt"], task["updatedAt"]);
        let late = number_of(&task["completedAt"]) - number_of(&task["createdAt"]);
        assert!((1_000..=3_000).contains(&late), "timed out after {late} ms");
        assert_eq!(
            server.history(id, "").await.last().unwrap()["data"],
            json!({"status": "timeout"})
        );
        let reply =
            server.patch(&format!("/tasks/{id}/status"), json!({"status": "completed"})).await;
        assert_eq!(reply.refused(409, "invalid_transition")["from"], "timeout");
    }
    assert_eq!(server.task(&finished).await["status"], "cancelled");
    assert_eq!(server.task(&patient).await["status"], "pending");
}
