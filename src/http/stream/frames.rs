//! Server-sent event frames.
//!
//! A frame is written once and shared by every reader that gets the same
//! bytes. Between readers of envelopes only `filteredIndex` differs; it comes
//! first, so that everything after it is shared, and for readers without a
//! filter it equals the index, so that even that is.

use bytes::{Bytes, BytesMut};

use crate::dispatcher::{Entry, Slot};
use crate::domain::{Event, EventId, TaskStatus, write_envelope, write_event, write_snapshot};
use crate::http::wire::push_number;

/// What a frame carries as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrap {
    /// The envelope, with the reader's numbering.
    Envelope,
    /// The event as the log holds it.
    Raw,
}

impl Wrap {
    pub(super) fn of_flag(wrap: bool) -> Self {
        if wrap { Self::Envelope } else { Self::Raw }
    }
}

const EVENT: &str = "event: taskcast.event\ndata: ";
const ENVELOPE: &str = "event: taskcast.event\ndata: {\"filteredIndex\":";

/// Sent at once when a stream is opened.
pub(super) const OPENED: &[u8] = b": open\n\n";

/// Sent when nothing else was for a while.
pub(super) const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Sent when a reader's cursor is unknown here and it gets everything.
pub(super) const RESET: &[u8] = b": reset\n\n";

/// Says the same inside the first frame, where a page can see it: an
/// `EventSource` hides comments.
const RESET_MEMBER: &str = ",\"reset\":true";

/// Sent when a reader's credentials hold no longer; nothing follows.
pub(super) const EXPIRED: &[u8] = b": token expired\n\n";

/// Frames on their way to one reader, as few pieces as possible.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    whole: Option<Bytes>,
    copied: BytesMut,
}

impl Chunk {
    /// Adds a frame others may share; a chunk of one such frame is not copied.
    fn push_shared(&mut self, frame: &Bytes) {
        if self.whole.is_none() && self.copied.is_empty() {
            self.whole = Some(frame.clone());
        } else {
            self.push(frame);
        }
    }

    pub(super) fn push(&mut self, frame: &[u8]) {
        if let Some(whole) = self.whole.take() {
            self.copied.extend_from_slice(&whole);
        }
        self.copied.extend_from_slice(frame);
    }

    /// Returns what was added, if anything.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        match self.whole.take() {
            Some(whole) => Some(whole),
            None if self.copied.is_empty() => None,
            None => Some(self.copied.split().freeze()),
        }
    }

    /// Adds the frame of an entry of a task's stream; `is_reset` says that the
    /// reader has to forget what it has.
    pub(super) fn push_entry(&mut self, entry: &Entry, wrap: Wrap, is_reset: bool) {
        if entry.is_snapshot || entry.collapsed_to.is_some() || is_reset {
            self.push(own_frame(entry, wrap, is_reset).as_bytes());
            return;
        }
        let index = entry.slot.event.index;
        match wrap {
            Wrap::Raw => self.push_shared(shared_raw(&entry.slot)),
            Wrap::Envelope if entry.filtered_index == index => {
                self.push_shared(shared_envelope(&entry.slot));
            }
            Wrap::Envelope => {
                let shared = shared_envelope(&entry.slot);
                let tail = ENVELOPE.len() + digits(index);
                self.push(ENVELOPE.as_bytes());
                self.push(itoa::Buffer::new().format(entry.filtered_index).as_bytes());
                self.push(&shared[tail..]);
            }
        }
    }

    /// Adds the frame that ends a stream.
    pub(super) fn push_done(&mut self, status: TaskStatus, id: EventId, is_reset: bool) {
        self.push_end(status.as_str(), is_reset);
        self.push(format!("id: {id}\n\n").as_bytes());
    }

    /// Adds the frame that ends the stream of a deleted task; there is nothing
    /// to come back to, so it has no id.
    pub(super) fn push_deleted(&mut self, is_reset: bool) {
        self.push_end("deleted", is_reset);
        self.push(b"\n");
    }

    fn push_end(&mut self, reason: &str, is_reset: bool) {
        let reset = if is_reset { RESET_MEMBER } else { "" };
        let frame = format!("event: taskcast.done\ndata: {{\"reason\":\"{reason}\"{reset}}}\n");
        self.push(frame.as_bytes());
    }

    /// Asks the reader to come back after a while.
    pub(super) fn push_retry(&mut self, retry_ms: u64) {
        self.push(format!(": draining\nretry: {retry_ms}\n\n").as_bytes());
    }

    /// Adds the frame of an event on the stream of all tasks, which has no ids.
    pub(super) fn push_unnumbered(&mut self, slot: &Slot, filtered_index: u64, wrap: Wrap) {
        let mut frame = String::with_capacity(slot.event.size_bytes() + 256);
        frame.push_str(EVENT);
        match wrap {
            Wrap::Raw => write_event(&mut frame, &slot.event),
            Wrap::Envelope => write_envelope(&mut frame, &slot.event, Some(filtered_index), false),
        }
        frame.push_str("\n\n");
        self.push(frame.as_bytes());
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn shared_envelope(slot: &Slot) -> &Bytes {
    slot.wrapped.get_or_init(|| frame(&slot.event, Wrap::Envelope))
}

fn shared_raw(slot: &Slot) -> &Bytes {
    slot.raw.get_or_init(|| frame(&slot.event, Wrap::Raw))
}

fn own_frame(entry: &Entry, wrap: Wrap, is_reset: bool) -> String {
    let numbering = Numbering {
        filtered_index: entry.filtered_index,
        is_snapshot: entry.is_snapshot,
        collapsed_to: entry.collapsed_to,
        is_reset,
    };
    write_frame(&entry.slot.event, numbering, wrap)
}

fn frame(event: &Event, wrap: Wrap) -> Bytes {
    let numbering = Numbering {
        filtered_index: event.index,
        is_snapshot: false,
        collapsed_to: None,
        is_reset: false,
    };
    Bytes::from(write_frame(event, numbering, wrap))
}

/// What a frame says beside its event.
#[derive(Clone, Copy)]
struct Numbering {
    filtered_index: u64,
    is_snapshot: bool,
    collapsed_to: Option<u64>,
    is_reset: bool,
}

fn write_frame(event: &Event, numbering: Numbering, wrap: Wrap) -> String {
    let Numbering { filtered_index, is_snapshot, collapsed_to, is_reset } = numbering;
    let mut cursor = event.id().to_string();
    if let Some(newest) = collapsed_to {
        cursor.push('~');
        push_number(&mut cursor, newest);
    }
    let mut out = String::with_capacity(event.size_bytes() + 256);
    out.push_str(EVENT);
    match wrap {
        Wrap::Envelope => write_envelope(&mut out, event, Some(filtered_index), is_snapshot),
        Wrap::Raw if is_snapshot => write_snapshot(&mut out, event),
        Wrap::Raw => write_event(&mut out, event),
    }
    // Two members that only some frames have stand last, in the object that
    // was just closed.
    if collapsed_to.is_some() || is_reset {
        out.pop();
        if collapsed_to.is_some() {
            out.push_str(",\"cursor\":\"");
            out.push_str(&cursor);
            out.push('"');
        }
        if is_reset {
            out.push_str(RESET_MEMBER);
        }
        out.push('}');
    }
    out.push_str("\nid: ");
    out.push_str(&cursor);
    out.push_str("\n\n");
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{EventDraft, Json, Level, SeriesMode, SeriesTag, TaskId, TaskNumber};

    fn slot(index: u64) -> Arc<Slot> {
        let series = SeriesTag { id: "r".into(), mode: Some(SeriesMode::Accumulate), field: None };
        Slot::new(Arc::new(Event {
            task: TaskId::parse("t1").unwrap(),
            number: TaskNumber::new(7).unwrap(),
            index,
            timestamp_ms: 1_700_000_000_000,
            draft: EventDraft {
                event_type: "llm.delta".into(),
                level: Level::Info,
                data: Json::from_valid(r#"{"text":"Hi"}"#),
                series: Some(series),
            },
        }))
    }

    fn text(slot: &Arc<Slot>, filtered_index: u64, wrap: Wrap) -> String {
        let (slot, is_snapshot, collapsed_to) = (slot.clone(), false, None);
        let mut chunk = Chunk::default();
        chunk.push_entry(&Entry { slot, filtered_index, is_snapshot, collapsed_to }, wrap, false);
        String::from_utf8(chunk.take().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_frame_is_spelled_as_documented_for_every_numbering() {
        let slot = slot(12);
        let id = slot.event.id();
        for filtered_index in [12, 0, 3_456] {
            let expected = format!(
                "event: taskcast.event\ndata: {{\"filteredIndex\":{filtered_index},\"rawIndex\":12,\
                 \"eventId\":\"{id}\",\"taskId\":\"t1\",\"type\":\"llm.delta\",\
                 \"timestamp\":1700000000000,\"level\":\"info\",\"data\":{{\"text\":\"Hi\"}},\
                 \"seriesId\":\"r\",\"seriesMode\":\"accumulate\"}}\nid: {id}\n\n"
            );
            assert_eq!(text(&slot, filtered_index, Wrap::Envelope), expected);
        }
        assert!(text(&slot, 0, Wrap::Raw).contains(&format!("data: {{\"id\":\"{id}\"")));
    }

    #[test]
    fn readers_without_a_filter_share_the_bytes_of_a_frame() {
        let slot = slot(0);
        let entry =
            Entry { slot: slot.clone(), filtered_index: 0, is_snapshot: false, collapsed_to: None };
        let mut chunks = [Chunk::default(), Chunk::default()];
        for chunk in &mut chunks {
            chunk.push_entry(&entry, Wrap::Envelope, false);
        }
        let frames = chunks.map(|mut chunk| chunk.take().unwrap());
        assert_eq!(frames[0].as_ptr(), frames[1].as_ptr());
    }

    #[test]
    fn a_frame_of_a_collapsed_replay_names_its_view() {
        let entry =
            Entry { slot: slot(4), filtered_index: 4, is_snapshot: true, collapsed_to: Some(9) };
        let mut chunk = Chunk::default();
        chunk.push_entry(&entry, Wrap::Envelope, false);
        let frame = String::from_utf8(chunk.take().unwrap().to_vec()).unwrap();
        let id = entry.slot.event.id();
        let end = format!(",\"seriesSnapshot\":true,\"cursor\":\"{id}~9\"}}\nid: {id}~9\n\n");
        assert!(frame.ends_with(&end), "{frame}");
    }

    #[test]
    fn the_first_frame_after_an_unknown_cursor_says_so_inside() {
        let entry =
            Entry { slot: slot(4), filtered_index: 4, is_snapshot: false, collapsed_to: None };
        let mut chunk = Chunk::default();
        chunk.push_entry(&entry, Wrap::Raw, true);
        chunk.push_done(TaskStatus::Completed, entry.slot.event.id(), true);
        let frames = String::from_utf8(chunk.take().unwrap().to_vec()).unwrap();
        assert!(frames.contains("\"seriesMode\":\"accumulate\",\"reset\":true}\nid: "), "{frames}");
        assert!(frames.contains("data: {\"reason\":\"completed\",\"reset\":true}\n"), "{frames}");
    }
}
