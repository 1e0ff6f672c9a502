//! Webhooks and their deliveries on the wire.
//!
//! A URL may hold a token and a secret is one, so nothing that was sent is
//! ever repeated in an error.

use super::fields::{Field, Place, fields};
use super::lists::{each, filter, flag};
use super::push_number;
use crate::domain::{
    Backoff, RetryOverrides, RetryPolicy, TargetPolicy, Webhook, WebhookSecret, json,
};
use crate::engine::{Delivery, DeliveryState};
use crate::http::error::ApiError;

/// Longest secret, in bytes.
const SECRET_BYTES: usize = 512;

/// Reads a task's hooks.
pub(super) fn read_webhooks(
    webhooks: &Field<'_>,
    limit: usize,
    targets: &TargetPolicy,
) -> Result<Option<Vec<Webhook>>, ApiError> {
    each(webhooks, limit, |item| {
        if !item.starts_with('{') {
            return Err(ApiError::invalid("", "a webhook must be an object"));
        }
        let [url, wanted, secret, wrap, retry] =
            fields(item, Place::Body, ["url", "filter", "secret", "wrap", "retry"])?;
        Ok(Webhook {
            url: read_url(&url, targets)?.into(),
            filter: filter(&wanted)?,
            secret: read_secret(&secret)?,
            wrap: flag(&wrap)?,
            retry: read_retry(&retry)?,
        })
    })
}

fn read_url(url: &Field<'_>, targets: &TargetPolicy) -> Result<String, ApiError> {
    let text = url.required(url.string()?)?;
    targets.check(&text).map_err(|error| url.invalid(&error.to_string()))?;
    Ok(text.into_owned())
}

fn read_secret(secret: &Field<'_>) -> Result<Option<WebhookSecret>, ApiError> {
    let Some(text) = secret.string()? else { return Ok(None) };
    let read = WebhookSecret::new(&*text);
    if (1..=SECRET_BYTES).contains(&text.len()) && read.is_well_formed() {
        return Ok(Some(read));
    }
    let problem = format!("must be 1 to {SECRET_BYTES} bytes, and base64 after whsec_");
    Err(secret.invalid(&problem))
}

fn read_retry(retry: &Field<'_>) -> Result<Option<RetryOverrides>, ApiError> {
    let names = ["retries", "backoff", "initialDelayMs", "maxDelayMs", "timeoutMs"];
    let Some([retries, backoff, initial_delay, max_delay, timeout]) = retry.fields(names)? else {
        return Ok(None);
    };
    let retries = retries.whole_number(RetryPolicy::RETRIES)?;
    Ok(Some(RetryOverrides {
        // The range ends far below the type's.
        retries: retries.map(|retries| u32::try_from(retries).unwrap_or(u32::MAX)),
        backoff: backoff.word(Backoff::parse, Backoff::ALL.into_iter().map(Backoff::as_str))?,
        initial_delay_ms: initial_delay.whole_number(RetryPolicy::INITIAL_DELAY_MS)?,
        max_delay_ms: max_delay.whole_number(RetryPolicy::MAX_DELAY_MS)?,
        timeout_ms: timeout.whole_number(RetryPolicy::TIMEOUT_MS)?,
    }))
}

/// Appends a task's hooks to `out`, without their secrets.
pub(super) fn write_webhooks(out: &mut String, webhooks: &[Webhook]) {
    out.push('[');
    for (position, webhook) in webhooks.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        let shown = Webhook { secret: None, ..webhook.clone() };
        // Strings, numbers and names are always written.
        out.push_str(&serde_json::to_string(&shown).unwrap_or_default());
    }
    out.push(']');
}

/// Appends a delivery to `out`; `webhooks` are the hooks of its task.
pub(in crate::http) fn write_delivery(out: &mut String, delivery: &Delivery, webhooks: &[Webhook]) {
    let event = delivery.id.event;
    out.push_str("{\"id\":");
    json::push_string(out, &delivery.id.to_string());
    out.push_str(",\"eventId\":\"");
    out.push_str(event.encode(&mut [0; ulid::ULID_LEN]));
    out.push_str("\",\"index\":");
    push_number(out, event.index());
    if let Some(position) = delivery.id.hook.position() {
        out.push_str(",\"hook\":");
        push_number(out, position as u64);
        if let Some(webhook) = webhooks.get(position) {
            out.push_str(",\"url\":");
            json::push_string(out, &webhook.url);
        }
    } else {
        // Where an endpoint of the configuration leads is the operator's business.
        out.push_str(",\"endpoint\":");
        json::push_string(out, delivery.id.hook.as_str());
    }
    out.push_str(",\"state\":\"");
    out.push_str(match delivery.state {
        DeliveryState::Pending => "pending",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Failed => "failed",
        DeliveryState::Cancelled => "cancelled",
    });
    out.push_str("\",\"attempts\":");
    push_number(out, u64::from(delivery.attempts));
    if let Some(last) = &delivery.last {
        if let Some(status) = last.status {
            out.push_str(",\"lastStatus\":");
            push_number(out, u64::from(status));
        }
        if let Some(problem) = &last.problem {
            out.push_str(",\"lastError\":");
            json::push_string(out, problem);
        }
    }
    if let Some(next_at_ms) = delivery.next_at_ms {
        out.push_str(",\"nextAttemptAt\":");
        push_number(out, next_at_ms);
    }
    out.push_str(",\"updatedAt\":");
    push_number(out, delivery.updated_at_ms);
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::ErrorCode;

    fn read(webhooks: &str) -> Result<Option<Vec<Webhook>>, ApiError> {
        let object = format!(r#"{{"webhooks":{webhooks}}}"#);
        let [field] = fields(&object, Place::Body, ["webhooks"]).unwrap();
        read_webhooks(&field, 2, &TargetPolicy::default())
    }

    #[test]
    fn a_hook_is_read_with_everything_it_may_have_and_shown_without_its_secret() {
        let whole = r#"[{"url":"https://a.example/x?t=1","filter":{"types":["llm.*"],"levels":["warn"],"includeStatus":false},"secret":"canary","wrap":false,"retry":{"retries":0,"backoff":"linear","initialDelayMs":5,"maxDelayMs":6,"timeoutMs":7}},{"url":"http://b.example","more":1}]"#;
        let hooks = read(whole).unwrap().unwrap();
        assert_eq!(hooks[0].secret.as_ref().unwrap().expose(), "canary");
        assert_eq!(hooks[0].retry.unwrap().retries, Some(0));
        let mut shown = String::new();
        write_webhooks(&mut shown, &hooks);
        assert_eq!(shown, whole.replace(r#""secret":"canary","#, "").replace(r#","more":1"#, ""));
        assert!(read("null").unwrap().is_none());
        assert!(read("[]").unwrap().unwrap().is_empty());
    }

    #[expect(clippy::too_many_lines, reason = "a list, one entry a line")]
    #[test]
    fn what_is_wrong_with_a_hook_is_pointed_at_and_not_repeated() {
        let good = r#"{"url":"http://a.example"}"#;
        for (bad, path) in [
            ("7", "/webhooks"),
            (r#"{"canary":1}"#, "/webhooks"),
            (r#"["canary"]"#, "/webhooks/0"),
            ("[null]", "/webhooks/0"),
            ("[{}]", "/webhooks/0/url"),
            (r#"[{"url":7}]"#, "/webhooks/0/url"),
            (r#"[{"url":"canary"}]"#, "/webhooks/0/url"),
            (r#"[{"url":"canary://a"}]"#, "/webhooks/0/url"),
            (r#"[{"url":"http://canary@a.example"}]"#, "/webhooks/0/url"),
            (r#"[{"url":"http://127.0.0.1/canary"}]"#, "/webhooks/0/url"),
            (r#"[{"url":"http://a.example","secret":""}]"#, "/webhooks/0/secret"),
            (r#"[{"url":"http://a.example","secret":["canary"]}]"#, "/webhooks/0/secret"),
            (r#"[{"url":"http://a.example","secret":"whsec_canary"}]"#, "/webhooks/0/secret"),
            (r#"[{"url":"http://a.example","secret":"canary\u0000"}]"#, "/webhooks/0/secret"),
            (r#"[{"url":"http://a.example","wrap":"canary"}]"#, "/webhooks/0/wrap"),
            (r#"[{"url":"http://a.example","filter":"canary"}]"#, "/webhooks/0/filter"),
            (
                r#"[{"url":"http://a.example","filter":{"types":"canary"}}]"#,
                "/webhooks/0/filter/types",
            ),
            (
                r#"[{"url":"http://a.example","filter":{"types":["a","canary*"]}}]"#,
                "/webhooks/0/filter/types/1",
            ),
            (
                r#"[{"url":"http://a.example","filter":{"levels":["canary"]}}]"#,
                "/webhooks/0/filter/levels/0",
            ),
            (
                r#"[{"url":"http://a.example","filter":{"includeStatus":1}}]"#,
                "/webhooks/0/filter/includeStatus",
            ),
            (r#"[{"url":"http://a.example","retry":[]}]"#, "/webhooks/0/retry"),
            (
                r#"[{"url":"http://a.example","retry":{"retries":101}}]"#,
                "/webhooks/0/retry/retries",
            ),
            (r#"[{"url":"http://a.example","retry":{"retries":-1}}]"#, "/webhooks/0/retry/retries"),
            (
                r#"[{"url":"http://a.example","retry":{"backoff":"canary"}}]"#,
                "/webhooks/0/retry/backoff",
            ),
            (
                r#"[{"url":"http://a.example","retry":{"timeoutMs":300001}}]"#,
                "/webhooks/0/retry/timeoutMs",
            ),
        ] {
            let error = read(bad).unwrap_err();
            assert_eq!(
                (error.code(), error.path()),
                (ErrorCode::InvalidRequest, Some(path)),
                "{bad}"
            );
            assert!(!error.message().contains("canary"), "{bad}");
            if let Some(rest) = bad.strip_prefix('[') {
                let error = read(&format!("[{good},{rest}")).unwrap_err();
                assert_eq!(error.path(), Some(&*path.replacen("/0", "/1", 1)), "{bad}");
            }
        }
        let error = read(&format!("[{good},{good},{good}]")).unwrap_err();
        assert_eq!((error.code(), error.path()), (ErrorCode::LimitExceeded, Some("/webhooks")));
    }
}
