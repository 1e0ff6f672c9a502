//! Reports to Sentry, as a project receives them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use taskcast::domain::{TaskId, TaskStatus};
use taskcast::hooks::{
    BroadcastError, BroadcastProblem, DropReason, ErrorPlace, EventDropped, Hooks as _,
    StorageError, StoragePart, StorageProblem, TaskFailed, TaskTimedOut, TaskTransitioned,
    UnhandledError,
};
use taskcast::sentry::{REPORTS_PER_MINUTE, Sentry, SentryOptions};

use crate::support::envelopes::Receiver;
use crate::support::place::Place;
use crate::support::postgres::Database;
use crate::support::{Backend, until};

/// Stands wherever a secret or a payload does; no envelope may hold it.
const CANARY: &str = "canary-5b1f";

/// A kind of report, and what turns it off.
type Switch = (&'static str, fn(&mut SentryOptions));

/// Every kind of report, sorted.
const KINDS: [&str; 6] = [
    "broadcast_error",
    "event_dropped",
    "storage_error",
    "task_failed",
    "task_timed_out",
    "unhandled_error",
];

fn step(to: TaskStatus) -> TaskTransitioned {
    let task = TaskId::parse("t").unwrap();
    TaskTransitioned::new(task, Some("llm".into()), Some(TaskStatus::Running), to, 1)
}

/// Tells of one thing of each kind.
fn tell_everything(sentry: &Sentry) {
    let (code, message) = (Some("E1".into()), Some("no model".into()));
    sentry.task_failed(&TaskFailed::new(&step(TaskStatus::Failed), code, message));
    sentry.task_timed_out(&TaskTimedOut::new(&step(TaskStatus::Timeout)));
    let place = ErrorPlace::Loop("pump");
    let detail = format!("index out of bounds: {CANARY}");
    sentry.unhandled_error(&UnhandledError::new(place, true, None, detail.into()));
    sentry.event_dropped(&EventDropped::new(DropReason::Lagged, None, None));
    let (part, problem) = (StoragePart::Reader, StorageProblem::Unexpected);
    sentry.storage_error(&StorageError::new(part, problem, CANARY));
    sentry.broadcast_error(&BroadcastError::new(BroadcastProblem::ListenerLost, CANARY));
}

async fn told(change: impl FnOnce(&mut SentryOptions)) -> Receiver {
    let receiver = Receiver::start().await;
    let mut options = SentryOptions::new(receiver.dsn());
    change(&mut options);
    let sentry = Sentry::start(options).unwrap();
    tell_everything(&sentry);
    sentry.finish(Duration::from_secs(20)).await;
    receiver
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_switch_turns_off_its_kind_of_report_and_no_other() {
    assert_eq!(told(|_| {}).await.kinds(), KINDS);
    let switches: [Switch; 6] = [
        ("task_failed", |options| options.capture_task_failures = false),
        ("task_timed_out", |options| options.capture_task_timeouts = false),
        ("unhandled_error", |options| options.capture_unhandled_errors = false),
        ("event_dropped", |options| options.capture_dropped_events = false),
        ("storage_error", |options| options.capture_storage_errors = false),
        ("broadcast_error", |options| options.capture_broadcast_errors = false),
    ];
    for (kind, switch) in switches {
        let others: Vec<_> = KINDS.into_iter().filter(|other| *other != kind).collect();
        assert_eq!(told(switch).await.kinds(), others, "without {kind}");
    }
    assert_eq!(told(|options| options.sample_rate = 0.0).await.kinds(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_names_environment_and_release_and_nothing_of_the_machine() {
    let receiver = told(|options| {
        options.environment = "staging".into();
        options.release = "taskcast@test".into();
    })
    .await;
    for report in receiver.reports() {
        assert_eq!(report["environment"], "staging", "{report}");
        assert_eq!(report["release"], "taskcast@test");
        for member in ["server_name", "request", "user", "breadcrumbs", "contexts", "modules"] {
            assert!(report.get(member).is_none(), "{member} in {report}");
        }
    }
    assert!(!receiver.text().contains(CANARY), "{}", receiver.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_is_cut_short() {
    let receiver = Receiver::start().await;
    let sentry = Sentry::start(SentryOptions::new(receiver.dsn())).unwrap();
    for _ in 0..500 {
        sentry.task_timed_out(&TaskTimedOut::new(&step(TaskStatus::Timeout)));
    }
    sentry.event_dropped(&EventDropped::new(DropReason::Evicted, None, Some(3)));
    sentry.finish(Duration::from_secs(20)).await;
    let kinds = receiver.kinds();
    let timeouts = kinds.iter().filter(|kind| *kind == "task_timed_out").count();
    assert_eq!(timeouts, REPORTS_PER_MINUTE as usize);
    assert_eq!(kinds[0], "event_dropped", "other kinds are not held up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reporting_to_nobody_holds_nothing_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // It takes connections and never answers.
    let sentry = Sentry::start(SentryOptions::new(format!("http://k@127.0.0.1:{port}/1"))).unwrap();
    let sentry: Arc<Sentry> = sentry;
    tell_everything(&sentry);
    let began = std::time::Instant::now();
    sentry.finish(Duration::from_millis(200)).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    sentry.finish(Duration::from_secs(20)).await;
}

#[test]
fn a_dsn_that_does_not_parse_is_refused_without_being_repeated() {
    let error = Sentry::start(SentryOptions::new(format!("{CANARY}@nowhere"))).unwrap_err();
    assert!(!error.to_string().contains(CANARY));
    assert!(!format!("{error:?} {:?}", SentryOptions::new(CANARY)).contains(CANARY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_variable_alone_has_failures_and_timeouts_reported_without_secrets_or_payloads() {
    let receiver = Receiver::start().await;
    let (dsn, secret) = (receiver.dsn(), CANARY.repeat(4));
    let environment = [
        ("SENTRY_DSN", dsn.as_str()),
        ("TASKCAST_AUTH_MODE", "jwt"),
        ("TASKCAST_JWT_SECRET", &secret),
        ("TASKCAST_METRICS__TOKEN", CANARY),
        ("TASKCAST_WEBHOOK__ALLOW_PRIVATE_TARGETS", "true"),
    ];
    let place =
        environment.iter().fold(Place::new(), |place, (name, value)| place.env(name, *value));
    let token = place.run("token mint --task-ids * --scope *").await.stdout.trim().to_owned();
    let running = Backend::Memory.start_with(&environment).await;
    let server = running.bearing(&token);
    let body = json!({
        "id": "job-1", "type": "llm.chat",
        "params": {"prompt": CANARY}, "metadata": {"k": CANARY},
        "webhooks": [{"url": format!("http://127.0.0.1:9/{CANARY}"), "secret": CANARY}],
    });
    server.create(body).await;
    server.enter("job-1", "running").await;
    server.publish("job-1", json!({"type": "n", "data": {"text": CANARY}})).await;
    let end = json!({
        "status": "failed", "result": {"partial": CANARY},
        "error": {
            "code": "MODEL_DOWN",
            "message": format!("cannot reach https://bob:{CANARY}@model.example/v1 (token={CANARY})"),
            "details": {"trace": CANARY},
        },
    });
    server.patch("/tasks/job-1/status", end).await.expect(200);
    server.create(json!({"id": "job-2", "ttl": 1})).await;

    let failed = receiver.report("task_failed").await;
    assert_eq!(
        failed["message"],
        "task failed: MODEL_DOWN: cannot reach https://***@model.example/v1 (token=***"
    );
    assert_eq!(failed["extra"]["task"], "job-1");
    assert_eq!(failed["tags"]["task.type"], "llm.chat");
    assert_eq!(failed["environment"], "production");
    let timed_out = receiver.report("task_timed_out").await;
    assert_eq!(timed_out["extra"]["task"], "job-2");
    assert!(!receiver.text().contains(CANARY), "{}", receiver.text());
    assert!(!receiver.text().contains(&token));
    assert!(!running.log().text().contains(CANARY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_sent_when_the_server_stops() {
    let receiver = Receiver::start().await;
    let server = Backend::Memory.start_with(&[("SENTRY_DSN", &receiver.dsn())]).await;
    let id = server.running_task().await;
    server.enter(&id, "failed").await;
    server.terminate();
    assert!(server.ended().await.success());
    assert_eq!(receiver.kinds(), ["task_failed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_of_the_configuration_have_their_effect() {
    let receiver = Receiver::start().await;
    let server = Backend::Memory
        .start_with(&[
            ("SENTRY_DSN", &receiver.dsn()),
            ("TASKCAST_SENTRY__CAPTURE_TASK_FAILURES", "false"),
            ("TASKCAST_SENTRY__ENVIRONMENT", "staging"),
        ])
        .await;
    let id = server.running_task().await;
    server.enter(&id, "failed").await;
    let id = server.running_task().await;
    server.enter(&id, "timeout").await;
    assert_eq!(receiver.report("task_timed_out").await["environment"], "staging");
    server.terminate();
    assert!(server.ended().await.success());
    assert_eq!(receiver.kinds(), ["task_timed_out"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_the_memory_store_gives_up_are_reported() {
    let receiver = Receiver::start().await;
    let server = Backend::Memory
        .start_with(&[("SENTRY_DSN", &receiver.dsn()), ("TASKCAST_MEMORY__MAX_BYTES", "2000000")])
        .await;
    let payload = CANARY.repeat(60_000);
    for n in 0..4 {
        let id = format!("t{n}");
        server.create(json!({"id": id})).await;
        server.enter(&id, "running").await;
        server.publish(&id, json!({"type": "big", "data": payload})).await;
        server.enter(&id, "completed").await;
    }
    let dropped = receiver.report("event_dropped").await;
    assert_eq!(dropped["message"], "events dropped: evicted (3 events)");
    assert_eq!(dropped["extra"]["task"], "t0");
    assert!(!receiver.text().contains(CANARY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone_is_reported_by_store_and_bus() {
    let (receiver, database) = (Receiver::start().await, Database::migrated().await);
    let backend = Backend::Postgres(database.clone());
    let server = backend
        .start_with(&[
            ("SENTRY_DSN", &receiver.dsn()),
            ("TASKCAST_POSTGRES__WRITE_TIMEOUT_MS", "500"),
        ])
        .await;
    let id = server.running_task().await;
    until("the listener listens", || async {
        (server.get("/metrics").await.text.contains("listener_state{state=\"healthy\"} 1"))
            .then_some(())
    })
    .await;
    database.shut_out().await;
    let event = json!({"type": "n", "data": CANARY});
    server.post(&format!("/tasks/{id}/events"), event).await;
    server.get(&format!("/tasks/{id}")).await.refused(503, "store_unavailable");
    let failed = receiver.report("storage_error").await;
    assert_eq!(failed["tags"]["problem"], "unavailable", "{failed}");
    receiver.report("broadcast_error").await;
    database.let_in().await;
    assert!(!receiver.text().contains(CANARY) && !receiver.text().contains("postgres://"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_500_is_reported_with_its_request_and_no_words_of_the_driver() {
    let (receiver, database) = (Receiver::start().await, Database::migrated().await);
    let backend = Backend::Postgres(database.clone());
    let server = backend.start_with(&[("SENTRY_DSN", &receiver.dsn())]).await;
    let id = server.new_task().await;
    database.execute("ALTER TABLE taskcast.task RENAME TO elsewhere").await;
    let request = server
        .request(reqwest::Method::GET, &format!("/tasks/{id}"))
        .header("X-Request-Id", "request-1");
    server.send(request).await.refused(500, "internal");
    let report = receiver.report("unhandled_error").await;
    assert_eq!(report["message"], "unhandled error in GET /tasks/{id}");
    assert_eq!(report["tags"]["request.id"], "request-1");
    assert!(!receiver.text().contains("relation"), "{}", receiver.text());
}

#[tokio::test]
async fn a_dsn_that_is_none_keeps_the_server_from_starting() {
    let error =
        Place::new().env("SENTRY_DSN", CANARY).refused("serve --port 0", &["SENTRY_DSN"]).await;
    assert!(!error.contains(CANARY), "{error}");
}
