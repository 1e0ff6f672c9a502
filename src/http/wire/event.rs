//! Events on the wire.

use super::fields::{Place, begins_with, body_text, elements, fields, wrong_kind};
use crate::domain::{EventDraft, Json, Level, SeriesMode, SeriesTag, is_reserved_type};
use crate::engine::Limits;
use crate::http::error::{ApiError, ErrorCode};

/// The events of one request.
#[derive(Debug)]
pub(in crate::http) struct Published {
    /// The events, in order.
    pub(in crate::http) events: Vec<EventDraft>,
    /// Whether they came as an array, and are answered as one.
    pub(in crate::http) is_batch: bool,
}

/// Reads the event or the array of events a body holds.
pub(in crate::http) fn read_events(body: &[u8], limits: &Limits) -> Result<Published, ApiError> {
    let text = body_text(body)?;
    if begins_with(text, '{') {
        let event = read_event(text, Place::Body, limits)?;
        return Ok(Published { events: vec![event], is_batch: false });
    }
    if !begins_with(text, '[') {
        return Err(wrong_kind(text, "the body must be an event or an array of events"));
    }
    let most = limits.events_per_request;
    let elements = elements(text, most)?;
    if elements.len() > most {
        let message = format!("a request is limited to {most} events");
        return Err(ApiError::new(ErrorCode::LimitExceeded, message).over(most as u64));
    }
    let read = |(position, element): (usize, &str)| {
        if element.starts_with('{') {
            read_event(element, Place::Element(position), limits)
        } else {
            Err(ApiError::invalid(format!("/{position}"), "an event must be an object"))
        }
    };
    let events = elements.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Published { events, is_batch: true })
}

fn read_event(object: &str, place: Place, limits: &Limits) -> Result<EventDraft, ApiError> {
    let [event_type, level, data, series_id, series_mode, series_field] = fields(
        object,
        place,
        ["type", "level", "data", "seriesId", "seriesMode", "seriesAccField"],
    )?;
    let name = event_type.required(event_type.event_type()?)?;
    if is_reserved_type(&name) {
        return Err(
            event_type.invalid("must not begin with taskcast:, which the server keeps for itself")
        );
    }
    let payload = data.payload(limits.nesting)?.unwrap_or_else(Json::null);
    let most = limits.event_data_bytes;
    if payload.as_str().len() > most {
        let message = format!("the data of an event is limited to {most} bytes");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message)
            .at(data.path())
            .over(most as u64));
    }
    let mode =
        series_mode.word(SeriesMode::parse, SeriesMode::ALL.into_iter().map(SeriesMode::as_str))?;
    let series = if let Some(id) = series_id.label()? {
        Some(SeriesTag { id, mode, field: series_field.label()? })
    } else {
        for field in [series_mode, series_field] {
            if field.is_present() {
                return Err(field.invalid("needs a seriesId"));
            }
        }
        None
    };
    let level = level.word(Level::parse, Level::ALL.into_iter().map(Level::as_str))?;
    Ok(EventDraft { event_type: name, level: level.unwrap_or(Level::Info), data: payload, series })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Published, ApiError> {
        read_events(body.as_bytes(), &Limits::default())
    }

    fn refused(body: &str) -> (ErrorCode, Option<String>) {
        let error = read(body).unwrap_err();
        (error.code(), error.path().map(str::to_owned))
    }

    #[test]
    fn a_type_is_enough_and_the_rest_has_defaults() {
        let read =
            read(r#"{"type":"a","level":null,"data":null,"seriesId":null,"more":1}"#).unwrap();
        assert!(!read.is_batch);
        let [event] = &read.events[..] else { panic!("one event") };
        assert_eq!((&*event.event_type, event.level), ("a", Level::Info));
        assert_eq!((event.data.as_str(), &event.series), ("null", &None));
    }

    #[test]
    fn an_event_is_read_with_everything_it_may_have() {
        let body = r#" { "type":"llm.delta","level":"warn","data":[ 1.0 ],"seriesId":"s",
            "seriesMode":"accumulate","seriesAccField":"out" } "#;
        let read = read(body).unwrap();
        let event = &read.events[0];
        assert_eq!((event.level, event.data.as_str()), (Level::Warn, "[1.0]"));
        let tag = event.series.as_ref().unwrap();
        assert_eq!((&*tag.id, tag.mode), ("s", Some(SeriesMode::Accumulate)));
        assert_eq!(tag.field.as_deref(), Some("out"));
    }

    #[test]
    fn arrays_are_read_in_order_and_may_be_empty() {
        let batch = read(r#"[{"type":"a"} , {"type":"b","data":{}}]"#).unwrap();
        assert!(batch.is_batch);
        let types: Vec<_> = batch.events.iter().map(|event| &*event.event_type).collect();
        assert_eq!(types, ["a", "b"]);
        let none = read(" [ ] ").unwrap();
        assert!(none.is_batch && none.events.is_empty());
    }

    #[test]
    fn what_is_wrong_with_an_event_is_pointed_at() {
        for (body, path) in [
            ("{}", "/type"),
            (r#"{"type":null}"#, "/type"),
            (r#"{"type":7}"#, "/type"),
            (r#"{"type":""}"#, "/type"),
            (r#"{"type":"a*"}"#, "/type"),
            (r#"{"type":"\ud800"}"#, "/type"),
            (r#"{"type":"taskcast:status"}"#, "/type"),
            (r#"{"type":"taskcast\u003astatus"}"#, "/type"),
            (r#"{"type":"a","level":"fatal"}"#, "/level"),
            (r#"{"type":"a","level":1}"#, "/level"),
            (r#"{"type":"a","seriesId":""}"#, "/seriesId"),
            (r#"{"type":"a","seriesId":"\u0000"}"#, "/seriesId"),
            (r#"{"type":"a","seriesMode":"latest"}"#, "/seriesMode"),
            (r#"{"type":"a","seriesAccField":"x"}"#, "/seriesAccField"),
            (r#"{"type":"a","seriesId":"s","seriesMode":"newest"}"#, "/seriesMode"),
            (r#"{"type":"a","seriesId":"s","seriesAccField":1}"#, "/seriesAccField"),
        ] {
            assert_eq!(refused(body), (ErrorCode::InvalidRequest, Some(path.to_owned())), "{body}");
            let batch = format!(r#"[{{"type":"ok"}},{body}]"#);
            let path = format!("/1{path}");
            assert_eq!(refused(&batch), (ErrorCode::InvalidRequest, Some(path)), "{batch}");
        }
        assert_eq!(refused(r#"[{"type":"a"},null]"#).1.as_deref(), Some("/1"));
    }

    #[test]
    fn what_is_neither_object_nor_array_is_refused_as_what_it_is() {
        for (body, code) in [
            ("7", ErrorCode::InvalidRequest),
            (r#""a""#, ErrorCode::InvalidRequest),
            ("null", ErrorCode::InvalidRequest),
            ("", ErrorCode::InvalidJson),
            ("nul", ErrorCode::InvalidJson),
            (r#"[{"type":"a"},]"#, ErrorCode::InvalidJson),
            (r#"{"type":"a"} {}"#, ErrorCode::InvalidJson),
        ] {
            assert_eq!(refused(body).0, code, "{body}");
        }
    }

    #[test]
    fn limits_are_named_in_the_text() {
        let limits =
            Limits { event_data_bytes: 8, events_per_request: 2, nesting: 2, ..Limits::default() };
        let refused = |body: &str| {
            let error = read_events(body.as_bytes(), &limits).unwrap_err();
            (error.code(), error.path().map(str::to_owned), error.message().to_owned())
        };
        assert!(read_events(br#"{"type":"a","data":  "123456"  }"#, &limits).is_ok());
        let (code, path, text) = refused(r#"[{"type":"a","data":"1234567"}]"#);
        assert_eq!((code, path.as_deref()), (ErrorCode::PayloadTooLarge, Some("/0/data")));
        assert!(text.contains("8 bytes"));
        let (code, _, text) = refused(r#"[{"type":"a"},{"type":"a"},{"type":"a"}]"#);
        assert_eq!(code, ErrorCode::LimitExceeded);
        assert!(text.contains("2 events"));
        let (code, path, _) = refused(r#"{"type":"a","data":[[[]]]}"#);
        assert_eq!((code, path.as_deref()), (ErrorCode::LimitExceeded, Some("/data")));
    }
}
