//! The reference of every key, as it stands in the documentation.
//!
//! It is printed from the same table that files and variables are checked
//! against, so the page cannot promise what the program does not read.

use std::fmt::Write as _;

use figment::value::Value;

use super::document;
use super::env::names_of;
use super::error::ConfigError;
use super::keys::{KEYS, Key};
use super::kind::Kind;

/// What stands before the reference in a page.
const BEGIN: &str = "<!-- reference: begin -->";

/// What stands after it.
const END: &str = "<!-- reference: end -->";

/// Returns the reference as Markdown: a heading and a table for each section.
///
/// # Errors
///
/// Fails when the defaults cannot be written, which is a fault of the program.
pub fn reference() -> Result<String, ConfigError> {
    let defaults = document::written_out()?;
    let mut text = String::new();
    let mut last = None;
    for key in KEYS {
        let section = key.path.split_once('.').map_or("General", |(section, _)| section);
        if last != Some(section) {
            // Writing to a string does not fail.
            write!(text, "\n### {section}\n\n{HEAD}").ok();
            last = Some(section);
        }
        text.push_str(&row(key, &defaults));
    }
    Ok(text.trim_start().to_owned())
}

const HEAD: &str =
    "| Key | Variable | Value | Default | Meaning |\n| --- | --- | --- | --- | --- |\n";

fn row(key: &Key, defaults: &Value) -> String {
    let variables: Vec<String> = names_of(key).iter().map(|name| format!("`{name}`")).collect();
    let secret = if key.may_hold_a_secret() && !key.is_in_a_list() { "; `_FILE`" } else { "" };
    format!(
        "| `{}` | {}{secret} | {} | {} | {} |\n",
        key.path,
        variables.join(", "),
        value(key.kind),
        default(key, defaults),
        key.meaning
    )
}

/// Words what a key may hold, without the article of a sentence.
fn value(kind: Kind) -> String {
    let text = kind.to_string();
    let without = ["a ", "an ", "the "].iter().find_map(|article| text.strip_prefix(article));
    without.unwrap_or(&text).to_owned()
}

fn default(key: &Key, defaults: &Value) -> String {
    if key.is_required {
        return "required".to_owned();
    }
    let mut found = Some(defaults);
    for name in key.path.split('.') {
        let inner = found.and_then(|value| value.as_dict()?.get(name.trim_end_matches("[]")));
        found = match inner {
            Some(Value::Array(_, items)) if name.ends_with("[]") => items.first(),
            other => other,
        };
    }
    match found.map(serde_json::to_value) {
        Some(Ok(serde_json::Value::String(text))) => format!("`{text}`"),
        Some(Ok(value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_)))) => {
            format!("`{value}`")
        }
        // Nothing, an empty list, or the element that shows what a list holds.
        _ => String::new(),
    }
}

/// Replaces the reference within a page; `None` when the page has no place
/// for it.
///
/// # Errors
///
/// Fails like [`reference()`].
pub fn update_reference(page: &str) -> Result<Option<String>, ConfigError> {
    let reference = reference()?;
    let replaced = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}\n\n{reference}\n{END}{after}"))
    });
    Ok(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_variable_range_default_and_meaning() {
        let reference = reference().unwrap();
        for row in [
            "### General\n\n| Key |",
            "| `limits.tags` | `TASKCAST_LIMITS__TAGS` | whole number from 1 to 10000 | `100` | Tags of a task. |",
            "| `sentry.dsn` | `SENTRY_DSN`, `TASKCAST_SENTRY__DSN`; `_FILE` |",
            "| `webhook.endpoints[].url` |  | http:// or https:// URL | required |",
            "| `webhook.endpoints[].wrap` |  | true or false | `true` |",
            "| `auth.jwt.algorithm` | `TASKCAST_JWT_ALGORITHM`, `TASKCAST_AUTH__JWT__ALGORITHM` | one of `HS256`",
        ] {
            assert!(reference.contains(row), "`{row}` is not in:\n{reference}");
        }
    }

    #[test]
    fn a_page_without_a_place_for_it_is_left_alone() {
        assert_eq!(update_reference("nothing").unwrap(), None);
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let updated = update_reference(&page).unwrap().unwrap();
        assert!(updated.starts_with("a\n") && updated.ends_with("\nb\n"), "{updated}");
        assert!(!updated.contains("\nold\n") && updated.contains("`port`"), "{updated}");
        assert_eq!(update_reference(&updated).unwrap(), Some(updated));
    }
}
