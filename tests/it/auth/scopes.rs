//! What credentials allow: scopes, and the tasks they are for.

use reqwest::Method;
use serde_json::{Value, json};

use super::tokens::{root, token, with};
use super::{JWT, ROUTES, Route, ask, is_let_in, told};
use crate::support::{Backend, on_every_store};

on_every_store![
    a_route_takes_its_own_scope_and_says_so_before_it_looks_further,
    a_task_of_others_answers_like_one_that_is_not_there,
    claims_of_the_wrong_type_allow_nothing,
    credentials_for_named_tasks_create_those_and_no_other,
];

const SCOPES: [&str; 7] = [
    "task:create",
    "task:manage",
    "event:publish",
    "event:subscribe",
    "event:history",
    "webhook:create",
    "*",
];

/// Rules: A5
async fn a_route_takes_its_own_scope_and_says_so_before_it_looks_further(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let good = server.bearing(root());
    for (round, scope) in SCOPES.into_iter().enumerate() {
        for tasks in [json!("*"), json!([format!("t{round}"), format!("t{round}-new")])] {
            let client = server.bearing(token(tasks, &[scope, "worker:connect", "unknown"]));
            for route in ROUTES {
                let id = format!("t{round}");
                // Earlier routes may have changed or removed it.
                good.delete(&format!("/tasks/{id}")).await;
                good.delete(&format!("/tasks/{id}-new")).await;
                good.create(json!({ "id": id })).await;
                if scope == route.scope || scope == "*" {
                    let reply = ask(route.request(&client, &id)).await;
                    assert!(is_let_in(&reply), "{scope}: {route:?}: {reply:?}");
                    continue;
                }
                let mut answers = Vec::new();
                for id in [&*id, "missing", "no%20id"] {
                    for request in [route.request(&client, id), route.malformed(&client, id)] {
                        let reply = ask(request).await;
                        let told_scope = reply.refused(403, "forbidden")["error"].to_string();
                        assert!(told_scope.contains(route.scope), "{told_scope}");
                        answers.push(told(&reply));
                    }
                }
                answers.dedup();
                assert_eq!(answers.len(), 1, "{scope}: {route:?}: {answers:?}");
                assert_eq!(good.task(&id).await["status"], "pending");
            }
        }
    }
}

/// Rules: A6
async fn a_task_of_others_answers_like_one_that_is_not_there(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let good = server.bearing(root());
    for id in ["mine", "theirs", "finished"] {
        good.create(json!({ "id": id })).await;
    }
    good.enter("finished", "cancelled").await;
    let client = server.bearing(token(json!(["mine"]), &["*"]));
    for route in ROUTES.into_iter().filter(Route::names_task) {
        for build in [Route::request, Route::malformed] {
            let missing = told(&ask(build(&route, &client, "missing")).await);
            assert!(matches!(missing.0, 404 | 400), "{route:?}: {missing:?}");
            for id in ["theirs", "finished", "no%20id"] {
                let hidden = told(&ask(build(&route, &client, id)).await);
                assert_eq!(hidden, missing, "{route:?} of {id}");
            }
        }
    }
    for path in ["/tasks/theirs", "/tasks/missing"] {
        let head = ask(client.request(Method::HEAD, path)).await;
        assert_eq!(head.status, 404);
    }
    let terminal = good.history("finished", "").await[0]["id"].as_str().unwrap().to_owned();
    let request = client.request(Method::GET, "/tasks/finished/events");
    let reply = ask(request.header("Last-Event-ID", terminal)).await;
    reply.refused(404, "task_not_found");
    assert_eq!(client.task("mine").await["id"], "mine");
    assert_eq!(good.task("theirs").await["status"], "pending");
}

/// Rules: A14
async fn claims_of_the_wrong_type_allow_nothing(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    server.bearing(root()).create(json!({"id": "there"})).await;
    for tasks in [
        Value::Null,
        json!("there"),
        json!("there,*"),
        json!(["*"]),
        json!(["there", 1]),
        json!({"there": true}),
        json!(true),
        json!([]),
    ] {
        let client = server.bearing(with(json!({"taskIds": tasks, "scope": ["*"]})));
        for route in ROUTES {
            let reply = ask(route.request(&client, "there")).await;
            match route.path {
                "/tasks" if route.method == "GET" => {
                    assert_eq!(reply.json(), json!({"tasks": []}), "{tasks}");
                }
                "/events" => assert_eq!(reply.status, 200, "{tasks}"),
                "/tasks" => drop(reply.refused(403, "forbidden")),
                _ => drop(reply.refused(404, "task_not_found")),
            }
        }
    }
    for scope in [Value::Null, json!("task:create,*"), json!(7), json!(["*", 1]), json!({"*": 1})] {
        let client = server.bearing(with(json!({"taskIds": "*", "scope": scope})));
        for route in ROUTES {
            ask(route.request(&client, "there")).await.refused(403, "forbidden");
        }
    }
    let all = |sub: Value| with(json!({"sub": sub, "taskIds": "*", "scope": ["*", "new:scope"]}));
    assert_eq!(server.bearing(all(Value::Null)).task("there").await["id"], "there");
    for sub in [json!(7), json!(["me"]), json!({})] {
        server.bearing(all(sub)).get("/tasks/there").await.refused(401, "unauthorized");
    }
}

/// Rules: A7
async fn credentials_for_named_tasks_create_those_and_no_other(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let client = server.bearing(token(json!(["a", "b"]), &["task:create"]));
    assert_eq!(client.create(json!({"id": "a"})).await["id"], "a");
    client.post("/tasks", json!({"id": "a"})).await.refused(409, "task_exists");
    for body in [json!({}), json!({"id": "c"}), json!({"id": "A"})] {
        client.post("/tasks", body).await.refused(403, "forbidden");
    }
    let good = server.bearing(root());
    good.create(json!({"id": "c"})).await;
    // Also where the id is taken, nothing is said about it.
    client.post("/tasks", json!({"id": "c"})).await.refused(403, "forbidden");
    assert_eq!(good.get("/tasks").await.json()["tasks"].as_array().unwrap().len(), 2);
}
