//! Lists and the stream of all tasks show what is the caller's, and no more.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::tokens::{root, token, with};
use super::{JWT, start_two};
use crate::support::client::{Client, column};
use crate::support::sse::members;
use crate::support::{Backend, on_every_store};

on_every_store![
    a_list_of_500_tasks_shows_the_three_that_are_named,
    a_list_of_500_tasks_shows_the_three_whose_rules_admit,
    the_stream_of_all_tasks_carries_only_the_callers,
    rules_and_webhooks_are_shown_to_those_who_manage_the_task,
];

const MINE: [&str; 3] = ["t3", "t250", "t499"];

fn locked_to(sub: &str) -> Value {
    json!({"rules": [{"match": {"scope": ["event:subscribe"]}, "require": {"sub": [sub]}}]})
}

/// Follows the list to its end; returns what it showed and in how many pages.
async fn pages(client: &Client, query: &str) -> (Vec<Value>, usize) {
    let (mut found, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = client.get(&format!("/tasks?{query}{cursor}")).await.expect(200).json();
        pages += 1;
        assert!(pages <= 1_000, "the list does not end");
        found.extend(column(page["tasks"].as_array().unwrap(), "id"));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (found, pages),
        }
    }
}

async fn create_500(client: &Client, rules: impl Fn(&str) -> Value) {
    for batch in 0..10 {
        join_all((batch * 50..(batch + 1) * 50).map(|number| {
            let id = format!("t{number}");
            let body = json!({"id": id, "tags": ["x"], "authConfig": rules(&id)});
            async move { client.create(body).await }
        }))
        .await;
    }
}

fn sorted(mut ids: Vec<Value>) -> Vec<Value> {
    ids.sort_by_key(Value::to_string);
    ids
}

/// Rules: A8
async fn a_list_of_500_tasks_shows_the_three_that_are_named(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    create_500(&server.bearing(root()), |_| Value::Null).await;
    let named: Vec<&str> = MINE.into_iter().chain(["missing"]).collect();
    let client = server.bearing(token(json!(named), &["event:subscribe"]));
    for query in ["limit=1", "limit=2", "limit=50", "", "tag=x&limit=2"] {
        let (found, pages) = pages(&client, query).await;
        assert_eq!(sorted(found), sorted(MINE.map(Value::from).to_vec()), "{query}");
        assert!(pages <= 10, "{query}: {pages} pages");
    }
    let nobody = server.bearing(token(json!([]), &["*"]));
    assert_eq!(pages(&nobody, "limit=7").await.0, [] as [Value; 0]);
    assert_eq!(pages(&server.bearing(root()), "limit=500").await.0.len(), 500);
}

/// Rules: A8
async fn a_list_of_500_tasks_shows_the_three_whose_rules_admit(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let rules = |id: &str| locked_to(if MINE.contains(&id) { "me" } else { "you" });
    create_500(&server.bearing(root()), rules).await;
    for (sub, expected) in [("me", 3), ("you", 497), ("nobody", 0)] {
        let claims = json!({"sub": sub, "taskIds": "*", "scope": ["event:subscribe"]});
        let client = server.bearing(with(claims));
        for query in ["limit=1", "limit=7", "limit=500"] {
            if expected > 100 && query == "limit=1" {
                continue;
            }
            let (found, pages) = pages(&client, query).await;
            let mut ids = sorted(found);
            let all = ids.len();
            ids.dedup();
            assert_eq!((ids.len(), all), (expected, expected), "{sub}, {query}");
            assert!(pages <= 500, "{sub}, {query}: {pages} pages");
            if sub == "me" {
                assert_eq!(ids, sorted(MINE.map(Value::from).to_vec()));
            }
        }
    }
    // Both limits at once.
    let claims = json!({"sub": "me", "taskIds": ["t3", "t4"], "scope": ["*"]});
    assert_eq!(pages(&server.bearing(with(claims)), "limit=1").await.0, ["t3"]);
}

/// Rules: A9
async fn the_stream_of_all_tasks_carries_only_the_callers(backend: Backend) {
    let (first, second) = start_two(&backend).await;
    let good = first.bearing(root());
    for (id, rules) in [
        ("named", Value::Null),
        ("mine", locked_to("me")),
        ("theirs", locked_to("you")),
        ("open", Value::Null),
    ] {
        good.create(json!({"id": id, "authConfig": rules})).await;
    }
    let me = |tasks: Value| with(json!({"sub": "me", "taskIds": tasks, "scope": ["*"]}));
    for server in [&first, &second] {
        let named = server.bearing(me(json!(["named", "theirs"])));
        let every = server.bearing(me(json!("*")));
        let mut named = named.open(named.request(Method::GET, "/events")).await;
        let mut every = every.open(every.request(Method::GET, "/events")).await;
        let you = json!({"sub": "you", "taskIds": "*", "scope": ["*"]});
        let writers = [first.bearing(with(you)), second.bearing(root())];
        for round in 0..3 {
            for id in ["theirs", "open", "mine", "named"] {
                let writer = &writers[round % 2];
                writer.publish(id, json!({"type": "a", "data": round})).await;
            }
        }
        let frames = named.take(3).await;
        assert_eq!(members(&frames, "taskId"), ["named"; 3]);
        assert_eq!(members(&frames, "filteredIndex"), [0, 1, 2]);
        let frames = every.take(9).await;
        assert_eq!(members(&frames, "filteredIndex"), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        for id in ["named", "mine", "open"] {
            let of = frames.iter().filter(|frame| frame.get("taskId") == id);
            assert_eq!(of.map(|frame| frame.get("data")).collect::<Vec<_>>(), [0, 1, 2], "{id}");
        }
        assert!(!every.holds("theirs") && !named.holds("open"));
    }
}

/// Rules: A10
async fn rules_and_webhooks_are_shown_to_those_who_manage_the_task(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let rules =
        json!({"rules": [{"match": {"scope": ["task:manage"]}, "require": {"sub": ["me"]}}]});
    let webhooks = json!([{"url": "https://hooks.example.com/"}]);
    let new = |id: &str| json!({"id": id, "authConfig": rules, "webhooks": webhooks});
    let shown = |task: &Value| {
        let members = ["authConfig", "webhooks"].map(|name| task.get(name).is_some());
        assert_eq!(members[0], members[1], "{task}");
        members[0]
    };
    let as_whom = |sub: &str, scope: &[&str]| {
        server.bearing(with(json!({"sub": sub, "taskIds": "*", "scope": scope})))
    };
    let told = as_whom("me", &["task:create"]).post("/tasks", new("a")).await;
    assert!(told.refused(403, "forbidden")["error"].to_string().contains("webhook:create"));
    let creator = as_whom("me", &["task:create", "webhook:create"]);
    assert!(!shown(&creator.create(new("a")).await));
    let manager =
        as_whom("me", &["task:manage", "event:subscribe", "task:create", "webhook:create"]);
    assert_eq!(manager.task("a").await["authConfig"], rules);
    assert_eq!(manager.task("a").await["webhooks"], webhooks);
    let created = manager.create(new("b")).await;
    assert!(shown(&created) && created["authConfig"] == rules);
    assert!(shown(&manager.enter("b", "running").await));
    let listed = manager.get("/tasks").await.json();
    assert!(listed["tasks"].as_array().unwrap().iter().all(shown), "{listed}");
    for reader in [as_whom("me", &["event:subscribe"]), as_whom("you", &["*"])] {
        assert!(!shown(&reader.task("a").await));
        let listed = reader.get("/tasks").await.json();
        assert!(!listed["tasks"].as_array().unwrap().iter().any(shown), "{listed}");
    }
}
