//! `cleanup`: what is removed of tasks that have ended, and when.

use figment::Figment;
use serde::{Deserialize, Serialize};

use super::document::{parsed, understood};
use super::error::ConfigError;
use super::layer::refuse;
use crate::domain::{
    CleanupFilter, CleanupMatch, CleanupRule, CleanupTarget, CleanupTrigger, Level, SeriesMode,
    TaskStatus, TypePattern,
};

/// Cleanup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupSettings {
    /// The rules, as listed.
    pub rules: Vec<CleanupRule>,
    /// Milliseconds between two looks for what has fallen due.
    pub interval_ms: u64,
}

/// `cleanup` as written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct CleanupSection {
    pub(super) rules: Vec<RuleSection>,
    interval_ms: u64,
}

impl Default for CleanupSection {
    fn default() -> Self {
        Self { rules: Vec::new(), interval_ms: 2000 }
    }
}

/// One of `cleanup.rules` as written.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RuleSection {
    name: Option<String>,
    #[serde(rename = "match")]
    matches: MatchSection,
    trigger: TriggerSection,
    target: Option<String>,
    event_filter: EventFilterSection,
}

/// `match` of a rule as written.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct MatchSection {
    task_types: Vec<String>,
    status: Vec<String>,
}

/// `trigger` of a rule as written.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TriggerSection {
    after_ms: u64,
}

/// `eventFilter` of a rule as written.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct EventFilterSection {
    types: Vec<String>,
    levels: Vec<String>,
    older_than_ms: Option<u64>,
    series_mode: Option<String>,
}

/// Turns what was written into what is meant.
pub(super) fn resolve(
    figment: &Figment,
    section: CleanupSection,
) -> Result<CleanupSettings, ConfigError> {
    let rules = section.rules.into_iter().enumerate().map(|(position, written)| {
        if written.event_filter != EventFilterSection::default()
            && written.target.as_deref() != Some("events")
        {
            let key = format!("cleanup.rules[{position}].eventFilter");
            let reason = "chooses among events, so the target must be `events`";
            return Err(refuse(figment, &key, reason));
        }
        rule(written)
    });
    Ok(CleanupSettings {
        rules: rules.collect::<Result<_, _>>()?,
        interval_ms: section.interval_ms,
    })
}

fn rule(written: RuleSection) -> Result<CleanupRule, ConfigError> {
    let pattern = |text: &str| TypePattern::parse(text).ok();
    let target = understood(written.target.as_deref().and_then(CleanupTarget::parse))?;
    let (types, statuses) = (&written.matches.task_types, &written.matches.status);
    let applies_to = CleanupMatch {
        task_types: (!types.is_empty()).then(|| parsed(types, pattern)).transpose()?,
        status: (!statuses.is_empty()).then(|| parsed(statuses, TaskStatus::parse)).transpose()?,
    };
    let filter = &written.event_filter;
    let series_mode = filter.series_mode.as_deref();
    let event_filter = CleanupFilter {
        types: (!filter.types.is_empty()).then(|| parsed(&filter.types, pattern)).transpose()?,
        levels: (!filter.levels.is_empty())
            .then(|| parsed(&filter.levels, Level::parse))
            .transpose()?,
        older_than_ms: filter.older_than_ms,
        series_mode: series_mode.map(|name| understood(SeriesMode::parse(name))).transpose()?,
    };
    Ok(CleanupRule {
        name: written.name.map(Into::into),
        applies_to: (applies_to != CleanupMatch::default()).then_some(applies_to),
        trigger: Some(CleanupTrigger { after_ms: Some(written.trigger.after_ms) }),
        target,
        event_filter: (event_filter != CleanupFilter::default()).then_some(event_filter),
    })
}

#[cfg(test)]
mod tests {
    use super::super::keys::TARGETS;
    use super::super::tests::Setup;
    use super::*;

    #[test]
    fn every_target_in_the_table_is_understood() {
        for target in TARGETS {
            let written =
                RuleSection { target: Some((*target).to_owned()), ..RuleSection::default() };
            assert!(rule(written).is_ok(), "{target}");
        }
    }

    #[test]
    fn the_rules_of_the_original_are_read() {
        let setup = Setup::new().yaml(
            "
cleanup:
  rules:
    - match: { taskTypes: [\"llm.*\"] }
      trigger: { afterMs: 3600000 }
      target: events
      eventFilter: { levels: [debug] }
    - name: week
      match: { status: [failed, timeout] }
      trigger: { afterMs: 604800000 }
      target: all
    - target: task
",
        );
        let cleanup = setup.load().cleanup;
        assert_eq!((cleanup.rules.len(), cleanup.interval_ms), (3, 2000));
        let meant = [
            r#"{"match":{"taskTypes":["llm.*"]},"trigger":{"afterMs":3600000},"target":"events","eventFilter":{"levels":["debug"]}}"#,
            r#"{"name":"week","match":{"status":["failed","timeout"]},"trigger":{"afterMs":604800000},"target":"all"}"#,
            r#"{"trigger":{"afterMs":0},"target":"task"}"#,
        ];
        let read: Vec<_> =
            cleanup.rules.iter().map(|rule| serde_json::to_string(rule).unwrap()).collect();
        assert_eq!(read, meant);
    }

    #[test]
    fn rules_may_come_as_json() {
        let json = r#"[{"target":"events","eventFilter":{"seriesMode":"latest","olderThanMs":5}}]"#;
        let cleanup = Setup::new().env(&[("TASKCAST_CLEANUP__RULES", json)]).load().cleanup;
        let filter = cleanup.rules[0].event_filter.as_ref().unwrap();
        assert_eq!(filter.series_mode, Some(SeriesMode::Latest));
        assert_eq!(filter.older_than_ms, Some(5));
    }

    #[test]
    fn bad_rules_are_refused_by_their_path() {
        for (rule, path) in [
            ("target: events, match: { status: [running] }", "[1].match.status[0]`"),
            ("target: events, match: { taskTypes: [a, \"b*\"] }", "[1].match.taskTypes[1]`"),
            ("target: events, eventFilter: { levels: [loud] }", "[1].eventFilter.levels[0]`"),
            ("target: events, eventFilter: { types: [\"*x\"] }", "[1].eventFilter.types[0]`"),
            ("target: events, eventFilter: { seriesMode: all }", "[1].eventFilter.seriesMode`"),
            ("target: all, eventFilter: { levels: [debug] }", "[1].eventFilter`"),
            ("target: none", "[1].target`"),
            ("name: x", "[1].target`"),
            ("target: all, trigger: { afterMs: -1 }", "[1].trigger.afterMs`"),
            ("target: all, trigger: { after: 1 }", "[1].trigger.after`"),
        ] {
            let yaml = format!("cleanup: {{ rules: [{{ target: all }}, {{ {rule} }}] }}");
            let path = format!("`cleanup.rules{path}");
            Setup::new().yaml(&yaml).refused(&["taskcast.config.yaml", &path]);
        }
        Setup::new().yaml("cleanup: { intervalMs: 5001 }").refused(&["from 100 to 5000"]);
    }
}
