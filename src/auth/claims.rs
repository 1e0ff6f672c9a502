//! What a list of claims says a caller may do.
//!
//! There is no lenient reading: a claim that is missing or of another type
//! than documented grants nothing, and one that would limit what is granted
//! makes all of them invalid.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::domain::{Principal, Scope, TaskGrant, TaskId};

/// A claim that is there but cannot mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClaim {
    /// `sub` is no string.
    #[error("`sub` must be a string")]
    Subject,
    /// `exp` is no number.
    #[error("`exp` must be a number of seconds")]
    Expiry,
}

/// Returns the principal that the claims `sub`, `taskIds`, `scope` and `exp`
/// describe; `claims` are kept for the rules of tasks.
///
/// This is the only reader: signed tokens and the answers of forward auth go
/// through it. `taskIds` is a list of ids or exactly `"*"`; an id no task can
/// have names none. `scope` is a list, or one string with spaces, as OAuth
/// writes it (RFC 8693, section 4.2); words that are no scope are passed over.
/// `exp` is in seconds. A `sub` of null counts as absent.
///
/// # Errors
///
/// Fails where passing over a claim would let somebody in for longer, or as
/// somebody else, than was meant.
pub fn principal_of(
    described: &Map<String, Value>,
    claims: Map<String, Value>,
) -> Result<Principal, InvalidClaim> {
    let subject = match described.get("sub") {
        None | Some(Value::Null) => None,
        Some(Value::String(subject)) => Some(Arc::from(subject.as_str())),
        Some(_) => return Err(InvalidClaim::Subject),
    };
    let expires_at_ms = match described.get("exp") {
        None => None,
        Some(exp) => Some(milliseconds(exp).ok_or(InvalidClaim::Expiry)?),
    };
    let scopes = match described.get("scope") {
        Some(Value::String(words)) => {
            words.split_ascii_whitespace().filter_map(Scope::parse).collect()
        }
        list => strings(list).filter_map(Scope::parse).collect(),
    };
    let tasks = match described.get("taskIds") {
        Some(Value::String(every)) if every == "*" => TaskGrant::Every,
        ids => TaskGrant::Only(strings(ids).filter_map(|id| TaskId::parse(id).ok()).collect()),
    };
    Ok(Principal { subject, scopes, tasks, claims, expires_at_ms })
}

/// Returns the elements of a list of strings; of anything else none.
fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice);
    let list = list.filter(|list| list.iter().all(Value::is_string)).unwrap_or_default();
    list.iter().filter_map(Value::as_str)
}

fn milliseconds(seconds: &Value) -> Option<u64> {
    if let Some(seconds) = seconds.as_u64() {
        return Some(seconds.saturating_mul(1_000));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates: a time before 1970 is 0 and one past every clock stays so"
    )]
    seconds.as_f64().map(|seconds| (seconds * 1e3) as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn principal(claims: Value) -> Principal {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        principal_of(&claims, claims.clone()).unwrap()
    }

    fn only(ids: &[&str]) -> TaskGrant {
        TaskGrant::Only(ids.iter().map(|id| TaskId::parse(id).unwrap()).collect())
    }

    #[test]
    fn tasks_are_a_list_or_exactly_a_star_and_everything_else_is_no_task() {
        let tasks = |value| principal(json!({ "taskIds": value })).tasks;
        assert_eq!(tasks(json!("*")), TaskGrant::Every);
        assert_eq!(tasks(json!(["a", "b"])), only(&["a", "b"]));
        for nothing in
            [json!("a"), json!("**"), json!(["*"]), json!(["a", 1]), json!({"a": 1}), json!(null)]
        {
            assert_eq!(tasks(nothing.clone()), only(&[]), "{nothing}");
        }
        assert_eq!(principal(json!({})).tasks, only(&[]));
    }

    #[test]
    fn scopes_are_a_list_or_words_with_spaces_and_unknown_ones_are_passed_over() {
        let scopes = |value| principal(json!({ "scope": value })).scopes;
        assert_eq!(scopes(json!(["event:publish", "worker:connect"])), [Scope::EventPublish]);
        assert_eq!(scopes(json!(["*"])), [Scope::All]);
        assert_eq!(scopes(json!("*")), [Scope::All]);
        let words = json!("task:create openid  event:publish");
        assert_eq!(scopes(words), [Scope::TaskCreate, Scope::EventPublish]);
        for nothing in [json!("task:create,event:publish"), json!(["*", 1]), json!({}), json!(7)] {
            assert!(scopes(nothing.clone()).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn a_subject_is_a_string_and_an_expiry_a_number_of_seconds() {
        let read = principal(json!({"sub": "me", "exp": 12.5, "org": "x"}));
        assert_eq!((read.subject.as_deref(), read.expires_at_ms), (Some("me"), Some(12_500)));
        assert_eq!(read.claims["org"], "x");
        let read = principal(json!({"sub": null, "exp": 12}));
        assert_eq!((read.subject, read.expires_at_ms), (None, Some(12_000)));
        let refused = |claims: Value| {
            let Value::Object(claims) = claims else { panic!("claims are an object") };
            principal_of(&claims, claims.clone()).unwrap_err()
        };
        assert_eq!(refused(json!({"sub": 7})), InvalidClaim::Subject);
        for exp in [json!("12"), json!(null), json!([12]), json!({}), json!(true)] {
            assert_eq!(refused(json!({"exp": exp})), InvalidClaim::Expiry);
        }
        assert_eq!(principal(json!({"exp": -1})).expires_at_ms, Some(0));
        assert_eq!(principal(json!({"exp": u64::MAX})).expires_at_ms, Some(u64::MAX));
    }
}
