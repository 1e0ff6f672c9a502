//! Who may do what: the one decision every route asks.
//!
//! Every handler names its [`Action`] and the task it touches; no route
//! decides for itself. In mode `none` every caller is
//! [`Principal::unrestricted`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AuthConfig, TaskId};

/// A permission a caller may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Create tasks.
    #[serde(rename = "task:create")]
    TaskCreate,
    /// Change and delete tasks.
    #[serde(rename = "task:manage")]
    TaskManage,
    /// Publish events.
    #[serde(rename = "event:publish")]
    EventPublish,
    /// Read tasks and follow streams.
    #[serde(rename = "event:subscribe")]
    EventSubscribe,
    /// Read event history.
    #[serde(rename = "event:history")]
    EventHistory,
    /// Create tasks with webhooks.
    #[serde(rename = "webhook:create")]
    WebhookCreate,
    /// Everything.
    #[serde(rename = "*")]
    All,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 7] = [
        Self::TaskCreate,
        Self::TaskManage,
        Self::EventPublish,
        Self::EventSubscribe,
        Self::EventHistory,
        Self::WebhookCreate,
        Self::All,
    ];

    /// Returns the scope's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskCreate => "task:create",
            Self::TaskManage => "task:manage",
            Self::EventPublish => "event:publish",
            Self::EventSubscribe => "event:subscribe",
            Self::EventHistory => "event:history",
            Self::WebhookCreate => "webhook:create",
            Self::All => "*",
        }
    }

    /// Parses a scope's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Create a task.
    CreateTask,
    /// Read one task or its stream.
    ReadTask,
    /// List tasks or follow all of them; judged per task as well.
    ReadAnyTask,
    /// Read a task's history.
    ReadHistory,
    /// Publish events to a task.
    PublishEvents,
    /// Move a task to another state or delete it.
    ManageTask,
    /// Give a new task webhooks.
    CreateWebhooks,
}

impl Action {
    /// Returns the scope the action needs.
    pub const fn scope(self) -> Scope {
        match self {
            Self::CreateTask => Scope::TaskCreate,
            Self::ReadTask | Self::ReadAnyTask => Scope::EventSubscribe,
            Self::ReadHistory => Scope::EventHistory,
            Self::PublishEvents => Scope::EventPublish,
            Self::ManageTask => Scope::TaskManage,
            Self::CreateWebhooks => Scope::WebhookCreate,
        }
    }
}

/// The tasks a caller may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskGrant {
    /// Every task.
    Every,
    /// These tasks and no other.
    Only(Vec<TaskId>),
}

/// A caller whose identity was established.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Who it is, in the words of whoever vouches for it.
    pub subject: Option<Arc<str>>,
    /// Permissions held.
    pub scopes: Vec<Scope>,
    /// Tasks those permissions extend to.
    pub tasks: TaskGrant,
    /// What else is known of the caller, for the rules of a task.
    pub claims: Map<String, Value>,
    /// When that stops to hold, Unix milliseconds.
    pub expires_at_ms: Option<u64>,
}

/// Claims that differ between two tokens of one caller (RFC 7519 and
/// `OpenID` Connect Core).
const CLAIMS_OF_A_TOKEN: [&str; 8] =
    ["exp", "iat", "nbf", "jti", "nonce", "sid", "auth_time", "at_hash"];

/// Claims that are read to members of a [`Principal`].
const READ_CLAIMS: [&str; 3] = ["sub", "scope", "taskIds"];

impl Principal {
    /// Returns a text that is the same for two principals exactly if they are
    /// the same caller: it holds for a refreshed token, and for nobody else's.
    ///
    /// What a token of the same subject allows may change; without a subject,
    /// what it allows is part of who it is.
    pub fn identity(&self) -> String {
        let mut identity = Map::new();
        if let Some(subject) = &self.subject {
            identity.insert("sub".to_owned(), Value::from(&**subject));
        } else {
            let mut scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.as_str()).collect();
            scopes.sort_unstable();
            identity.insert("scope".to_owned(), scopes.into());
            let tasks = match &self.tasks {
                TaskGrant::Every => Value::from("*"),
                TaskGrant::Only(ids) => {
                    let mut ids: Vec<&str> = ids.iter().map(TaskId::as_str).collect();
                    ids.sort_unstable();
                    ids.into()
                }
            };
            identity.insert("taskIds".to_owned(), tasks);
        }
        let kept = self.claims.iter().filter(|(name, _)| {
            !CLAIMS_OF_A_TOKEN.contains(&name.as_str()) && !READ_CLAIMS.contains(&name.as_str())
        });
        let claims: Map<String, Value> =
            kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        identity.insert("claims".to_owned(), sorted(&Value::Object(claims)));
        sorted(&Value::Object(identity)).to_string()
    }

    /// Returns the caller of mode `none`: every permission on every task.
    pub fn unrestricted() -> Self {
        Self {
            subject: None,
            scopes: vec![Scope::All],
            tasks: TaskGrant::Every,
            claims: Map::new(),
            expires_at_ms: None,
        }
    }
}

/// Returns a value with the members of its objects in the order of their names.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            names.into_iter().map(|name| (name.clone(), sorted(&members[name]))).collect()
        }
        Value::Array(elements) => elements.iter().map(sorted).collect(),
        plain => plain.clone(),
    }
}

/// The answer to "may this caller do that?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allowed,
    /// No: the caller lacks the scope.
    MissingScope(Scope),
    /// No, and the caller must not learn whether the task exists.
    Hidden,
    /// No: the task's own rules refuse a caller who may know that it exists.
    Forbidden,
}

/// Decides whether `principal` may perform `action` on any task at all.
pub fn decide_scope(principal: &Principal, action: Action) -> Decision {
    let scope = action.scope();
    if principal.scopes.iter().any(|held| *held == scope || *held == Scope::All) {
        Decision::Allowed
    } else {
        Decision::MissingScope(scope)
    }
}

/// Decides whether `principal` may perform `action` on `task`.
///
/// `task` is `None` where no task is named: listing, and creating a task
/// under a server-made id.
pub fn decide(principal: &Principal, action: Action, task: Option<&TaskId>) -> Decision {
    let by_scope = decide_scope(principal, action);
    if by_scope != Decision::Allowed {
        return by_scope;
    }
    match (&principal.tasks, task) {
        (TaskGrant::Every, _) => Decision::Allowed,
        (TaskGrant::Only(ids), Some(id)) if ids.contains(id) => Decision::Allowed,
        // The rows of a list are judged one by one against the same grant.
        (TaskGrant::Only(_), None) if action == Action::ReadAnyTask => Decision::Allowed,
        (TaskGrant::Only(_), _) => Decision::Hidden,
    }
}

/// Decides whether a task's own rules let `principal` perform `action`.
///
/// It is asked after [`decide`], once the task was read: rules only tighten.
pub fn decide_by_rules(
    principal: &Principal,
    action: Action,
    rules: Option<&AuthConfig>,
) -> Decision {
    if rules.is_none_or(|rules| rules.admits(principal, action.scope())) {
        return Decision::Allowed;
    }
    match principal.tasks {
        TaskGrant::Every => Decision::Forbidden,
        TaskGrant::Only(_) => Decision::Hidden,
    }
}

/// Who wants what, where a task's own rules have a say in it.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The caller.
    pub principal: Arc<Principal>,
    /// What it wants to do.
    pub action: Action,
}

impl Guard {
    /// Tells whether the caller may do it to `task`, all in all.
    pub fn admits(&self, task: &TaskId, rules: Option<&AuthConfig>) -> bool {
        decide(&self.principal, self.action, Some(task)) == Decision::Allowed
            && self.decide(rules) == Decision::Allowed
    }

    /// Decides by the task's own rules alone.
    pub fn decide(&self, rules: Option<&AuthConfig>) -> Decision {
        decide_by_rules(&self.principal, self.action, rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(scope: Scope) -> Principal {
        let id = TaskId::parse("mine").unwrap();
        let tasks = TaskGrant::Only(vec![id]);
        Principal { scopes: vec![scope], tasks, ..Principal::unrestricted() }
    }

    #[test]
    fn a_refreshed_token_is_of_the_same_caller_and_another_subject_is_not() {
        let with = |subject: Option<&str>, tasks: &[&str], claims: Value| {
            let Value::Object(claims) = claims else { panic!("claims are an object") };
            let tasks = tasks.iter().map(|id| TaskId::parse(id).unwrap()).collect();
            let subject = subject.map(Arc::from);
            let tasks = TaskGrant::Only(tasks);
            Principal { subject, tasks, claims, ..Principal::unrestricted() }.identity()
        };
        let claims = serde_json::json!({"org": "x", "exp": 1, "jti": "a", "sub": "me"});
        let refreshed = serde_json::json!({"jti": "b", "sub": "me", "exp": 2, "org": "x"});
        let me = with(Some("me"), &["a"], claims.clone());
        assert_eq!(me, with(Some("me"), &["b"], refreshed.clone()));
        assert_ne!(me, with(Some("you"), &["a"], claims.clone()));
        assert_ne!(me, with(Some("me"), &["a"], serde_json::json!({"org": "y"})));
        // Without a subject, what is allowed tells callers apart.
        let nobody = with(None, &["a", "b"], claims);
        assert_eq!(nobody, with(None, &["b", "a"], refreshed.clone()));
        assert_ne!(nobody, with(None, &["a"], refreshed));
    }

    #[test]
    fn a_caller_without_the_scope_is_refused_before_the_task_is_looked_at() {
        let other = TaskId::parse("other").unwrap();
        assert_eq!(
            decide(&narrow(Scope::EventPublish), Action::ManageTask, Some(&other)),
            Decision::MissingScope(Scope::TaskManage)
        );
    }

    #[test]
    fn a_caller_limited_to_named_tasks_sees_no_other() {
        let (mine, other) = (TaskId::parse("mine").unwrap(), TaskId::parse("other").unwrap());
        let caller = narrow(Scope::All);
        assert_eq!(decide(&caller, Action::ReadTask, Some(&mine)), Decision::Allowed);
        assert_eq!(decide(&caller, Action::ReadTask, Some(&other)), Decision::Hidden);
        assert_eq!(decide(&caller, Action::CreateTask, None), Decision::Hidden);
        assert_eq!(decide(&caller, Action::ReadAnyTask, None), Decision::Allowed);
    }

    #[test]
    fn rules_tighten_what_a_token_allows_and_never_widen_it() {
        let (mine, other) = (TaskId::parse("mine").unwrap(), TaskId::parse("other").unwrap());
        let rules: AuthConfig = serde_json::from_value(serde_json::json!({"rules": [
            {"match": {"scope": ["event:subscribe"]}, "require": {"sub": ["me"]}},
        ]}))
        .unwrap();
        let guard = |subject: &str, action| Guard {
            principal: Arc::new(Principal { subject: Some(subject.into()), ..narrow(Scope::All) }),
            action,
        };
        assert!(guard("me", Action::ReadTask).admits(&mine, Some(&rules)));
        assert!(!guard("me", Action::ReadTask).admits(&other, Some(&rules)));
        assert!(!guard("you", Action::ReadTask).admits(&mine, Some(&rules)));
        assert!(!guard("you", Action::ReadAnyTask).admits(&mine, Some(&rules)));
        assert!(guard("you", Action::ReadHistory).admits(&mine, Some(&rules)));
        assert_eq!(guard("you", Action::ReadTask).decide(Some(&rules)), Decision::Hidden);
    }
}
