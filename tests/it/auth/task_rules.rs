//! Rules of a task, on every route.

use serde_json::{Value, json};

use super::tokens::{root, with};
use super::{JWT, ROUTES, Route, ask, is_let_in, start_two, told};
use crate::support::{Backend, on_every_store};

on_every_store![
    a_rule_holds_on_every_route_it_names_and_no_other,
    who_does_not_meet_the_rules_is_told_only_what_the_token_may_know,
    claims_match_when_equal_or_an_element,
    rules_hold_on_every_instance_and_go_with_their_task,
    rules_that_are_not_understood_are_refused_and_not_repeated,
];

#[expect(clippy::needless_pass_by_value, reason = "callers write the value in place")]
fn rule(scope: &[&str], require: Value) -> Value {
    json!({"match": {"scope": scope}, "require": require})
}

#[expect(clippy::needless_pass_by_value, reason = "callers write the value in place")]
fn as_whom(sub: &str, tasks: Value) -> String {
    with(json!({"sub": sub, "taskIds": tasks, "scope": ["*"]}))
}

fn on_tasks() -> impl Iterator<Item = Route> {
    ROUTES.into_iter().filter(Route::names_task)
}

/// Rules: A20, A21
async fn a_rule_holds_on_every_route_it_names_and_no_other(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let good = server.bearing(root());
    let you = server.bearing(as_whom("you", json!("*")));
    let mut made = 0;
    for scope in ["event:subscribe", "event:history", "event:publish", "task:manage", "*"] {
        for route in on_tasks() {
            made += 1;
            let id = format!("t{made}");
            let rules = json!({"rules": [rule(&[scope], json!({"sub": ["you"]}))]});
            good.create(json!({"id": id, "authConfig": rules})).await;
            let other = server.bearing(as_whom("other", json!("*")));
            let reply = ask(route.request(&other, &id)).await;
            if scope == route.scope || scope == "*" {
                reply.refused(403, "forbidden");
            } else {
                assert!(is_let_in(&reply), "{scope}: {route:?}");
                continue;
            }
            let reply = ask(route.request(&you, &id)).await;
            assert!(is_let_in(&reply), "{scope}: {route:?}: {reply:?}");
        }
    }
}

/// Rules: A21
async fn who_does_not_meet_the_rules_is_told_only_what_the_token_may_know(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let good = server.bearing(root());
    let rules = json!({"rules": [
        rule(&["*"], json!({"claims": {"org": "acme"}})),
        rule(&["task:create"], json!({"sub": ["nobody"]})),
    ]});
    let insider = with(json!({"taskIds": "*", "scope": ["*"], "org": "acme"}));
    let insider = server.bearing(insider);
    for id in ["live", "finished"] {
        good.create(json!({"id": id, "authConfig": rules})).await;
    }
    insider.enter("finished", "cancelled").await;
    let terminal = insider.history("finished", "").await[0]["id"].as_str().unwrap().to_owned();
    let star = server.bearing(as_whom("me", json!("*")));
    let narrow = server.bearing(as_whom("me", json!(["live", "finished", "missing"])));
    for route in on_tasks() {
        for id in ["live", "finished"] {
            ask(route.request(&star, id)).await.refused(403, "forbidden");
            let hidden = told(&ask(route.request(&narrow, id)).await);
            let missing = told(&ask(route.request(&narrow, "missing")).await);
            assert_eq!(hidden, missing, "{route:?} of {id}");
            assert_eq!(hidden.0, 404);
        }
    }
    // The end of a stream is no way around.
    for (client, status) in [(&star, 403), (&narrow, 404), (&insider, 204)] {
        let request = client.request(reqwest::Method::GET, "/tasks/finished/events");
        assert_eq!(ask(request.header("Last-Event-ID", &terminal)).await.status, status);
    }
    // What was refused left no trace, and rules do not widen.
    assert_eq!(insider.task("live").await["status"], "pending");
    assert!(insider.history("live", "").await.is_empty());
    let claims = json!({"taskIds": ["live"], "scope": ["event:history"], "org": "acme"});
    let outsider = server.bearing(with(claims));
    outsider.get("/tasks/live").await.refused(403, "forbidden");
    outsider.get("/tasks/finished/events/history").await.refused(404, "task_not_found");
    outsider.get("/tasks/live/events/history").await.expect(200);
}

/// Rules: A20
async fn claims_match_when_equal_or_an_element(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let wanted = json!({"org": "acme", "level": 3, "deep": {"a": [1]}});
    let rules = json!({"rules": [rule(&["*"], json!({"sub": ["me", "you"], "claims": wanted}))]});
    server.bearing(root()).create(json!({"id": "t", "authConfig": rules})).await;
    let read = async |changes: Value| {
        let mut claims = wanted.clone();
        claims["taskIds"] = "*".into();
        claims["scope"] = json!(["event:subscribe"]);
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        server.bearing(with(claims)).get("/tasks/t").await.status
    };
    for changes in
        [json!({}), json!({"sub": "you"}), json!({"org": ["x", "acme"]}), json!({"level": [3]})]
    {
        assert_eq!(read(changes.clone()).await, 200, "{changes}");
    }
    for changes in [
        json!({"sub": "them"}),
        json!({"sub": null}),
        json!({"org": "acmee"}),
        json!({"org": null}),
        json!({"org": {"acme": true}}),
        json!({"level": "3"}),
        json!({"deep": {"a": [1, 2]}}),
        json!({"deep": [1]}),
    ] {
        assert_eq!(read(changes.clone()).await, 403, "{changes}");
    }
}

/// Rules: A22
async fn rules_hold_on_every_instance_and_go_with_their_task(backend: Backend) {
    let (first, second) = start_two(&backend).await;
    let rules = json!({"rules": [rule(&["*"], json!({"sub": ["you"]}))]});
    for round in 0..3 {
        // Made on one instance, judged on the other, and again without rules.
        let (here, there) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let outsider =
            |server: &crate::support::server::Server| server.bearing(as_whom("other", json!("*")));
        let you = as_whom("you", json!("*"));
        here.bearing(root()).create(json!({"id": "t", "authConfig": rules})).await;
        for route in on_tasks() {
            for server in [there, here] {
                ask(route.request(&outsider(server), "t")).await.refused(403, "forbidden");
            }
        }
        // An instance that knows the task by heart forgets it with the task.
        there.bearing(&you).publish("t", json!({"type": "a"})).await;
        here.bearing(&you).publish("t", json!({"type": "a"})).await;
        here.bearing(&you).delete("/tasks/t").await.expect(204);
        there.bearing(root()).create(json!({"id": "t"})).await;
        for route in on_tasks() {
            let server = if route.method == "DELETE" { there } else { here };
            let reply = ask(route.request(&outsider(server), "t")).await;
            assert!(is_let_in(&reply), "{route:?}: {reply:?}");
        }
    }
}

/// Rules: A23
async fn rules_that_are_not_understood_are_refused_and_not_repeated(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let good = server.bearing(root());
    let one = |rule: Value| json!({"rules": [rule]});
    for (rules, path) in [
        (json!("canary"), "/rules"),
        (json!({"rules": "canary"}), "/rules"),
        (one(json!("canary")), "/rules/0/match/scope"),
        (one(rule(&[], json!({"sub": ["canary"]}))), "/rules/0/match/scope"),
        (one(rule(&["canary"], json!({"sub": []}))), "/rules/0/match/scope"),
        (one(rule(&["*"], json!({}))), "/rules/0/require"),
        (one(rule(&["*"], json!({"subject": ["canary"]}))), "/rules/0/require"),
        (one(rule(&["*"], json!({"sub": "canary"}))), "/rules/0/require/sub"),
        (one(rule(&["*"], json!({"claims": "canary"}))), "/rules/0/require/claims"),
    ] {
        let reply = good.post("/tasks", json!({"id": "t", "authConfig": rules})).await;
        reply.refused_at(400, "invalid_request", &format!("/authConfig{path}"));
        assert!(!reply.text.contains("canary"), "{}", reply.text);
    }
    let many = vec![rule(&["*"], json!({"sub": ["a"]})); 51];
    let reply = good.post("/tasks", json!({"id": "t", "authConfig": {"rules": many}})).await;
    reply.refused_at(400, "limit_exceeded", "/authConfig/rules");
    let long = one(rule(&["*"], json!({"sub": ["a".repeat(16 << 10)]})));
    let reply = good.post("/tasks", json!({"id": "t", "authConfig": long})).await;
    reply.refused_at(400, "limit_exceeded", "/authConfig");
    good.get("/tasks/t").await.refused(404, "task_not_found");
}
