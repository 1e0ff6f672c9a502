//! Cleanup rules, once as they are written and once as they are meant.

use taskcast::domain::{CleanupRule, CleanupRules, Level, SeriesMode, TaskStatus};

use super::draft::{Draft, fits};

/// What a rule says.
#[derive(Debug, Clone, Default)]
pub(super) struct Rule {
    written: &'static str,
    task_type: Option<&'static str>,
    status: Option<TaskStatus>,
    types: Option<&'static str>,
    levels: &'static [Level],
    mode: Option<SeriesMode>,
    pub(super) removes_task: bool,
    /// Its time does not come while the test runs.
    pub(super) is_distant: bool,
}

impl Rule {
    fn written(written: &'static str) -> Self {
        Self { written, ..Self::default() }
    }

    /// Returns the rule as a store takes it.
    pub(super) fn sent(&self) -> CleanupRule {
        serde_json::from_str(self.written).unwrap()
    }

    /// Tells whether the rule is about tasks of a type that ended like this.
    pub(super) fn applies(&self, task_type: Option<&str>, status: TaskStatus) -> bool {
        let type_fits = self.task_type.is_none_or(|p| task_type.is_some_and(|kind| fits(p, kind)));
        type_fits && self.status.is_none_or(|wanted| wanted == status)
    }

    /// Tells whether the rule takes an event.
    pub(super) fn admits(&self, draft: &Draft) -> bool {
        self.types.is_none_or(|pattern| fits(pattern, draft.kind))
            && (self.levels.is_empty() || self.levels.contains(&draft.level))
            && (self.mode.is_none() || draft.series().map(|(_, mode)| mode) == self.mode)
    }
}

/// The rules of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuleSet {
    None,
    Types,
    LevelsAndFailed,
    Latest,
    Accumulate,
    Jobs,
    Events,
    Later,
    Old,
}

impl RuleSet {
    pub(super) const ALL: [Self; 9] = [
        Self::None,
        Self::Types,
        Self::LevelsAndFailed,
        Self::Latest,
        Self::Accumulate,
        Self::Jobs,
        Self::Events,
        Self::Later,
        Self::Old,
    ];

    /// Returns the rules.
    pub(super) fn rules(self) -> &'static [Rule] {
        use std::sync::LazyLock;
        static SETS: LazyLock<Vec<Vec<Rule>>> =
            LazyLock::new(|| RuleSet::ALL.into_iter().map(RuleSet::made).collect());
        &SETS[self as usize]
    }

    fn made(self) -> Vec<Rule> {
        match self {
            Self::None => Vec::new(),
            Self::Types => vec![Rule {
                types: Some("llm.*"),
                ..Rule::written(r#"{"target":"events","eventFilter":{"types":["llm.*"]}}"#)
            }],
            Self::LevelsAndFailed => vec![
                Rule {
                    levels: &[Level::Debug, Level::Warn],
                    ..Rule::written(
                        r#"{"target":"events","eventFilter":{"levels":["debug","warn"]}}"#,
                    )
                },
                Rule {
                    status: Some(TaskStatus::Failed),
                    removes_task: true,
                    ..Rule::written(r#"{"target":"task","match":{"status":["failed"]}}"#)
                },
            ],
            Self::Latest => vec![Rule {
                mode: Some(SeriesMode::Latest),
                ..Rule::written(r#"{"target":"events","eventFilter":{"seriesMode":"latest"}}"#)
            }],
            Self::Accumulate => vec![Rule {
                mode: Some(SeriesMode::Accumulate),
                ..Rule::written(r#"{"target":"events","eventFilter":{"seriesMode":"accumulate"}}"#)
            }],
            Self::Jobs => vec![Rule {
                task_type: Some("job.*"),
                removes_task: true,
                ..Rule::written(r#"{"target":"all","match":{"taskTypes":["job.*"]}}"#)
            }],
            Self::Events => vec![Rule::written(r#"{"target":"events"}"#)],
            Self::Later => vec![Rule {
                is_distant: true,
                ..Rule::written(r#"{"target":"all","trigger":{"afterMs":86400000}}"#)
            }],
            Self::Old => vec![Rule {
                is_distant: true,
                ..Rule::written(r#"{"target":"events","eventFilter":{"olderThanMs":86400000}}"#)
            }],
        }
    }

    /// Returns the rules as a store takes them.
    pub(super) fn sent(self) -> CleanupRules {
        CleanupRules::new(self.rules().iter().map(Rule::sent).collect())
    }
}

/// A rule a task brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    Notes,
    Cancelled,
}

impl Own {
    pub(super) const ALL: [Self; 2] = [Self::Notes, Self::Cancelled];

    /// Returns the rule.
    pub(super) fn rule(self) -> Rule {
        match self {
            Self::Notes => Rule {
                types: Some("note"),
                ..Rule::written(r#"{"target":"events","eventFilter":{"types":["note"]}}"#)
            },
            Self::Cancelled => Rule {
                status: Some(TaskStatus::Cancelled),
                removes_task: true,
                ..Rule::written(r#"{"target":"task","match":{"status":["cancelled"]}}"#)
            },
        }
    }
}
