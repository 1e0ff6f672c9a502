//! Running totals of `accumulate` series, for readers who want no deltas.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::{Contribution, Event, fold, json};
use crate::store::{Store, StoreError, TaskRef};

/// The text a series has, and the field it is in.
#[derive(Debug)]
struct Total {
    field: Arc<str>,
    text: String,
}

/// The series one reader follows; bounded by the text the task may hold.
#[derive(Debug, Default)]
pub(super) struct Totals {
    series: HashMap<Arc<str>, Total>,
}

impl Totals {
    /// Returns a delta with the whole text so far in place of its own.
    pub(super) async fn fold(
        &mut self,
        store: &dyn Store,
        task: &TaskRef,
        event: &Event,
    ) -> Result<Event, StoreError> {
        let Some(tag) = event.draft.series.as_ref() else { return Ok(event.clone()) };
        if let Some(total) = self.series.get_mut(&tag.id) {
            if let Some(part) = Contribution::of(Some(&total.field), &event.draft) {
                total.text.push_str(part.body);
            }
            return Ok(fold(event.clone(), Some(&total.field), &total.text));
        }
        let spans = store.series_spans(task.number, event.index + 1).await?;
        let span = spans.into_iter().find(|span| span.id == tag.id);
        let Some((mut span, field)) = span.and_then(|span| Some((span.clone(), span.field?)))
        else {
            // No event of the series has had a text yet.
            return Ok(event.clone());
        };
        span.last_index = event.index;
        let Some(whole) = store.snapshot(task, &span).await? else { return Ok(event.clone()) };
        self.remember(tag.id.clone(), field, &whole);
        Ok(whole)
    }

    /// Takes over the text of a snapshot.
    pub(super) fn remember(&mut self, series: Arc<str>, field: Arc<str>, snapshot: &Event) {
        let data = snapshot.draft.data.as_str();
        let text = json::member(data, &field).and_then(|value| json::string_body(&data[value]));
        let text = text.unwrap_or_default().to_owned();
        self.series.insert(series, Total { field, text });
    }
}
