//! A task's own rules on the wire.
//!
//! What is not understood is refused: a rule that silently never applied, or
//! demanded nothing, would leave a task open that its creator thinks closed.
//! No error repeats what was sent.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::fields::Field;
use crate::domain::{AuthConfig, AuthMatch, AuthRequirement, AuthRule, Scope};
use crate::http::error::{ApiError, ErrorCode};

/// Longest text of a task's rules, in bytes: they travel with the task's head.
const MOST_BYTES: usize = 16 << 10;

/// Most rules on a task.
const MOST_RULES: usize = 50;

/// Reads a task's rules.
pub(super) fn read_auth_config(field: &Field<'_>) -> Result<Option<AuthConfig>, ApiError> {
    let Some(text) = field.sent() else { return Ok(None) };
    if text.len() > MOST_BYTES {
        let message = format!("authConfig is limited to {MOST_BYTES} bytes");
        return Err(over(message, MOST_BYTES).at(field.path()));
    }
    // Numbers past every range and lone surrogates are in no token either.
    let value = serde_json::from_str::<Value>(text)
        .map_err(|_| field.invalid("must not hold numbers or escapes that no token can hold"))?;
    let path = field.path();
    let rules = list(value.get("rules"), &format!("{path}/rules"), "must be an array of rules")?;
    if rules.len() > MOST_RULES {
        let message = format!("authConfig is limited to {MOST_RULES} rules");
        return Err(over(message, MOST_RULES).at(format!("{path}/rules")));
    }
    let read = |(at, rule)| read_rule(rule, &format!("{path}/rules/{at}"));
    let rules = rules.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Some(AuthConfig { rules }))
}

fn over(message: String, limit: usize) -> ApiError {
    ApiError::new(ErrorCode::LimitExceeded, message).over(limit as u64)
}

fn read_rule(rule: &Value, path: &str) -> Result<AuthRule, ApiError> {
    let known = Scope::ALL.map(Scope::as_str).join(", ");
    let scopes = format!("{path}/match/scope");
    let problem = format!("must be an array with one or more of {known}");
    let scope = list(rule.pointer("/match/scope"), &scopes, &problem)?
        .iter()
        .map(|word| word.as_str().and_then(Scope::parse))
        .collect::<Option<Vec<_>>>()
        .filter(|words| !words.is_empty())
        .ok_or_else(|| invalid(&scopes, &problem))?;
    let require = AuthRequirement {
        sub: read_subjects(rule.pointer("/require/sub"), &format!("{path}/require/sub"))?,
        claims: read_claims(rule.pointer("/require/claims"), &format!("{path}/require/claims"))?,
    };
    if require.sub.is_none() && require.claims.is_none() {
        let problem = "must be an object with sub, claims or both";
        return Err(invalid(&format!("{path}/require"), problem));
    }
    Ok(AuthRule { applies_to: AuthMatch { scope }, require })
}

fn read_subjects(value: Option<&Value>, path: &str) -> Result<Option<Vec<Arc<str>>>, ApiError> {
    let problem = "must be an array of strings";
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let subjects = list(Some(value), path, problem)?.iter();
    let subjects = subjects.map(|subject| subject.as_str().map(Arc::from)).collect::<Option<_>>();
    subjects.map(Some).ok_or_else(|| invalid(path, problem))
}

fn read_claims(value: Option<&Value>, path: &str) -> Result<Option<Map<String, Value>>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(claims)) if !claims.is_empty() => Ok(Some(claims.clone())),
        Some(_) => Err(invalid(path, "must be an object with a claim or more")),
    }
}

fn list<'v>(value: Option<&'v Value>, path: &str, problem: &str) -> Result<&'v [Value], ApiError> {
    match value {
        Some(Value::Array(elements)) => Ok(elements),
        _ => Err(invalid(path, problem)),
    }
}

fn invalid(path: &str, problem: &str) -> ApiError {
    let name = path.rsplit('/').next().unwrap_or_default();
    ApiError::invalid(path, format!("{name} {problem}"))
}

/// Appends a task's rules to `out`.
pub(super) fn write_auth_config(out: &mut String, rules: &AuthConfig) {
    // It is made of strings, lists and what was JSON before, so it can be.
    out.push_str(&serde_json::to_string(rules).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::super::fields::{Place, fields};
    use super::*;

    fn read(text: &str) -> Result<Option<AuthConfig>, ApiError> {
        let body = format!(r#"{{"authConfig":{text}}}"#);
        let [field] = fields(&body, Place::Body, ["authConfig"]).unwrap();
        read_auth_config(&field)
    }

    #[test]
    fn rules_are_read_and_written() {
        let text = r#"{"rules":[{"match":{"scope":["event:publish","*"]},"require":{"sub":["a"],"claims":{"org":"x"}}}]}"#;
        let rules = read(text).unwrap().unwrap();
        let mut out = String::new();
        write_auth_config(&mut out, &rules);
        assert_eq!(out, text);
        assert_eq!(read("null").unwrap(), None);
        assert!(read(r#"{"rules":[]}"#).unwrap().unwrap().rules.is_empty());
        let nobody = r#"{"rules":[{"match":{"scope":["*"]},"require":{"sub":[],"claims":null}}]}"#;
        assert_eq!(read(nobody).unwrap().unwrap().rules[0].require.sub, Some(Vec::new()));
    }

    #[test]
    fn what_is_not_understood_is_pointed_at_and_not_repeated() {
        let rule = |rule: &str| format!(r#"{{"rules":[{rule}]}}"#);
        let with =
            |require: &str| rule(&format!(r#"{{"match":{{"scope":["*"]}},"require":{require}}}"#));
        for (text, path) in [
            ("7".to_owned(), "/rules"),
            ("[]".to_owned(), "/rules"),
            ("{}".to_owned(), "/rules"),
            (r#"{"rules":{}}"#.to_owned(), "/rules"),
            (r#"{"rules":[{"x":1e400}]}"#.to_owned(), ""),
            (rule("7"), "/rules/0/match/scope"),
            (rule(r#"{"match":{"scope":"*"}}"#), "/rules/0/match/scope"),
            (rule(r#"{"match":{"scope":[]}}"#), "/rules/0/match/scope"),
            (rule(r#"{"match":{"scope":["canary"]}}"#), "/rules/0/match/scope"),
            (rule(r#"{"match":{"scope":["*"]}}"#), "/rules/0/require"),
            (with("{}"), "/rules/0/require"),
            (with(r#"{"subs":["canary"]}"#), "/rules/0/require"),
            (with(r#"{"sub":"canary"}"#), "/rules/0/require/sub"),
            (with(r#"{"sub":["canary",1]}"#), "/rules/0/require/sub"),
            (with(r#"{"claims":["canary"]}"#), "/rules/0/require/claims"),
            (with(r#"{"claims":{}}"#), "/rules/0/require/claims"),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidRequest, "{text}");
            assert_eq!(error.path(), Some(format!("/authConfig{path}").as_str()), "{text}");
            assert!(!error.message().contains("canary"), "{text}");
        }
    }

    #[test]
    fn rules_are_bounded() {
        let one = r#"{"match":{"scope":["*"]},"require":{"sub":["a"]}}"#;
        let many = |count: usize| format!(r#"{{"rules":[{}]}}"#, vec![one; count].join(","));
        assert!(read(&many(50)).is_ok());
        let error = read(&many(51)).unwrap_err();
        assert_eq!(
            (error.code(), error.path()),
            (ErrorCode::LimitExceeded, Some("/authConfig/rules"))
        );
        let long = many(1).replace("\"a\"", &format!("\"{}\"", "a".repeat(16 << 10)));
        assert_eq!(read(&long).unwrap_err().path(), Some("/authConfig"));
    }
}
