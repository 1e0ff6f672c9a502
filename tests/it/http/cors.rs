//! Browsers on other origins.

use reqwest::Method;
use serde_json::json;

use crate::support::client::Reply;
use crate::support::server::Server;
use crate::support::{Backend, on_every_store};

on_every_store![
    without_configuration_no_origin_is_let_in,
    a_listed_origin_is_let_in_and_no_other,
    a_star_lets_every_origin_in,
    a_preflight_allows_the_methods_and_headers_there_are,
];

const LISTED: &str = "https://app.example.com";

async fn get_from(server: &Server, path: &str, origin: &str) -> Reply {
    server.send(server.request(Method::GET, path).header("Origin", origin)).await
}

/// Rules: H30
async fn without_configuration_no_origin_is_let_in(backend: Backend) {
    let server = backend.start().await;
    for path in ["/", "/tasks", "/tasks/nobody", "/nowhere"] {
        let reply = get_from(&server, path, LISTED).await;
        assert_eq!(reply.header("access-control-allow-origin"), "", "{path}");
    }
}

/// Rules: H31
async fn a_listed_origin_is_let_in_and_no_other(backend: Backend) {
    let origins = json!(["https://other.example.com", LISTED]).to_string();
    let server = backend.start_with(&[("TASKCAST_CORS__ORIGINS", &origins)]).await;
    let id = server.new_task().await;
    for path in ["/", "/tasks", "/tasks/nobody", "/nowhere", "/tasks?limit=x"] {
        let reply = get_from(&server, path, LISTED).await;
        assert_eq!(reply.header("access-control-allow-origin"), LISTED, "{path}");
        let reply = get_from(&server, path, "https://evil.example.com").await;
        assert_eq!(reply.header("access-control-allow-origin"), "", "{path}");
    }
    for path in [format!("/tasks/{id}/events"), "/events".to_owned()] {
        let stream = server.open(server.request(Method::GET, &path).header("Origin", LISTED)).await;
        assert_eq!(stream.headers["access-control-allow-origin"], LISTED, "{path}");
    }
}

/// Rules: H31
async fn a_star_lets_every_origin_in(backend: Backend) {
    let server = backend.start_with(&[("TASKCAST_CORS__ORIGINS", "*")]).await;
    for path in ["/tasks", "/tasks/nobody"] {
        let allowed = get_from(&server, path, "https://any.example.com").await;
        let allowed = allowed.header("access-control-allow-origin");
        assert!(["*", "https://any.example.com"].contains(&allowed), "{path}: {allowed}");
    }
}

/// Rules: H32
async fn a_preflight_allows_the_methods_and_headers_there_are(backend: Backend) {
    let origins = json!([LISTED]).to_string();
    let server = backend.start_with(&[("TASKCAST_CORS__ORIGINS", &origins)]).await;
    for (path, method) in [
        ("/tasks", "POST"),
        ("/tasks/x/status", "PATCH"),
        ("/tasks/x", "DELETE"),
        ("/tasks/x/events", "GET"),
    ] {
        let preflight = server
            .request(Method::OPTIONS, path)
            .header("Origin", LISTED)
            .header("Access-Control-Request-Method", method)
            .header(
                "Access-Control-Request-Headers",
                "authorization,content-type,idempotency-key,last-event-id",
            );
        let reply = server.send(preflight).await;
        assert!((200..300).contains(&reply.status), "{}", reply.status);
        assert_eq!(reply.header("access-control-allow-origin"), LISTED);
        let methods = reply.header("access-control-allow-methods").to_owned();
        for method in ["GET", "POST", "PATCH", "DELETE"] {
            assert!(methods.contains(method), "{methods}");
        }
        let headers = reply.header("access-control-allow-headers").to_lowercase();
        for name in ["authorization", "content-type", "last-event-id", "idempotency-key"] {
            assert!(headers.contains(name), "{headers}");
        }
    }
}
