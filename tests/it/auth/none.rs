//! Mode `none`, and what is public in every mode.

use serde_json::json;

use super::tokens::root;
use super::{JWT, ROUTES, ask, is_let_in};
use crate::support::{Backend, on_every_store};

on_every_store![without_a_mode_nobody_is_asked_and_tasks_have_no_rules, some_routes_are_public];

/// Rules: A1
async fn without_a_mode_nobody_is_asked_and_tasks_have_no_rules(backend: Backend) {
    let server = backend.start().await;
    for client in [server.bearing("garbage"), server.bearing(root()), (*server).clone()] {
        for route in ROUTES {
            let id = client.new_task().await;
            let reply = ask(route.request(&client, &id)).await;
            assert!(is_let_in(&reply), "{route:?}: {reply:?}");
        }
    }
    for rules in [
        json!({"rules": []}),
        json!({"rules": [{"match": {"scope": ["*"]}, "require": {"sub": ["canary"]}}]}),
        json!("canary"),
    ] {
        let reply = server.post("/tasks", json!({"id": "refused", "authConfig": rules})).await;
        reply.refused_at(400, "auth_not_configured", "/authConfig");
        assert!(!reply.text.contains("canary"), "{}", reply.text);
    }
    server.get("/tasks/refused").await.refused(404, "task_not_found");
    server.create(json!({"id": "created", "authConfig": null})).await;
}

/// Rules: A2
async fn some_routes_are_public(backend: Backend) {
    let custom =
        [("TASKCAST_AUTH_MODE", "custom"), ("TASKCAST_AUTH__CUSTOM__URL", "http://127.0.0.1:1/")];
    for (settings, mode) in [(&[][..], "none"), (&JWT[..], "jwt"), (&custom[..], "custom")] {
        let server = backend.start_with(settings).await;
        for path in ["/", "/health", "/health/ready", "/health/detail"] {
            server.get(path).await.expect(200);
            server.bearing("garbage").get(path).await.expect(200);
        }
        assert_eq!(server.get("/health/detail").await.json()["auth"]["mode"], mode);
        server.get("/nowhere").await.refused(404, "not_found");
        server.post("/events", "{}").await.refused(405, "method_not_allowed");
    }
}
