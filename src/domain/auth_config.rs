//! Rules a task adds to what a caller's token already allows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Principal, Scope};

/// A task's own rules; they only tighten what a token allows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthConfig {
    /// The rules; every one that applies must hold.
    pub rules: Vec<AuthRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthRule {
    /// When it applies.
    #[serde(rename = "match")]
    pub applies_to: AuthMatch,
    /// What it demands.
    pub require: AuthRequirement,
}

/// When a rule applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthMatch {
    /// Scopes of the routes it applies to; [`Scope::All`] stands for every one.
    pub scope: Vec<Scope>,
}

/// What a rule demands of the caller; all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthRequirement {
    /// The caller's subject must be one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<Vec<Arc<str>>>,
    /// Each of these must equal the claim of that name, or be an element of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Map<String, Value>>,
}

impl AuthConfig {
    /// Tells whether the rules let `caller` use a route that needs `scope`.
    pub fn admits(&self, caller: &Principal, scope: Scope) -> bool {
        self.rules
            .iter()
            .filter(|rule| {
                rule.applies_to.scope.iter().any(|named| *named == scope || *named == Scope::All)
            })
            .all(|rule| rule.require.holds_for(caller))
    }
}

impl AuthRequirement {
    fn holds_for(&self, caller: &Principal) -> bool {
        let subject_fits = self.sub.as_ref().is_none_or(|allowed| {
            caller.subject.as_ref().is_some_and(|subject| allowed.contains(subject))
        });
        let has = |(name, wanted): (&String, &Value)| match caller.claims.get(name) {
            Some(held) if held == wanted => true,
            Some(Value::Array(held)) => held.contains(wanted),
            Some(_) | None => false,
        };
        subject_fits && self.claims.as_ref().is_none_or(|claims| claims.iter().all(has))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn caller(subject: Option<&str>, claims: Value) -> Principal {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        Principal { subject: subject.map(Arc::from), claims, ..Principal::unrestricted() }
    }

    fn config(value: Value) -> AuthConfig {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_rule_applies_to_its_scopes_alone_and_a_star_to_all() {
        let config = config(json!({"rules": [
            {"match": {"scope": ["event:publish"]}, "require": {"sub": ["a"]}},
        ]}));
        assert!(config.admits(&caller(Some("a"), json!({})), Scope::EventPublish));
        assert!(!config.admits(&caller(Some("b"), json!({})), Scope::EventPublish));
        assert!(!config.admits(&caller(None, json!({})), Scope::EventPublish));
        assert!(config.admits(&caller(None, json!({})), Scope::EventSubscribe));
        let every = AuthConfig {
            rules: vec![AuthRule {
                applies_to: AuthMatch { scope: vec![Scope::All] },
                ..config.rules[0].clone()
            }],
        };
        assert!(!every.admits(&caller(None, json!({})), Scope::EventSubscribe));
    }

    #[test]
    fn a_claim_matches_when_equal_or_an_element_and_never_loosely() {
        let config = config(json!({"rules": [
            {"match": {"scope": ["*"]}, "require": {"claims": {"org": "x", "level": 3}}},
        ]}));
        let admits = |claims| config.admits(&caller(None, claims), Scope::TaskManage);
        assert!(admits(json!({"org": "x", "level": 3})));
        assert!(admits(json!({"org": ["w", "x"], "level": [3, 4]})));
        for claims in [
            json!({}),
            json!({"org": "x"}),
            json!({"org": "xy", "level": 3}),
            json!({"org": "x", "level": "3"}),
            json!({"org": {"x": true}, "level": 3}),
        ] {
            assert!(!admits(claims.clone()), "{claims}");
        }
    }
}
