//! What a value may be: the form each kind of key takes, in words for the
//! reference and for refusals, and as a check.
//!
//! Refusals say what is expected. What was found instead is named by its kind
//! only, since it could be a secret under the wrong key.

use std::fmt;

use figment::value::{Num, Value};

use super::address::{HttpUrl, is_dsn};
use crate::domain::{AllowedTarget, TypePattern, WebhookSecret};

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number within bounds.
    Number(u64, u64),
    /// A number from 0 to 1.
    Fraction,
    /// True or false.
    Switch,
    /// Any text.
    Text,
    /// One of some names.
    Name(&'static [&'static str]),
    /// Text that is never shown.
    Secret,
    /// Such text that signs webhooks.
    SigningKey,
    /// Path of a file.
    File,
    /// URL of a store, which may hold a password. What it must begin with
    /// depends on the store.
    StoreUrl,
    /// URL of a service.
    HttpUrl,
    /// DSN of a Sentry project.
    Dsn,
    /// An origin, or all of them.
    Origin,
    /// A type of tasks or events, or a pattern.
    Pattern,
    /// A host, an address or a range of addresses.
    Target,
    /// A list.
    List(&'static Kind),
    /// One of something, or a list.
    OneOrMany(&'static Kind),
    /// A list of sections.
    Items,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number(least, u64::MAX) => {
                return write!(f, "a whole number of {least} or more");
            }
            Self::Number(least, most) => {
                return write!(f, "a whole number from {least} to {most}");
            }
            Self::Name(names) => return write!(f, "one of {}", list(names)),
            Self::List(entry) => return write!(f, "a list, each entry {entry}"),
            Self::OneOrMany(entry) => return write!(f, "{entry}, or a list of such"),
            Self::Fraction => "a number from 0 to 1",
            Self::Switch => "true or false",
            Self::Text => "text",
            Self::Secret => "secret text",
            Self::SigningKey => "secret text, base64 if it begins with `whsec_`",
            Self::File => "the path of a file",
            Self::StoreUrl => "a postgres:// URL",
            Self::HttpUrl => "an http:// or https:// URL",
            Self::Dsn => "a DSN such as `https://key@sentry.example.com/1`",
            Self::Origin => "`*` or an origin such as `https://app.example.com`",
            Self::Pattern => "a type such as `llm.chat` or a pattern such as `llm.*`",
            Self::Target => "a host name, an address or a range such as `10.0.0.0/8`",
            Self::Items => "a list of sections",
        })
    }
}

impl Kind {
    /// Tells whether a value may hold a secret, so that it may be given as a
    /// file and is masked when shown.
    pub(super) fn may_hold_a_secret(self) -> bool {
        match self {
            Self::Secret | Self::SigningKey | Self::StoreUrl | Self::HttpUrl | Self::Dsn => true,
            Self::List(entry) | Self::OneOrMany(entry) => entry.may_hold_a_secret(),
            Self::Number(..)
            | Self::Fraction
            | Self::Switch
            | Self::Text
            | Self::Name(_)
            | Self::File
            | Self::Origin
            | Self::Pattern
            | Self::Target
            | Self::Items => false,
        }
    }

    /// Gives a text from outside a file its type. Text that does not fit stays
    /// text, and is refused by name later.
    ///
    /// # Errors
    ///
    /// Returns why a list is not valid JSON, without quoting it.
    pub(super) fn typed(self, text: String) -> Result<Value, String> {
        let parsed = match self {
            Self::Number(..) => text.parse::<u64>().ok().map(Value::from),
            Self::Fraction => text.parse::<f64>().ok().map(Value::from),
            Self::Switch => text.parse::<bool>().ok().map(Value::from),
            Self::List(_) | Self::OneOrMany(_) | Self::Items if text.starts_with('[') => {
                let list = serde_json::from_str(&text);
                Some(list.map_err(|error| format!("not valid JSON: {error}"))?)
            }
            _ => None,
        };
        Ok(parsed.unwrap_or_else(|| Value::from(text)))
    }

    /// Checks a value that is no list, and brings numbers to one form.
    ///
    /// # Errors
    ///
    /// Returns what was expected.
    pub(super) fn check(self, value: Value) -> Result<Value, String> {
        let is_fine = match (self, &value) {
            (Self::Number(least, most), Value::Num(_, number)) => {
                let whole = number.to_u128_lossy().and_then(|number| u64::try_from(number).ok());
                let fits = whole.filter(|whole| (least..=most).contains(whole));
                return fits
                    .map(Value::from)
                    .ok_or_else(|| format!("expected {self}, found `{}`", spelled(*number)));
            }
            (Self::Fraction, Value::Num(_, number)) => {
                let fits = fraction(*number).filter(|fraction| (0.0..=1.0).contains(fraction));
                return fits
                    .map(Value::from)
                    .ok_or_else(|| format!("expected {self}, found `{}`", spelled(*number)));
            }
            (Self::Name(names), Value::String(_, text)) => {
                if !names.contains(&text.as_str()) {
                    return Err(unknown_name(text, names));
                }
                true
            }
            (Self::Switch, Value::Bool(..)) => true,
            (Self::Number(..) | Self::Fraction | Self::Switch | Self::Items | Self::List(_), _) => {
                false
            }
            (_, Value::String(_, text)) => self.accepts(text),
            (_, _) => false,
        };
        if is_fine { Ok(value) } else { Err(format!("expected {self}, found {}", found(&value))) }
    }

    /// Tells whether a text has the form of this kind.
    fn accepts(self, text: &str) -> bool {
        match self {
            Self::HttpUrl => HttpUrl::parse(text).is_some(),
            Self::Dsn => is_dsn(text),
            Self::Origin => text == "*" || is_origin(text),
            Self::Pattern => is_pattern(text),
            Self::SigningKey => WebhookSecret::new(text).is_well_formed(),
            Self::Target => AllowedTarget::parse(text).is_some(),
            _ => true,
        }
    }
}

/// Returns a number as a fraction. Whole numbers count when they are small
/// enough to mean one.
fn fraction(number: Num) -> Option<f64> {
    let whole = number.to_u128_lossy().and_then(|whole| u8::try_from(whole).ok());
    number.to_f64().or_else(|| whole.map(f64::from))
}

/// Tells whether a text can equal what a browser sends as `Origin`. One that
/// cannot, such as a URL with a trailing slash, would never let anybody in.
fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@', ' '])
    })
}

/// Tells whether a text is a pattern that some type can match.
fn is_pattern(text: &str) -> bool {
    let fits_a_type = text.len() <= 255 && !text.contains(|c: char| c == ',' || c.is_control());
    fits_a_type && TypePattern::parse(text).is_ok()
}

fn unknown_name(text: &str, names: &[&str]) -> String {
    // A slip of the pen is worth showing; what looks like anything else is not.
    let is_word = text.len() <= 16 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let found = if is_word { format!("`{text}`") } else { "the text".to_owned() };
    format!("{found} is not one of {}", list(names))
}

fn spelled(number: Num) -> String {
    match (number.to_u128(), number.to_i128(), number.to_f64()) {
        (Some(number), _, _) => number.to_string(),
        (_, Some(number), _) => number.to_string(),
        (_, _, Some(number)) => number.to_string(),
        (None, None, None) => "a number".to_owned(),
    }
}

/// Names what was found in place of something else.
pub(super) fn found(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "text that is not",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a section",
        Value::Array(..) => "a list",
    }
}

/// Writes names as `a`, `b`, `c`.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_gets_the_type_of_its_key() {
        let typed = |kind: Kind, text: &str| kind.typed(text.to_owned());
        assert_eq!(typed(Kind::Number(0, 9), "8"), Ok(Value::from(8_u64)));
        assert_eq!(typed(Kind::Number(0, 9), "x"), Ok(Value::from("x")));
        assert_eq!(typed(Kind::Switch, "true"), Ok(Value::from(true)));
        assert_eq!(typed(Kind::Fraction, "0.5"), Ok(Value::from(0.5)));
        assert_eq!(typed(Kind::Text, "8"), Ok(Value::from("8")));
        assert_eq!(typed(Kind::Secret, "[8]"), Ok(Value::from("[8]")));
        let origins = Kind::OneOrMany(&Kind::Origin);
        assert_eq!(typed(origins, "*"), Ok(Value::from("*")));
        assert_eq!(typed(origins, r#"["a"]"#), Ok(Value::from(vec!["a"])));
        let error = typed(origins, "[canary").unwrap_err();
        assert!(error.contains("not valid JSON") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn numbers_are_whole_and_within_their_bounds() {
        let kind = Kind::Number(1, 10);
        assert_eq!(kind.check(Value::from(3_i64)), Ok(Value::from(3_u64)));
        for number in [Value::from(0), Value::from(11), Value::from(-1), Value::from(1.5)] {
            let error = kind.check(number).unwrap_err();
            assert!(error.contains("from 1 to 10"), "{error}");
        }
        let error = Kind::Number(1, u64::MAX).check(Value::from(0)).unwrap_err();
        assert!(error.contains("1 or more"), "{error}");
    }

    #[test]
    fn a_fraction_may_be_written_as_a_whole_number() {
        assert_eq!(Kind::Fraction.check(Value::from(1_u8)), Ok(Value::from(1.0)));
        assert_eq!(Kind::Fraction.check(Value::from(0.25)), Ok(Value::from(0.25)));
        for number in [Value::from(2), Value::from(-0.1), Value::from(f64::NAN)] {
            assert!(Kind::Fraction.check(number).is_err());
        }
    }

    #[test]
    fn what_was_found_is_shown_only_where_it_is_a_word() {
        let kind = Kind::Name(&["info", "warn"]);
        assert!(kind.check(Value::from("lodu")).unwrap_err().starts_with("`lodu` is not one of"));
        let error = kind.check(Value::from("postgres://u:canary@h")).unwrap_err();
        assert!(!error.contains("canary"), "{error}");
        for kind in [Kind::HttpUrl, Kind::Dsn, Kind::Target, Kind::Switch, Kind::Number(0, 1)] {
            let error = kind.check(Value::from("canary canary")).unwrap_err();
            assert!(error.starts_with("expected ") && !error.contains("canary"), "{error}");
        }
        let error = Kind::Secret.check(Value::from(424_242)).unwrap_err();
        assert!(!error.contains("424242"), "{error}");
    }

    #[test]
    fn an_origin_is_scheme_and_host_only() {
        assert!(is_origin("https://app.example.com"));
        assert!(is_origin("http://localhost:5173"));
        for text in ["https://app.example.com/", "app.example.com", "https://", "null"] {
            assert!(!is_origin(text), "{text}");
        }
    }

    #[test]
    fn a_pattern_must_be_able_to_match() {
        for text in ["*", "llm.*", "llm.chat"] {
            assert!(is_pattern(text), "{text}");
        }
        for text in ["llm*", "a,b", "a\nb", &"x".repeat(256)] {
            assert!(!is_pattern(text), "{text}");
        }
    }
}
