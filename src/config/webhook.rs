//! `webhook`: who is told of events, how often that is tried, and what the
//! webhooks of tasks may reach.

use serde::{Deserialize, Serialize};

use super::address::HttpUrl;
use super::document::{parsed, understood};
use super::error::ConfigError;
use super::secret::Secret;
use crate::domain::{AllowedTarget, Backoff, Filter, Level, RetryPolicy, TypePattern};

/// Webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// How a delivery is tried where nothing else is said.
    pub default_retry: RetryPolicy,
    /// Who is told of the events of every task.
    pub endpoints: Vec<WebhookEndpoint>,
    /// Whether the webhooks of tasks may reach private and local addresses.
    pub allow_private_targets: bool,
    /// What they may reach in any case.
    pub allow_targets: Vec<AllowedTarget>,
    /// Attempts under way at the same time.
    pub concurrency: usize,
}

/// An endpoint of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEndpoint {
    /// Where events are sent.
    pub url: HttpUrl,
    /// Types of the tasks whose events are sent; empty means every task.
    pub task_types: Vec<TypePattern>,
    /// Which of their events are sent.
    pub filter: Filter,
    /// Key of the signatures; without one requests are not signed.
    pub secret: Option<Secret>,
    /// Whether an event is sent in its envelope.
    pub wrap: bool,
    /// How a delivery is tried.
    pub retry: RetryPolicy,
}

/// `webhook` as written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct WebhookSection {
    pub(super) endpoints: Vec<EndpointSection>,
    default_retry: RetrySection,
    allow_private_targets: bool,
    allow_targets: Vec<String>,
    concurrency: usize,
}

impl Default for WebhookSection {
    fn default() -> Self {
        let RetryPolicy { retries, backoff, initial_delay_ms, max_delay_ms, timeout_ms } =
            RetryPolicy::default();
        Self {
            endpoints: Vec::new(),
            default_retry: RetrySection {
                retries: Some(retries),
                backoff: Some(backoff.as_str().to_owned()),
                initial_delay_ms: Some(initial_delay_ms),
                max_delay_ms: Some(max_delay_ms),
                timeout_ms: Some(timeout_ms),
            },
            allow_private_targets: false,
            allow_targets: Vec::new(),
            concurrency: 64,
        }
    }
}

/// One of `webhook.endpoints` as written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct EndpointSection {
    url: Option<String>,
    secret: Option<String>,
    wrap: bool,
    task_types: Vec<String>,
    filter: FilterSection,
    retry: RetrySection,
}

impl Default for EndpointSection {
    fn default() -> Self {
        Self {
            url: None,
            secret: None,
            wrap: true,
            task_types: Vec::new(),
            filter: FilterSection::default(),
            retry: RetrySection::default(),
        }
    }
}

/// `filter` of an endpoint as written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FilterSection {
    types: Vec<String>,
    levels: Vec<String>,
    include_status: bool,
}

impl Default for FilterSection {
    fn default() -> Self {
        Self { types: Vec::new(), levels: Vec::new(), include_status: true }
    }
}

/// `retry` and `defaultRetry` as written, in part or in whole.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RetrySection {
    retries: Option<u32>,
    backoff: Option<String>,
    initial_delay_ms: Option<u64>,
    max_delay_ms: Option<u64>,
    timeout_ms: Option<u64>,
}

impl RetrySection {
    /// Takes what is missing from `rest`.
    fn over(self, rest: RetryPolicy) -> Result<RetryPolicy, ConfigError> {
        Ok(RetryPolicy {
            retries: self.retries.unwrap_or(rest.retries),
            backoff: match self.backoff {
                Some(name) => understood(Backoff::parse(&name))?,
                None => rest.backoff,
            },
            initial_delay_ms: self.initial_delay_ms.unwrap_or(rest.initial_delay_ms),
            max_delay_ms: self.max_delay_ms.unwrap_or(rest.max_delay_ms),
            timeout_ms: self.timeout_ms.unwrap_or(rest.timeout_ms),
        })
    }
}

/// Turns what was written into what is meant.
pub(super) fn resolve(section: WebhookSection) -> Result<WebhookSettings, ConfigError> {
    let default_retry = section.default_retry.over(RetryPolicy::default())?;
    let endpoints = section.endpoints.into_iter().map(|written| endpoint(written, default_retry));
    Ok(WebhookSettings {
        default_retry,
        endpoints: endpoints.collect::<Result<_, _>>()?,
        allow_private_targets: section.allow_private_targets,
        allow_targets: parsed(&section.allow_targets, AllowedTarget::parse)?,
        concurrency: section.concurrency,
    })
}

fn endpoint(
    written: EndpointSection,
    default_retry: RetryPolicy,
) -> Result<WebhookEndpoint, ConfigError> {
    let pattern = |text: &str| TypePattern::parse(text).ok();
    Ok(WebhookEndpoint {
        url: understood(written.url.as_deref().and_then(HttpUrl::parse))?,
        task_types: parsed(&written.task_types, pattern)?,
        filter: Filter {
            types: parsed(&written.filter.types, pattern)?,
            levels: parsed(&written.filter.levels, Level::parse)?,
            include_status: written.filter.include_status,
        },
        secret: written.secret.map(Secret::new),
        wrap: written.wrap,
        retry: written.retry.over(default_retry)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::keys::BACKOFFS;
    use super::super::tests::Setup;
    use super::*;

    #[test]
    fn every_backoff_in_the_table_is_understood() {
        assert_eq!(Backoff::ALL.map(Backoff::as_str), BACKOFFS);
    }

    #[test]
    fn a_retry_that_is_given_in_part_takes_the_rest_from_the_default() {
        let setup = Setup::new()
            .yaml("webhook: { defaultRetry: { retries: 9, maxDelayMs: 7 }, endpoints: [{ url: http://h, retry: { backoff: fixed } }, { url: http://h }] }")
            .env(&[("TASKCAST_WEBHOOK__DEFAULT_RETRY__RETRIES", "5")]);
        let webhook = setup.load().webhook;
        let default = RetryPolicy { retries: 5, max_delay_ms: 7, ..RetryPolicy::default() };
        assert_eq!(webhook.default_retry, default);
        assert_eq!(webhook.endpoints[0].retry, RetryPolicy { backoff: Backoff::Fixed, ..default });
        assert_eq!(webhook.endpoints[1].retry, default);
    }

    #[test]
    fn an_endpoint_says_what_it_wants() {
        let setup = Setup::new()
            .env(&[("SECRET", "canary")])
            .yaml("webhook: { endpoints: [{ url: \"https://h/p\", secret: \"${SECRET}\", wrap: false, taskTypes: [llm.*], filter: { types: [a, b.*], levels: [warn], includeStatus: false } }] }");
        let webhook = setup.load().webhook;
        let endpoint = &webhook.endpoints[0];
        assert_eq!(endpoint.url.expose(), "https://h/p");
        assert_eq!(endpoint.secret.as_ref().map(Secret::expose), Some("canary"));
        assert_eq!(endpoint.task_types, [TypePattern::parse("llm.*").unwrap()]);
        assert_eq!(endpoint.filter.levels, [Level::Warn]);
        assert_eq!(endpoint.filter.types.len(), 2);
        assert!(!endpoint.wrap && !endpoint.filter.include_status);
        assert!(!format!("{webhook:?}").contains("canary"));

        let plain = Setup::new().yaml("webhook: { endpoints: [{ url: http://h, secret: \"\" }] }");
        let endpoint = &plain.load().webhook.endpoints[0];
        assert_eq!((endpoint.secret.as_ref(), endpoint.wrap), (None, true));
        assert!(endpoint.filter.is_all());
    }

    #[test]
    fn endpoints_may_come_as_json_or_from_a_file_of_json() {
        let json = r#"[{"url": "https://h/p", "secret": "canary", "taskTypes": null}]"#;
        let variable = Setup::new().env(&[("TASKCAST_WEBHOOK__ENDPOINTS", json)]);
        let file = Setup::new()
            .file("endpoints", json)
            .env(&[("TASKCAST_WEBHOOK__ENDPOINTS_FILE", "endpoints")]);
        for setup in [variable, file] {
            assert_eq!(setup.load().webhook.endpoints.len(), 1);
        }
    }

    #[test]
    fn bad_endpoints_are_refused_by_variable_and_path_without_showing_them() {
        const NAME: &str = "TASKCAST_WEBHOOK__ENDPOINTS";
        for (json, path) in [
            (r#"[{"url": "ftp://canary"}]"#, "`webhook.endpoints[0].url`"),
            (r#"[{"secret": "canary"}]"#, "`webhook.endpoints[0].url`"),
            (r#"[{"url": "http://h"}, {"url": "http://h", "secret": 1}]"#, "[1].secret`"),
            (r#"[{"url": "http://h", "filter": {"levels": ["loud"]}}]"#, ".filter.levels[0]`"),
            (r#"[{"url": "http://h", "filter": {"types": ["a*"]}}]"#, ".filter.types[0]`"),
            (r#"[{"url": "http://h", "retry": {"retries": 101}}]"#, ".retry.retries`"),
            (r#"[{"url": "http://h", "sceret": "canary"}]"#, "`webhook.endpoints[0].sceret`"),
            (r#"[{"secret": canary}]"#, "not valid JSON"),
            (r#"[{"url": "http://h", "secret": "whsec_canary!"}]"#, "[0].secret`"),
            ("canary", "a list of sections"),
        ] {
            let error = Setup::new().env(&[(NAME, json)]).refused(&[NAME, path]);
            assert!(!error.contains("canary"), "{error}");
        }
        Setup::new()
            .env(&[("TASKCAST_WEBHOOK__ALLOW_TARGETS", r#"["10.0.0.0/8", "a b"]"#)])
            .refused(&["`webhook.allowTargets[1]`", "a range"]);
    }

    #[test]
    fn targets_may_be_allowed() {
        let setup = Setup::new().env(&[
            ("TASKCAST_WEBHOOK__ALLOW_TARGETS", r#"["10.0.0.0/8", "hooks.internal"]"#),
            ("TASKCAST_WEBHOOK__ALLOW_PRIVATE_TARGETS", "true"),
        ]);
        let webhook = setup.load().webhook;
        assert!(webhook.allow_private_targets);
        let expected = ["10.0.0.0/8", "hooks.internal"].map(AllowedTarget::parse);
        assert_eq!(webhook.allow_targets, expected.map(Option::unwrap));
    }
}
