//! Events as JSON text: what readers of a log, of a stream and of a webhook get.
//!
//! An event is spelled as text and not through a serializer, so that its
//! payload leaves as it came.

use super::json::push_string;
use super::{Event, SeriesTag};

/// Appends an event to `out` as it was published.
pub fn write_event(out: &mut String, event: &Event) {
    write_open(out, event);
    out.push('}');
}

/// Appends an event to `out` that stands for its whole series so far.
pub fn write_snapshot(out: &mut String, event: &Event) {
    write_open(out, event);
    out.push_str(",\"seriesSnapshot\":true}");
}

/// Appends the envelope of an event to `out`.
///
/// `filtered_index` is the event's number among those a reader gets; it
/// stands first, so that the rest is the same for every reader.
pub fn write_envelope(
    out: &mut String,
    event: &Event,
    filtered_index: Option<u64>,
    is_snapshot: bool,
) {
    out.push('{');
    if let Some(filtered_index) = filtered_index {
        out.push_str("\"filteredIndex\":");
        push_number(out, filtered_index);
        out.push(',');
    }
    out.push_str("\"rawIndex\":");
    push_number(out, event.index);
    out.push_str(",\"eventId\":\"");
    out.push_str(event.id().encode(&mut [0; ulid::ULID_LEN]));
    // An id of the pattern for task ids needs no escape.
    out.push_str("\",\"taskId\":\"");
    out.push_str(event.task.as_str());
    out.push_str("\",\"type\":");
    push_string(out, &event.draft.event_type);
    out.push_str(",\"timestamp\":");
    push_number(out, event.timestamp_ms);
    write_level_and_data(out, event);
    if let Some(tag) = &event.draft.series {
        write_series(out, tag);
    }
    if is_snapshot {
        out.push_str(",\"seriesSnapshot\":true");
    }
    out.push('}');
}

fn write_open(out: &mut String, event: &Event) {
    out.push_str("{\"id\":\"");
    out.push_str(event.id().encode(&mut [0; ulid::ULID_LEN]));
    out.push_str("\",\"taskId\":\"");
    out.push_str(event.task.as_str());
    out.push_str("\",\"index\":");
    push_number(out, event.index);
    out.push_str(",\"timestamp\":");
    push_number(out, event.timestamp_ms);
    out.push_str(",\"type\":");
    push_string(out, &event.draft.event_type);
    write_level_and_data(out, event);
    if let Some(tag) = &event.draft.series {
        write_series(out, tag);
    }
}

fn write_level_and_data(out: &mut String, event: &Event) {
    out.push_str(",\"level\":\"");
    out.push_str(event.draft.level.as_str());
    out.push_str("\",\"data\":");
    out.push_str(event.draft.data.as_str());
}

/// Appends the members that name an event's series to an open object.
fn write_series(out: &mut String, tag: &SeriesTag) {
    out.push_str(",\"seriesId\":");
    push_string(out, &tag.id);
    if let Some(mode) = tag.mode {
        out.push_str(",\"seriesMode\":\"");
        out.push_str(mode.as_str());
        out.push('"');
    }
    if let Some(field) = &tag.field {
        out.push_str(",\"seriesAccField\":");
        push_string(out, field);
    }
}

fn push_number(out: &mut String, number: u64) {
    out.push_str(itoa::Buffer::new().format(number));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventDraft, Json, Level, SeriesMode, TaskId, TaskNumber};

    fn event() -> Event {
        let series = SeriesTag { id: "s".into(), mode: Some(SeriesMode::Latest), field: None };
        Event {
            task: TaskId::parse("t").unwrap(),
            number: TaskNumber::new(3).unwrap(),
            index: 7,
            timestamp_ms: 1_700_000_000_000,
            draft: EventDraft {
                event_type: "a\"b".into(),
                level: Level::Info,
                data: Json::from_valid(r#"{"b":1e400,"a":"\ud800"}"#),
                series: Some(series),
            },
        }
    }

    #[test]
    fn events_are_written_in_the_documented_order() {
        let event = event();
        let mut out = String::new();
        write_event(&mut out, &event);
        let rest = r#""taskId":"t","index":7,"timestamp":1700000000000,"type":"a\"b","level":"info","data":{"b":1e400,"a":"\ud800"},"seriesId":"s","seriesMode":"latest"}"#;
        assert_eq!(out, format!(r#"{{"id":"{}",{rest}"#, event.id()));
        let mut snapshot = String::new();
        write_snapshot(&mut snapshot, &event);
        assert_eq!(snapshot.strip_suffix(",\"seriesSnapshot\":true}"), out.strip_suffix('}'));
    }

    #[test]
    fn an_envelope_without_a_readers_number_lacks_only_that() {
        let event = event();
        let (mut with, mut without) = (String::new(), String::new());
        write_envelope(&mut with, &event, Some(5), false);
        write_envelope(&mut without, &event, None, false);
        assert_eq!(with.replacen(r#""filteredIndex":5,"#, "", 1), without);
        assert!(without.starts_with(r#"{"rawIndex":7,"eventId":""#));
    }
}
