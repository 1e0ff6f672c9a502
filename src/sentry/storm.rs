//! Keeping storms short: a bound on reports of one kind.

use std::time::{Duration, Instant};

use super::{Kind, REPORTS_PER_MINUTE};

const MINUTE: Duration = Duration::from_mins(1);

/// What becomes of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent, and says how many of its kind were not since the last.
    Send { suppressed: u64 },
    /// It is not.
    Suppress,
}

#[derive(Debug, Default)]
struct Storm {
    since: Option<Instant>,
    sent: u32,
    suppressed: u64,
}

/// What was sent of each kind within its minute.
#[derive(Debug, Default)]
pub(super) struct Storms([Storm; Kind::COUNT]);

impl Storms {
    pub(super) fn admit(&mut self, kind: usize, now: Instant) -> Verdict {
        let storm = &mut self.0[kind];
        if storm.since.is_none_or(|since| now.duration_since(since) >= MINUTE) {
            storm.since = Some(now);
            storm.sent = 0;
        }
        if storm.sent == REPORTS_PER_MINUTE {
            storm.suppressed += 1;
            return Verdict::Suppress;
        }
        storm.sent += 1;
        Verdict::Send { suppressed: std::mem::take(&mut storm.suppressed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_cut_short_and_told_of_when_it_is_over() {
        let (mut storms, start) = (Storms::default(), Instant::now());
        let verdicts = (0..100).map(|_| storms.admit(0, start)).collect::<Vec<_>>();
        let sent = verdicts.iter().filter(|verdict| **verdict != Verdict::Suppress).count();
        assert_eq!(sent, REPORTS_PER_MINUTE as usize);
        assert_eq!(storms.admit(1, start), Verdict::Send { suppressed: 0 }, "kinds count apart");
        let later = start + MINUTE;
        let suppressed = 100 - u64::from(REPORTS_PER_MINUTE);
        assert_eq!(storms.admit(0, later), Verdict::Send { suppressed });
        assert_eq!(storms.admit(0, later), Verdict::Send { suppressed: 0 });
    }
}
