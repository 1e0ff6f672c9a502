//! Events as a measurement knows them: what it publishes, and what it reads of
//! answers and frames.
//!
//! Every event carries a number of its own and the instant it was sent, both
//! spelled in sixteen digits, so that a prepared request is changed in place and
//! read back without parsing. What looks different from what this server sends
//! is parsed as JSON, which is slower and comes to the same.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::chunked::Malformed;

/// Type of the events that are published.
pub(super) const EVENT_TYPE: &str = "bench.delta";

/// Keeps numbers in sixteen digits.
const BASE: u64 = 1_000_000_000_000_000;

/// Digits of a number in a payload.
const DIGITS: usize = 16;

/// What stands before the number in a payload.
const NUMBER: &[u8] = b"\"data\":{\"n\":";

/// What stands between the number and the instant.
const INSTANT: &[u8] = b",\"t\":";

/// Finds the number. Made once: making it costs more than using it.
static FIND_NUMBER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NUMBER));

/// Finds where the next event of an answer begins.
static FIND_NEXT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"},{\"id\":\""));

/// Length of an event's id.
const ID_BYTES: usize = 26;

/// An event's id.
pub(super) type Id = [u8; ID_BYTES];

/// What the payload of one of our events says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Unique within the run.
    pub(super) number: u64,
    /// When it was sent, in microseconds of the run's clock.
    pub(super) sent: u64,
}

/// A place in a log and who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: u64,
    pub(super) id: Id,
}

/// Returns a number that stands for an event at its place; sums of them are
/// equal when the events are.
pub(super) fn digest(place: &Place, number: u64) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&place.id[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let mut hash = place.index;
    // The last three overlap, which costs nothing and covers all 26 bytes.
    for word in [word(0), word(8), word(16), word(ID_BYTES - 8), number] {
        hash = (hash.rotate_left(27) ^ word).wrapping_mul(FACTOR);
    }
    hash ^ (hash >> 29)
}

/// Writes a number over the sixteen digits at a place of a request.
pub(super) fn put(bytes: &mut [u8], at: usize, number: u64) {
    let mut left = BASE + number % BASE;
    for byte in bytes[at..at + DIGITS].iter_mut().rev() {
        *byte = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

/// Returns an event to be published, whose number and instant are 0.
pub(super) fn event(text: &str, series: Option<(&str, &str)>) -> String {
    let series = series
        .map_or(String::new(), |(id, mode)| format!(r#","seriesId":"{id}","seriesMode":"{mode}""#));
    format!(r#"{{"type":"{EVENT_TYPE}","data":{{"n":{BASE},"t":{BASE},"text":"{text}"}}{series}}}"#)
}

/// Returns where the number and the instant of the first event of a request
/// stand, if it has one.
pub(super) fn places(request: &[u8]) -> Option<(usize, usize)> {
    let number = FIND_NUMBER.find(request)? + NUMBER.len();
    Some((number, number + DIGITS + INSTANT.len()))
}

/// Reads what our payload says out of text that holds it.
fn mark(text: &[u8]) -> Option<Mark> {
    let number = FIND_NUMBER.find(text)? + NUMBER.len();
    let (number, rest) = digits(&text[number..])?;
    let (sent, _) = digits(rest.strip_prefix(INSTANT)?)?;
    Some(Mark { number: number.checked_sub(BASE)?, sent: sent.checked_sub(BASE)? })
}

/// Takes the number that `text` begins with.
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 || length > 19 {
        return None;
    }
    let number = text[..length].iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some((number, &text[length..]))
}

/// Reads the places an answer to a publish tells of, replacing what `places` holds.
///
/// Fails when they are not `count` events whose indexes follow each other.
pub(super) fn acknowledged(
    body: &[u8],
    count: usize,
    places: &mut Vec<Place>,
) -> Result<(), Malformed> {
    const WRONG: Malformed = Malformed("the answer to a publish does not hold its events in order");
    places.clear();
    let mut rest = body;
    while let Some((place, behind)) = take_place(rest) {
        places.push(place);
        rest = behind;
    }
    if !rest.is_empty() {
        places.clear();
        let is_array = body.trim_ascii_start().starts_with(b"[");
        let events: Vec<Published> = if is_array {
            serde_json::from_slice(body).map_err(|_| WRONG)?
        } else {
            vec![serde_json::from_slice(body).map_err(|_| WRONG)?]
        };
        for event in &events {
            let id = event.id.as_bytes().try_into().map_err(|_| WRONG)?;
            places.push(Place { index: event.index, id });
        }
    }
    let is_in_order = places.windows(2).all(|pair| pair[0].index + 1 == pair[1].index);
    (places.len() == count && is_in_order).then_some(()).ok_or(WRONG)
}

#[derive(Deserialize)]
struct Published {
    id: String,
    index: u64,
}

/// Takes the next event that is spelled as this server does.
fn take_place(text: &[u8]) -> Option<(Place, &[u8])> {
    let text = text.strip_prefix(b"[").or_else(|| text.strip_prefix(b",")).unwrap_or(text);
    let text = text.strip_prefix(b"{\"id\":\"")?;
    let (id, text) = text.split_first_chunk()?;
    let text = text.strip_prefix(b"\",\"taskId\":\"")?;
    let text = &text[memchr::memchr(b'"', text)?..];
    let (index, text) = digits(text.strip_prefix(b"\",\"index\":")?)?;
    // Only the end of an object stands before a comma and an id, or last.
    let end = FIND_NEXT.find(text).map_or(text.len(), |at| at + 1);
    Some((Place { index, id: *id }, &text[end..]))
}

/// A frame of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Event(Delivered<'a>),
    /// The stream ends, and why.
    Done(&'a [u8]),
    /// Nothing to read: a comment, or a wish about reconnecting.
    Silence,
}

/// An event as a stream delivered it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivered<'a> {
    pub(super) place: Place,
    /// What the payload says, if it is one of ours.
    pub(super) mark: Option<Mark>,
    /// Whether it stands for a whole series.
    pub(super) is_snapshot: bool,
    /// The envelope.
    pub(super) envelope: &'a [u8],
}

const UNREADABLE: Malformed = Malformed("a frame of a stream cannot be read");

/// Reads a frame, without the empty line at its end.
pub(super) fn read_frame(frame: &[u8]) -> Result<Frame<'_>, Malformed> {
    if let Some(event) = read_plain(frame) {
        return Ok(Frame::Event(event));
    }
    let (mut name, mut data, mut id) = (&b""[..], None, None);
    for line in frame.split(|byte| *byte == b'\n') {
        let value = |field: &[u8]| {
            let value = line.strip_prefix(field)?;
            Some(value.strip_prefix(b" ").unwrap_or(value))
        };
        if let Some(value) = value(b"event:") {
            name = value;
        } else if let Some(value) = value(b"data:") {
            data = Some(value);
        } else if let Some(value) = value(b"id:") {
            id = Some(value);
        }
    }
    match (name, data) {
        (_, None) => Ok(Frame::Silence),
        (b"taskcast.done", Some(reason)) => Ok(Frame::Done(reason)),
        (b"taskcast.event", Some(data)) => read_envelope(data, id).map(Frame::Event),
        _ => Err(UNREADABLE),
    }
}

/// Reads a frame that is spelled as this server does.
fn read_plain(frame: &[u8]) -> Option<Delivered<'_>> {
    let data = frame.strip_prefix(b"event: taskcast.event\ndata: ")?;
    let text = data.strip_prefix(b"{\"filteredIndex\":")?;
    let (_, text) = digits(text)?;
    let (index, text) = digits(text.strip_prefix(b",\"rawIndex\":")?)?;
    let (id, text) = text.strip_prefix(b",\"eventId\":\"")?.split_first_chunk()?;
    // An envelope that goes on behind our payload belongs to a series, and may
    // be a snapshot, or carry an id that is longer.
    let text = text.strip_prefix(b"\",\"taskId\":\"")?;
    let (text, line) = text.split_at_checked(text.len().checked_sub(ID_BYTES + 5)?)?;
    let is_same = line.strip_prefix(b"\nid: ")? == id;
    let envelope = &data[..data.len() - line.len()];
    if !is_same || text.ends_with(b"\"seriesSnapshot\":true}") {
        return None;
    }
    let mark = mark(text);
    Some(Delivered { place: Place { index, id: *id }, mark, is_snapshot: false, envelope })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    raw_index: u64,
    event_id: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    series_snapshot: bool,
}

#[derive(Deserialize)]
struct Payload {
    n: u64,
    t: u64,
}

fn read_envelope<'a>(data: &'a [u8], id: Option<&[u8]>) -> Result<Delivered<'a>, Malformed> {
    let envelope: Envelope<'_> = serde_json::from_slice(data).map_err(|_| UNREADABLE)?;
    let event_id: Id = envelope.event_id.as_bytes().try_into().map_err(|_| UNREADABLE)?;
    // In a collapsed replay the line names the replay too.
    if !id.is_some_and(|id| id == event_id || id.starts_with(&[&event_id[..], b"~"].concat())) {
        return Err(Malformed("a frame's id is not that of its event"));
    }
    let payload = serde_json::from_str(envelope.data.get()).ok().and_then(|payload: Payload| {
        Some(Mark { number: payload.n.checked_sub(BASE)?, sent: payload.t.checked_sub(BASE)? })
    });
    Ok(Delivered {
        place: Place { index: envelope.raw_index, id: event_id },
        mark: payload,
        is_snapshot: envelope.series_snapshot,
        envelope: data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn place(index: u64) -> Place {
        Place { index, id: ID.as_bytes().try_into().unwrap() }
    }

    fn published(index: u64) -> String {
        let event = event("a", None).replacen(&BASE.to_string(), &(BASE + 7).to_string(), 1);
        let data = event.split_once("\"data\":").unwrap().1;
        format!(
            r#"{{"id":"{ID}","taskId":"t","index":{index},"timestamp":1,"type":"x","level":"info","data":{data}"#
        )
    }

    fn places_of(body: &str, count: usize) -> Option<Vec<Place>> {
        let mut places = vec![place(99)];
        acknowledged(body.as_bytes(), count, &mut places).ok()?;
        Some(places)
    }

    #[test]
    fn an_answer_tells_the_places_of_its_events() {
        assert_eq!(places_of(&published(3), 1), Some(vec![place(3)]));
        let batch = format!("[{},{}]", published(4), published(5));
        assert_eq!(places_of(&batch, 2), Some(vec![place(4), place(5)]));
        let other = format!(r#"[ {{"index": 4, "x": {{}}, "id": "{ID}"}} ]"#);
        assert_eq!(places_of(&other, 1), Some(vec![place(4)]));
    }

    #[test]
    fn an_answer_with_other_events_than_sent_is_refused() {
        assert_eq!(places_of(&format!("[{},{}]", published(4), published(6)), 2), None);
        assert_eq!(places_of(&format!("[{}]", published(4)), 2), None);
        assert_eq!(places_of(r#"{"id":"short","index":1}"#, 1), None);
        assert_eq!(places_of("{}", 1), None);
    }

    #[test]
    fn a_frame_is_read_whatever_the_order_of_its_members() {
        let data = format!(r#"{{"n":{},"t":{},"text":"x"}}"#, BASE + 5, BASE + 6);
        let plain = format!(
            "event: taskcast.event\ndata: {{\"filteredIndex\":1,\"rawIndex\":2,\"eventId\":\"{ID}\",\
             \"taskId\":\"t\",\"type\":\"x\",\"timestamp\":1,\"level\":\"info\",\"data\":{data}}}\nid: {ID}"
        );
        let other = format!(
            "event:taskcast.event\nid:{ID}\ndata:{{\"eventId\": \"{ID}\", \"data\":{data}, \"rawIndex\": 2}}"
        );
        assert!(read_plain(plain.as_bytes()).is_some());
        assert!(read_plain(other.as_bytes()).is_none());
        for frame in [plain, other] {
            let Frame::Event(event) = read_frame(frame.as_bytes()).unwrap() else {
                panic!("{frame}")
            };
            assert_eq!((event.place, event.is_snapshot), (place(2), false));
            assert_eq!(event.mark, Some(Mark { number: 5, sent: 6 }));
        }
    }

    #[test]
    fn snapshots_ends_and_comments_are_told_apart() {
        let snapshot = format!(
            "event: taskcast.event\ndata: {{\"filteredIndex\":1,\"rawIndex\":2,\"eventId\":\"{ID}\",\
             \"taskId\":\"t\",\"data\":{{\"text\":\"x\"}},\"seriesSnapshot\":true}}\nid: {ID}"
        );
        for frame in [snapshot.clone(), snapshot.clone() + "~9"] {
            let Frame::Event(event) = read_frame(frame.as_bytes()).unwrap() else {
                panic!("{frame}")
            };
            assert!(event.is_snapshot && event.mark.is_none());
        }
        let wrong = snapshot.replace("\nid: 01", "\nid: 02");
        assert!(read_frame(wrong.as_bytes()).is_err());
        let done = b"event: taskcast.done\ndata: {\"reason\":\"completed\"}\nid: x";
        assert_eq!(read_frame(done), Ok(Frame::Done(b"{\"reason\":\"completed\"}")));
        assert_eq!(read_frame(b": keep-alive"), Ok(Frame::Silence));
        assert_eq!(read_frame(b": draining\nretry: 5"), Ok(Frame::Silence));
        assert!(read_frame(b"event: other\ndata: {}").is_err());
    }

    #[test]
    fn numbers_are_put_where_they_are_read() {
        let mut request = event("hello", Some(("s", "accumulate"))).into_bytes();
        let (number, instant) = places(&request).unwrap();
        put(&mut request, number, 123);
        put(&mut request, instant, 456_789);
        assert_eq!(mark(&request), Some(Mark { number: 123, sent: 456_789 }));
        assert!(serde_json::from_slice::<serde_json::Value>(&request).is_ok());
    }

    #[test]
    fn digests_differ_with_index_id_and_number() {
        let mut other = place(1);
        other.id[25] = b'W';
        let all =
            [digest(&place(1), 1), digest(&place(2), 1), digest(&place(1), 2), digest(&other, 1)];
        assert!((0..4).all(|a| (0..a).all(|b| all[a] != all[b])));
    }
}
