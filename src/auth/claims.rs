//! What a list of claims says a caller may do.
//!
//! There is no lenient reading: a claim that is missing or of another type
//! than documented grants nothing.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::domain::{Principal, Scope, TaskGrant, TaskId};

/// Returns the principal that the claims `sub`, `taskIds`, `scope` and `exp`
/// describe; `claims` are kept for the rules of tasks.
///
/// `taskIds` is a list of ids or exactly `"*"`; an id no task can have names
/// none. `scope` is a list; words that are no scope are passed over. `exp` is
/// in seconds.
pub fn principal_of(described: &Map<String, Value>, claims: Map<String, Value>) -> Principal {
    Principal {
        subject: described.get("sub").and_then(Value::as_str).map(Arc::from),
        scopes: strings(described.get("scope")).filter_map(Scope::parse).collect(),
        tasks: match described.get("taskIds") {
            Some(Value::String(every)) if every == "*" => TaskGrant::Every,
            ids => TaskGrant::Only(strings(ids).filter_map(|id| TaskId::parse(id).ok()).collect()),
        },
        expires_at_ms: described.get("exp").and_then(milliseconds),
        claims,
    }
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
        principal_of(&claims, claims.clone())
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
    fn scopes_are_a_list_of_words_of_which_unknown_ones_are_passed_over() {
        let scopes = |value| principal(json!({ "scope": value })).scopes;
        assert_eq!(scopes(json!(["event:publish", "worker:connect"])), [Scope::EventPublish]);
        assert_eq!(scopes(json!(["*"])), [Scope::All]);
        for nothing in [json!("*"), json!("task:create event:publish"), json!(["*", 1]), json!({})]
        {
            assert!(scopes(nothing.clone()).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn a_subject_is_a_string_and_an_expiry_a_number_of_seconds() {
        let read = principal(json!({"sub": "me", "exp": 12.5, "org": "x"}));
        assert_eq!((read.subject.as_deref(), read.expires_at_ms), (Some("me"), Some(12_500)));
        assert_eq!(read.claims["org"], "x");
        let read = principal(json!({"sub": 7, "exp": 12}));
        assert_eq!((read.subject, read.expires_at_ms), (None, Some(12_000)));
        assert_eq!(principal(json!({"exp": -1})).expires_at_ms, Some(0));
        assert_eq!(principal(json!({"exp": u64::MAX})).expires_at_ms, Some(u64::MAX));
    }
}
