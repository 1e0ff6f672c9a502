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
    pages_may_read_the_headers_that_clients_need,
    cookies_are_let_in_from_listed_origins_if_configured,
    a_page_of_a_foreign_origin_changes_nothing,
    a_server_on_loopback_answers_to_no_foreign_name,
];

const LISTED: &str = "https://app.example.com";

async fn get_from(server: &Server, path: &str, origin: &str) -> Reply {
    server.send(server.request(Method::GET, path).header("Origin", origin)).await
}

/// Rules: H31
async fn without_configuration_no_origin_is_let_in(backend: Backend) {
    let server = backend.start().await;
    for path in ["/", "/tasks", "/tasks/nobody", "/nowhere"] {
        let reply = get_from(&server, path, LISTED).await;
        assert_eq!(reply.header("access-control-allow-origin"), "", "{path}");
    }
}

/// Rules: H32
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

/// Rules: H32
async fn a_star_lets_every_origin_in(backend: Backend) {
    let server = backend.start_with(&[("TASKCAST_CORS__ORIGINS", "*")]).await;
    for path in ["/tasks", "/tasks/nobody"] {
        let allowed = get_from(&server, path, "https://any.example.com").await;
        let allowed = allowed.header("access-control-allow-origin");
        assert!(["*", "https://any.example.com"].contains(&allowed), "{path}: {allowed}");
    }
}

/// Rules: H33
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
                "authorization,content-type,idempotency-key,last-event-id,cache-control,pragma,\
                 traceparent,tracestate,baggage,sentry-trace,x-requested-with",
            );
        let reply = server.send(preflight).await;
        assert!((200..300).contains(&reply.status), "{}", reply.status);
        assert_eq!(reply.header("access-control-allow-origin"), LISTED);
        let methods = reply.header("access-control-allow-methods").to_owned();
        for method in ["GET", "POST", "PATCH", "DELETE"] {
            assert!(methods.contains(method), "{methods}");
        }
        let headers = reply.header("access-control-allow-headers").to_lowercase();
        for name in ["authorization", "last-event-id", "cache-control", "traceparent", "baggage"] {
            assert!(headers.contains(name), "{headers}");
        }
    }
}

/// Rules: H33
async fn pages_may_read_the_headers_that_clients_need(backend: Backend) {
    let origins = json!([LISTED]).to_string();
    let server = backend.start_with(&[("TASKCAST_CORS__ORIGINS", &origins)]).await;
    let reply = get_from(&server, "/tasks/nobody", LISTED).await;
    let exposed = reply.header("access-control-expose-headers").to_lowercase();
    for name in ["retry-after", "www-authenticate", "link", "x-request-id", "idempotent-replayed"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}

/// Rules: H34
async fn cookies_are_let_in_from_listed_origins_if_configured(backend: Backend) {
    let origins = json!([LISTED]).to_string();
    let credentials = ("TASKCAST_CORS__CREDENTIALS", "true");
    let server = backend.start_with(&[("TASKCAST_CORS__ORIGINS", &origins), credentials]).await;
    let reply = get_from(&server, "/tasks", LISTED).await;
    assert_eq!(reply.header("access-control-allow-credentials"), "true");
    assert_eq!(reply.header("access-control-allow-origin"), LISTED);
    let without = backend.start_with(&[("TASKCAST_CORS__ORIGINS", &origins)]).await;
    let reply = get_from(&without, "/tasks", LISTED).await;
    assert_eq!(reply.header("access-control-allow-credentials"), "");
}

/// Rules: H35
async fn a_page_of_a_foreign_origin_changes_nothing(backend: Backend) {
    let origins = json!([LISTED]).to_string();
    let server = backend.start_with(&[("TASKCAST_CORS__ORIGINS", &origins)]).await;
    let own = server.url().to_owned();
    let create = |id: &str| server.json(Method::POST, "/tasks", json!({"id": id}));
    for (name, value) in
        [("Origin", "https://evil.example"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")]
    {
        server.send(create("evil").header(name, value)).await.refused(403, "forbidden");
        let delete = server.request(Method::DELETE, "/tasks/evil").header(name, value);
        server.send(delete).await.refused(403, "forbidden");
        // Reading is what CORS itself is for.
        server.send(server.request(Method::GET, "/tasks").header(name, value)).await.expect(200);
        let token = create(&format!("t{}", value.len())).header("Authorization", "Bearer x");
        server.send(token.header(name, value)).await.expect(201);
    }
    server.get("/tasks/evil").await.refused(404, "task_not_found");
    server.send(create("own").header("Origin", own)).await.expect(201);
    server.send(create("listed").header("Origin", LISTED)).await.expect(201);
    server.send(create("program")).await.expect(201);
}

/// Rules: H36
async fn a_server_on_loopback_answers_to_no_foreign_name(backend: Backend) {
    let allowed = ("TASKCAST_HTTP__ALLOWED_HOSTS", r#"["taskcast.internal"]"#);
    let server = backend.start_with(&[allowed]).await;
    let named = |host: &str| server.request(Method::GET, "/tasks").header("Host", host);
    for host in ["evil.example", "evil.example:3721", "10.0.0.1"] {
        server.send(named(host)).await.refused(403, "forbidden");
    }
    for host in ["localhost:3721", "app.localhost", "127.0.0.1", "[::1]:80", "taskcast.internal"] {
        server.send(named(host)).await.expect(200);
    }
}
