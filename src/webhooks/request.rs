//! What is sent: one POST per attempt.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;
use url::Url;

use super::hexadecimal;
use crate::domain::{
    DeliveryId, Event, Webhook, WebhookSecret, parse_target, write_envelope, write_event,
};

const EVENT: HeaderName = HeaderName::from_static("x-taskcast-event");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-taskcast-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-taskcast-signature");
const STANDARD_ID: HeaderName = HeaderName::from_static("webhook-id");
const STANDARD_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const STANDARD_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What a header cannot carry as it is, and the sign of that.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Builds the request that delivers an event; `now` is in Unix seconds.
///
/// `None` when it cannot be built, which the rules for URLs and types exclude.
pub(super) fn build(
    webhook: &Webhook,
    event: &Event,
    id: &DeliveryId,
    now: u64,
) -> Option<Request<Full<Bytes>>> {
    let url = parse_target(&webhook.url).ok()?;
    let mut body = String::with_capacity(event.size_bytes() + 128);
    if webhook.wrap.unwrap_or(true) {
        write_envelope(&mut body, event, None, false);
    } else {
        write_event(&mut body, event);
    }
    let event_type = utf8_percent_encode(&event.draft.event_type, ESCAPED).to_string();
    let id = HeaderValue::from_str(&id.to_string()).ok()?;
    let mut headers = HeaderMap::with_capacity(10);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("taskcast/", env!("CARGO_PKG_VERSION"))),
    );
    headers.insert(EVENT, HeaderValue::from_str(&event_type).ok()?);
    headers.insert(TIMESTAMP, now.into());
    headers.insert(STANDARD_ID, id.clone());
    headers.insert(STANDARD_TIMESTAMP, now.into());
    if let Some(secret) = &webhook.secret {
        headers.insert(SIGNATURE, signature(secret, &body)?);
        headers.insert(STANDARD_SIGNATURE, standard_signature(secret, &id, now, &body)?);
    }
    if let Some(credentials) = credentials(&url) {
        headers.insert(AUTHORIZATION, credentials);
    }
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri(url)?;
    *request.headers_mut() = headers;
    Some(request)
}

/// Turns a URL into what a request line and a connection need of it.
fn uri(mut url: Url) -> Option<Uri> {
    url.set_fragment(None);
    // Only a URL without a host refuses these.
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.as_str().parse().ok()
}

/// Returns the credentials in a URL; only endpoints of the configuration have any.
fn credentials(url: &Url) -> Option<HeaderValue> {
    let password = url.password().unwrap_or_default();
    if url.username().is_empty() && password.is_empty() {
        return None;
    }
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    sensitive(&format!("Basic {}", STANDARD.encode(pair)))
}

/// Returns Taskcast's own signature, over the body alone.
fn signature(secret: &WebhookSecret, body: &str) -> Option<HeaderValue> {
    let mac = hmac(secret.expose().as_bytes(), &[body])?;
    sensitive(&format!("sha256={}", hexadecimal(&mac)))
}

/// Returns the signature of Standard Webhooks.
fn standard_signature(
    secret: &WebhookSecret,
    id: &HeaderValue,
    now: u64,
    body: &str,
) -> Option<HeaderValue> {
    let now = now.to_string();
    let mac = hmac(&secret.standard_key(), &[id.to_str().ok()?, ".", &now, ".", body])?;
    sensitive(&format!("v1,{}", STANDARD.encode(mac)))
}

fn hmac(key: &[u8], parts: &[&str]) -> Option<[u8; 32]> {
    // A key may have any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in parts {
        mac.update(part.as_bytes());
    }
    Some(mac.finalize().into_bytes().into())
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::domain::{EventDraft, HookKey, Json, Level, TaskId, TaskNumber};

    fn event(event_type: &str) -> Event {
        Event {
            task: TaskId::parse("t").unwrap(),
            number: TaskNumber::new(3).unwrap(),
            index: 7,
            timestamp_ms: 1_700_000_000_000,
            draft: EventDraft {
                event_type: event_type.into(),
                level: Level::Info,
                data: Json::from_valid("1"),
                series: None,
            },
        }
    }

    fn build_for(hook: &str, event: &Event) -> Request<Full<Bytes>> {
        let webhook: Webhook = serde_json::from_str(hook).unwrap();
        let id = DeliveryId { event: event.id(), hook: HookKey::of_task(0) };
        build(&webhook, event, &id, 1_700_000_001).unwrap()
    }

    #[test]
    fn the_signature_is_the_hmac_of_known_examples() {
        // RFC 4231, test case 2.
        let secret = WebhookSecret::new("Jefe");
        assert_eq!(
            signature(&secret, "what do ya want for nothing?").unwrap(),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        // The example of the Standard Webhooks specification.
        let secret = WebhookSecret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let id = HeaderValue::from_static("msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(
            standard_signature(&secret, &id, 1_614_265_330, r#"{"test": 2432232314}"#).unwrap(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_hook_without_a_secret_gets_no_signature() {
        let request = build_for(r#"{"url":"http://a/"}"#, &event("a"));
        let headers = request.headers();
        assert_eq!(headers[&STANDARD_ID], format!("{}-0", event("a").id()));
        assert_eq!(headers[&TIMESTAMP], "1700000001");
        assert!(!headers.contains_key(&SIGNATURE) && !headers.contains_key(&STANDARD_SIGNATURE));
        assert!(!headers.contains_key(AUTHORIZATION));
    }

    #[test]
    fn a_type_fits_a_header_and_can_be_read_back() {
        for (event_type, header) in
            [("llm.delta", "llm.delta"), ("a b%20", "a%20b%2520"), ("ä", "%C3%A4")]
        {
            let request = build_for(r#"{"url":"http://a/"}"#, &event(event_type));
            assert_eq!(request.headers()[&EVENT], header);
        }
    }

    #[tokio::test]
    async fn the_body_is_the_envelope_or_the_event() {
        let event = event("a");
        for (hook, start) in [
            (r#"{"url":"http://a/"}"#, r#"{"rawIndex":7,"#),
            (r#"{"url":"http://a/","wrap":true}"#, r#"{"rawIndex":7,"#),
            (r#"{"url":"http://a/","wrap":false}"#, r#"{"id":""#),
        ] {
            let body = build_for(hook, &event).into_body().collect().await.unwrap().to_bytes();
            assert!(body.starts_with(start.as_bytes()), "{hook}");
        }
    }

    #[test]
    fn what_a_request_line_cannot_carry_stays_out_of_it() {
        let visible: String = (b'!'..=b'~').map(char::from).filter(|c| *c != '#').collect();
        for (url, sent) in [
            ("http://a/x?y=1#z", "http://a/x?y=1"),
            ("https://u:p%20w@a:8443", "https://a:8443/"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("http://ä.example/ä", "http://xn--4ca.example/%C3%A4"),
        ] {
            assert_eq!(uri(Url::parse(url).unwrap()).unwrap().to_string(), sent);
        }
        for url in [format!("http://a/{visible}"), format!("http://a/?{visible}")] {
            assert!(uri(Url::parse(&url).unwrap()).is_some(), "{url}");
        }
        let url = Url::parse("https://u:p%20w@a").unwrap();
        assert_eq!(credentials(&url).unwrap(), format!("Basic {}", STANDARD.encode("u:p w")));
    }
}
