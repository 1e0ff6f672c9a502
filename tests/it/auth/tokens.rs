//! Tokens, good ones and others, made by hand.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde_json::{Value, json};

/// The secret of the servers here.
pub(super) const SECRET: &str = "canary-secret-of-the-test-servers-0123456789";

/// The audience of the servers here.
pub(super) const AUDIENCE: &str = "taskcast-test";

/// Returns the time in seconds.
pub(super) fn now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since_epoch.as_secs()).unwrap()
}

/// Encodes as in a token: the alphabet for URLs, without padding.
pub(super) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = [0; 3];
        bits[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for at in 0..=chunk.len() {
            let digit = (bits >> (18 - 6 * at)) & 63;
            text.push(char::from(ALPHABET[usize::try_from(digit).unwrap()]));
        }
    }
    text
}

/// Joins a header, claims and what `sign` makes of them to a token.
pub(super) fn assemble(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let encode = |value: &Value| base64url(value.to_string().as_bytes());
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = base64url(&sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// Signs with a secret.
pub(super) fn hmac(algorithm: hmac::Algorithm, secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(algorithm, secret);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

/// Returns a token for the servers here with these claims and no other.
pub(super) fn bare(claims: &Value) -> String {
    assemble(
        &json!({"alg": "HS256", "typ": "JWT"}),
        claims,
        hmac(hmac::HMAC_SHA256, SECRET.as_bytes()),
    )
}

/// Returns a good token with these claims on top of the usual; `null` takes one
/// away.
pub(super) fn with(claims: Value) -> String {
    let mut all = json!({"sub": "me", "aud": AUDIENCE, "exp": now() + 600});
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    for (name, value) in claims {
        all[name] = value;
    }
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    bare(&all)
}

/// Returns a good token for some tasks and scopes.
pub(super) fn token(task_ids: impl Into<Value>, scope: &[&str]) -> String {
    with(json!({"taskIds": task_ids.into(), "scope": scope}))
}

/// Returns a token that may do everything.
pub(super) fn root() -> String {
    token("*", &["*"])
}

#[test]
fn tokens_are_encoded_as_documented() {
    for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")]
    {
        assert_eq!(base64url(bytes.as_bytes()), text);
    }
    assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
}
