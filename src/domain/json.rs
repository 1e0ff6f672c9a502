//! Payloads as JSON text that is never interpreted.
//!
//! What a caller sent comes back as sent: key order, duplicate keys, number
//! spelling and escapes stay; only whitespace between tokens goes. So a
//! payload is kept as text, and the few places that look inside (the text
//! field of a series) scan it instead of parsing it into values.
//!
//! Every function here expects text that a JSON parser accepted before.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;
use serde::de::IgnoredAny;

/// A JSON value as compact text.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Arc<str>);

impl Json {
    /// The JSON value `null`.
    pub fn null() -> Self {
        Self("null".into())
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    ///
    /// Fails for what JSON cannot say, a map whose keys are not strings for
    /// example.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Self> {
        serde_json::to_string(value).map(Self::from_compact)
    }

    /// Takes JSON text from somewhere, dropping whitespace between tokens.
    ///
    /// # Errors
    ///
    /// Fails when the text is not JSON.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str::<IgnoredAny>(text).map(|_| Self::from_valid(text))
    }

    /// Takes text that a JSON parser accepted, dropping whitespace between tokens.
    pub fn from_valid(text: &str) -> Self {
        if has_whitespace_outside_strings(text) {
            Self(compact(text).into())
        } else {
            Self(text.into())
        }
    }

    /// Takes text that is known to be valid and compact.
    pub fn from_compact(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether the value is an object.
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.0.len())
    }
}

const fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Returns the position just past the string that opens at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn has_whitespace_outside_strings(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at),
            byte if is_whitespace(byte) => return true,
            _ => at += 1,
        }
    }
    false
}

fn compact(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'"' => string_end(bytes, at),
            byte if is_whitespace(byte) => {
                at += 1;
                continue;
            }
            _ => bytes[at..]
                .iter()
                .position(|byte| is_whitespace(*byte) || *byte == b'"')
                .map_or(bytes.len(), |run| at + run),
        };
        out.push_str(&text[at..end]);
        at = end;
    }
    out
}

/// Returns how deep arrays and objects nest in `text`; a scalar has depth 0.
pub fn depth(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut open, mut deepest) = (0, 0usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => {
                open += 1;
                deepest = deepest.max(open);
            }
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// Finds the value of member `name` of a compact object.
///
/// Of duplicate names the last counts, as in every JavaScript client.
/// Returns `None` when `object` is no object or has no such member.
pub fn member(object: &str, name: &str) -> Option<Range<usize>> {
    let bytes = object.as_bytes();
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let (mut at, mut found) = (1, None);
    while at < bytes.len() && bytes[at] == b'"' {
        let key_end = string_end(bytes, at);
        let value = key_end + 1..value_end(bytes, key_end + 1);
        if is_spelled(&object[at..key_end], name) {
            found = Some(value.clone());
        }
        // Past the comma, or past the closing brace, which ends the loop.
        at = value.end + 1;
    }
    found
}

/// Tells whether the quoted JSON string `quoted` spells `name`.
fn is_spelled(quoted: &str, name: &str) -> bool {
    let body = &quoted[1..quoted.len() - 1];
    if body.contains('\\') {
        serde_json::from_str::<String>(quoted).is_ok_and(|decoded| decoded == name)
    } else {
        body == name
    }
}

fn value_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut open) = (start, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = string_end(bytes, at);
                if open == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => open += 1,
            b'}' | b']' | b',' if open == 0 => return at,
            b'}' | b']' => {
                open -= 1;
                if open == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    at
}

/// Returns the text between the quotes of a JSON string, undecoded.
pub fn string_body(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// Returns `object` with member `name` set to the string of undecoded body `body`.
///
/// An object without the member gets it appended; any other value is replaced
/// by an object with that one member, so that no text is ever lost.
pub fn with_string_member(object: &str, name: &str, body: &str) -> String {
    let mut out = String::with_capacity(object.len() + body.len() + name.len() + 8);
    if let Some(value) = member(object, name) {
        out.push_str(&object[..value.start]);
        push_quoted_body(&mut out, body);
        out.push_str(&object[value.end..]);
        return out;
    }
    match object.strip_suffix('}') {
        Some(open) if object.starts_with('{') => {
            out.push_str(open);
            if open.len() > 1 {
                out.push(',');
            }
        }
        _ => out.push('{'),
    }
    push_string(&mut out, name);
    out.push(':');
    push_quoted_body(&mut out, body);
    out.push('}');
    out
}

fn push_quoted_body(out: &mut String, body: &str) {
    out.push('"');
    out.push_str(body);
    out.push('"');
}

/// Appends `text` to `out` as a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut clean_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[clean_from..at]);
        if escape.is_empty() {
            out.push_str("\\u00");
            out.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            out.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        } else {
            out.push_str(escape);
        }
        clean_from = at + 1;
    }
    out.push_str(&text[clean_from..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whitespace_between_tokens_is_dropped() {
        let sent =
            " {\n \"b\" : [1.0 ,\t1e400,\"a \\\" b\"] , \"a\":{ } ,\"a\" : \"\\u0000\\ud800\" }\r";
        let kept = r#"{"b":[1.0,1e400,"a \" b"],"a":{},"a":"\u0000\ud800"}"#;
        assert_eq!(Json::from_valid(sent).as_str(), kept);
        assert_eq!(Json::from_valid(kept).as_str(), kept);
    }

    #[test]
    fn depth_counts_open_brackets_outside_strings() {
        for (text, expected) in
            [("1", 0), ("[]", 1), (r#"{"a":[[{"b":"[[["}]]}"#, 4), (r#""[""#, 0)]
        {
            assert_eq!(depth(text), expected, "{text}");
        }
    }

    #[test]
    fn a_member_is_found_by_its_decoded_name_and_the_last_duplicate_counts() {
        let object = r#"{"x":[{"text":"no"}],"te\u0078t":"one","y":-1.5e3,"text":"two","z":{}}"#;
        assert_eq!(&object[member(object, "text").unwrap()], r#""two""#);
        assert_eq!(&object[member(object, "y").unwrap()], "-1.5e3");
        assert_eq!(&object[member(object, "z").unwrap()], "{}");
        assert_eq!(member(object, "w"), None);
        assert_eq!(member("{}", "w"), None);
        assert_eq!(member("[1]", "w"), None);
        let escaped = r#"{"te\u0078t":"one"}"#;
        assert_eq!(&escaped[member(escaped, "text").unwrap()], r#""one""#);
    }

    #[test]
    fn setting_a_string_member_replaces_appends_or_wraps() {
        assert_eq!(
            with_string_member(r#"{"a":1,"t":"x","b":2}"#, "t", r"y\n"),
            r#"{"a":1,"t":"y\n","b":2}"#
        );
        assert_eq!(with_string_member(r#"{"a":1}"#, "t", "y"), r#"{"a":1,"t":"y"}"#);
        assert_eq!(with_string_member("{}", "t", "y"), r#"{"t":"y"}"#);
        assert_eq!(with_string_member("null", "t", "y"), r#"{"t":"y"}"#);
    }

    #[test]
    fn values_are_written_and_text_is_checked() {
        assert_eq!(Json::of(&[1, 2]).unwrap().as_str(), "[1,2]");
        assert_eq!(Json::parse(r#" {"a": 1.0, "a": 2} "#).unwrap().as_str(), r#"{"a":1.0,"a":2}"#);
        for wrong in ["", "{", "{} {}", "a", "[1,]"] {
            assert!(Json::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pushed_strings_are_valid_json() {
        let text = "a\"b\\c\n\u{1}é\u{7f}";
        let mut out = String::new();
        push_string(&mut out, text);
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }
}
