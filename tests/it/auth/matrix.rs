//! Every route with every kind of credentials that are no good.

use ring::hmac;
use serde_json::{Value, json};

use super::tokens::{AUDIENCE, SECRET, assemble, bare, base64url, hmac, now, root, token, with};
use super::{JWT, ROUTES, ask, told};
use crate::support::client::Client;
use crate::support::{Backend, on_every_store};

on_every_store![
    bad_credentials_are_refused_alike_on_every_route,
    credentials_are_read_from_the_header_alone,
    whoever_sends_a_large_body_hears_the_refusal,
    times_and_audience_are_checked_with_the_leeway_and_no_more,
];

fn claims() -> Value {
    json!({"sub": "me", "aud": AUDIENCE, "exp": now() + 600, "taskIds": "*", "scope": ["*"]})
}

fn but(name: &str, value: impl Into<Value>) -> String {
    let mut claims = claims();
    claims[name] = value.into();
    bare(&claims)
}

/// Tokens that prove nothing, by what is wrong with them.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let signed = |header: Value, algorithm, secret: &[u8]| {
        assemble(&header, &claims(), hmac(algorithm, secret))
    };
    let secret = SECRET.as_bytes();
    let good = bare(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let mut wider = claims();
    wider["sub"] = "you".into();
    let forged = base64url(wider.to_string().as_bytes());
    let mut no_audience = claims();
    no_audience.as_object_mut().unwrap().remove("aud");
    vec![
        ("garbage", "garbage".to_owned()),
        ("three parts of garbage", "a.b.c".to_owned()),
        ("alg none", assemble(&json!({"alg": "none"}), &claims(), |_| Vec::new())),
        ("alg None", assemble(&json!({"alg": "None"}), &claims(), |_| Vec::new())),
        ("alg none, signed", signed(json!({"alg": "none"}), hmac::HMAC_SHA256, secret)),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{good}.{}", parts[2])),
        ("other claims under the same signature", format!("{}.{forged}.{}", parts[0], parts[2])),
        ("HS384 for HS256", signed(json!({"alg": "HS384"}), hmac::HMAC_SHA384, secret)),
        ("HS512 for HS256", signed(json!({"alg": "HS512"}), hmac::HMAC_SHA512, secret)),
        ("another secret", signed(json!({"alg": "HS256"}), hmac::HMAC_SHA256, &[7; 32])),
        ("the empty secret", signed(json!({"alg": "HS256"}), hmac::HMAC_SHA256, b"")),
        (
            "a critical extension",
            signed(json!({"alg": "HS256", "crit": ["x"], "x": 1}), hmac::HMAC_SHA256, secret),
        ),
        ("expired", but("exp", now() - 120)),
        ("not yet valid", but("nbf", now() + 120)),
        ("exp of the wrong type", but("exp", "2099-01-01")),
        ("nbf of the wrong type", but("nbf", json!([1]))),
        ("another audience", but("aud", "others")),
        ("audience of the wrong type", but("aud", json!({"a": AUDIENCE}))),
        ("no audience", bare(&no_audience)),
        ("claims that are no object", bare(&json!([1]))),
    ]
}

/// Rules: A3, A11, A12, A13
async fn bad_credentials_are_refused_alike_on_every_route(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let good = server.bearing(root());
    good.create(json!({"id": "there"})).await;
    let mut clients: Vec<(&str, Client)> = vec![("no token", Client::clone(&server))];
    clients.extend(bad_tokens().into_iter().map(|(name, token)| (name, server.bearing(token))));
    for (name, client) in &clients {
        let mut answers = Vec::new();
        for route in ROUTES {
            for id in ["there", "missing", "no%20id"] {
                for request in [route.request(client, id), route.malformed(client, id)] {
                    let reply = ask(request).await;
                    reply.refused(401, "unauthorized");
                    assert_eq!(reply.header("www-authenticate"), "Bearer", "{name}: {route:?}");
                    answers.push(told(&reply));
                }
            }
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{name}: {answers:?}");
    }
    assert_eq!(good.task("there").await["status"], "pending");
    assert!(good.history("there", "").await.is_empty());
    let listed = good.get("/tasks").await.json();
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 1, "{listed}");
}

/// Rules: A3, A5
async fn whoever_sends_a_large_body_hears_the_refusal(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let reader = server.bearing(token("*", &["event:subscribe"]));
    let large = json!({"type": "a", "data": "x".repeat(8 << 20)}).to_string();
    for _ in 0..10 {
        for path in ["/tasks", "/tasks/t/events"] {
            server.post(path, &large).await.refused(401, "unauthorized");
            reader.post(path, &large).await.refused(403, "forbidden");
        }
    }
}

/// Rules: A4
async fn credentials_are_read_from_the_header_alone(backend: Backend) {
    let server = backend.start_with(&JWT).await;
    let (token, path) = (root(), "/tasks");
    for name in ["token", "access_token", "authorization"] {
        server.get(&format!("{path}?{name}={token}")).await.refused(401, "unauthorized");
    }
    let get = |values: &[String]| {
        let request = server.request(reqwest::Method::GET, path);
        values.iter().fold(request, |request, value| request.header("Authorization", value))
    };
    for (values, status) in [
        (vec![format!("Bearer {token}")], 200),
        (vec![format!("bearer {token}")], 200),
        (vec![token.clone()], 401),
        (vec![format!("Basic {token}")], 401),
        (vec!["Bearer ".to_owned()], 401),
        (vec![format!("Bearer {token}"), format!("Bearer {token}")], 401),
    ] {
        assert_eq!(ask(get(&values)).await.status, status, "{values:?}");
    }
}

/// Rules: A12, A13
async fn times_and_audience_are_checked_with_the_leeway_and_no_more(backend: Backend) {
    let mut settings = JWT.to_vec();
    settings.push(("TASKCAST_JWT_ISSUER", "me"));
    settings.push(("TASKCAST_AUTH__JWT__LEEWAY_SECONDS", "20"));
    let server = backend.start_with(&settings).await;
    let scope = json!({"taskIds": "*", "scope": ["*"], "iss": "me"});
    let status = async |changes: Value| {
        let mut claims = scope.clone();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        server.bearing(with(claims)).get("/tasks").await.status
    };
    assert_eq!(status(json!({})).await, 200);
    assert_eq!(status(json!({"exp": null})).await, 200);
    assert_eq!(status(json!({"exp": now() - 5, "nbf": now() + 5})).await, 200);
    assert_eq!(status(json!({"aud": ["others", AUDIENCE]})).await, 200);
    for refused in [
        json!({"exp": now() - 40}),
        json!({"nbf": now() + 40}),
        json!({"aud": ["others"]}),
        json!({"iss": "you"}),
        json!({"iss": null}),
        json!({"iss": 7}),
    ] {
        assert_eq!(status(refused.clone()).await, 401, "{refused}");
    }
    let expired = server.bearing(with(json!({"iss": "me", "exp": now() - 40})));
    let told = expired.get("/tasks").await.refused(401, "unauthorized");
    assert!(told["error"].as_str().unwrap().contains("expired"), "{told}");
}
