//! Taking requests apart: path, query and body.
//!
//! axum's own extractors answer in texts and codes of their own; these answer
//! in ours. Nothing here looks inside a body beyond its length and declared
//! type: reading fields is the work of [`wire`](super::wire).

use std::borrow::Cow;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};

use super::AppState;
use super::auth::Caller;
use super::bodies::{BodyPace, HeldBytes};
use super::error::{ApiError, ErrorCode};
use crate::domain::{Action, IdempotencyKey, TaskId};

/// The task a path names.
///
/// Handlers ask for the id only after the rest of the request was found well
/// formed, so that an impossible id is answered like an unknown one.
#[derive(Debug)]
pub struct TaskPath(Option<TaskId>);

impl TaskPath {
    /// Returns the id; an impossible one is a task that does not exist.
    pub fn id(self) -> Result<TaskId, ApiError> {
        self.0.ok_or_else(ApiError::task_not_found)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TaskPath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        // Bytes that are no text make no id either.
        let Ok(params) = RawPathParams::from_request_parts(parts, state).await else {
            return Ok(Self(None));
        };
        let id = params.iter().find(|(name, _)| *name == "id");
        Ok(Self(id.and_then(|(_, text)| TaskId::parse(text).ok())))
    }
}

/// Most entries of any list in a query string.
const LIST_ENTRIES: usize = 100;

/// The parameters of a query string.
///
/// Names a route does not ask for are never looked at.
#[derive(Debug, Clone)]
pub struct Query(Option<PathAndQuery>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.uri.path_and_query().cloned()))
    }
}

impl Query {
    /// Returns the undecoded values of `name`, in order.
    fn raw<'q>(&'q self, name: &str) -> impl DoubleEndedIterator<Item = &'q str> {
        let query = self.0.as_ref().and_then(PathAndQuery::query).unwrap_or_default();
        query.split('&').filter_map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // A name that cannot be decoded is a name no route knows.
            (decode(key).as_deref() == Some(name)).then_some(value)
        })
    }

    fn decoded<'q>(&self, name: &str, value: &'q str) -> Result<Cow<'q, str>, ApiError> {
        decode(value).ok_or_else(|| {
            self.invalid(name, "is not percent-encoded UTF-8; encode % itself as %25")
        })
    }

    /// Makes the error for a value of `name` that `problem` completes to a sentence.
    pub fn invalid(&self, name: &str, problem: &str) -> ApiError {
        ApiError::invalid(format!("/query/{name}"), format!("query parameter {name} {problem}"))
    }

    /// Returns every value of `name`, in order.
    pub fn all(&self, name: &str) -> Result<Vec<Cow<'_, str>>, ApiError> {
        Self::bounded(name, self.raw(name).count())?;
        self.raw(name).map(|value| self.decoded(name, value)).collect()
    }

    /// Refuses a list of too many entries. Every entry costs each row or event
    /// that a reader looks at.
    fn bounded(name: &str, entries: usize) -> Result<(), ApiError> {
        if entries <= LIST_ENTRIES {
            return Ok(());
        }
        let message = format!("query parameter {name} is limited to {LIST_ENTRIES} entries");
        Err(ApiError::new(ErrorCode::LimitExceeded, message)
            .at(format!("/query/{name}"))
            .over(LIST_ENTRIES as u64))
    }

    /// Returns the value of `name`; of several the last.
    pub fn last(&self, name: &str) -> Result<Option<Cow<'_, str>>, ApiError> {
        self.raw(name).next_back().map(|value| self.decoded(name, value)).transpose()
    }

    /// Returns what `parse` makes of each entry of the comma list `name`.
    ///
    /// Empty entries do not count, so an empty list is none. `problem`
    /// completes the sentence about an entry that does not parse.
    pub fn list<T>(
        &self,
        name: &str,
        problem: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ApiError> {
        let value = self.last(name)?.unwrap_or_default();
        let entries = || value.split(',').filter(|entry| !entry.is_empty());
        Self::bounded(name, entries().count())?;
        entries().map(|entry| parse(entry).ok_or_else(|| self.invalid(name, problem))).collect()
    }

    /// Returns the whole number `name` if it is there; it must lie in `range`.
    pub fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.last(name)? else { return Ok(None) };
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let (least, most) = (range.start(), range.end());
                let problem = if *most == i64::MAX {
                    format!("must be a whole number of at least {least}")
                } else {
                    format!("must be a whole number from {least} to {most}")
                };
                Err(self.invalid(name, &problem))
            }
        }
    }

    /// Returns the truth value `name` if it is there.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.last(name)?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.invalid(name, "must be true or false")),
        }
    }
}

/// Decodes a name or value of a query string; `None` when it is malformed.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => (hex_digit(bytes.next()?)? << 4) | hex_digit(bytes.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Longest `Idempotency-Key`, in bytes.
const IDEMPOTENCY_KEY_BYTES: usize = 255;

/// The `Idempotency-Key` of a request, if it has one.
#[derive(Debug)]
pub(super) struct Repeatable(Option<HeaderValue>);

impl<S: Send + Sync> FromRequestParts<S> for Repeatable {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let mut given = parts.headers.get_all("idempotency-key").iter();
        let (key, another) = (given.next(), given.next());
        let fits = |key: &HeaderValue| {
            (1..=IDEMPOTENCY_KEY_BYTES).contains(&key.len())
                && key.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        if another.is_some() || key.is_some_and(|key| !fits(key)) {
            let message = "Idempotency-Key must be 1 to 255 visible ASCII characters, given once";
            return Err(ApiError::invalid("/headers/Idempotency-Key", message));
        }
        Ok(Self(key.cloned()))
    }
}

impl Repeatable {
    /// Returns the key of this request on `route`, within what is the caller's.
    pub(super) fn key(
        &self,
        caller: &Caller,
        route: &str,
        task: Option<&TaskId>,
        body: &[u8],
    ) -> Option<IdempotencyKey> {
        let key = self.0.as_ref()?;
        // No part can hold a NUL, so the parts cannot run into each other.
        let parts = [
            Sha256::digest(caller.principal().identity()).as_slice(),
            route.as_bytes(),
            b"\0",
            task.map_or("", TaskId::as_str).as_bytes(),
            b"\0",
            key.as_bytes(),
        ]
        .concat();
        let (key, request) = (Sha256::digest(parts).into(), Sha256::digest(body).into());
        Some(IdempotencyKey { key, request })
    }
}

/// A request that brings a body, none of which was read yet.
///
/// Whoever may not send one hears so, too, which takes more than to answer:
/// most clients read the answer only once their body is written.
#[derive(Debug)]
pub(super) struct Submission {
    caller: Result<Caller, ApiError>,
    repeatable: Result<Repeatable, ApiError>,
    body: UnreadBody,
}

/// A request whose sender may send it.
#[derive(Debug)]
pub(super) struct Submitted {
    /// Who sent it.
    pub(super) caller: Caller,
    /// Its idempotency key.
    pub(super) repeatable: Repeatable,
    /// Its body, empty or declared as JSON, within the limit.
    pub(super) body: Bytes,
    /// Its share of what all bodies may take, given back with it.
    pub(super) held: HeldBytes,
}

#[derive(Debug)]
struct UnreadBody {
    body: Body,
    limit: usize,
    problem: Option<ApiError>,
    waits_for_go: bool,
    held: HeldBytes,
}

impl FromRequest<AppState> for Submission {
    type Rejection = Infallible;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, Infallible> {
        let (mut parts, body) = request.into_parts();
        let body = UnreadBody {
            limit: app.engine.limits().body_bytes,
            problem: problem_of(&parts.headers),
            held: HeldBytes::none(&app.bodies),
            waits_for_go: parts.headers.contains_key(header::EXPECT),
            body,
        };
        let caller = Caller::from_request_parts(&mut parts, app).await;
        let repeatable = Repeatable::from_request_parts(&mut parts, app).await;
        Ok(Self { caller, repeatable, body })
    }
}

impl Submission {
    /// Reads the body of a caller whose scopes allow `action`.
    pub(super) async fn accept(mut self, action: Action) -> Result<Submitted, ApiError> {
        let head = self.caller.and_then(|caller| {
            caller.allow(action)?;
            Ok((caller, self.repeatable?))
        });
        let read = match head {
            Err(refusal) => Err(refusal),
            Ok((caller, repeatable)) => {
                let read = self.body.read().await;
                let budget = HeldBytes::none(self.body.held.budget());
                let held = std::mem::replace(&mut self.body.held, budget);
                read.map(|body| Submitted { caller, repeatable, body, held })
            }
        };
        // One that waits for a go-ahead does not need the rest to be taken.
        if read.is_err() && !self.body.waits_for_go {
            drain(&mut self.body.body).await;
        }
        read
    }
}

impl UnreadBody {
    async fn read(&mut self) -> Result<Bytes, ApiError> {
        match self.problem.take() {
            None => read(&mut self.body, self.limit, &mut self.held).await,
            Some(problem) => read_nothing(&mut self.body, problem).await,
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = declared.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// Returns what is wrong with how a body is declared, if it is not empty.
fn problem_of(headers: &HeaderMap) -> Option<ApiError> {
    let unsupported = |message: String| ApiError::new(ErrorCode::UnsupportedMediaType, message);
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING) {
        let is_identity = encoding.as_bytes().eq_ignore_ascii_case(b"identity");
        if !is_identity {
            let message = "the body has a Content-Encoding, which is not supported; \
                           send it uncompressed, without that header";
            return Some(unsupported(message.to_owned()).at("/headers/Content-Encoding"));
        }
    }
    if is_json(headers) {
        return None;
    }
    let message = "send the body as JSON with the header Content-Type: application/json";
    Some(unsupported(message.to_owned()).at("/headers/Content-Type"))
}

async fn read(body: &mut Body, limit: usize, held: &mut HeldBytes) -> Result<Bytes, ApiError> {
    let too_large = || {
        let message = format!("the body is limited to {limit} bytes");
        ApiError::new(ErrorCode::PayloadTooLarge, message).over(limit as u64)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    let mut pace = BodyPace::begin();
    while let Some(data) = pace.next(next_data(body)).await? {
        pace.received(data.len());
        held.take(data.len())?;
        if whole.len() + joined.len() + data.len() > limit {
            return Err(too_large());
        }
        // A body that arrives in one piece, as small ones do, is not copied.
        if whole.is_empty() && joined.is_empty() {
            whole = data;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut whole));
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { whole } else { joined.freeze() })
}

/// Accepts a body without a single byte, whatever it is declared as.
async fn read_nothing(body: &mut Body, problem: ApiError) -> Result<Bytes, ApiError> {
    let pace = BodyPace::begin();
    while let Some(data) = pace.next(next_data(body)).await? {
        if !data.is_empty() {
            return Err(problem);
        }
    }
    Ok(Bytes::new())
}

async fn next_data(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            ApiError::new(ErrorCode::InvalidJson, "the body ended before it was complete")
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Takes the rest of a refused body, as far as that is reasonable.
async fn drain(body: &mut Body) {
    const MOST_BYTES: usize = 32 << 20;
    const LONGEST: Duration = Duration::from_secs(2);
    let rest = async {
        let mut taken = 0;
        while let Ok(Some(data)) = next_data(body).await {
            taken += data.len();
            if taken > MOST_BYTES {
                break;
            }
        }
    };
    // A client that goes on sending past this is cut off, answered or not.
    let _ = tokio::time::timeout(LONGEST, rest).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::bodies::BodyBudget;

    fn query(text: &str) -> Query {
        Query(Some(format!("/tasks?{text}").parse().unwrap()))
    }

    #[test]
    fn the_last_of_repeated_parameters_counts_and_all_are_kept_in_order() {
        let query = query("limit=1&tag=a&x=%zz&limit=2&tag=b%20c&tag=d+e");
        assert_eq!(query.last("limit").unwrap().unwrap(), "2");
        assert_eq!(query.all("tag").unwrap(), ["a", "b c", "d e"]);
        assert_eq!(query.last("cursor").unwrap(), None);
        assert_eq!(Query(None).last("limit").unwrap(), None);
    }

    #[test]
    fn a_value_that_is_not_percent_encoded_utf_8_is_refused_by_name() {
        for text in ["tag=%", "tag=%4", "tag=%4g", "tag=%ff", "t%61g=%ff"] {
            let error = query(text).all("tag").unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidRequest, "{text}");
            assert_eq!(error.path(), Some("/query/tag"), "{text}");
        }
    }

    #[test]
    fn numbers_outside_their_range_are_refused() {
        assert_eq!(query("n=-1").integer("n", -1..=i64::MAX).unwrap(), Some(-1));
        assert_eq!(query("").integer("n", 1..=5).unwrap(), None);
        for text in ["n=", "n", "n=0", "n=6", "n=1.0", "n=x", "n=99999999999999999999"] {
            let error = query(text).integer("n", 1..=5).unwrap_err();
            assert_eq!(error.path(), Some("/query/n"), "{text}");
            assert!(error.message().contains("from 1 to 5"), "{text}");
        }
    }

    #[test]
    fn lists_ignore_empty_entries_and_refuse_unknown_ones() {
        let parse = |entry: &str| (entry != "x").then(|| entry.to_owned());
        let list = |text: &str| query(text).list("l", "has an unknown entry", parse);
        assert_eq!(list("l=a,,b,").unwrap(), ["a", "b"]);
        assert_eq!(list("l=a%2Cb").unwrap(), ["a", "b"]);
        assert!(list("l=").unwrap().is_empty());
        assert_eq!(list("l=a,x").unwrap_err().path(), Some("/query/l"));
    }

    #[test]
    fn only_the_words_true_and_false_are_flags() {
        assert_eq!(query("f=true").flag("f").unwrap(), Some(true));
        assert_eq!(query("f=false").flag("f").unwrap(), Some(false));
        for text in ["f=", "f=1", "f=TRUE", "f=no"] {
            assert_eq!(query(text).flag("f").unwrap_err().path(), Some("/query/f"), "{text}");
        }
    }

    #[test]
    fn json_is_recognised_with_parameters_and_in_any_case() {
        let declared = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            is_json(&headers)
        };
        assert!(declared("application/json"));
        assert!(declared("Application/JSON ; charset=utf-8"));
        for other in ["text/plain", "application/jsonx", "application/merge-patch+json", ""] {
            assert!(!declared(other), "{other}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn a_body_past_the_limit_is_refused_with_the_limit_in_the_text() {
        let chunks = |sizes: &[usize]| {
            let chunks: Vec<_> = sizes
                .iter()
                .map(|size| Ok::<_, Infallible>(Bytes::from(vec![b' '; *size])))
                .collect();
            Body::from_stream(futures_util::stream::iter(chunks))
        };
        let mut held = HeldBytes::none(&Arc::new(BodyBudget::new(100)));
        assert_eq!(read(&mut chunks(&[3, 4, 3]), 10, &mut held).await.unwrap().len(), 10);
        for mut body in [chunks(&[3, 8]), Body::from(vec![0; 11])] {
            let error = read(&mut body, 10, &mut held).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
            assert!(error.message().contains("10 bytes"));
        }
    }

    #[tokio::test]
    async fn a_body_of_another_type_is_refused_unless_it_is_empty() {
        let problem = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
            headers.insert(name, value.parse().unwrap());
            problem_of(&headers)
        };
        assert!(problem(header::CONTENT_ENCODING, "identity").is_none());
        for (name, value) in
            [(header::CONTENT_TYPE, "text/plain"), (header::CONTENT_ENCODING, "gzip")]
        {
            let told = problem(name.clone(), value).unwrap();
            assert!(read_nothing(&mut Body::empty(), told.clone()).await.unwrap().is_empty());
            let error = read_nothing(&mut Body::from("{}"), told).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::UnsupportedMediaType);
            let path = format!("/headers/{name}");
            assert!(error.path().is_some_and(|told| told.eq_ignore_ascii_case(&path)), "{path}");
        }
    }
}
