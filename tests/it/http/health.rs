//! What the server says about itself.

use serde_json::Value;

use crate::support::{Backend, on_every_store, until};

on_every_store![
    the_root_names_the_service_and_links_that_answer,
    health_says_that_the_process_is_alive,
    readiness_looks_at_everything_it_depends_on,
    a_server_that_shuts_down_is_not_ready,
    the_detail_names_what_it_runs_on,
];

fn check_identity(body: &Value) {
    assert_eq!(body["name"], "taskcast");
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(body["apiVersion"], "v1");
}

/// Rules: H38
async fn the_root_names_the_service_and_links_that_answer(backend: Backend) {
    let server = backend.start().await;
    let root = server.get("/").await.expect(200).json();
    check_identity(&root);
    let links = root["links"].as_object().expect("links");
    assert!(!links.is_empty());
    for path in links.values() {
        let request = server.request(reqwest::Method::GET, path.as_str().unwrap());
        // Not read to its end, since a link may lead to a stream.
        assert_eq!(request.send().await.unwrap().status(), 200, "{path}");
    }
}

/// Rules: H39
async fn health_says_that_the_process_is_alive(backend: Backend) {
    let server = backend.start().await;
    if let Backend::Postgres(database) = &backend {
        database.shut_out().await;
    }
    let health = server.get("/health").await.expect(200).json();
    check_identity(&health);
    assert_eq!(health["ok"], true);
}

/// Rules: H40
async fn readiness_looks_at_everything_it_depends_on(backend: Backend) {
    let server = backend.start().await;
    let ready = server.get("/health/ready").await.expect(200).json();
    assert_eq!(ready["ok"], true);
    let looked_at = ready["dependencies"].as_object().expect("dependencies");
    let Backend::Postgres(database) = &backend else {
        assert!(looked_at.is_empty(), "{ready}");
        return;
    };
    for name in ["database", "migrations", "listener"] {
        assert!(looked_at[name]["state"].is_string(), "{ready}");
    }
    assert_eq!(looked_at.len(), 3, "{ready}");
    let polling = backend.start_with(&[("TASKCAST_POSTGRES__LISTEN", "false")]).await;
    let ready = polling.get("/health/ready").await.expect(200).json();
    assert!(ready["dependencies"]["listener"]["state"].is_string(), "{ready}");
    database.shut_out().await;
    let unready = until("the server is not ready", || async {
        let reply = server.get("/health/ready").await;
        (reply.status == 503).then_some(reply)
    })
    .await;
    assert_eq!(unready.json()["ok"], false);
    assert!(!unready.header("retry-after").is_empty());
}

/// Rules: H40
async fn a_server_that_shuts_down_is_not_ready(backend: Backend) {
    let server = backend.start().await;
    let id = server.new_task().await;
    let mut stream = server.stream(&id, "").await;
    server.terminate();
    let unready = until("the server is not ready", || async {
        // It hangs up on idle connections, so a request may meet its end.
        let request = server.request(reqwest::Method::GET, "/health/ready");
        let reply = server.try_send(request).await.ok()?;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!((unready.status, &unready.json()["ok"]), (503, &Value::Bool(false)));
    assert!(stream.rest().await.is_empty(), "the stream ends without done");
    assert!(server.ended().await.success());
}

/// Rules: H41
async fn the_detail_names_what_it_runs_on(backend: Backend) {
    let server = backend.start().await;
    let detail = server.get("/health/detail").await.expect(200).json();
    check_identity(&detail);
    assert_eq!(detail["ok"], true);
    assert!(detail["uptime"].as_u64().unwrap() < 3_600, "{detail}");
    assert_eq!(detail["auth"]["mode"], "none");
    let provider = match backend {
        Backend::Memory => "memory",
        Backend::Postgres(_) => "postgres",
    };
    for adapter in ["broadcast", "shortTermStore"] {
        assert_eq!(detail["adapters"][adapter]["provider"], provider, "{detail}");
        assert_eq!(detail["adapters"][adapter]["status"], "ok", "{detail}");
    }
}
