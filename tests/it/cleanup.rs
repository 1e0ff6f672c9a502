//! Cleanup rules, carried out by the real program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, column};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    rules_remove_what_they_say_within_ten_seconds_while_writers_go_on,
    open_streams_of_a_removed_task_end_everywhere,
    what_remains_of_a_log_keeps_its_numbers_for_every_reader,
];

/// Within this a rule acts after it fell due.
const PROMISED: Duration = Duration::from_secs(10);

async fn start(backend: &Backend, rules: &Value) -> crate::support::server::Server {
    backend.start_with(&[("TASKCAST_CLEANUP__RULES", &rules.to_string())]).await
}

/// Publishes to a task of its own until told to stop; returns what was acknowledged.
async fn write_on(client: Client, stop: Arc<AtomicBool>) -> (String, u64) {
    let id = client.running_task().await;
    let mut acknowledged = 0;
    while !stop.load(Ordering::SeqCst) {
        client.publish(&id, json!({"type": "n", "data": acknowledged})).await;
        acknowledged += 1;
    }
    (id, acknowledged)
}

async fn rules_remove_what_they_say_within_ten_seconds_while_writers_go_on(backend: Backend) {
    let server = start(
        &backend,
        &json!([
            {"match": {"taskTypes": ["short.*"]}, "target": "all"},
            {"match": {"status": ["failed"]}, "trigger": {"afterMs": 300}, "target": "task"},
            {"match": {"taskTypes": ["kept"]}, "target": "events", "eventFilter": {"types": ["debug.*"]}},
        ]),
    )
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..4).map(|_| tokio::spawn(write_on(Client::clone(&server), stop.clone()))).collect();

    let mut gone = Vec::new();
    for (task_type, end) in [("short.a", "completed"), ("other", "failed")] {
        let task = server.create(json!({"type": task_type})).await;
        let id = task["id"].as_str().unwrap().to_owned();
        server.enter(&id, "running").await;
        server
            .publish(
                &id,
                json!((0..500).map(|n| json!({"type": "n", "data": n})).collect::<Vec<_>>()),
            )
            .await;
        server.enter(&id, end).await;
        gone.push(id);
    }
    let kept = server.create(json!({"type": "kept", "id": "kept"})).await;
    assert_eq!(kept["id"], "kept");
    server.enter("kept", "running").await;
    server
        .publish("kept", json!([{"type": "debug.x"}, {"type": "step"}, {"type": "debug.y"}]))
        .await;
    server.enter("kept", "completed").await;

    let began = Instant::now();
    for id in &gone {
        until("the task is removed", || async {
            (server.get(&format!("/tasks/{id}")).await.status == 404).then_some(())
        })
        .await;
    }
    until("the events are removed", || async {
        (server.history("kept", "").await.len() == 3).then_some(())
    })
    .await;
    assert!(began.elapsed() < PROMISED, "{:?}", began.elapsed());
    assert_eq!(column(&server.history("kept", "").await, "index"), [0, 2, 4]);

    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        let (id, acknowledged) = writer.await.unwrap();
        assert!(acknowledged > 0);
        assert_eq!(server.history(&id, "?types=n").await.len() as u64, acknowledged);
        assert_eq!(server.task(&id).await["status"], "running");
    }
}

async fn open_streams_of_a_removed_task_end_everywhere(backend: Backend) {
    let rules = json!([{"target": "all", "match": {"status": ["cancelled"]}}]);
    let cleaner = start(&backend, &rules).await;
    // A reader whose task is gone is told so; one of a finished task is done anyway.
    let id = cleaner.new_task().await;
    let mut stream = cleaner.stream(&id, "").await;
    cleaner.enter(&id, "cancelled").await;
    let frames = stream.rest().await;
    let done = frames.last().unwrap();
    assert_eq!(done.event, "taskcast.done");
    assert_eq!(done.get("reason"), "cancelled");
    until("the task is removed", || async {
        (cleaner.get(&format!("/tasks/{id}")).await.status == 404).then_some(())
    })
    .await;
    // The id is free again.
    cleaner.create(json!({"id": id})).await;
}

async fn what_remains_of_a_log_keeps_its_numbers_for_every_reader(backend: Backend) {
    let rules = json!([{"target": "events", "eventFilter": {"levels": ["debug"]}}]);
    let server = start(&backend, &rules).await;
    let id = server.running_task().await;
    for n in 0..30 {
        let level = if n % 3 == 0 { "info" } else { "debug" };
        server.publish(&id, json!({"type": "n", "level": level, "data": n})).await;
    }
    let before = server.history(&id, "").await;
    server.enter(&id, "completed").await;
    until("the events are removed", || async {
        (server.history(&id, "").await.len() == 12).then_some(())
    })
    .await;
    let frames = server.stream(&id, "").await.rest().await;
    let events: Vec<_> = frames.iter().filter(|frame| frame.event == "taskcast.event").collect();
    let numbers: Vec<Value> = events.iter().map(|frame| frame.get("filteredIndex")).collect();
    let mut expected: Vec<u64> = vec![0];
    expected.extend((1..31).step_by(3));
    expected.push(31);
    assert_eq!(numbers, expected);
    // A cursor that names a removed event resumes behind it.
    let removed = before[2]["id"].as_str().unwrap();
    let resumed = server.history(&id, &format!("?since.id={removed}")).await;
    assert_eq!(resumed[0]["index"], 4);
    let resumed = server.stream(&id, "?since.index=2").await.rest().await;
    assert_eq!(resumed[0].get("filteredIndex"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_carry_each_rule_out_once() {
    let backend = Backend::postgres().await;
    let rules = json!([{"target": "task"}]);
    let (first, second) = (start(&backend, &rules).await, start(&backend, &rules).await);
    let mut ids = Vec::new();
    for n in 0..40 {
        let server = if n % 2 == 0 { &first } else { &second };
        let id = server.running_task().await;
        server.enter(&id, "completed").await;
        ids.push(id);
    }
    until("every task is removed", || async {
        let listed = second.get("/tasks").await.expect(200).json();
        listed["tasks"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    for id in ids {
        first.get(&format!("/tasks/{id}")).await.refused(404, "task_not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_whose_rules_differ_say_so_and_one_without_rules_is_in_nobodys_way() {
    let backend = Backend::Postgres(crate::support::postgres::Database::migrated().await);
    let without = start(&backend, &json!([])).await;
    let first = start(&backend, &json!([{"target": "all", "match": {"taskTypes": ["a"]}}])).await;
    let task = first.create(json!({"type": "a"})).await;
    let id = task["id"].as_str().unwrap();
    first.enter(id, "running").await;
    first.enter(id, "completed").await;
    until("the rule of the one that has rules is carried out", || async {
        (without.get(&format!("/tasks/{id}")).await.status == 404).then_some(())
    })
    .await;
    let second = start(&backend, &json!([{"target": "all", "match": {"taskTypes": ["b"]}}])).await;
    let says = async |server: &crate::support::server::Server| {
        let text = server.get("/metrics").await.text;
        text.lines().any(|line| line == "taskcast_cleanup_rules_differ 1")
    };
    until("one of them says that its rules are not carried out", || async {
        (says(&first).await != says(&second).await).then_some(())
    })
    .await;
    until("so does the one without", || async { says(&without).await.then_some(()) }).await;
}
