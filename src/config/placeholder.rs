//! `${NAME}` placeholders in the string values of a configuration file.
//!
//! They are replaced after the file was parsed, one string at a time, so a
//! variable can change a value but never the structure around it. A name
//! without a value is an error: an empty secret or a literal `${SECRET}` would
//! be accepted by whatever reads it next.

/// A string with its placeholders replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expanded {
    /// The whole value was one placeholder, so its type is still open.
    Untyped(String),
    /// The value is text, with or without placeholders in it.
    Text(String),
}

/// The reason a string cannot be expanded, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlaceholderError {
    /// A placeholder names a variable that has no value.
    #[error(
        "`${{{0}}}` names a variable that is not set; set it, or allow it to be empty with `${{{0}:-}}`"
    )]
    Unset(String),
    /// A placeholder has no closing brace.
    #[error("a `${{` has no closing brace; write `$${{` for the two characters themselves")]
    Unclosed,
    /// The text between the braces is not a variable name.
    #[error(
        "a placeholder needs the form `${{NAME}}` or `${{NAME:-default}}`; write `$${{` for the two characters themselves"
    )]
    Malformed,
}

/// Replaces the placeholders of one string.
///
/// An empty variable counts as a value where there is no default, and as none
/// where there is one, like in a shell.
pub(super) fn expand(
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Expanded, PlaceholderError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            expanded.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let end = after.find('}').ok_or(PlaceholderError::Unclosed)?;
            let value = lookup(&after[..end], &variable)?;
            rest = &after[end + 1..];
            let is_whole = rest.is_empty() && text.starts_with("${") && text.len() == end + 3;
            if is_whole {
                return Ok(Expanded::Untyped(value));
            }
            expanded.push_str(&value);
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    Ok(Expanded::Text(expanded))
}

/// Finds the value of what stands between the braces.
fn lookup(
    inside: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, PlaceholderError> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(PlaceholderError::Malformed);
    }
    match (variable(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(PlaceholderError::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8080".to_owned()),
            "HOST" => Some("db".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("a: b\n${HOST}".to_owned()),
            _ => None,
        }
    }

    fn text(value: &str) -> Expanded {
        Expanded::Text(value.to_owned())
    }

    fn untyped(value: &str) -> Expanded {
        Expanded::Untyped(value.to_owned())
    }

    #[test]
    fn placeholders_inside_text_are_replaced() {
        let expanded = expand("postgres://${HOST}:${PORT}/x", variable).unwrap();
        assert_eq!(expanded, text("postgres://db:8080/x"));
    }

    #[test]
    fn a_value_that_is_one_placeholder_has_no_type_yet() {
        assert_eq!(expand("${PORT}", variable).unwrap(), untyped("8080"));
        assert_eq!(expand("${NONE:-5}", variable).unwrap(), untyped("5"));
        assert_eq!(expand("${PORT}${PORT}", variable).unwrap(), text("80808080"));
        assert_eq!(expand(" ${PORT}", variable).unwrap(), text(" 8080"));
    }

    #[test]
    fn a_default_stands_in_for_an_unset_or_empty_variable() {
        assert_eq!(expand("${NONE:-x:-y}", variable).unwrap(), untyped("x:-y"));
        assert_eq!(expand("${NONE:-}", variable).unwrap(), untyped(""));
        assert_eq!(expand("${EMPTY:-x}", variable).unwrap(), untyped("x"));
        assert_eq!(expand("${HOST:-x}", variable).unwrap(), untyped("db"));
        assert_eq!(expand("${EMPTY}", variable).unwrap(), untyped(""));
    }

    #[test]
    fn an_unset_variable_is_an_error_that_prints_the_spelling_with_a_default() {
        let error = expand("x-${NONE}", variable).unwrap_err();
        assert_eq!(error, PlaceholderError::Unset("NONE".to_owned()));
        assert!(error.to_string().contains("`${NONE:-}`"), "{error}");
    }

    #[test]
    fn a_doubled_dollar_is_a_literal_placeholder() {
        assert_eq!(expand("$${PORT}", variable).unwrap(), text("${PORT}"));
        assert_eq!(expand("$$${PORT}", variable).unwrap(), text("$${PORT}"));
    }

    #[test]
    fn a_dollar_without_a_brace_is_itself() {
        assert_eq!(expand("a$b$", variable).unwrap(), text("a$b$"));
        assert_eq!(expand("$$", variable).unwrap(), text("$$"));
        assert_eq!(expand("", variable).unwrap(), text(""));
    }

    #[test]
    fn what_a_variable_holds_is_not_expanded_again() {
        assert_eq!(expand("${TRICK}", variable).unwrap(), untyped("a: b\n${HOST}"));
    }

    #[test]
    fn malformed_placeholders_are_errors() {
        assert_eq!(expand("${PORT", variable), Err(PlaceholderError::Unclosed));
        for text in ["${}", "${:-x}", "${A B}", "${1A}", "${A:+x}"] {
            assert_eq!(expand(text, variable), Err(PlaceholderError::Malformed), "{text}");
        }
    }
}
