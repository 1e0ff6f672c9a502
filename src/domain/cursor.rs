//! Where a reader wants to continue.

use std::fmt;

use super::{EventId, TaskNumber};

/// An id a stream gave out: an event's, with the state of a collapsed replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeId {
    /// The event it names.
    pub event: EventId,
    /// Newest index of the collapsed replay it was part of, if it was.
    pub collapsed_to: Option<u64>,
}

impl fmt::Display for ResumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event.fmt(f)?;
        self.collapsed_to.map_or(Ok(()), |newest| write!(f, "~{newest}"))
    }
}

impl ResumeId {
    /// Parses `<event id>` or `<event id>~<index>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (event, collapsed_to) = match text.split_once('~') {
            None => (text, None),
            Some((event, index)) => {
                let canonical = index.bytes().all(|byte| byte.is_ascii_digit())
                    && (index == "0" || !index.starts_with('0'));
                if !canonical {
                    return None;
                }
                (event, Some(index.parse().ok()?))
            }
        };
        Some(Self { event: EventId::parse(event)?, collapsed_to })
    }

    /// Tells whether the id can be one of task `number` with `next_index` events.
    pub fn belongs_to(&self, number: TaskNumber, next_index: u64) -> bool {
        self.event.task() == number
            && self.event.index() < next_index
            && self
                .collapsed_to
                .is_none_or(|newest| newest < next_index && newest >= self.event.index())
    }
}

/// The cursors a reader sent, in the order they are tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Ids, most binding first. The first one counts: if it names nothing, the
    /// reader begins anew, whatever other cursors there are.
    pub ids: Vec<String>,
    /// After the event with this filtered index; -1 is from the start.
    pub filtered_index: Option<i64>,
    /// After every event of this time, Unix milliseconds.
    pub timestamp_ms: Option<u64>,
}

/// The cursor that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// No cursor was sent, or `reset`: none of those sent names anything here.
    Start {
        /// Whether the reader must be told that its cursor was unknown.
        reset: bool,
    },
    /// After the event a known id names.
    After(ResumeId),
    /// After a filtered index.
    AfterFiltered(i64),
    /// After a time.
    AfterTimestamp(u64),
}

impl Cursor {
    /// Picks the cursor that counts for task `number` with `next_index` events.
    ///
    /// An id is known here by its task and its index; whether the event at that
    /// index has this id is for the log to say.
    pub fn resolve(&self, number: TaskNumber, next_index: u64) -> Anchor {
        if let Some(id) = self.ids.first() {
            // What another cursor says may lie past what the reader has seen.
            let known = ResumeId::parse(id).filter(|id| id.belongs_to(number, next_index));
            return known.map_or(Anchor::Start { reset: true }, Anchor::After);
        }
        match (self.filtered_index, self.timestamp_ms) {
            (Some(index), _) => Anchor::AfterFiltered(index),
            (None, Some(timestamp)) => Anchor::AfterTimestamp(timestamp),
            (None, None) => Anchor::Start { reset: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u64) -> TaskNumber {
        TaskNumber::new(n).unwrap()
    }

    #[test]
    fn a_resume_id_round_trips_with_and_without_its_collapsed_part() {
        let event = EventId::new(1_700_000_000_000, number(3), 9);
        let plain = ResumeId::parse(&event.to_string()).unwrap();
        assert_eq!(plain, ResumeId { event, collapsed_to: None });
        let collapsed = ResumeId::parse(&format!("{event}~12")).unwrap();
        assert_eq!(collapsed.collapsed_to, Some(12));
        for bad in
            ["~1", "x~1", &format!("{event}~"), &format!("{event}~-1"), &format!("{event}~01")]
        {
            assert_eq!(ResumeId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_id_of_another_task_or_beyond_the_head_makes_the_reader_begin_anew() {
        let mine = EventId::new(1, number(3), 9).to_string();
        let other = EventId::new(1, number(4), 9).to_string();
        let cursor =
            |ids: Vec<String>| Cursor { ids, filtered_index: Some(4), timestamp_ms: Some(8) };
        let reset = Anchor::Start { reset: true };
        let resolved = cursor(vec![mine.clone(), other.clone()]).resolve(number(3), 10);
        assert!(matches!(resolved, Anchor::After(id) if id.event.index() == 9));
        assert_eq!(cursor(vec![other, mine.clone()]).resolve(number(3), 10), reset);
        assert_eq!(cursor(vec![mine]).resolve(number(3), 9), reset);
        assert_eq!(cursor(vec!["nonsense".to_owned()]).resolve(number(3), 9), reset);
        assert_eq!(cursor(Vec::new()).resolve(number(3), 9), Anchor::AfterFiltered(4));
        assert_eq!(Cursor::default().resolve(number(3), 10), Anchor::Start { reset: false });
    }
}
