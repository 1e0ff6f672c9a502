//! The event port over SQL; appends go through the lanes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::super::PostgresStore;
use super::super::columns::{of_number, to_head_status, to_i64, to_level, to_number, to_u64};
use super::super::rollup::{self, Ranges};
use super::super::rows::{EventRow, HeadRow, PageRow};
use super::super::write::AppendRequest;
use crate::domain::{
    Append, BLOCK_LEN, Contribution, Event, Filter, Kind, SeriesMode, TaskId, TaskNumber, cover,
    fold,
};
use crate::store::{
    Appended, Events, Head, HeadStatus, Journal, JournalMark, Page, ReadRange, SeriesSpan,
    StoreError, TaskRef, View,
};

#[async_trait]
impl Events for PostgresStore {
    async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        let id = append.task.clone();
        let (request, answer) = AppendRequest::queue(append, self.deadline());
        self.submit(&id, request, answer).await
    }

    async fn head(&self, id: &TaskId) -> Result<Option<Head>, StoreError> {
        let row = sqlx::query_file_as!(HeadRow, "sql/read/head.sql", id.as_str())
            .fetch_optional(&self.reads)
            .await?;
        row.map(Head::try_from).transpose()
    }

    async fn heads(&self, numbers: &[TaskNumber]) -> Result<Vec<Head>, StoreError> {
        let numbers: Vec<i64> = numbers.iter().map(|number| of_number(*number)).collect();
        let rows = sqlx::query_file_as!(HeadRow, "sql/read/heads.sql", &numbers)
            .fetch_all(&self.reads)
            .await?;
        rows.into_iter().map(Head::try_from).collect()
    }

    async fn read(&self, ranges: &[ReadRange]) -> Result<Vec<Page>, StoreError> {
        let mut columns = PageColumns::default();
        for range in ranges {
            let whole = range.from..range.to;
            let (parts, until) = match range.view {
                View::Single | View::Live => (Vec::from([whole]), range.to),
                View::WithoutDeltas => {
                    rollup::plain_ranges(&self.reads, of_number(range.task.number), whole).await?
                }
            };
            columns.push(range, parts, until);
        }
        let rows = sqlx::query_file_as!(
            PageRow,
            "sql/read/page.sql",
            &columns.task,
            &columns.with_deltas,
            &columns.max_events,
            &columns.max_bytes,
            &columns.position,
            &columns.from,
            &columns.to,
        )
        .fetch_all(&self.reads)
        .await?;
        let mut pages = build_pages(ranges, &columns.until, rows)?;
        self.leave_superseded_out(ranges, &mut pages).await?;
        Ok(pages)
    }

    async fn series_spans(&self, task: TaskNumber, to: u64) -> Result<Vec<SeriesSpan>, StoreError> {
        let mut spans = self.spans_before(of_number(task), to).await?;
        if spans.iter().any(|span| span.field.is_none()) {
            // The field that is in force now was fixed by a later event.
            let now = self.spans_before(of_number(task), u64::MAX).await?;
            let fields: HashMap<_, _> = now.into_iter().map(|span| (span.id, span.field)).collect();
            for span in spans.iter_mut().filter(|span| span.field.is_none()) {
                span.field = fields.get(&span.id).cloned().flatten();
            }
        }
        Ok(spans)
    }

    async fn snapshot(
        &self,
        task: &TaskRef,
        span: &SeriesSpan,
    ) -> Result<Option<Event>, StoreError> {
        let number = of_number(task.number);
        let rolled_up = rollup::rolled_up_blocks(&self.reads, number).await?;
        let blocks = rolled_up.min((span.last_index + 1) / BLOCK_LEN);
        let mut text = self.text_chunks(number, &span.id, blocks).await?;
        let rows = self.deltas(number, &span.id, blocks * BLOCK_LEN, span.last_index).await?;
        let mut newest = None;
        for row in rows {
            let event = row.into_event(task)?;
            if let Some(part) = Contribution::of(span.field.as_ref(), &event.draft) {
                text.push_str(part.body);
            }
            newest = Some(event);
        }
        if newest.is_none() {
            // The newest delta is the last of a block that is rolled up.
            let rows = self.deltas(number, &span.id, span.last_index, span.last_index).await?;
            newest = rows.into_iter().next().map(|row| row.into_event(task)).transpose()?;
        }
        // Cleanup takes the series first: if it is there, so was all of its text.
        let is_whole = sqlx::query_file_scalar!("sql/read/has_series.sql", number, &*span.id)
            .fetch_one(&self.reads)
            .await?;
        let newest = newest.filter(|_| is_whole);
        Ok(newest.map(|newest| fold(newest, span.field.as_deref(), &text)))
    }

    async fn count(
        &self,
        task: TaskNumber,
        positions: &[u64],
        filter: &Filter,
    ) -> Result<Vec<u64>, StoreError> {
        rollup::count(&self.reads, of_number(task), positions, filter).await
    }

    async fn position_of(
        &self,
        task: TaskNumber,
        filter: &Filter,
        nth: u64,
    ) -> Result<Option<u64>, StoreError> {
        rollup::position_of(&self.reads, of_number(task), filter, nth).await
    }

    async fn position_after(&self, task: TaskNumber, timestamp_ms: u64) -> Result<u64, StoreError> {
        let task = of_number(task);
        let head = self.heads_by_number(task).await?;
        let (mut low, mut high) = (0, head.map_or(0, |head| head.next_index));
        // Timestamps never fall, so halving finds the first that is later.
        while low < high {
            let middle = low + (high - low) / 2;
            let probe = sqlx::query_file!("sql/read/probe.sql", task, to_i64(middle))
                .fetch_optional(&self.reads)
                .await?;
            match probe {
                Some(row) if to_u64(row.at) <= timestamp_ms => low = to_u64(row.index) + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    async fn journal(&self, mark: Option<&JournalMark>) -> Result<Journal, StoreError> {
        if let Some(mark) = mark {
            return super::journal::since(&self.reads, mark).await;
        }
        let rows = sqlx::query_file!("sql/read/journal_mark.sql").fetch_all(&self.reads).await?;
        let now = rows.first().map_or(0, |row| to_u64(row.now));
        let lanes = rows.into_iter().filter_map(|row| Some((to_u64(row.lane?), to_u64(row.batch))));
        Ok(Journal { mark: JournalMark(lanes.collect(), now), ..Journal::default() })
    }
}

impl PostgresStore {
    async fn heads_by_number(&self, task: i64) -> Result<Option<Head>, StoreError> {
        let heads = self.heads(&[to_number(task)?]).await?;
        Ok(heads.into_iter().next())
    }

    /// Returns the `accumulate` series before `to`, each with the field that was
    /// in force there.
    async fn spans_before(&self, task: i64, to: u64) -> Result<Vec<SeriesSpan>, StoreError> {
        let blocks = rollup::rolled_up_blocks(&self.reads, task).await?.min(to / BLOCK_LEN);
        let rows = sqlx::query_file!(
            "sql/read/spans.sql",
            task,
            to_i64(to),
            to_i64(blocks * BLOCK_LEN),
            to_i64(blocks)
        )
        .fetch_all(&self.reads)
        .await?;
        rows.into_iter()
            .map(|row| {
                let kind = Kind { event_type: row.event_type.into(), level: to_level(row.level)? };
                Ok(SeriesSpan {
                    id: row.id.into(),
                    kind,
                    field: row.field.map(Arc::from),
                    first_index: to_u64(row.first_index),
                    last_index: to_u64(row.last_index),
                })
            })
            .collect()
    }

    async fn text_chunks(
        &self,
        task: i64,
        series: &str,
        blocks: u64,
    ) -> Result<String, StoreError> {
        let rollups = Ranges::of(cover(blocks));
        let bodies = sqlx::query_file_scalar!(
            "sql/read/text_chunks.sql",
            task,
            series,
            &rollups.height,
            &rollups.first,
            &rollups.past
        )
        .fetch_all(&self.reads)
        .await?;
        Ok(bodies.concat())
    }

    async fn deltas(
        &self,
        task: i64,
        series: &str,
        first: u64,
        last: u64,
    ) -> Result<Vec<EventRow>, StoreError> {
        let rows = sqlx::query_file_as!(
            EventRow,
            "sql/read/deltas.sql",
            task,
            series,
            to_i64(first),
            to_i64(last)
        )
        .fetch_all(&self.reads)
        .await?;
        Ok(rows)
    }

    /// Leaves the events of `latest` series out for which a newer one stands.
    async fn leave_superseded_out(
        &self,
        ranges: &[ReadRange],
        pages: &mut [Page],
    ) -> Result<(), StoreError> {
        let mut wanted: HashSet<(i64, &str)> = HashSet::new();
        for (range, page) in ranges.iter().zip(pages.iter()) {
            if range.view != View::Live {
                let task = of_number(range.task.number);
                wanted.extend(page.events.iter().filter_map(|event| Some((task, latest(event)?))));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let (tasks, series): (Vec<i64>, Vec<&str>) = wanted.into_iter().unzip();
        let rows =
            sqlx::query_file!("sql/read/latest.sql", &tasks, &series as &[&str], to_i64(BLOCK_LEN))
                .fetch_all(&self.reads)
                .await?;
        let newest: HashMap<(i64, String), u64> = rows
            .into_iter()
            .filter_map(|row| Some(((row.task, row.series), to_u64(row.index?))))
            .collect();
        for (range, page) in ranges.iter().zip(pages) {
            if range.view == View::Live {
                continue;
            }
            let task = of_number(range.task.number);
            page.events.retain(|event| {
                let series = latest(event).map(|series| (task, series.to_owned()));
                let newest = series.and_then(|series| newest.get(&series));
                newest.is_none_or(|newest| *newest <= event.index)
            });
        }
        Ok(())
    }
}

/// Returns the `latest` series an event belongs to.
fn latest(event: &Event) -> Option<&str> {
    let tag = event.draft.series.as_ref()?;
    (tag.mode == Some(SeriesMode::Latest)).then_some(&*tag.id)
}

/// Ranges as columns: one row for each page, and one for each part of a range.
#[derive(Default)]
struct PageColumns {
    task: Vec<i64>,
    with_deltas: Vec<bool>,
    max_events: Vec<i64>,
    max_bytes: Vec<i64>,
    /// Up to where each range was looked at.
    until: Vec<u64>,
    position: Vec<i64>,
    from: Vec<i64>,
    to: Vec<i64>,
}

impl PageColumns {
    fn push(&mut self, range: &ReadRange, parts: Vec<std::ops::Range<u64>>, until: u64) {
        self.task.push(of_number(range.task.number));
        self.with_deltas.push(range.view != View::WithoutDeltas);
        self.max_events.push(to_i64(range.max_events as u64));
        self.max_bytes.push(to_i64(range.max_bytes.max(1) as u64));
        self.until.push(until);
        let position = to_i64(self.task.len() as u64);
        for part in parts {
            self.position.push(position);
            self.from.push(to_i64(part.start));
            self.to.push(to_i64(part.end));
        }
    }
}

fn build_pages(
    ranges: &[ReadRange],
    until: &[u64],
    rows: Vec<PageRow>,
) -> Result<Vec<Page>, StoreError> {
    let mut pages: Vec<Page> =
        ranges.iter().map(|range| Page { events: Vec::new(), covers_to: range.from }).collect();
    let mut bytes = vec![0usize; ranges.len()];
    for row in rows {
        let at = usize::try_from(row.position - 1).unwrap_or(usize::MAX);
        let (Some(range), Some(page)) = (ranges.get(at), pages.get_mut(at)) else { continue };
        let (Some(status), Some(next_index)) = (row.status, row.next_index) else { continue };
        if to_head_status(status)? == HeadStatus::Deleted {
            continue;
        }
        let end = until[at].min(to_u64(next_index)).max(range.from);
        let Some(event) = row.event() else {
            page.covers_to = end;
            continue;
        };
        let event = event.into_event(&range.task)?;
        bytes[at] += event.draft.data.as_str().len();
        let is_full = page.events.len() + 1 >= range.max_events || bytes[at] >= range.max_bytes;
        // A page that stopped early says nothing past its last event.
        page.covers_to = if is_full { event.index + 1 } else { end };
        page.events.push(Arc::new(event));
    }
    Ok(pages)
}
