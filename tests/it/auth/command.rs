//! `taskcast token mint` and `taskcast token verify`.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::JWT;
use super::tokens::{AUDIENCE, SECRET, bare, now, with};
use crate::support::Backend;
use crate::support::place::{Ended, Place};

const P256_PRIVATE: &str = include_str!("keys/p256.private.pem");
const P384_PRIVATE: &str = include_str!("keys/p384.private.pem");
const P256_PUBLIC: &str = include_str!("keys/p256.public.pem");

fn place() -> Place {
    JWT.iter().fold(Place::new(), |place, (name, value)| place.env(name, *value))
}

async fn prints(place: &Place, arguments: &str) -> String {
    let Ended { code, stdout, stderr } = place.run(arguments).await;
    assert_eq!(code, Some(0), "{stderr}");
    stdout.trim().to_owned()
}

#[tokio::test]
async fn a_minted_token_is_what_the_server_accepts() {
    let place = place();
    let minted = prints(
        &place,
        "token mint --sub alice --task-ids a,b --scope task:create,event:subscribe --ttl 10m \
         --claim org=acme --claim level=3",
    )
    .await;
    let seen: Value =
        serde_json::from_str(&prints(&place, &format!("token verify {minted}")).await).unwrap();
    assert_eq!((&seen["sub"], &seen["taskIds"]), (&json!("alice"), &json!(["a", "b"])));
    assert_eq!(seen["scope"], json!(["task:create", "event:subscribe"]));
    assert_eq!((&seen["claims"]["org"], &seen["claims"]["level"]), (&json!("acme"), &json!(3)));
    assert_eq!(seen["claims"]["aud"], json!([AUDIENCE]));
    let left_ms = seen["expiresAt"].as_i64().unwrap() - now() * 1_000;
    assert!((590_000..=600_000).contains(&left_ms), "{left_ms}");

    let server = Backend::Memory.start_with(&JWT).await;
    let client = server.bearing(minted);
    client.create(json!({"id": "a"})).await;
    client.get("/tasks/a").await.expect(200);
    client.post("/tasks", json!({"id": "c"})).await.refused(403, "forbidden");
    let every = prints(&place, "token mint --task-ids * --scope *").await;
    server.bearing(every).delete("/tasks/a").await.expect(204);
}

#[tokio::test]
async fn a_private_key_signs_for_its_public_key_and_no_other_does() {
    let place = Place::new()
        .env("TASKCAST_AUTH_MODE", "jwt")
        .env("TASKCAST_JWT_ALGORITHM", "ES256")
        .env("TASKCAST_JWT_PUBLIC_KEY", P256_PUBLIC)
        .file("private.pem", P256_PRIVATE)
        .file("other.pem", P384_PRIVATE)
        .file("none.pem", "canary");
    let mint = "token mint --task-ids * --scope * --private-key-file";
    let minted = prints(&place, &format!("{mint} private.pem")).await;
    prints(&place, &format!("token verify {minted}")).await;
    for (arguments, part) in [
        (format!("{mint} other.pem"), "the key"),
        (format!("{mint} none.pem"), "PKCS #8"),
        (format!("{mint} gone.pem"), "gone.pem"),
        ("token mint --task-ids * --scope *".to_owned(), "--private-key-file"),
    ] {
        let said = place.refused(&arguments, &[part]).await;
        assert!(!said.contains("canary"), "{said}");
    }
}

#[tokio::test]
async fn verifying_tells_why_a_token_is_refused_and_takes_it_from_standard_input() {
    let place = place();
    for (token, reason) in [
        ("garbage".to_owned(), "no signed token"),
        (with(json!({"exp": now() - 120})), "expired"),
        (with(json!({"nbf": now() + 120})), "not valid yet"),
        (with(json!({"aud": "others"})), "`aud`"),
        (bare(&json!({"exp": "x", "aud": AUDIENCE})), "wrong type"),
    ] {
        let said = place.refused(&format!("token verify {token}"), &[reason]).await;
        assert!(!said.contains(&token), "{said}");
    }
    for (claims, reason) in [
        (json!({"taskIds": "*"}), "`scope` names no known scope"),
        (json!({"taskIds": "*", "scope": ["openid"]}), "`scope` names no known scope"),
        (json!({"scope": "event:subscribe"}), "`taskIds` names no task"),
        (json!({"taskIds": "a", "scope": ["*"]}), "`taskIds` names no task"),
    ] {
        place.refused(&format!("token verify {}", with(claims)), &[reason]).await;
    }
    let forged = with(json!({})).rsplit_once('.').unwrap().0.to_owned() + ".AAAA";
    place.refused(&format!("token verify {forged}"), &["signature"]).await;

    let mut child = place.command("token verify").stdin(Stdio::piped()).spawn().unwrap();
    let token = with(json!({"taskIds": "*", "scope": ["*"]}));
    child.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"taskIds\": \"*\""));
}

#[tokio::test]
async fn tokens_need_the_mode_they_are_for_and_options_that_make_sense() {
    Place::new().refused("token mint --task-ids * --scope *", &["mode `jwt`"]).await;
    for wrong in [
        "token mint --scope *",
        "token mint --task-ids *",
        "token mint --task-ids * --scope task:fly",
        "token mint --task-ids a,* --scope *",
        "token mint --task-ids * --scope * --ttl 0",
        "token mint --task-ids * --scope * --claim scope=x",
        "token",
    ] {
        let Ended { code, stderr, .. } = place().run(wrong).await;
        assert_eq!(code, Some(2), "{wrong}: {stderr}");
        assert!(!stderr.contains(SECRET));
    }
}
