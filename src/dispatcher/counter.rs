//! Numbering what passes a filter.

use crate::domain::{Filter, TaskNumber};
use crate::store::{Store, StoreError};

/// Gives events their filtered index, counting on from what it knows and
/// asking the store only after a hole.
#[derive(Debug)]
pub(super) struct Counter {
    filter: Filter,
    /// How many pass before a position.
    known: Option<(u64, u64)>,
}

impl Counter {
    pub(super) fn new(filter: Filter) -> Self {
        Self { filter, known: None }
    }

    /// Numbers entries, given as index and whether they pass, in order.
    ///
    /// Entries that do not pass get a number that means nothing.
    pub(super) async fn number(
        &mut self,
        store: &dyn Store,
        task: TaskNumber,
        entries: &[(u64, bool)],
    ) -> Result<Vec<u64>, StoreError> {
        if self.filter.is_all() {
            return Ok(entries.iter().map(|(index, _)| *index).collect());
        }
        let holes = self.holes(entries);
        let counts = if holes.is_empty() {
            Vec::new()
        } else {
            store.count(task, &holes, &self.filter).await?
        };
        let mut counted = holes.into_iter().zip(counts).peekable();
        let mut numbers = Vec::with_capacity(entries.len());
        for (index, passes) in entries {
            if let Some((_, count)) = counted.next_if(|(hole, _)| hole == index) {
                self.known = Some((*index, count));
            }
            let count = match self.known {
                Some((position, count)) if position == *index => count,
                _ => {
                    // Not counted, so it does not pass; the next that does is.
                    self.known = None;
                    numbers.push(0);
                    continue;
                }
            };
            numbers.push(count);
            self.known = Some((index + 1, count + u64::from(*passes)));
        }
        Ok(numbers)
    }

    /// Returns the positions of entries that pass and follow a hole.
    fn holes(&self, entries: &[(u64, bool)]) -> Vec<u64> {
        let mut position = self.known.map(|(position, _)| position);
        let mut holes = Vec::new();
        for (index, passes) in entries {
            if position != Some(*index) {
                if !passes {
                    position = None;
                    continue;
                }
                holes.push(*index);
            }
            position = Some(index + 1);
        }
        holes
    }
}
