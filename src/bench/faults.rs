//! Where faults are put as they happen.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::report::{Fault, FaultKind};

/// Faults of a kind that are described; the others are counted.
const EXAMPLES: usize = 5;

/// The faults of a run.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<BTreeMap<FaultKind, Fault>>);

impl Faults {
    /// Adds a fault.
    pub(super) fn add(&self, kind: FaultKind, text: impl FnOnce() -> String) {
        self.add_many(kind, 1, text);
    }

    /// Adds several faults of one cause, with one description.
    pub(super) fn add_many(&self, kind: FaultKind, count: u64, text: impl FnOnce() -> String) {
        let mut faults = self.0.lock();
        let fault = faults.entry(kind).or_insert(Fault { kind, count: 0, examples: Vec::new() });
        fault.count += count;
        if fault.examples.len() < EXAMPLES {
            fault.examples.push(text());
        }
    }

    /// Tells whether nothing went wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Returns what went wrong so far, by kind.
    pub(super) fn list(&self) -> Vec<Fault> {
        self.0.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_faults_are_counted_and_a_few_described() {
        let faults = Faults::default();
        assert!(faults.is_empty());
        for number in 0..100 {
            faults.add(FaultKind::Gap, || format!("index {number}"));
        }
        faults.add_many(FaultKind::Cut, 3, || "all at once".to_owned());
        let list = faults.list();
        assert_eq!((list[0].count, list[0].examples.len()), (100, EXAMPLES));
        assert_eq!((list[1].count, list[1].examples.len()), (3, 1));
    }
}
