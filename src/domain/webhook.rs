//! Webhooks: which events are owed to whom.
//!
//! A hook is a URL that gets every event its filter passes. It belongs to one
//! task, or, as an endpoint of the configuration, to every task of some types.
//! What is owed is decided together with the write ([`judge`](super::judge));
//! sending it is somebody else's business.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use url::Host;

use super::{EventDraft, EventId, Filter, Level, TypePattern, parse_target};

/// What secrets of Standard Webhooks begin with; base64 follows.
const STANDARD_SECRET: &str = "whsec_";

/// A secret that signs deliveries; printing it shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WebhookSecret(Arc<str>);

impl WebhookSecret {
    /// Takes a secret as it was given.
    pub fn new(secret: impl Into<Arc<str>>) -> Self {
        Self(secret.into())
    }

    /// Returns the secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Tells whether the secret can be used: what begins like a secret of
    /// Standard Webhooks must be one.
    pub fn is_well_formed(&self) -> bool {
        !self.0.is_empty()
            && self
                .0
                .strip_prefix(STANDARD_SECRET)
                .is_none_or(|rest| STANDARD.decode(rest).is_ok_and(|key| !key.is_empty()))
    }

    /// Returns the key of Standard Webhooks' signature: what `whsec_…`
    /// encodes, else the secret's own bytes.
    pub fn standard_key(&self) -> Cow<'_, [u8]> {
        let encoded = self.0.strip_prefix(STANDARD_SECRET);
        let decoded = encoded.and_then(|encoded| STANDARD.decode(encoded).ok());
        decoded.map_or(Cow::Borrowed(self.0.as_bytes()), Cow::Owned)
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How the pause between attempts grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backoff {
    /// It does not.
    Fixed,
    /// By the first pause each time.
    Linear,
    /// To twice as long each time.
    Exponential,
}

impl Backoff {
    /// Every backoff.
    pub const ALL: [Self; 3] = [Self::Fixed, Self::Linear, Self::Exponential];

    /// Returns its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Linear => "linear",
            Self::Exponential => "exponential",
        }
    }

    /// Parses a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backoff| backoff.as_str() == text)
    }
}

/// How a hook wants to be retried; what is not said is as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryOverrides {
    /// Attempts after the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// How pauses grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// First pause, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay_ms: Option<u64>,
    /// Longest pause, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay_ms: Option<u64>,
    /// How long one attempt may take, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A hook of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Where to send, `http` or `https`.
    pub url: Arc<str>,
    /// Which events.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "filter_form")]
    pub filter: Option<Filter>,
    /// What signs deliveries; write-only on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<WebhookSecret>,
    /// Whether the body is the envelope of streams or the raw event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrap: Option<bool>,
    /// How to retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryOverrides>,
}

impl Webhook {
    fn admits(&self, event: &EventDraft) -> bool {
        let filter = self.filter.as_ref();
        filter.is_none_or(|filter| filter.admits_kind(&event.event_type, event.level))
    }
}

/// Which of a task's hooks, or which endpoint of the configuration.
///
/// A task's hooks are named by their position, `0` to `19`; endpoints by `c`
/// and a digest of their URL, so that a name outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HookKey(Arc<str>);

/// Longest text of a hook key, in bytes.
const HOOK_KEY_BYTES: usize = 32;

impl HookKey {
    /// Names the hook of a task at `position`.
    pub fn of_task(position: usize) -> Self {
        Self(position.to_string().into())
    }

    /// Names an endpoint of the configuration by a digest in hexadecimal.
    pub fn of_endpoint(digest: &str) -> Self {
        Self(format!("c{digest}").into())
    }

    /// Parses a key; `None` for text that is none.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=HOOK_KEY_BYTES).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| Self(text.into()))
    }

    /// Returns the position among the task's hooks, unless it is an endpoint's.
    pub fn position(&self) -> Option<usize> {
        self.0.parse().ok()
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names one delivery for good: an event and whom it is owed to.
///
/// Its text, `<event id>-<hook>`, is the `webhook-id` receivers see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryId {
    /// The event.
    pub event: EventId,
    /// Whom it is owed to.
    pub hook: HookKey,
}

impl DeliveryId {
    /// Parses an id; `None` for text that is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (event, hook) = text.split_once('-')?;
        Some(Self { event: EventId::parse(event)?, hook: HookKey::parse(hook)? })
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.event, self.hook.as_str())
    }
}

/// An endpoint of the configuration, as far as owing goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHook {
    /// Its name.
    pub key: HookKey,
    /// Types of tasks it hears of; empty means every task, with a type or without.
    pub task_types: Vec<TypePattern>,
    /// Which events.
    pub filter: Filter,
    /// Groups deliveries that share a receiver; any number, the same for equal receivers.
    pub receiver: u64,
}

impl EndpointHook {
    fn admits(&self, task_type: Option<&str>, event: &EventDraft) -> bool {
        let hears_of_task = self.task_types.is_empty()
            || self.task_types.iter().any(|pattern| match pattern {
                TypePattern::Any => true,
                _ => task_type.is_some_and(|task_type| pattern.matches(task_type)),
            });
        hears_of_task && self.filter.admits_kind(&event.event_type, event.level)
    }
}

/// A delivery that a write owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// Position of the event in the write.
    pub position: usize,
    /// Whom it is owed to.
    pub hook: HookKey,
    /// Groups deliveries that share a receiver.
    pub receiver: u64,
}

/// Returns what `events` owe, in their order.
pub fn owed(
    task_type: Option<&str>,
    webhooks: &[Webhook],
    endpoints: &[EndpointHook],
    events: &[EventDraft],
) -> Vec<Owed> {
    let mut owed = Vec::new();
    if webhooks.is_empty() && endpoints.is_empty() {
        return owed;
    }
    // Parsing a URL costs more than all the rest, so each is parsed once.
    let mut receivers: Vec<Option<u64>> = vec![None; webhooks.len()];
    for (position, event) in events.iter().enumerate() {
        for (at, webhook) in webhooks.iter().enumerate() {
            if webhook.admits(event) {
                let receiver = *receivers[at].get_or_insert_with(|| receiver_of(&webhook.url));
                owed.push(Owed { position, hook: HookKey::of_task(at), receiver });
            }
        }
        for endpoint in endpoints {
            if endpoint.admits(task_type, event) {
                let (hook, receiver) = (endpoint.key.clone(), endpoint.receiver);
                owed.push(Owed { position, hook, receiver });
            }
        }
    }
    owed
}

/// Numbers of receivers from here on are those of configured endpoints; those
/// below are of webhooks of tasks.
pub const ENDPOINT_RECEIVERS: u64 = 1 << 63;

/// Returns the receiver of a task's webhook: a number that is the same for
/// URLs of one host and port, in whatever spelling. One receiver that is slow
/// shall not slow down others.
pub fn receiver_of(url: &str) -> u64 {
    let place = parse_target(url).ok().and_then(|url| {
        let port = url.port_or_known_default()?;
        Some(match url.host()? {
            Host::Domain(name) => format!("{}:{port}", name.strip_suffix('.').unwrap_or(name)),
            Host::Ipv4(address) => format!("{address}:{port}"),
            Host::Ipv6(address) => format!("{}:{port}", address.to_canonical()),
        })
    });
    // The rules for URLs exclude one that has no host.
    hash(place.as_deref().unwrap_or(url)) & !ENDPOINT_RECEIVERS
}

/// Returns the receiver of a configured endpoint: each is one of its own, so
/// that an instance can claim for those it knows and no others.
pub fn endpoint_receiver(key: &HookKey) -> u64 {
    hash(key.as_str()) | ENDPOINT_RECEIVERS
}

/// Returns a number for the URL of a webhook that is the same for any query:
/// what speaks for one of them speaks for the others.
pub fn circuit_of(url: &str) -> u64 {
    let Ok(parsed) = parse_target(url) else { return hash(url) };
    let place = receiver_of(url);
    hash(&format!("{} {place} {}", parsed.scheme(), parsed.path()))
}

/// FNV-1a: small, stable over versions, and nothing here is a secret.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The stored form of a filter.
mod filter_form {
    use super::{
        Arc, Deserialize, Deserializer, Filter, Level, Serialize, Serializer, TypePattern,
    };

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Form {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        types: Option<Vec<Arc<str>>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        levels: Option<Vec<Arc<str>>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        include_status: Option<bool>,
    }

    #[expect(clippy::ref_option, reason = "the signature serde calls")]
    pub(super) fn serialize<S: Serializer>(
        filter: &Option<Filter>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let form = filter.as_ref().map(|filter| Form {
            types: (!filter.types.is_empty())
                .then(|| filter.types.iter().map(|pattern| pattern.to_string().into()).collect()),
            levels: (!filter.levels.is_empty())
                .then(|| filter.levels.iter().map(|level| level.as_str().into()).collect()),
            include_status: (!filter.include_status).then_some(false),
        });
        form.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Filter>, D::Error> {
        use serde::de::Error as _;

        let Some(form) = Option::<Form>::deserialize(deserializer)? else { return Ok(None) };
        let pattern = |text: &Arc<str>| {
            TypePattern::parse(text).map_err(|invalid| D::Error::custom(invalid.to_string()))
        };
        let level =
            |text: &Arc<str>| Level::parse(text).ok_or_else(|| D::Error::custom("unknown level"));
        Ok(Some(Filter {
            types: form.types.iter().flatten().map(pattern).collect::<Result<_, _>>()?,
            levels: form.levels.iter().flatten().map(level).collect::<Result<_, _>>()?,
            include_status: form.include_status.unwrap_or(true),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Json, STATUS_EVENT_TYPE};

    fn event(event_type: &str, level: Level) -> EventDraft {
        EventDraft {
            event_type: event_type.into(),
            level,
            data: Json::from_valid("null"),
            series: None,
        }
    }

    fn stored(text: &str) -> Webhook {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_hook_keeps_its_stored_form() {
        for text in [
            r#"{"url":"http://a/"}"#,
            r#"{"url":"http://a/","filter":{"types":["llm.*","x"],"levels":["warn"],"includeStatus":false},"secret":"s","wrap":false,"retry":{"retries":2,"backoff":"fixed"}}"#,
        ] {
            assert_eq!(serde_json::to_string(&stored(text)).unwrap(), text);
        }
        let webhook = stored(r#"{"url":"http://a/","secret":"canary"}"#);
        assert!(!format!("{webhook:?}").contains("canary"));
    }

    #[test]
    fn the_key_of_a_standard_secret_is_what_it_encodes() {
        let secret = WebhookSecret::new("whsec_AQID");
        assert!(secret.is_well_formed());
        assert_eq!(&*secret.standard_key(), [1, 2, 3]);
        let plain = WebhookSecret::new("AQID");
        assert!(plain.is_well_formed());
        assert_eq!(&*plain.standard_key(), b"AQID");
        for bad in ["", "whsec_", "whsec_AQI", "whsec_!"] {
            assert!(!WebhookSecret::new(bad).is_well_formed(), "{bad}");
        }
    }

    #[test]
    fn an_event_is_owed_to_every_hook_whose_filter_passes_it() {
        let webhooks = [
            stored(r#"{"url":"http://a/1"}"#),
            stored(r#"{"url":"http://a/2","filter":{"types":["llm.*"],"levels":["warn"]}}"#),
        ];
        let endpoint = EndpointHook {
            key: HookKey::of_endpoint("ab"),
            task_types: vec![TypePattern::parse("chat.*").unwrap()],
            filter: Filter { include_status: false, ..Filter::default() },
            receiver: 7,
        };
        let events = [
            event("llm.x", Level::Warn),
            event("llm.x", Level::Info),
            event(STATUS_EVENT_TYPE, Level::Info),
        ];
        let names = |task_type| {
            let owed = owed(task_type, &webhooks, std::slice::from_ref(&endpoint), &events);
            let name = |owed: Owed| format!("{}:{}", owed.position, owed.hook.as_str());
            owed.into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(Some("chat.a")), ["0:0", "0:1", "0:cab", "1:0", "1:cab", "2:0"]);
        assert_eq!(names(Some("other")), ["0:0", "0:1", "1:0", "2:0"]);
        assert_eq!(names(None), ["0:0", "0:1", "1:0", "2:0"]);
    }

    #[test]
    fn urls_of_one_receiver_share_a_number() {
        let receiver = receiver_of("https://a.example");
        for same in [
            "https://A.example/x?y",
            "HTTPS://a.example.:443#z",
            "https://user@a.example",
            "http://a.example:443",
            "https://%61.example",
        ] {
            assert_eq!(receiver_of(same), receiver, "{same}");
        }
        for other in ["https://b.example", "https://a.example:8443", "http://a.example"] {
            assert_ne!(receiver_of(other), receiver, "{other}");
        }
        for same in ["http://0x7f.1/", "http://2130706433/", "http://[::ffff:127.0.0.1]/"] {
            assert_eq!(receiver_of(same), receiver_of("http://127.0.0.1"), "{same}");
        }
        assert!(receiver < ENDPOINT_RECEIVERS);
        assert!(endpoint_receiver(&HookKey::of_endpoint("ab")) >= ENDPOINT_RECEIVERS);
    }

    #[test]
    fn urls_that_differ_in_their_query_alone_share_a_circuit() {
        let circuit = circuit_of("http://a.example/x?tenant=1");
        assert_eq!(circuit_of("http://A.example:80/x?tenant=2#y"), circuit);
        for other in ["http://a.example/y", "http://b.example/x", "http://a.example:81/x"] {
            assert_ne!(circuit_of(other), circuit, "{other}");
        }
    }
}
