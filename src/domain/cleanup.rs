//! Cleanup: what goes of finished tasks, and when.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Level, SeriesMode, TaskStatus, TypePattern};

/// A rule about finished tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanupRule {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Which tasks; without it every finished one.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub applies_to: Option<CleanupMatch>,
    /// When; without it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<CleanupTrigger>,
    /// What goes.
    pub target: CleanupTarget,
    /// Which events go, where events are the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_filter: Option<CleanupFilter>,
}

/// Which tasks a rule is about; all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanupMatch {
    /// Types of tasks; without it every type, and none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_types: Option<Vec<TypePattern>>,
    /// Terminal states; without it every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Vec<TaskStatus>>,
}

/// When a rule falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanupTrigger {
    /// Milliseconds after the task finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
}

/// What a rule removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CleanupTarget {
    /// The task with all it owns.
    All,
    /// The task with all it owns; the same as [`Self::All`].
    Task,
    /// Events, the task apart.
    Events,
}

impl CleanupTarget {
    /// Every target.
    pub const ALL: [Self; 3] = [Self::All, Self::Task, Self::Events];

    /// Returns its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Task => "task",
            Self::Events => "events",
        }
    }

    /// Parses a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.as_str() == text)
    }
}

/// Which events a rule removes; all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanupFilter {
    /// Types; without it every type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<TypePattern>>,
    /// Levels; without it every level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<Vec<Level>>,
    /// Only events older than this, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than_ms: Option<u64>,
    /// Only events of series of this mode; events without a series, or without
    /// a mode, do not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series_mode: Option<SeriesMode>,
}

impl CleanupRule {
    /// Tells whether the rule is about tasks of this type that ended like this.
    pub fn applies(&self, task_type: Option<&str>, status: TaskStatus) -> bool {
        let Some(applies_to) = &self.applies_to else { return status.is_terminal() };
        let type_fits = applies_to.task_types.as_ref().is_none_or(|patterns| {
            patterns.iter().any(|pattern| match pattern {
                TypePattern::Any => true,
                _ => task_type.is_some_and(|task_type| pattern.matches(task_type)),
            })
        });
        let status_fits = applies_to.status.as_ref().is_none_or(|wanted| wanted.contains(&status));
        status.is_terminal() && type_fits && status_fits
    }

    /// Returns when the rule first falls due for a task, Unix milliseconds.
    pub fn due_at_ms(&self, completed_at_ms: u64) -> u64 {
        let after = self.trigger.and_then(|trigger| trigger.after_ms).unwrap_or(0);
        completed_at_ms.saturating_add(after)
    }

    /// Returns the age events must have reached, in milliseconds; 0 for any.
    pub fn older_than_ms(&self) -> u64 {
        self.event_filter.as_ref().and_then(|filter| filter.older_than_ms).unwrap_or(0)
    }

    /// Tells whether the rule removes events of this kind, age apart.
    pub fn admits_event(&self, event_type: &str, level: Level, mode: Option<SeriesMode>) -> bool {
        let filter = self.event_filter.as_ref();
        filter.is_none_or(|filter| filter.admits(event_type, level, mode))
    }

    /// Tells whether the rule removes the whole task.
    pub fn removes_task(&self) -> bool {
        match self.target {
            CleanupTarget::All | CleanupTarget::Task => true,
            CleanupTarget::Events => false,
        }
    }
}

impl CleanupFilter {
    fn admits(&self, event_type: &str, level: Level, mode: Option<SeriesMode>) -> bool {
        self.types
            .as_ref()
            .is_none_or(|types| types.iter().any(|pattern| pattern.matches(event_type)))
            && self.levels.as_ref().is_none_or(|levels| levels.contains(&level))
            && self.series_mode.is_none_or(|wanted| mode == Some(wanted))
    }
}

/// Names a rule among those that hold for a task.
///
/// A rule of the configuration is named by a digest of what it says, so that
/// a changed rule is another one; a task's own by its position.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleKey(Arc<str>);

impl RuleKey {
    /// Names the rule of a task at `position`.
    pub fn of_task(position: usize) -> Self {
        Self(format!("t{position}").into())
    }

    /// Names a rule of the configuration.
    pub fn of_config(rule: &CleanupRule) -> Self {
        let said = serde_json::to_string(rule).unwrap_or_default();
        Self(format!("c{:016x}", fnv1a(said.as_bytes())).into())
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The rules of the configuration, with their names.
#[derive(Debug, Clone, Default)]
pub struct CleanupRules {
    rules: Vec<(RuleKey, CleanupRule)>,
}

impl CleanupRules {
    /// Takes the rules of the configuration.
    pub fn new(rules: Vec<CleanupRule>) -> Self {
        let mut named: Vec<(RuleKey, CleanupRule)> = Vec::with_capacity(rules.len());
        for rule in rules {
            let key = RuleKey::of_config(&rule);
            if named.iter().all(|(known, _)| *known != key) {
                named.push((key, rule));
            }
        }
        Self { rules: named }
    }

    /// Tells whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns a number that changes with what the rules say; 0 without rules.
    pub fn digest(&self) -> u64 {
        let mut keys: Vec<&str> = self.rules.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        if keys.is_empty() { 0 } else { fnv1a(keys.join(",").as_bytes()).max(1) }
    }

    /// Returns the rules that hold for a task that ended like this, with when
    /// they first fall due, Unix milliseconds.
    pub fn due<'a>(
        &'a self,
        own: &'a [CleanupRule],
        task_type: Option<&'a str>,
        status: TaskStatus,
        completed_at_ms: u64,
    ) -> impl Iterator<Item = (RuleKey, u64)> + 'a {
        let own = own.iter().enumerate().map(|(at, rule)| (RuleKey::of_task(at), rule));
        let configured = self.rules.iter().map(|(key, rule)| (key.clone(), rule));
        own.chain(configured)
            .filter(move |(_, rule)| rule.applies(task_type, status))
            .map(move |(key, rule)| (key, rule.due_at_ms(completed_at_ms)))
    }

    /// Returns the rule of that name, `None` when it is no more.
    pub fn find<'a>(&'a self, own: &'a [CleanupRule], key: &str) -> Option<&'a CleanupRule> {
        match key.strip_prefix('t').and_then(|position| position.parse::<usize>().ok()) {
            Some(position) => own.get(position),
            None => {
                self.rules.iter().find(|(known, _)| known.as_str() == key).map(|(_, rule)| rule)
            }
        }
    }
}

/// FNV-1a: small, and the same in every version.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> CleanupRule {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_rule_is_about_finished_tasks_of_its_types_and_ends() {
        let every = rule(r#"{"target":"all"}"#);
        assert!(every.applies(None, TaskStatus::Timeout));
        assert!(!every.applies(None, TaskStatus::Running));
        let some = rule(r#"{"target":"task","match":{"taskTypes":["llm.*"],"status":["failed"]}}"#);
        assert!(some.applies(Some("llm.x"), TaskStatus::Failed));
        assert!(!some.applies(Some("llm.x"), TaskStatus::Completed));
        assert!(!some.applies(Some("other"), TaskStatus::Failed));
        assert!(!some.applies(None, TaskStatus::Failed));
    }

    #[test]
    fn events_without_a_mode_match_no_filter_on_modes() {
        let latest = rule(r#"{"target":"events","eventFilter":{"seriesMode":"latest"}}"#);
        assert!(latest.admits_event("a", Level::Info, Some(SeriesMode::Latest)));
        assert!(!latest.admits_event("a", Level::Info, Some(SeriesMode::Accumulate)));
        assert!(!latest.admits_event("a", Level::Info, None));
    }

    #[test]
    fn a_rule_that_says_something_else_is_another_rule() {
        let (one, two) = (rule(r#"{"target":"all"}"#), rule(r#"{"target":"events"}"#));
        let rules = CleanupRules::new(vec![one.clone(), two.clone(), one.clone()]);
        let due: Vec<_> =
            rules.due(std::slice::from_ref(&two), None, TaskStatus::Failed, 5).collect();
        assert_eq!(due.len(), 3);
        assert_eq!(due[0], (RuleKey::of_task(0), 5));
        assert_eq!(rules.find(&[], RuleKey::of_config(&two).as_str()), Some(&two));
        assert_eq!(rules.find(std::slice::from_ref(&one), "t0"), Some(&one));
        assert_eq!(rules.find(&[], "t0"), None);
        assert_ne!(rules.digest(), CleanupRules::new(vec![one]).digest());
        assert_eq!(CleanupRules::default().digest(), 0);
    }
}
