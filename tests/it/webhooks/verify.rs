//! The example of the documentation, as it stands there, against real requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Tells whether a request is from somebody who knows the secret, and new.
pub fn is_genuine(
    secret: &str,
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now: u64,
) -> bool {
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).unwrap_or_default(),
        None => secret.as_bytes().to_vec(),
    };
    let is_new = timestamp.parse::<u64>().is_ok_and(|then| now.abs_diff(then) <= 300);
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return false };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    is_new
        && signatures
            .split(' ')
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
            // Compares in constant time.
            .any(|given| mac.clone().verify_slice(&given).is_ok())
}

#[test]
fn the_documentation_shows_this_function() {
    let page = include_str!("../../../docs/webhooks.md");
    let (_, rest) = page.split_once("```rust\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    assert!(include_str!("verify.rs").contains(shown));
}
