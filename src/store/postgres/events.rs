//! The event port over SQL; appends go through the lanes.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::codes::{of_number, to_i64, to_level, to_number, to_u64};
use super::queue::Work;
use super::rows::{EventRow, HeadRow, PageRow};
use super::{PostgresStore, tallies};
use crate::domain::{
    Append, BLOCK_LEN, Contribution, Event, Filter, Kind, TaskId, TaskNumber, cover, fold,
};
use crate::store::{
    Appended, Events, Head, HeadStatus, Journal, JournalEntry, JournalMark, Page, ReadRange,
    SeriesSpan, StoreError, TaskRef, View,
};

/// Most batches of one lane a journal read returns.
const JOURNAL_BATCHES: usize = 4096;

#[async_trait]
impl Events for PostgresStore {
    async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        let (reply, answer) = oneshot::channel();
        let id = append.task.clone();
        self.submit(&id, Work::Append { append, reply })?;
        answer.await.unwrap_or_else(|_| Err(super::lane_died()))
    }

    async fn head(&self, id: &TaskId) -> Result<Option<Head>, StoreError> {
        let row = sqlx::query_file_as!(HeadRow, "sql/events/head.sql", id.as_str())
            .fetch_optional(&self.reads)
            .await?;
        row.map(Head::try_from).transpose()
    }

    async fn heads(&self, numbers: &[TaskNumber]) -> Result<Vec<Head>, StoreError> {
        let numbers: Vec<i64> = numbers.iter().map(|number| of_number(*number)).collect();
        let rows = sqlx::query_file_as!(HeadRow, "sql/events/heads.sql", &numbers)
            .fetch_all(&self.reads)
            .await?;
        rows.into_iter().map(Head::try_from).collect()
    }

    async fn read(&self, ranges: &[ReadRange]) -> Result<Vec<Page>, StoreError> {
        let column = |value: fn(&ReadRange) -> i64| ranges.iter().map(value).collect::<Vec<i64>>();
        let flag = |is: fn(View) -> bool| ranges.iter().map(|range| is(range.view)).collect();
        let with_deltas: Vec<bool> = flag(|view| view != View::WithoutDeltas);
        let with_superseded: Vec<bool> = flag(|view| view == View::Live);
        let rows = sqlx::query_file_as!(
            PageRow,
            "sql/events/read.sql",
            &column(|range| of_number(range.task.number)),
            &column(|range| to_i64(range.from)),
            &column(|range| to_i64(range.to)),
            &with_deltas,
            &with_superseded,
            &column(|range| to_i64(range.max_events as u64)),
            &column(|range| to_i64(range.max_bytes.max(1) as u64)),
        )
        .fetch_all(&self.reads)
        .await?;
        build_pages(ranges, rows)
    }

    async fn series_spans(&self, task: TaskNumber, to: u64) -> Result<Vec<SeriesSpan>, StoreError> {
        let task = of_number(task);
        let blocks = tallies::sealed_blocks(&self.reads, task).await?.min(to / BLOCK_LEN);
        let rows = sqlx::query_file!(
            "sql/events/spans.sql",
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

    async fn snapshot(
        &self,
        task: &TaskRef,
        span: &SeriesSpan,
    ) -> Result<Option<Event>, StoreError> {
        let number = of_number(task.number);
        let sealed = tallies::sealed_blocks(&self.reads, number).await?;
        let blocks = sealed.min((span.last_index + 1) / BLOCK_LEN);
        let mut text = self.pieces(number, &span.id, blocks).await?;
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
            // The newest delta is the last of a block that is summed up.
            let rows = self.deltas(number, &span.id, span.last_index, span.last_index).await?;
            newest = rows.into_iter().next().map(|row| row.into_event(task)).transpose()?;
        }
        // Cleanup takes the series first: if it is there, so was all of its text.
        let is_whole = sqlx::query_file_scalar!("sql/events/has_series.sql", number, &*span.id)
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
        tallies::count(&self.reads, of_number(task), positions, filter).await
    }

    async fn position_of(
        &self,
        task: TaskNumber,
        filter: &Filter,
        nth: u64,
    ) -> Result<Option<u64>, StoreError> {
        tallies::position_of(&self.reads, of_number(task), filter, nth).await
    }

    async fn position_after(&self, task: TaskNumber, timestamp_ms: u64) -> Result<u64, StoreError> {
        let task = of_number(task);
        let head = self.heads_by_number(task).await?;
        let (mut low, mut high) = (0, head.map_or(0, |head| head.next_index));
        // Timestamps never fall, so halving finds the first that is later.
        while low < high {
            let middle = low + (high - low) / 2;
            let probe = sqlx::query_file!("sql/events/probe.sql", task, to_i64(middle))
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
            return self.journal_since(mark).await;
        }
        let rows = sqlx::query_file!("sql/events/journal_mark.sql").fetch_all(&self.reads).await?;
        let lanes = rows.into_iter().map(|row| (to_u64(row.lane), to_u64(row.batch)));
        Ok(Journal { mark: JournalMark(lanes.collect()), ..Journal::default() })
    }
}

impl PostgresStore {
    async fn heads_by_number(&self, task: i64) -> Result<Option<Head>, StoreError> {
        let heads = self.heads(&[to_number(task)?]).await?;
        Ok(heads.into_iter().next())
    }

    async fn pieces(&self, task: i64, series: &str, blocks: u64) -> Result<String, StoreError> {
        let nodes = tallies::Stretches::of(cover(blocks));
        let bodies = sqlx::query_file_scalar!(
            "sql/events/pieces.sql",
            task,
            series,
            &nodes.height,
            &nodes.first,
            &nodes.past
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
            "sql/events/deltas.sql",
            task,
            series,
            to_i64(first),
            to_i64(last)
        )
        .fetch_all(&self.reads)
        .await?;
        Ok(rows)
    }

    async fn journal_since(&self, mark: &JournalMark) -> Result<Journal, StoreError> {
        let (lanes, batches): (Vec<i64>, Vec<i64>) =
            mark.0.iter().map(|(lane, batch)| (to_i64(*lane), to_i64(*batch))).unzip();
        let rows = sqlx::query_file!("sql/events/journal.sql", &lanes, &batches)
            .fetch_all(&self.reads)
            .await?;
        // Lanes that are gone for good are dropped from the mark.
        let mut journal = Journal::default();
        let mut batches: HashMap<i64, usize> = HashMap::new();
        for row in rows {
            let source = to_u64(row.lane);
            let before = journal.mark.0.get(&source).or_else(|| mark.0.get(&source)).copied();
            let Some(sequence) = row.batch.map(to_u64) else {
                journal.mark.0.insert(source, before.unwrap_or_default());
                continue;
            };
            let read = batches.entry(row.lane).or_default();
            *read += 1;
            // Pruned before it was read, or too much to read at once, after
            // which other lanes would be ahead.
            journal.has_gap |=
                before.unwrap_or_default() + 1 < sequence || *read == JOURNAL_BATCHES;
            journal.mark.0.insert(source, sequence);
            let (tasks, from, next) = (row.task, row.from_index, row.next_index);
            let moved = tasks.into_iter().flatten().zip(from.into_iter().flatten());
            for ((task, from), next_index) in moved.zip(next.into_iter().flatten()) {
                let (number, from, next_index) =
                    (to_number(task)?, to_u64(from), to_u64(next_index));
                journal.entries.push(JournalEntry { source, sequence, number, from, next_index });
            }
        }
        // Who wrote a task later saw the earlier batch committed, so both are
        // here; by index they stand in log order.
        journal.entries.sort_by_key(|entry| (entry.number, entry.from, entry.next_index));
        Ok(journal)
    }
}

fn build_pages(ranges: &[ReadRange], rows: Vec<PageRow>) -> Result<Vec<Page>, StoreError> {
    let mut pages: Vec<Page> =
        ranges.iter().map(|range| Page { events: Vec::new(), covers_to: range.from }).collect();
    let mut bytes = vec![0usize; ranges.len()];
    for row in rows {
        let at = usize::try_from(row.position - 1).unwrap_or(usize::MAX);
        let (Some(range), Some(page)) = (ranges.get(at), pages.get_mut(at)) else { continue };
        let (Some(status), Some(next_index)) = (row.status, row.next_index) else { continue };
        if super::codes::to_head_status(status)? == HeadStatus::Deleted {
            continue;
        }
        let end = range.to.min(to_u64(next_index)).max(range.from);
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
