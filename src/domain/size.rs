//! How much memory things take up: the one place that counts their text.
//!
//! Every bound on bytes (memory of the memory store, pages of lists, queues
//! of lanes, the limit on a task's document) goes by these functions. They
//! count every field that a caller chooses the length of; a new field has to
//! be added here. Numbers and structure are covered by constants.

use serde_json::Value;

use super::{
    Append, AuthConfig, Change, CleanupRule, Event, EventDraft, Filter, Guard, Json, NewTask,
    Principal, SeriesTag, Task, TaskError, TaskGrant, Transition, TypePattern, Webhook,
};

/// What a task takes up apart from its text.
pub const TASK_BYTES: usize = 512;

/// What an event takes up apart from its text.
const EVENT_BYTES: usize = 128;

/// What one entry of a list takes up apart from its text: pointer, length,
/// reference counts and allocation.
const ENTRY_BYTES: usize = 48;

fn json(json: Option<&Json>) -> usize {
    json.map_or(0, |json| json.as_str().len())
}

fn text(text: Option<&(impl AsRef<str> + ?Sized)>) -> usize {
    text.map_or(0, |text| text.as_ref().len())
}

fn sum<T>(items: Option<&[T]>, size: impl Fn(&T) -> usize) -> usize {
    items.map_or(0, |items| items.iter().map(|item| ENTRY_BYTES + size(item)).sum())
}

fn pattern(pattern: &TypePattern) -> usize {
    match pattern {
        TypePattern::Any => 1,
        TypePattern::Prefix(text) | TypePattern::Exact(text) => text.len(),
    }
}

fn value(of: &Value) -> usize {
    ENTRY_BYTES
        + match of {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(value).sum(),
            Value::Object(members) => {
                members.iter().map(|(name, member)| ENTRY_BYTES + name.len() + value(member)).sum()
            }
        }
}

impl Filter {
    fn size_bytes(&self) -> usize {
        sum(Some(&self.types), pattern) + self.levels.len()
    }
}

impl Webhook {
    fn size_bytes(&self) -> usize {
        self.url.len()
            + self.filter.as_ref().map_or(0, Filter::size_bytes)
            + self.secret.as_ref().map_or(0, |secret| secret.expose().len())
    }
}

impl AuthConfig {
    fn size_bytes(&self) -> usize {
        sum(Some(&self.rules), |rule| {
            let claims = rule.require.claims.iter().flatten();
            rule.applies_to.scope.len()
                + sum(rule.require.sub.as_deref(), |sub| sub.len())
                + claims.map(|(name, claim)| ENTRY_BYTES + name.len() + value(claim)).sum::<usize>()
        })
    }
}

impl CleanupRule {
    fn size_bytes(&self) -> usize {
        let types = self.applies_to.as_ref().and_then(|wanted| wanted.task_types.as_deref());
        let events = self.event_filter.as_ref();
        text(self.name.as_deref())
            + sum(types, pattern)
            + sum(events.and_then(|filter| filter.types.as_deref()), pattern)
    }
}

impl TaskError {
    fn size_bytes(&self) -> usize {
        text(self.code.as_deref()) + self.message.len() + json(self.details.as_ref())
    }
}

impl NewTask {
    /// Returns how many bytes the task takes up.
    pub fn size_bytes(&self) -> usize {
        TASK_BYTES + self.text_bytes()
    }

    /// Returns how many bytes a second copy of what a store keeps beside the
    /// task takes up: its rules; everything else of a policy is shared.
    pub fn policy_bytes(&self) -> usize {
        self.auth_config.as_ref().map_or(0, AuthConfig::size_bytes)
            + sum(self.webhooks.as_deref(), |_| 128)
    }

    /// Returns how many bytes all text of the task takes up, with the lists it
    /// stands in.
    pub fn text_bytes(&self) -> usize {
        self.id.as_str().len()
            + text(self.task_type.as_deref())
            + json(self.params.as_ref())
            + json(self.metadata.as_ref())
            + sum(self.tags.as_deref(), |tag| tag.len())
            + self.auth_config.as_ref().map_or(0, AuthConfig::size_bytes)
            + sum(self.webhooks.as_deref(), Webhook::size_bytes)
            + sum(self.cleanup.as_deref(), CleanupRule::size_bytes)
    }
}

impl Task {
    /// Returns how many bytes the task takes up, log apart.
    pub fn size_bytes(&self) -> usize {
        self.spec.size_bytes()
            + json(self.result.as_ref())
            + self.error.as_ref().map_or(0, TaskError::size_bytes)
    }
}

impl SeriesTag {
    fn size_bytes(&self) -> usize {
        self.id.len() + text(self.field.as_deref())
    }
}

impl EventDraft {
    /// Returns how many bytes the event takes up.
    pub fn size_bytes(&self) -> usize {
        EVENT_BYTES
            + self.event_type.len()
            + self.data.as_str().len()
            + self.series.as_ref().map_or(0, SeriesTag::size_bytes)
    }
}

impl Event {
    /// Returns how many bytes the event takes up.
    pub fn size_bytes(&self) -> usize {
        self.task.as_str().len() + self.draft.size_bytes()
    }
}

impl Transition {
    /// Returns how many bytes the transition takes up: what it keeps on the
    /// task, and the status event that says the same.
    pub fn size_bytes(&self) -> usize {
        let kept =
            json(self.result.as_ref()) + self.error.as_ref().map_or(0, TaskError::size_bytes);
        2 * (EVENT_BYTES + kept)
    }
}

impl Change {
    /// Returns how many bytes the change takes up.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Publish(events) => events.iter().map(EventDraft::size_bytes).sum(),
            Self::Transition(transition) => transition.size_bytes(),
        }
    }
}

impl Append {
    /// Returns how many bytes the request takes up, with who sent it.
    pub fn size_bytes(&self) -> usize {
        self.task.as_str().len()
            + self.change.size_bytes()
            + self.guard.as_ref().map_or(0, Guard::size_bytes)
    }
}

impl Guard {
    fn size_bytes(&self) -> usize {
        let Principal { subject, scopes, tasks, claims, .. } = &*self.principal;
        let tasks = match tasks {
            TaskGrant::Every => 0,
            TaskGrant::Only(ids) => ids.iter().map(|id| ENTRY_BYTES + id.as_str().len()).sum(),
        };
        let claims: usize =
            claims.iter().map(|(name, claim)| ENTRY_BYTES + name.len() + value(claim)).sum();
        text(subject.as_deref()) + scopes.len() + tasks + claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Level, SeriesMode, TaskId};

    const LONG: usize = 10_000;

    fn long() -> String {
        "x".repeat(LONG)
    }

    fn counts(task: impl FnOnce(&mut NewTask)) -> bool {
        let mut spec = NewTask::new(TaskId::parse("t").unwrap());
        let before = spec.size_bytes();
        task(&mut spec);
        (LONG..2 * LONG).contains(&(spec.size_bytes() - before))
    }

    #[test]
    fn every_text_of_a_task_counts() {
        let webhook: Webhook = serde_json::from_value(serde_json::json!({"url": long()})).unwrap();
        let secret: Webhook =
            serde_json::from_value(serde_json::json!({"url": "u", "secret": long()})).unwrap();
        let filter: Webhook =
            serde_json::from_value(serde_json::json!({"url": "u", "filter": {"types": [long()]}}))
                .unwrap();
        for hook in [webhook, secret, filter] {
            assert!(counts(|task| task.webhooks = Some(vec![hook])));
        }
        for require in [
            serde_json::json!({"sub": [long()]}),
            serde_json::json!({"claims": {"a": [{"b": long()}]}}),
            serde_json::json!({"claims": {long(): 1}}),
        ] {
            let rule = serde_json::json!({"match": {"scope": ["*"]}, "require": require});
            let rules = serde_json::from_value(serde_json::json!({"rules": [rule]})).unwrap();
            assert!(counts(|task| task.auth_config = Some(rules)));
        }
        for rule in [
            serde_json::json!({"target": "all", "name": long()}),
            serde_json::json!({"target": "all", "match": {"taskTypes": [long()]}}),
            serde_json::json!({"target": "events", "eventFilter": {"types": [long()]}}),
        ] {
            let rule = serde_json::from_value(rule).unwrap();
            assert!(counts(|task| task.cleanup = Some(vec![rule])));
        }
        let json = || Some(Json::from_valid(&format!("\"{}\"", long())));
        assert!(counts(|task| task.params = json()));
        assert!(counts(|task| task.metadata = json()));
        assert!(counts(|task| task.task_type = Some(long().into())));
        assert!(counts(|task| task.tags = Some(vec![long().into()])));
    }

    #[test]
    fn every_text_of_an_event_and_of_a_transition_counts() {
        let short = EventDraft {
            event_type: "a".into(),
            level: Level::Info,
            data: Json::null(),
            series: None,
        };
        let typed = EventDraft { event_type: long().into(), ..short.clone() };
        let in_series = short.clone().in_series(&long(), SeriesMode::Latest);
        let field = SeriesTag { id: "s".into(), mode: None, field: Some(long().into()) };
        let field = EventDraft { series: Some(field), ..short.clone() };
        let data = EventDraft { data: Json::from_valid(&format!("\"{}\"", long())), ..short };
        for draft in [typed, in_series, field, data] {
            assert!(draft.size_bytes() >= LONG);
        }
        let code = TaskError { code: Some(long().into()), ..TaskError::new("m") };
        for error in [code, TaskError::new(&long())] {
            let end = Transition::to(crate::domain::TaskStatus::Failed).with_error(error);
            assert!(end.size_bytes() >= 2 * LONG, "on the task and in its event");
        }
    }
}
