//! What was published, and the comparison with what a reader collected.

use std::collections::HashMap;

use serde_json::Value;

use super::reader::{Reader, Start};
use super::text_in;
use crate::support::client::{number_of, text_of};

/// The whole log, replaced events included.
pub(super) struct Truth {
    events: Vec<Value>,
}

impl Truth {
    /// Puts answers and history together: answers hold what was replaced,
    /// the history holds the status events.
    pub(super) fn new(published: Vec<Value>, history: Vec<Value>) -> Self {
        let mut by_index: HashMap<u64, Value> = HashMap::new();
        for event in published {
            assert!(by_index.insert(number_of(&event["index"]), event).is_none(), "an index twice");
        }
        for event in history {
            let index = number_of(&event["index"]);
            if let Some(answered) = by_index.insert(index, event.clone()) {
                assert_eq!(answered, event, "the history differs from the answer");
            }
        }
        let events: Vec<Value> = (0..by_index.len() as u64)
            .map(|index| by_index.remove(&index).unwrap_or_else(|| panic!("no event {index}")))
            .collect();
        Self { events }
    }

    /// Compares what a reader collected with the log.
    pub(super) fn check(&self, reader: &Reader, seed: u64) {
        let context = format!(
            "seed {seed}, filter {:?}, start {:?}, resumed by {:?}",
            reader.filter, reader.start, reader.trail
        );
        self.check_each_frame(reader, &context);
        self.check_nothing_is_missing(reader, &context);
        if matches!(reader.start, Start::Collapsed | Start::Single) {
            self.check_texts(reader, &context);
        }
    }

    /// Every frame is the event it names, in order, with the right number.
    fn check_each_frame(&self, reader: &Reader, context: &str) {
        let mut newest = None;
        for frame in &reader.frames {
            let index = number_of(&frame["rawIndex"]);
            assert!(newest < Some(index), "{index} after {newest:?}; {context}");
            newest = Some(index);
            let event = &self.events[index as usize];
            assert!(reader.admits(event), "{frame} does not pass; {context}");
            let before =
                self.events[..index as usize].iter().filter(|event| reader.admits(event)).count();
            assert_eq!(frame["filteredIndex"], before, "{frame}; {context}");
            for (member, of_event) in [
                ("eventId", "id"),
                ("type", "type"),
                ("level", "level"),
                ("timestamp", "timestamp"),
                ("seriesId", "seriesId"),
                ("seriesMode", "seriesMode"),
            ] {
                assert_eq!(frame.get(member), event.get(of_event), "{frame}; {context}");
            }
            if frame.get("seriesSnapshot").is_some() {
                assert_eq!(
                    text_in(frame),
                    self.text(&text_of(&frame["seriesId"]), index),
                    "{frame}; {context}"
                );
            } else {
                assert_eq!(frame["data"], event["data"], "{context}");
            }
        }
    }

    /// Every event was sent, is folded into a snapshot, or was replaced.
    fn check_nothing_is_missing(&self, reader: &Reader, context: &str) {
        let sent = |index: u64| reader.frames.iter().any(|frame| frame["rawIndex"] == index);
        let first = match reader.start {
            Start::Collapsed | Start::Single => 0,
            Start::Limited(_) => match reader.frames.first() {
                Some(frame) => number_of(&frame["rawIndex"]),
                None => return,
            },
            Start::After(filtered_index) => {
                let mut passing = self.events.iter().filter(|event| reader.admits(event));
                match passing.nth(filtered_index as usize) {
                    Some(event) => number_of(&event["index"]) + 1,
                    None => return,
                }
            }
        };
        for event in &self.events[first as usize..] {
            let index = number_of(&event["index"]);
            if !reader.admits(event) || sent(index) {
                continue;
            }
            let same_series = |other: &&Value| other["seriesId"] == event["seriesId"];
            let accounted_for = match event.get("seriesMode").and_then(Value::as_str) {
                Some("accumulate") => reader.frames.iter().filter(same_series).any(|frame| {
                    frame.get("seriesSnapshot").is_some() && number_of(&frame["rawIndex"]) > index
                }),
                Some("latest") => {
                    self.events[index as usize + 1..].iter().any(|other| same_series(&other))
                }
                _ => false,
            };
            assert!(accounted_for, "{event} is missing; {context}");
        }
    }

    /// The texts a reader puts together are those of the log.
    fn check_texts(&self, reader: &Reader, context: &str) {
        let mut texts: HashMap<String, String> = HashMap::new();
        for frame in &reader.frames {
            if frame.get("seriesMode").is_some_and(|mode| mode == "accumulate") {
                let text = texts.entry(text_of(&frame["seriesId"])).or_default();
                if frame.get("seriesSnapshot").is_some() {
                    text.clear();
                }
                text.push_str(&text_in(frame));
            }
        }
        for series in ["a", "b", "c"] {
            let passes =
                self.events.iter().any(|event| event["seriesId"] == series && reader.admits(event));
            let expected = if passes { self.text(series, u64::MAX) } else { String::new() };
            assert_eq!(
                texts.remove(series).unwrap_or_default(),
                expected,
                "series {series}; {context}"
            );
        }
    }

    /// Returns the text of a series up to and with an index.
    fn text(&self, series: &str, to: u64) -> String {
        let member =
            |event: &&Value| event["seriesId"] == series && number_of(&event["index"]) <= to;
        self.events.iter().filter(member).map(text_in).collect()
    }
}
