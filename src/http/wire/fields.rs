//! Reads the members of a JSON object that a route knows.
//!
//! A member's value stays the text it was sent as until a getter gives it a
//! meaning. Of members with one name the last counts; `null` is like no
//! member; unknown members are skipped unseen. What a store or a reader could
//! not carry (NUL, lone surrogates) is refused by the getters of decoded text
//! and kept by the getters of payloads.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub(in crate::http) use crate::domain::is_label;
use crate::domain::{Json, is_type, json};
use crate::http::error::{ApiError, ErrorCode};

/// The object a member belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// The body itself.
    Body,
    /// An element of the array that the body is.
    Element(usize),
    /// The object that a member of the body is.
    Member(&'static str),
}

impl Place {
    /// Returns the JSON pointer of the member `name`.
    fn member(self, name: &str) -> String {
        match self {
            Self::Body => format!("/{name}"),
            Self::Element(position) => format!("/{position}/{name}"),
            Self::Member(parent) => format!("/{parent}/{name}"),
        }
    }
}

/// One known member of an object, if it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    place: Place,
    name: &'static str,
    text: Option<&'a str>,
}

/// Returns the text of a body.
pub(super) fn body_text(body: &[u8]) -> Result<&str, ApiError> {
    std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::new(ErrorCode::InvalidJson, format!("the body is not UTF-8 at byte {at}"))
    })
}

/// Tells whether JSON text begins like an object or an array.
pub(super) fn begins_with(text: &str, bracket: char) -> bool {
    text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with(bracket)
}

/// Returns the error for a body that is not the kind of JSON a route takes.
///
/// A body that is no JSON at all is told so.
pub(super) fn wrong_kind(text: &str, expected: &'static str) -> ApiError {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => ApiError::new(ErrorCode::InvalidRequest, expected),
        Err(error) => invalid_json(text, &error),
    }
}

fn invalid_json(text: &str, error: &serde_json::Error) -> ApiError {
    let message = if text.is_empty() {
        Cow::Borrowed("the body is empty; send JSON")
    } else {
        // The parser names what it expected and where, never what it found.
        Cow::Owned(format!("the body is not valid JSON: {error}"))
    };
    ApiError::new(ErrorCode::InvalidJson, message)
}

/// Reads the members `names` of an object.
pub(super) fn fields<'a, const N: usize>(
    object: &'a str,
    place: Place,
    names: [&'static str; N],
) -> Result<[Field<'a>; N], ApiError> {
    let mut found = [None; N];
    let mut parser = serde_json::Deserializer::from_str(object);
    let reader = ObjectReader { names: &names, found: &mut found };
    parser
        .deserialize_map(reader)
        .and_then(|()| parser.end())
        .map_err(|error| invalid_json(object, &error))?;
    Ok(std::array::from_fn(|at| Field {
        place,
        name: names[at],
        text: found[at].filter(|text| *text != "null"),
    }))
}

/// Reads the elements of an array: all of them, or one more than `limit`.
pub(super) fn elements(array: &str, limit: usize) -> Result<Vec<&str>, ApiError> {
    let mut parser = serde_json::Deserializer::from_str(array);
    parser
        .deserialize_seq(ArrayReader { limit })
        .and_then(|elements| parser.end().map(|()| elements))
        .map_err(|error| invalid_json(array, &error))
}

struct ObjectReader<'n, 'f, 'a> {
    names: &'n [&'static str],
    found: &'f mut [Option<&'a str>],
}

impl<'de> Visitor<'de> for ObjectReader<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(known) = map.next_key_seed(KnownName(self.names))? {
            match known {
                Some(at) => self.found[at] = Some(map.next_value::<&RawValue>()?.get()),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Finds a member's name among the known ones.
///
/// It is read as bytes: an unknown name need not be text that Rust can hold.
struct KnownName<'n>(&'n [&'static str]);

impl<'de> DeserializeSeed<'de> for KnownName<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_bytes(self)
    }
}

impl Visitor<'_> for KnownName<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| known.as_bytes() == name))
    }
}

struct ArrayReader {
    limit: usize,
}

impl<'de> Visitor<'de> for ArrayReader {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() <= self.limit {
            match array.next_element::<&RawValue>()? {
                Some(element) => elements.push(element.get()),
                None => return Ok(elements),
            }
        }
        // The rest is not kept, but still has to be JSON.
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(elements)
    }
}

impl<'a> Field<'a> {
    /// Returns the member's name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the member's JSON pointer.
    pub(super) fn path(&self) -> String {
        self.place.member(self.name)
    }

    /// Makes the error for this member; `problem` completes the sentence.
    pub(super) fn invalid(&self, problem: &str) -> ApiError {
        ApiError::invalid(self.path(), format!("{} {problem}", self.name))
    }

    /// Tells whether the member was sent and is not `null`.
    pub(super) fn is_present(&self) -> bool {
        self.text.is_some()
    }

    /// Returns the length of the text as sent, in bytes.
    pub(super) fn sent_bytes(&self) -> usize {
        self.text.map_or(0, str::len)
    }

    /// Returns the text as sent.
    pub(super) fn sent(&self) -> Option<&'a str> {
        self.text
    }

    /// Returns the value of a member that must be there.
    pub(super) fn required<T>(&self, value: Option<T>) -> Result<T, ApiError> {
        value.ok_or_else(|| self.invalid("is required"))
    }

    /// Returns a string that a store can hold.
    pub(super) fn string(&self) -> Result<Option<Cow<'a, str>>, ApiError> {
        self.text.map(|text| string(text).map_err(|problem| self.invalid(problem))).transpose()
    }

    /// Returns a name: 1 to 255 bytes without control characters.
    pub(super) fn label(&self) -> Result<Option<Arc<str>>, ApiError> {
        self.checked(is_label, "must be a string of 1 to 255 bytes without control characters")
    }

    /// Returns a type: a name without `,` and `*`.
    pub(super) fn event_type(&self) -> Result<Option<Arc<str>>, ApiError> {
        let problem =
            "must be a string of 1 to 255 bytes without control characters, commas and asterisks";
        self.checked(is_type, problem)
    }

    fn checked(
        &self,
        is_valid: fn(&str) -> bool,
        problem: &str,
    ) -> Result<Option<Arc<str>>, ApiError> {
        match self.string()? {
            None => Ok(None),
            Some(text) if is_valid(&text) => Ok(Some(text.as_ref().into())),
            Some(_) => Err(self.invalid(problem)),
        }
    }

    /// Returns an array of names; more than `limit` of them are refused.
    pub(super) fn labels(&self, limit: usize) -> Result<Option<Vec<Arc<str>>>, ApiError> {
        let Some(text) = self.text else { return Ok(None) };
        if !text.starts_with('[') {
            return Err(self.invalid("must be an array of strings"));
        }
        let elements = elements(text, limit)?;
        if elements.len() > limit {
            let message = format!("{} is limited to {limit} entries", self.name);
            return Err(ApiError::new(ErrorCode::LimitExceeded, message)
                .at(self.path())
                .over(limit as u64));
        }
        let label = |(position, element): (usize, &str)| {
            let text = string(element).ok().filter(|text| is_label(text));
            text.map(|text| Arc::from(text.as_ref())).ok_or_else(|| {
                ApiError::invalid(
                    format!("{}/{position}", self.path()),
                    format!(
                        "each of {} must be a string of 1 to 255 bytes without control characters",
                        self.name
                    ),
                )
            })
        };
        elements.into_iter().enumerate().map(label).collect::<Result<_, _>>().map(Some)
    }

    /// Returns what `parse` makes of one of a few known words.
    pub(super) fn word<T>(
        &self,
        parse: fn(&str) -> Option<T>,
        known: impl Iterator<Item = &'static str>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text else { return Ok(None) };
        let word = string(text).ok().and_then(|word| parse(&word));
        word.map(Some).ok_or_else(|| {
            let known: Vec<_> = known.collect();
            self.invalid(&format!("must be one of {}", known.join(", ")))
        })
    }

    /// Returns a whole number in `range`, however it is spelled.
    pub(super) fn whole_number(&self, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text else { return Ok(None) };
        whole_number(text).filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.invalid(&format!("must be a whole number from {least} to {most}"))
        })
    }

    /// Returns a payload of any kind, nested no deeper than `nesting`.
    pub(super) fn payload(&self, nesting: usize) -> Result<Option<Json>, ApiError> {
        let Some(text) = self.text else { return Ok(None) };
        // Each level takes two brackets, so short text needs no counting.
        if text.len() / 2 > nesting && json::depth(text) > nesting {
            let message = format!("{} nests deeper than {nesting} levels", self.name);
            return Err(ApiError::new(ErrorCode::LimitExceeded, message)
                .at(self.path())
                .over(nesting as u64));
        }
        Ok(Some(Json::from_valid(text)))
    }

    /// Returns a payload that is an object.
    pub(super) fn object(&self, nesting: usize) -> Result<Option<Json>, ApiError> {
        match self.text {
            Some(text) if !text.starts_with('{') => Err(self.invalid("must be an object")),
            _ => self.payload(nesting),
        }
    }

    /// Returns the members `names` of a member that is an object.
    pub(super) fn fields<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<Option<[Self; N]>, ApiError> {
        match self.text {
            None => Ok(None),
            Some(text) if text.starts_with('{') => {
                fields(text, Place::Member(self.name), names).map(Some)
            }
            Some(_) => Err(self.invalid("must be an object")),
        }
    }
}

/// Decodes a JSON string; the error completes a sentence about its owner.
pub(super) fn string(text: &str) -> Result<Cow<'_, str>, &'static str> {
    let Some(body) = json::string_body(text) else {
        return Err("must be a string");
    };
    if !body.contains('\\') {
        return Ok(Cow::Borrowed(body));
    }
    match serde_json::from_str::<String>(text) {
        Ok(decoded) if decoded.contains('\0') => Err("must not contain the character U+0000"),
        Ok(decoded) => Ok(Cow::Owned(decoded)),
        Err(_) => Err("must not contain a lone surrogate"),
    }
}

/// Reads a JSON number without a fractional part, as in `60`, `60.0` or `6e1`.
fn whole_number(text: &str) -> Option<u64> {
    /// Whole numbers past this may differ from what was sent.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let number: f64 = serde_json::from_str(text).ok()?;
    if number.fract() == 0.0 && (0.0..=EXACT).contains(&number) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole and within 0..=2^53"
        )]
        return Some(number as u64);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one<'a>(object: &'a str, name: &'static str) -> Field<'a> {
        let [field] = fields(object, Place::Body, [name]).unwrap();
        field
    }

    #[test]
    fn of_duplicates_the_last_counts_and_null_is_absent() {
        assert_eq!(one(r#"{"a":1,"b":2,"a" : [3] }"#, "a").sent(), Some("[3]"));
        assert_eq!(one(r#"{"a":1,"a":null}"#, "a").sent(), None);
        assert_eq!(one(r#"{"a":null,"a":1}"#, "a").sent(), Some("1"));
        assert_eq!(one(r#"{"\u0061":1}"#, "a").sent(), Some("1"));
    }

    #[test]
    fn unknown_members_are_skipped_whatever_their_names_and_values() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let object = format!(r#"{{"\ud800":"\udfff","\u0000":1e400,"deep":{deep},"a":true}}"#);
        assert_eq!(one(&object, "a").sent(), Some("true"));
    }

    #[test]
    fn malformed_json_is_told_with_its_position() {
        for text in [
            "{",
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            "{}x",
            "{\"a\":\"\u{1}\"}",
            r#"{"a":"\x"}"#,
        ] {
            let error = fields(text, Place::Body, ["a"]).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidJson, "{text}");
            assert!(error.message().contains("line 1 column"), "{text}");
        }
        let empty = wrong_kind("", "");
        assert_eq!(
            (empty.code(), empty.message()),
            (ErrorCode::InvalidJson, "the body is empty; send JSON")
        );
        assert!(body_text(b"{\"a\":\"\xff\"}").unwrap_err().message().contains("byte 6"));
    }

    #[test]
    fn payloads_keep_every_spelling() {
        let object = r#"{"p": { "b" : 1.0, "a":1e400 , "a":"\u0000\ud800\/" } }"#;
        let payload = one(object, "p").object(64).unwrap().unwrap();
        assert_eq!(payload.as_str(), r#"{"b":1.0,"a":1e400,"a":"\u0000\ud800\/"}"#);
    }

    #[test]
    fn nesting_counts_the_payloads_own_brackets() {
        let nested =
            |levels: usize| format!(r#"{{"p":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(one(&nested(64), "p").payload(64).is_ok());
        let error = one(&nested(65), "p").payload(64).unwrap_err();
        assert_eq!((error.code(), error.path()), (ErrorCode::LimitExceeded, Some("/p")));
        assert!(error.message().contains("64"));
    }

    #[test]
    fn strings_that_no_store_can_hold_are_refused() {
        assert_eq!(one(r#"{"s":"a\né\ud83d\ude00"}"#, "s").string().unwrap().unwrap(), "a\né😀");
        for text in [
            r#"{"s":1}"#,
            r#"{"s":["a"]}"#,
            r#"{"s":"\u0000"}"#,
            r#"{"s":"\ud800"}"#,
            r#"{"s":"\udc00x"}"#,
        ] {
            assert_eq!(one(text, "s").string().unwrap_err().path(), Some("/s"), "{text}");
        }
    }

    #[test]
    fn names_have_a_length_and_no_control_characters() {
        let field = |value: &str| format!(r#"{{"s":"{value}"}}"#);
        for good in ["a", "ä b/*,", &"x".repeat(255)] {
            assert!(one(&field(good), "s").label().is_ok(), "{good}");
        }
        for bad in ["", r"a\u0001", r"\u007f", r"\u0085", &"x".repeat(256), &"ä".repeat(128)] {
            assert!(one(&field(bad), "s").label().is_err(), "{bad}");
        }
        for bad in ["a*", "a,b", ""] {
            assert!(one(&field(bad), "s").event_type().is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_of_names_point_at_the_entry_at_fault() {
        let tags = |text: &'static str| one(text, "tags").labels(2);
        assert_eq!(tags(r#"{"tags":["a","\u0062"]}"#).unwrap().unwrap(), ["a".into(), "b".into()]);
        assert!(tags(r#"{"tags":[]}"#).unwrap().unwrap().is_empty());
        assert_eq!(tags(r#"{"tags":["a",1]}"#).unwrap_err().path(), Some("/tags/1"));
        assert_eq!(tags(r#"{"tags":["\u0000"]}"#).unwrap_err().path(), Some("/tags/0"));
        assert_eq!(tags(r#"{"tags":"a"}"#).unwrap_err().path(), Some("/tags"));
        let error = tags(r#"{"tags":["a","b","c",{}]}"#).unwrap_err();
        assert_eq!((error.code(), error.path()), (ErrorCode::LimitExceeded, Some("/tags")));
    }

    #[test]
    fn whole_numbers_may_be_spelled_in_any_way() {
        for (text, expected) in
            [("60", Some(60)), ("60.0", Some(60)), ("6e1", Some(60)), ("1", Some(1))]
        {
            assert_eq!(whole_number(text), expected, "{text}");
        }
        for bad in
            ["0", "-1", "1.5", "101", "1e400", "\"60\"", "true", "99999999999999999999", "{}"]
        {
            let object = format!(r#"{{"n":{bad}}}"#);
            let error = one(&object, "n").whole_number(1..=100).unwrap_err();
            assert_eq!(error.path(), Some("/n"), "{bad}");
            assert!(error.message().contains("from 1 to 100"));
        }
    }

    #[test]
    fn members_of_members_have_their_own_pointers() {
        let error = one(r#"{"error":{"message":7}}"#, "error");
        let [message] = error.fields(["message"]).unwrap().unwrap();
        assert_eq!(message.string().unwrap_err().path(), Some("/error/message"));
        assert!(one(r#"{"error":"x"}"#, "error").fields(["message"]).is_err());
        let [field] = fields(r#"{"type":1}"#, Place::Element(3), ["type"]).unwrap();
        assert_eq!(field.path(), "/3/type");
    }

    #[test]
    fn an_array_is_read_to_its_end_even_past_the_limit() {
        assert_eq!(elements(" [1, {} ,\"a\"] ", 5).unwrap(), ["1", "{}", "\"a\""]);
        assert_eq!(elements("[1,2,3,4]", 2).unwrap().len(), 3);
        assert_eq!(elements("[1,2,3,4,]", 2).unwrap_err().code(), ErrorCode::InvalidJson);
    }
}
