//! One key, one algorithm.

use std::time::Duration;

use ring::hmac;
use serde_json::{Map, Value, json};
use taskcast::auth::{JwtAlgorithm, JwtSigner};

use super::tokens::{SECRET, assemble, hmac, now};
use super::{ROUTES, ask};
use crate::support::place::Place;
use crate::support::{Backend, on_every_store};

on_every_store![
    a_server_takes_its_own_algorithm_and_no_other,
    a_public_key_is_no_secret_on_any_route,
];

/// A private key and its public one.
type Pair = (&'static str, &'static str);

const RSA: Pair = (include_str!("keys/rsa.private.pem"), include_str!("keys/rsa.public.pem"));
const P256: Pair = (include_str!("keys/p256.private.pem"), include_str!("keys/p256.public.pem"));
const P384: Pair = (include_str!("keys/p384.private.pem"), include_str!("keys/p384.public.pem"));

const ALGORITHMS: [(&str, JwtAlgorithm, Option<Pair>); 11] = [
    ("HS256", JwtAlgorithm::Hs256, None),
    ("HS384", JwtAlgorithm::Hs384, None),
    ("HS512", JwtAlgorithm::Hs512, None),
    ("RS256", JwtAlgorithm::Rs256, Some(RSA)),
    ("RS384", JwtAlgorithm::Rs384, Some(RSA)),
    ("RS512", JwtAlgorithm::Rs512, Some(RSA)),
    ("PS256", JwtAlgorithm::Ps256, Some(RSA)),
    ("PS384", JwtAlgorithm::Ps384, Some(RSA)),
    ("PS512", JwtAlgorithm::Ps512, Some(RSA)),
    ("ES256", JwtAlgorithm::Es256, Some(P256)),
    ("ES384", JwtAlgorithm::Es384, Some(P384)),
];

fn everything() -> Map<String, Value> {
    let Value::Object(claims) = json!({"taskIds": "*", "scope": ["*"]}) else { unreachable!() };
    claims
}

fn sign(algorithm: JwtAlgorithm, keys: Option<Pair>) -> String {
    let signer = match keys {
        None => JwtSigner::with_secret(algorithm, SECRET),
        Some((private, _)) => JwtSigner::with_private_pem(algorithm, private),
    };
    signer.unwrap().sign(everything(), Duration::from_mins(10)).unwrap()
}

/// Rules: A11
async fn a_server_takes_its_own_algorithm_and_no_other(backend: Backend) {
    let tokens: Vec<(&str, String)> =
        ALGORITHMS.iter().map(|(name, algorithm, keys)| (*name, sign(*algorithm, *keys))).collect();
    for (name, _, keys) in ALGORITHMS {
        let key = match keys {
            None => ("TASKCAST_JWT_SECRET", SECRET),
            Some((_, public)) => ("TASKCAST_JWT_PUBLIC_KEY", public),
        };
        let settings = [("TASKCAST_AUTH_MODE", "jwt"), ("TASKCAST_JWT_ALGORITHM", name), key];
        let server = backend.start_with(&settings).await;
        for (signed_by, token) in &tokens {
            let status = server.bearing(token).get("/tasks").await.status;
            let expected = if *signed_by == name { 200 } else { 401 };
            assert_eq!(status, expected, "a token of {signed_by} for {name}");
        }
    }
}

/// Rules: A11
async fn a_public_key_is_no_secret_on_any_route(backend: Backend) {
    let settings = [
        ("TASKCAST_AUTH_MODE", "jwt"),
        ("TASKCAST_JWT_ALGORITHM", "RS256"),
        ("TASKCAST_JWT_PUBLIC_KEY", RSA.1),
    ];
    let server = backend.start_with(&settings).await;
    let claims = json!({"taskIds": "*", "scope": ["*"], "exp": now() + 600});
    for (name, algorithm) in
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("RS256", hmac::HMAC_SHA256)]
    {
        for secret in [RSA.1, RSA.1.trim_end(), "", "null"] {
            let header = json!({"alg": name, "typ": "JWT"});
            let client =
                server.bearing(assemble(&header, &claims, hmac(algorithm, secret.as_bytes())));
            for route in ROUTES {
                ask(route.request(&client, "any")).await.refused(401, "unauthorized");
            }
        }
    }
    assert_eq!(
        server.bearing(sign(JwtAlgorithm::Rs256, Some(RSA))).get("/tasks").await.status,
        200
    );
}

#[tokio::test]
async fn a_service_cannot_be_given_credentials_of_its_own() {
    let place = Place::new()
        .env("TASKCAST_AUTH_MODE", "custom")
        .env("TASKCAST_AUTH__CUSTOM__URL", "http://u:canary@127.0.0.1/");
    for command in ["serve --host 127.0.0.1 --port 0", "config check"] {
        let parts = ["TASKCAST_AUTH__CUSTOM__URL", "`auth.custom.url`", "credentials"];
        let said = place.refused(command, &parts).await;
        assert!(!said.contains("canary"), "{said}");
    }
}

#[tokio::test]
async fn a_key_that_is_none_for_the_algorithm_refuses_to_start_and_is_not_repeated() {
    for (algorithm, key, part) in [
        ("RS256", P256.1, "RSA public key"),
        ("ES256", RSA.1, "elliptic curve"),
        ("ES256", P384.1, "another curve"),
        ("ES384", P256.1, "another curve"),
        ("RS256", "-----BEGIN PUBLIC KEY-----\ncanary\n-----END PUBLIC KEY-----", "RSA public key"),
    ] {
        let place = Place::new()
            .env("TASKCAST_AUTH_MODE", "jwt")
            .env("TASKCAST_JWT_ALGORITHM", algorithm)
            .env("TASKCAST_JWT_PUBLIC_KEY", key);
        for command in ["serve --host 127.0.0.1 --port 0", "config check"] {
            let said = place.refused(command, &["TASKCAST_JWT_PUBLIC_KEY", part]).await;
            assert!(!said.contains("canary"), "{said}");
        }
    }
}
