//! A task's own cleanup rules on the wire.

use super::fields::{Field, Place, fields};
use super::lists::{each, levels, patterns, words};
use crate::domain::{
    CleanupFilter, CleanupMatch, CleanupRule, CleanupTarget, CleanupTrigger, SeriesMode, TaskStatus,
};
use crate::http::error::ApiError;

/// Most rules of a task.
const MOST_RULES: usize = 20;

/// Longest time a rule may wait or go back, in milliseconds: ten years.
const LONGEST_MS: u64 = 315_360_000_000;

/// Reads a task's rules: `{"rules": […]}`.
pub(super) fn read_cleanup(cleanup: &Field<'_>) -> Result<Option<Vec<CleanupRule>>, ApiError> {
    let Some([rules]) = cleanup.fields(["rules"])? else { return Ok(None) };
    rules.required(each(&rules, MOST_RULES, read_rule)?).map(Some)
}

fn read_rule(item: &str) -> Result<CleanupRule, ApiError> {
    if !item.starts_with('{') {
        return Err(ApiError::invalid("", "a rule must be an object"));
    }
    let [name, applies_to, trigger, target, event_filter] =
        fields(item, Place::Body, ["name", "match", "trigger", "target", "eventFilter"])?;
    let known = CleanupTarget::ALL.into_iter().map(CleanupTarget::as_str);
    let rule = CleanupRule {
        name: name.label()?,
        applies_to: read_match(&applies_to)?,
        trigger: read_trigger(&trigger)?,
        target: target.required(target.word(CleanupTarget::parse, known)?)?,
        event_filter: read_filter(&event_filter)?,
    };
    if event_filter.is_present() && rule.removes_task() {
        return Err(event_filter.invalid("needs the target events"));
    }
    Ok(rule)
}

fn read_match(field: &Field<'_>) -> Result<Option<CleanupMatch>, ApiError> {
    let Some([task_types, status]) = field.fields(["taskTypes", "status"])? else {
        return Ok(None);
    };
    let terminal = |word: &str| TaskStatus::parse(word).filter(|status| status.is_terminal());
    let problem = "one of completed, failed, timeout, cancelled";
    Ok(Some(CleanupMatch {
        task_types: patterns(&task_types)?,
        status: words(&status, terminal, problem)?,
    }))
}

fn read_trigger(field: &Field<'_>) -> Result<Option<CleanupTrigger>, ApiError> {
    let Some([after]) = field.fields(["afterMs"])? else { return Ok(None) };
    Ok(Some(CleanupTrigger { after_ms: after.whole_number(0..=LONGEST_MS)? }))
}

fn read_filter(field: &Field<'_>) -> Result<Option<CleanupFilter>, ApiError> {
    let names = ["types", "levels", "olderThanMs", "seriesMode"];
    let Some([types, wanted, older_than, series_mode]) = field.fields(names)? else {
        return Ok(None);
    };
    let modes = SeriesMode::ALL.into_iter().map(SeriesMode::as_str);
    Ok(Some(CleanupFilter {
        types: patterns(&types)?,
        levels: levels(&wanted)?,
        older_than_ms: older_than.whole_number(0..=LONGEST_MS)?,
        series_mode: series_mode.word(SeriesMode::parse, modes)?,
    }))
}

/// Appends a task's rules to `out`.
pub(super) fn write_cleanup(out: &mut String, rules: &[CleanupRule]) {
    out.push_str("{\"rules\":");
    // Strings, numbers and names are always written.
    out.push_str(&serde_json::to_string(rules).unwrap_or_default());
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::ErrorCode;

    fn read(cleanup: &str) -> Result<Option<Vec<CleanupRule>>, ApiError> {
        let object = format!(r#"{{"cleanup":{cleanup}}}"#);
        let [field] = fields(&object, Place::Body, ["cleanup"]).unwrap();
        read_cleanup(&field)
    }

    #[test]
    fn rules_are_read_with_everything_they_may_have_and_shown_again() {
        for rules in [
            r#"{"rules":[]}"#,
            r#"{"rules":[{"target":"all"},{"target":"task"}]}"#,
            r#"{"rules":[{"name":"n","match":{"taskTypes":["llm.*"],"status":["failed"]},"trigger":{"afterMs":5},"target":"events","eventFilter":{"types":["a"],"levels":["debug"],"olderThanMs":7,"seriesMode":"accumulate"}}]}"#,
        ] {
            let mut shown = String::new();
            write_cleanup(&mut shown, &read(rules).unwrap().unwrap());
            assert_eq!(shown, rules);
        }
        assert!(read("null").unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_pointed_at() {
        let of_rule = |rule: &str| format!(r#"{{"rules":[{{"target":"task"}},{rule}]}}"#);
        for (bad, path) in [
            ("[]".to_owned(), "/cleanup"),
            ("{}".to_owned(), "/cleanup/rules"),
            (r#"{"rules":{}}"#.to_owned(), "/cleanup/rules"),
            (of_rule("7"), "/cleanup/rules/1"),
            (of_rule("{}"), "/cleanup/rules/1/target"),
            (of_rule(r#"{"target":"everything"}"#), "/cleanup/rules/1/target"),
            (of_rule(r#"{"target":"task","name":7}"#), "/cleanup/rules/1/name"),
            (of_rule(r#"{"target":"task","match":[]}"#), "/cleanup/rules/1/match"),
            (
                of_rule(r#"{"target":"task","match":{"taskTypes":["a*"]}}"#),
                "/cleanup/rules/1/match/taskTypes/0",
            ),
            (
                of_rule(r#"{"target":"task","match":{"status":["failed","running"]}}"#),
                "/cleanup/rules/1/match/status/1",
            ),
            (
                of_rule(r#"{"target":"task","trigger":{"afterMs":-1}}"#),
                "/cleanup/rules/1/trigger/afterMs",
            ),
            (of_rule(r#"{"target":"all","eventFilter":{}}"#), "/cleanup/rules/1/eventFilter"),
            (of_rule(r#"{"target":"task","eventFilter":{}}"#), "/cleanup/rules/1/eventFilter"),
            (
                of_rule(r#"{"target":"events","eventFilter":{"levels":["fatal"]}}"#),
                "/cleanup/rules/1/eventFilter/levels/0",
            ),
            (
                of_rule(r#"{"target":"events","eventFilter":{"olderThanMs":"5"}}"#),
                "/cleanup/rules/1/eventFilter/olderThanMs",
            ),
            (
                of_rule(r#"{"target":"events","eventFilter":{"seriesMode":"newest"}}"#),
                "/cleanup/rules/1/eventFilter/seriesMode",
            ),
        ] {
            let error = read(&bad).unwrap_err();
            assert_eq!(
                (error.code(), error.path()),
                (ErrorCode::InvalidRequest, Some(path)),
                "{bad}"
            );
        }
        let many = vec![r#"{"target":"all"}"#; 21].join(",");
        let error = read(&format!(r#"{{"rules":[{many}]}}"#)).unwrap_err();
        assert_eq!(
            (error.code(), error.path()),
            (ErrorCode::LimitExceeded, Some("/cleanup/rules"))
        );
    }
}
