//! Mode `custom`: another service says who is calling.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::forward_server::{Behaviour, ForwardServer};
use super::tokens::now;
use super::{ROUTES, ask};
use crate::support::server::Server;
use crate::support::{Backend, on_every_store, until};

on_every_store![
    every_spelling_of_a_path_is_shown_to_the_service_as_one,
    the_service_is_asked_and_its_answer_counts,
    the_services_refusals_are_passed_on,
    a_service_that_does_not_answer_lets_nobody_in,
    an_answer_holds_for_seconds_and_for_the_same_question,
    open_streams_are_asked_about_again,
    a_reader_that_cannot_be_checked_is_held_and_asked_to_come_back,
];

fn everything() -> Value {
    json!({"taskIds": "*", "scope": ["*"]})
}

async fn start(backend: &Backend, service: &ForwardServer, more: &[(&str, &str)]) -> Server {
    let mut settings =
        vec![("TASKCAST_AUTH_MODE", "custom"), ("TASKCAST_AUTH__CUSTOM__URL", &*service.url)];
    settings.extend(more);
    backend.start_with(&settings).await
}

/// Rules: A15
async fn every_spelling_of_a_path_is_shown_to_the_service_as_one(backend: Backend) {
    let service = ForwardServer::start(&everything()).await;
    let server = start(&backend, &service, &[NO_CACHE]).await;
    server.create(json!({"id": "secret1"})).await;
    for spelled in ["/tasks/secret1", "/tasks/%73ecret1", "/tasks/s%65cret%31"] {
        server.get(spelled).await.expect(200);
        let asked = service.asked().pop().unwrap();
        assert_eq!(asked["x-forwarded-uri"], "/tasks/secret1", "{spelled}");
    }
}

const NO_CACHE: (&str, &str) = ("TASKCAST_AUTH__CUSTOM__CACHE_MS", "0");

/// Rules: A15
async fn the_service_is_asked_and_its_answer_counts(backend: Backend) {
    let service = ForwardServer::start(&everything()).await;
    let server = start(&backend, &service, &[NO_CACHE]).await;
    let client = server.bearing("t0k3n");
    let request = client.json(Method::POST, "/tasks?x=secret", json!({"id": "a"}));
    ask(request.header("Cookie", "session=1; b=2").header("X-Other", "no")).await.expect(201);
    let asked = service.asked().pop().unwrap();
    assert_eq!(asked[":line"], "GET /judge?key=canary HTTP/1.1");
    assert_eq!((&*asked["x-forwarded-method"], &*asked["x-forwarded-uri"]), ("POST", "/tasks"));
    assert_eq!((&*asked["authorization"], &*asked["cookie"]), ("Bearer t0k3n", "session=1; b=2"));
    assert!(!asked.contains_key("x-other"), "{asked:?}");
    // Also without anything to show.
    server.get("/tasks/a").await.expect(200);

    service.allow(&json!({"taskIds": ["a"], "scope": ["event:subscribe"], "sub": "me"}));
    server.get("/tasks/a").await.expect(200);
    server.get("/tasks/b").await.refused(404, "task_not_found");
    server.delete("/tasks/a").await.refused(403, "forbidden");
    for claims in [json!({}), json!({"taskIds": "*", "scope": 7}), json!({"scope": ["*", 1]})] {
        service.allow(&claims);
        server.get("/tasks/a").await.refused(403, "forbidden");
    }
    service.allow(&json!({"taskIds": "*", "scope": "openid event:subscribe"}));
    server.get("/tasks/a").await.expect(200);
    service.allow(&json!({"taskIds": "*", "scope": ["*"], "exp": now() - 1}));
    server.get("/tasks/a").await.refused(401, "unauthorized");

    let rules = json!({"rules": [
        {"match": {"scope": ["*"]}, "require": {"sub": ["me"], "claims": {"org": "acme"}}},
    ]});
    service.allow(&everything());
    server.create(json!({"id": "ruled", "authConfig": rules})).await;
    server.get("/tasks/ruled").await.refused(403, "forbidden");
    let mut claims = everything();
    (claims["sub"], claims["org"]) = ("me".into(), "acme".into());
    service.allow(&claims);
    server.get("/tasks/ruled").await.refused(403, "forbidden");
    claims["claims"] = json!({"org": ["x", "acme"]});
    service.allow(&claims);
    server.get("/tasks/ruled").await.expect(200);
}

/// Rules: A15, A3
async fn the_services_refusals_are_passed_on(backend: Backend) {
    let service = ForwardServer::start(&everything()).await;
    let server = start(&backend, &service, &[NO_CACHE]).await;
    server.create(json!({"id": "there"})).await;
    for (status, code) in [(401, "unauthorized"), (403, "forbidden")] {
        service.now(Behaviour::Answer(status, "canary".to_owned()));
        for route in ROUTES {
            for request in [route.request(&server, "there"), route.malformed(&server, "missing")] {
                let reply = ask(request).await;
                reply.refused(status, code);
                assert!(!reply.text.contains("canary"), "{}", reply.text);
                assert_eq!(reply.header("www-authenticate") == "Bearer", status == 401);
            }
        }
    }
    service.allow(&everything());
    assert_eq!(server.task("there").await["status"], "pending");
}

/// Rules: A16
async fn a_service_that_does_not_answer_lets_nobody_in(backend: Backend) {
    let service = ForwardServer::start(&everything()).await;
    let soon = ("TASKCAST_AUTH__CUSTOM__TIMEOUT_MS", "300");
    // Requests for streams would be held.
    let at_once = ("TASKCAST_SSE__OPEN_TIMEOUT_MS", "0");
    let server = start(&backend, &service, &[soon, at_once]).await;
    let refused = async |what: &str| {
        for route in ROUTES {
            let reply = ask(route.request(&server, "any")).await;
            let told = reply.refused(503, "auth_unavailable");
            assert!(!reply.header("retry-after").is_empty(), "{what}");
            assert!(!told.to_string().contains("canary"), "{told}");
        }
    };
    let answer = |status, body: &str| Behaviour::Answer(status, body.to_owned());
    for behaviour in [
        answer(500, "{}"),
        answer(404, "{}"),
        answer(302, "{}"),
        answer(204, ""),
        answer(201, &everything().to_string()),
        answer(200, ""),
        answer(200, "true"),
        answer(200, "[]"),
        answer(200, "canary"),
        // What would limit the caller cannot be read, so it does not let it in.
        answer(200, &json!({"taskIds": "*", "scope": ["*"], "exp": "99999999999"}).to_string()),
        answer(200, &json!({"taskIds": "*", "scope": ["*"], "sub": 7}).to_string()),
        answer(
            200,
            &json!({"taskIds": "*", "scope": ["*"], "pad": "x".repeat(70_000)}).to_string(),
        ),
        Behaviour::Reset,
        Behaviour::Hang,
    ] {
        let what = format!("{behaviour:?}");
        service.now(behaviour);
        refused(&what).await;
    }
    // It was not kept: the first answer that is one counts at once.
    service.allow(&everything());
    server.get("/tasks").await.expect(200);

    let down = [
        ("TASKCAST_AUTH_MODE", "custom"),
        ("TASKCAST_AUTH__CUSTOM__URL", "http://127.0.0.1:1/canary"),
        at_once,
    ];
    let server = backend.start_with(&down).await;
    for route in ROUTES {
        let reply = ask(route.request(&server, "any")).await;
        reply.refused(503, "auth_unavailable");
    }
    let log = server.log().text();
    assert!(log.contains("cannot be reached") && !log.contains("canary"), "{log}");
}

/// Rules: A17
async fn an_answer_holds_for_seconds_and_for_the_same_question(backend: Backend) {
    let service = ForwardServer::start(&everything()).await;
    let server = start(&backend, &service, &[]).await;
    let asked = || service.asked().len();
    server.get("/tasks").await.expect(200);
    let (began, before) = (Instant::now(), asked());
    server.get("/tasks?limit=2").await.expect(200);
    assert_eq!(asked(), before);
    service.now(Behaviour::Answer(401, String::new()));
    // Other credentials, another method and another path are other questions.
    server.bearing("x").get("/tasks").await.refused(401, "unauthorized");
    ask(server.request(Method::GET, "/tasks").header("Cookie", "a=1")).await.expect(401);
    server.post("/tasks", "{}").await.refused(401, "unauthorized");
    server.get("/tasks/t").await.refused(401, "unauthorized");
    assert_eq!(asked(), before + 4);
    until("the answer was asked for again", || async {
        (server.get("/tasks").await.status == 401).then_some(())
    })
    .await;
    let held = began.elapsed();
    assert!(held <= Duration::from_millis(5_500), "{held:?}");

    // Many at once are one question, whose answer all of them get.
    service.now(Behaviour::Hang);
    let before = asked();
    let clients: Vec<_> = (0..20).map(|_| server.bearing("same")).collect();
    let all = join_all(clients.iter().map(|client| client.get("/tasks")));
    let answer = async {
        until("somebody asks", || async { (asked() > before).then_some(()) }).await;
        service.allow(&everything());
    };
    let (replies, ()) = futures_util::future::join(all, answer).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(asked(), before + 1);
}

/// Rules: A19, A18
async fn open_streams_are_asked_about_again(backend: Backend) {
    let service = ForwardServer::start(&everything()).await;
    let often = ("TASKCAST_AUTH__CUSTOM__RECHECK_MS", "200");
    let soon = ("TASKCAST_AUTH__CUSTOM__TIMEOUT_MS", "300");
    let server = start(&backend, &service, &[NO_CACHE, often, soon]).await;
    let id = server.running_task().await;
    let paths = [format!("/tasks/{id}/events"), "/events".to_owned()];
    let none = json!({"taskIds": [], "scope": ["*"]}).to_string();
    let other = json!({"taskIds": "*", "scope": ["event:history"]}).to_string();
    for ending in [
        Behaviour::Answer(401, String::new()),
        Behaviour::Answer(403, String::new()),
        Behaviour::Answer(200, other),
        Behaviour::Answer(200, none.clone()),
    ] {
        service.allow(&everything());
        // A stream of all tasks is none of a caller that has no task, but is
        // still one it may hold open.
        let empties = matches!(&ending, Behaviour::Answer(200, body) if *body == none);
        for path in paths.iter().filter(|path| !empties || *path != "/events") {
            service.allow(&everything());
            let mut stream = server.open(server.request(Method::GET, path)).await;
            // Silence and failures keep it open until somebody says no.
            let before = service.asked().len();
            service.now(Behaviour::Answer(500, String::new()));
            until("it is asked again", || async {
                (service.asked().len() >= before + 2).then_some(())
            })
            .await;
            service.now(ending.clone());
            let frames = stream.rest().await;
            assert!(frames.iter().all(|frame| !frame.is_done()));
            assert_eq!(stream.comments.last().unwrap(), "token expired", "{path}: {ending:?}");
        }
    }
    // While nobody answers, the time it was given counts.
    let exp = now() + 2;
    service.allow(&json!({"taskIds": "*", "scope": ["*"], "exp": exp}));
    let mut stream = server.open(server.request(Method::GET, &paths[0])).await;
    service.now(Behaviour::Hang);
    stream.rest().await;
    assert_eq!(stream.comments.last().unwrap(), "token expired");
    assert!((exp..exp + 10).contains(&now()));
}

/// Rules: S55
async fn a_reader_that_cannot_be_checked_is_held_and_asked_to_come_back(backend: Backend) {
    let service = ForwardServer::start(&everything()).await;
    let soon = ("TASKCAST_AUTH__CUSTOM__TIMEOUT_MS", "100");
    let held = ("TASKCAST_SSE__OPEN_TIMEOUT_MS", "1000");
    let server = start(&backend, &service, &[soon, held, NO_CACHE]).await;
    server.create(json!({"id": "a"})).await;
    service.now(Behaviour::Reset);
    for path in ["/tasks/a/events", "/events"] {
        let began = Instant::now();
        server.get(path).await.refused(503, "auth_unavailable");
        assert!(began.elapsed() >= Duration::from_millis(500), "{path}");
        let request = server.request(Method::GET, path).header("Accept", "text/event-stream");
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let told = response.chunk().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&told).contains("retry: "), "{path}");
        assert!(response.chunk().await.is_err(), "{path}: an end is no cut");
    }
    // What is back in time is served.
    let waiting = tokio::spawn({
        let request = server.request(Method::GET, "/tasks/a/events");
        async move { request.send().await.unwrap().status() }
    });
    until("the service was asked", || async { (service.asked().len() > 5).then_some(()) }).await;
    service.allow(&everything());
    assert_eq!(waiting.await.unwrap(), 200);
}
