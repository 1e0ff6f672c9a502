//! Rolling up the logs of many finished tasks, each of one block, at once.

use std::collections::HashMap;

use super::super::columns::{to_i64, to_u64};
use super::super::session::Reads;
use super::{Summary, SummaryRow, block_to_text};
use crate::domain::BLOCK_LEN;
use crate::store::StoreError;

/// An entry of a short log.
#[derive(Debug)]
pub(in super::super) struct BatchRow {
    pub(in super::super) task: i64,
    pub(in super::super) index: i64,
    pub(in super::super) level: i16,
    pub(in super::super) mode: Option<i16>,
    pub(in super::super) event_type: String,
    pub(in super::super) series: Option<String>,
    pub(in super::super) field: Option<String>,
    pub(in super::super) is_delta: bool,
    pub(in super::super) data: String,
}

/// Roll-ups of one block each, as columns.
#[derive(Debug, Default)]
pub(in super::super) struct RollupColumns {
    task: Vec<i64>,
    kinds: Vec<String>,
    chunk_task: Vec<i64>,
    chunk_series: Vec<String>,
    chunk_last: Vec<i64>,
    chunk_body: Vec<String>,
    superseded_task: Vec<i64>,
    superseded: Vec<i64>,
    retained_task: Vec<i64>,
    retained_series: Vec<String>,
    retained: Vec<i64>,
}

impl RollupColumns {
    /// Sums logs up, each given whole and in order.
    pub(in super::super) fn of(logs: HashMap<i64, Vec<BatchRow>>) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for (task, events) in logs {
            let mut summary = Summary::default();
            for event in events {
                summary.add(SummaryRow {
                    index: to_u64(event.index),
                    level: event.level,
                    mode: event.mode,
                    event_type: event.event_type,
                    series: event.series,
                    field: event.field,
                    is_delta: event.is_delta,
                    data: event.data,
                })?;
            }
            columns.push(task, summary);
        }
        Ok(columns)
    }

    fn push(&mut self, task: i64, summary: Summary) {
        self.task.push(task);
        self.kinds.push(block_to_text(&summary.kinds));
        for (series, (last_index, body)) in summary.chunks {
            self.chunk_task.push(task);
            self.chunk_series.push(series);
            self.chunk_last.push(to_i64(last_index));
            self.chunk_body.push(body);
        }
        for index in summary.superseded {
            self.superseded_task.push(task);
            self.superseded.push(index);
        }
        for (series, index) in summary.retained {
            self.retained_task.push(task);
            self.retained_series.push(series);
            self.retained.push(to_i64(index));
        }
    }

    /// Stores what nobody else has stored meanwhile.
    pub(in super::super) async fn store(&self, reads: &Reads) -> Result<(), StoreError> {
        sqlx::query_file!(
            "sql/cleanup/roll_up.sql",
            &self.task,
            &self.kinds,
            &self.chunk_task,
            &self.chunk_series,
            &self.chunk_last,
            &self.chunk_body,
            &self.superseded_task,
            &self.superseded,
            &self.retained_task,
            &self.retained_series,
            &self.retained,
            to_i64(BLOCK_LEN),
        )
        .execute(reads)
        .await?;
        Ok(())
    }
}
