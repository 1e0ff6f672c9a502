//! Endpoints of the configuration.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::hexadecimal;
use crate::domain::{
    EndpointHook, Filter, HookKey, RetryOverrides, TypePattern, Webhook, WebhookSecret,
    endpoint_receiver,
};

/// An endpoint that hears of every task's events, or of those of some types.
///
/// The operator vouches for its URL, so it may lead anywhere.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where to send, `http` or `https`.
    pub url: Arc<str>,
    /// Which events.
    pub filter: Filter,
    /// What signs deliveries.
    pub secret: Option<WebhookSecret>,
    /// Whether the body is the envelope of streams or the raw event.
    pub wrap: bool,
    /// How to retry.
    pub retry: RetryOverrides,
    /// Types of tasks it hears of; empty means every task.
    pub task_types: Vec<TypePattern>,
}

impl Endpoint {
    /// Returns what decides which events are owed to the endpoint of this name.
    pub(crate) fn hook(&self, key: HookKey) -> EndpointHook {
        EndpointHook {
            receiver: endpoint_receiver(&key),
            key,
            task_types: self.task_types.clone(),
            filter: self.filter.clone(),
        }
    }

    /// Returns it in the form of a task's hook, which is sent the same way.
    pub(super) fn as_webhook(&self) -> Webhook {
        Webhook {
            url: self.url.clone(),
            filter: None,
            secret: self.secret.clone(),
            wrap: Some(self.wrap),
            retry: Some(self.retry),
        }
    }
}

/// Digits of a key.
const KEY_DIGITS: usize = 16;

/// Returns the names of endpoints, in their order.
///
/// A name comes from the URL alone, so that what is owed outlives a restart
/// and a change of everything else. Of endpoints with the same URL each
/// further one counts how many came before it.
pub fn endpoint_keys(endpoints: &[Endpoint]) -> Vec<HookKey> {
    let name = |(position, endpoint): (usize, &Endpoint)| {
        let same = endpoints[..position].iter().filter(|before| before.url == endpoint.url);
        let mut digest = Sha256::new();
        digest.update(endpoint.url.as_bytes());
        match same.count() {
            0 => {}
            // A URL holds no NUL, so this is no other URL.
            count => digest.update(format!("\0{count}")),
        }
        let digits = hexadecimal(&digest.finalize());
        HookKey::of_endpoint(&digits[..KEY_DIGITS])
    };
    endpoints.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint {
            url: url.into(),
            filter: Filter::default(),
            secret: None,
            wrap: true,
            retry: RetryOverrides::default(),
            task_types: Vec::new(),
        }
    }

    #[test]
    fn a_name_depends_on_the_url_and_no_two_are_the_same() {
        let (a, b) = (endpoint("http://a/"), endpoint("http://b/"));
        let keys = endpoint_keys(&[a.clone(), b.clone(), a.clone()]);
        assert_eq!(keys[1], endpoint_keys(std::slice::from_ref(&b))[0]);
        assert_eq!(keys[0], endpoint_keys(std::slice::from_ref(&a))[0]);
        assert_ne!(keys[0], keys[2]);
        assert!(keys.iter().all(|key| HookKey::parse(key.as_str()).as_ref() == Some(key)));
        assert!(keys.iter().all(|key| key.position().is_none()));
    }
}
