//! Identifiers: parse, display, order.

use std::fmt;
use std::sync::Arc;

use ulid::Ulid;

/// Longest task id, in bytes.
const MAX_TASK_ID_BYTES: usize = 128;

/// The name of a task, chosen by the caller or made by the server.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(Arc<str>);

/// A task id that does not match `^[A-Za-z0-9_-][A-Za-z0-9_.:~-]{0,127}$`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a task id is 1 to 128 characters: a letter, a digit, _ or -, then letters, digits, \
     or any of _ . : ~ -"
)]
pub struct InvalidTaskId;

impl TaskId {
    /// Parses a task id.
    pub fn parse(text: &str) -> Result<Self, InvalidTaskId> {
        let mut bytes = text.bytes();
        let first = bytes.next().ok_or(InvalidTaskId)?;
        let rest_is_valid = bytes.all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'~' | b'-')
        });
        // Random ids of other makers begin with either.
        let first_is_valid = first.is_ascii_alphanumeric() || matches!(first, b'_' | b'-');
        if first_is_valid && rest_is_valid && text.len() <= MAX_TASK_ID_BYTES {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTaskId)
        }
    }

    /// Makes a task id of a time (Unix milliseconds) and randomness.
    pub fn from_parts(timestamp_ms: u64, random: u128) -> Self {
        let mut buffer = [0; ulid::ULID_LEN];
        Self((&*Ulid::from_parts(timestamp_ms, random).array_to_str(&mut buffer)).into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A task's number within its store: 40 bits, never used twice.
///
/// A task id may be used again once its task was deleted; the number tells
/// the two tasks apart, so no cursor or stream of one can meet the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskNumber(u64);

impl TaskNumber {
    /// Largest task number.
    pub const MAX: Self = Self(BITS_40);

    /// Returns the number, or `None` past 40 bits.
    pub fn new(number: u64) -> Option<Self> {
        (number <= BITS_40).then_some(Self(number))
    }

    /// Returns the number as an integer.
    pub fn get(self) -> u64 {
        self.0
    }
}

const BITS_40: u64 = (1 << 40) - 1;

/// The id of an event: a ULID of its timestamp, its task's number and its index.
///
/// It is a function of what the log stores anyway. Within a task it sorts
/// with the index, because timestamps never fall there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Ulid);

impl EventId {
    /// Makes the id of the event at `index` of a task.
    pub fn new(timestamp_ms: u64, task: TaskNumber, index: u64) -> Self {
        let random = (u128::from(task.0) << 40) | u128::from(index & BITS_40);
        Self(Ulid::from_parts(timestamp_ms, random))
    }

    /// Parses an event id; `None` when `text` is no canonical ULID.
    pub fn parse(text: &str) -> Option<Self> {
        let ulid = Ulid::from_string(text).ok()?;
        let id = Self(ulid);
        (id.encode(&mut [0; ulid::ULID_LEN]) == text).then_some(id)
    }

    /// Returns the number of the task the event belongs to.
    pub fn task(self) -> TaskNumber {
        // The cast keeps the 40 bits the mask lets through.
        TaskNumber((self.0.random() >> 40) as u64 & BITS_40)
    }

    /// Returns the event's index.
    pub fn index(self) -> u64 {
        self.0.random() as u64 & BITS_40
    }

    /// Returns the event's timestamp in Unix milliseconds.
    pub fn timestamp_ms(self) -> u64 {
        self.0.timestamp_ms()
    }

    /// Writes the id's 26 characters into `buffer`.
    pub fn encode(self, buffer: &mut [u8; ulid::ULID_LEN]) -> &str {
        self.0.array_to_str(buffer)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; ulid::ULID_LEN]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_ids_follow_the_documented_pattern() {
        for good in ["a", "0", "A.b_c:d~e-f", &"x".repeat(128)] {
            assert!(TaskId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ":a", ".a", "a/b", "a b", "a%2f", "ä", "a\0", &"x".repeat(129)] {
            assert!(TaskId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_event_id_gives_back_its_parts_and_sorts_with_the_index() {
        let task = TaskNumber::new(987_654_321).unwrap();
        let first = EventId::new(1_700_000_000_000, task, 41);
        let second = EventId::new(1_700_000_000_000, task, 42);
        assert!(first.to_string() < second.to_string());
        let parsed = EventId::parse(&second.to_string()).unwrap();
        assert_eq!((parsed.task(), parsed.index()), (task, 42));
        assert_eq!(parsed.timestamp_ms(), 1_700_000_000_000);
        assert_eq!(first.to_string().len(), 26);
    }

    #[test]
    fn only_the_canonical_spelling_of_an_event_id_parses() {
        let id = EventId::new(1_700_000_000_000, TaskNumber::new(7).unwrap(), 1).to_string();
        assert!(EventId::parse(&id.to_lowercase()).is_none());
        assert!(EventId::parse("nonsense").is_none());
        assert!(EventId::parse("").is_none());
    }
}
