//! Tokens and keys stay where they are.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::json;
use taskcast::auth::{
    Authenticate, ForwardAuth, ForwardAuthOptions, JwtAlgorithm, JwtAuth, JwtKey, JwtOptions,
};
use taskcast::http::CorsOptions;
use taskcast::server::{Service, ServiceOptions};
use taskcast::store::{StorageOptions, open};

use super::forward_server::{Behaviour, ForwardServer};
use super::tokens::{SECRET, bare, now, root, with};
use super::{JWT, ROUTES, ask};
use crate::support::everything::Everything;
use crate::support::{Backend, on_every_store};

on_every_store![no_token_and_no_secret_is_in_an_answer_or_the_log];

/// Rules: A24
async fn no_token_and_no_secret_is_in_an_answer_or_the_log(backend: Backend) {
    let mut settings = JWT.to_vec();
    settings.push(("TASKCAST_LOG_LEVEL", "trace"));
    let server = backend.start_with(&settings).await;
    let marked = json!({"sub": "canary-sub", "taskIds": "*", "scope": ["*"], "x": "canary-claim"});
    let tokens = [
        "canary-garbage".to_owned(),
        SECRET.to_owned(),
        bare(&json!({"sub": "canary-sub", "exp": now() - 900})),
        with(json!({"taskIds": "canary-tasks", "scope": "canary-scope"})),
        with(marked),
    ];
    for token in tokens.iter().chain([&root()]) {
        let client = server.bearing(token);
        for route in ROUTES {
            for request in [route.request(&client, "t"), route.malformed(&client, "t")] {
                let reply = ask(request.header("Cookie", "canary-cookie=1")).await;
                let said = format!("{:?} {}", reply.headers, reply.text);
                assert!(!said.contains("canary") && !said.contains(token), "{said}");
            }
        }
    }
    let log = server.log().text();
    assert!(log.contains("\"request\""), "{log}");
    assert!(!log.contains("canary"), "{log}");
    for token in tokens {
        assert!(!log.contains(&token), "{log}");
    }
}

async fn routes_of(authenticator: Arc<dyn Authenticate>) -> (Service, Router) {
    let options = ServiceOptions { authenticator, ..ServiceOptions::default() };
    let service = Service::start(options, async |listener, supervisor| {
        open(StorageOptions::Memory { max_bytes: 1 << 20 }, listener, &supervisor).await
    })
    .await
    .unwrap();
    let routes = service.router(&CorsOptions::default());
    (service, routes)
}

async fn send(routes: &Router, token: &str) -> u16 {
    let request = Request::get("/tasks")
        .header("Authorization", format!("Bearer {token}"))
        .header("Cookie", "canary-cookie=1");
    let request = request.body(Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(routes.clone(), request).await.unwrap();
    let status = response.status().as_u16();
    to_bytes(response.into_body(), 1 << 20).await.unwrap();
    status
}

// One thread, so that what is logged on it is all there is.
#[tokio::test(flavor = "current_thread")]
async fn nothing_secret_is_logged_at_any_level_by_anything_underneath() {
    let (logged, _guard) = Everything::logged_here();
    let options = JwtOptions {
        algorithm: JwtAlgorithm::Hs256,
        key: JwtKey::Secret(SECRET.to_owned()),
        issuer: None,
        audience: Vec::new(),
        leeway: Duration::ZERO,
    };
    let (service, routes) = routes_of(Arc::new(JwtAuth::new(&options).unwrap())).await;
    assert_eq!(send(&routes, &root()).await, 200);
    assert_eq!(send(&routes, "canary-token").await, 401);
    service.stop(Duration::from_secs(1)).await;

    let asked = ForwardServer::start(&json!({"taskIds": "*", "scope": ["*"]})).await;
    let options = ForwardAuthOptions {
        url: asked.url.clone(),
        timeout: Duration::from_secs(5),
        hold: Duration::ZERO,
        recheck: Duration::from_mins(1),
    };
    let (service, routes) = routes_of(Arc::new(ForwardAuth::new(options).unwrap())).await;
    assert_eq!(send(&routes, "canary-token").await, 200);
    asked.now(Behaviour::Answer(200, "canary-answer".to_owned()));
    assert_eq!(send(&routes, "canary-token").await, 503);
    asked.now(Behaviour::Reset);
    assert_eq!(send(&routes, "canary-token").await, 503);
    service.stop(Duration::from_secs(1)).await;

    let text = logged.text();
    assert!(text.contains("TRACE") && text.contains("request"), "{text}");
    assert!(!text.contains("canary"), "{text}");
    assert!(!text.contains(&root()[..20]), "{text}");
}
