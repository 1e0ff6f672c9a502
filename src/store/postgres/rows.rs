//! Rows as the driver gives them, and their way into the domain.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::columns::{to_head_status, to_level, to_mode, to_number, to_status, to_u64};
use crate::domain::{
    Event, EventDraft, Json, NewTask, SeriesState, SeriesTag, Task, TaskError, TaskId, TaskPolicy,
};
use crate::store::{Head, StoreError, TaskRef};

/// A task with its head.
#[derive(Debug)]
pub(super) struct TaskRow {
    pub(super) number: i64,
    pub(super) id: String,
    pub(super) task_type: Option<String>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) params: Option<String>,
    pub(super) metadata: Option<String>,
    pub(super) result: Option<String>,
    pub(super) error: Option<String>,
    pub(super) ttl_seconds: Option<i64>,
    pub(super) created_at: i64,
    pub(super) auth_config: Option<String>,
    pub(super) webhooks: Option<String>,
    pub(super) cleanup: Option<String>,
    pub(super) status: i16,
    pub(super) updated_at: i64,
}

/// What the append statement says: of the batch, and of one task that changed
/// its state, if there is one.
#[derive(Debug)]
pub(super) struct AppendRow {
    pub(super) is_server: bool,
    pub(super) is_registered: bool,
    pub(super) at: Option<i64>,
    pub(super) number: Option<i64>,
    pub(super) id: Option<String>,
    pub(super) task_type: Option<String>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) params: Option<String>,
    pub(super) metadata: Option<String>,
    pub(super) result: Option<String>,
    pub(super) error: Option<String>,
    pub(super) ttl_seconds: Option<i64>,
    pub(super) created_at: Option<i64>,
    pub(super) auth_config: Option<String>,
    pub(super) webhooks: Option<String>,
    pub(super) cleanup: Option<String>,
    pub(super) status: Option<i16>,
    pub(super) updated_at: Option<i64>,
}

impl AppendRow {
    /// Returns the task of the row, if it has one.
    pub(super) fn into_document(self) -> Option<TaskRow> {
        Some(TaskRow {
            number: self.number?,
            id: self.id?,
            task_type: self.task_type,
            tags: self.tags,
            params: self.params,
            metadata: self.metadata,
            result: self.result,
            error: self.error,
            ttl_seconds: self.ttl_seconds,
            created_at: self.created_at?,
            auth_config: self.auth_config,
            webhooks: self.webhooks,
            cleanup: self.cleanup,
            status: self.status?,
            updated_at: self.updated_at?,
        })
    }
}

pub(super) fn to_task_id(id: &str) -> Result<TaskId, StoreError> {
    TaskId::parse(id).map_err(|_| StoreError::Corrupt(format!("task.id {id:?}")))
}

/// Reads what was stored as JSON in the form of a type of the domain.
///
/// The error names the column and nothing that stands in it: it may be secret.
pub(super) fn from_text<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(column.to_owned()))
}

fn optional<T: DeserializeOwned>(
    column: &str,
    text: Option<&str>,
) -> Result<Option<T>, StoreError> {
    text.map(|text| from_text(column, text)).transpose()
}

fn to_json(text: Option<String>) -> Option<Json> {
    text.map(Json::from_compact)
}

impl TryFrom<TaskRow> for Task {
    type Error = StoreError;

    fn try_from(row: TaskRow) -> Result<Self, StoreError> {
        let status = to_status(row.status)?;
        let updated_at_ms = to_u64(row.updated_at);
        Ok(Self {
            spec: NewTask {
                id: to_task_id(&row.id)?,
                task_type: row.task_type.map(Arc::from),
                params: to_json(row.params),
                metadata: to_json(row.metadata),
                tags: row.tags.map(|tags| tags.into_iter().map(Arc::from).collect()),
                ttl_seconds: row.ttl_seconds.map(to_u64),
                auth_config: optional("task.auth_config", row.auth_config.as_deref())?,
                webhooks: optional("task.webhooks", row.webhooks.as_deref())?,
                cleanup: optional("task.cleanup", row.cleanup.as_deref())?,
            },
            number: to_number(row.number)?,
            status,
            result: to_json(row.result),
            error: row.error.as_deref().map(to_task_error).transpose()?,
            created_at_ms: to_u64(row.created_at),
            updated_at_ms,
            // A terminal transition is the last one.
            completed_at_ms: status.is_terminal().then_some(updated_at_ms),
        })
    }
}

/// Reads an error as the append statement stored it.
fn to_task_error(text: &str) -> Result<TaskError, StoreError> {
    let corrupt = || StoreError::Corrupt("task.error".into());
    let members: HashMap<&str, &serde_json::value::RawValue> =
        serde_json::from_str(text).map_err(|_| corrupt())?;
    let string = |name: &str| -> Result<Option<Arc<str>>, StoreError> {
        let value = members.get(name).map(|raw| serde_json::from_str::<String>(raw.get()));
        Ok(value.transpose().map_err(|_| corrupt())?.map(Arc::from))
    };
    Ok(TaskError {
        code: string("code")?,
        message: string("message")?.ok_or_else(corrupt)?,
        details: members.get("details").map(|raw| Json::from_compact(raw.get())),
    })
}

/// Where a log ends.
#[derive(Debug)]
pub(super) struct HeadRow {
    pub(super) id: String,
    pub(super) task: i64,
    pub(super) status: i16,
    pub(super) next_index: i64,
    pub(super) last_at: i64,
    pub(super) auth_config: Option<String>,
}

impl TryFrom<HeadRow> for Head {
    type Error = StoreError;

    fn try_from(row: HeadRow) -> Result<Self, StoreError> {
        Ok(Self {
            task: TaskRef { id: to_task_id(&row.id)?, number: to_number(row.task)? },
            status: to_head_status(row.status)?,
            next_index: to_u64(row.next_index),
            last_timestamp_ms: to_u64(row.last_at),
            auth_config: optional("task.auth_config", row.auth_config.as_deref())?.map(Arc::new),
        })
    }
}

/// A head with one of the series a request names, if it exists.
#[derive(Debug)]
pub(super) struct LoadedRow {
    pub(super) id: String,
    pub(super) number: i64,
    pub(super) task_type: Option<String>,
    pub(super) auth_config: Option<String>,
    pub(super) webhooks: Option<String>,
    pub(super) status: i16,
    pub(super) next_index: i64,
    pub(super) last_at: i64,
    pub(super) series_id: Option<String>,
    pub(super) mode: Option<i16>,
    pub(super) level: Option<i16>,
    pub(super) event_type: Option<String>,
    pub(super) named_field: Option<String>,
    pub(super) field: Option<String>,
    pub(super) first_index: Option<i64>,
    pub(super) last_index: Option<i64>,
    pub(super) text_bytes: Option<i64>,
}

impl LoadedRow {
    /// Returns what was settled when the task was created.
    pub(super) fn policy(&self) -> Result<TaskPolicy, StoreError> {
        Ok(TaskPolicy {
            task_type: self.task_type.as_deref().map(Arc::from),
            auth_config: optional("task.auth_config", self.auth_config.as_deref())?,
            webhooks: optional("task.webhooks", self.webhooks.as_deref())?.unwrap_or_default(),
        })
    }

    /// Returns the series of the row, if it has one.
    pub(super) fn series(self) -> Result<Option<(Arc<str>, SeriesState)>, StoreError> {
        let Some(id) = self.series_id else { return Ok(None) };
        let corrupt = || StoreError::Corrupt(format!("series {id:?} of task {}", self.number));
        let state = SeriesState {
            mode: to_mode(self.mode.ok_or_else(corrupt)?)?,
            level: to_level(self.level.ok_or_else(corrupt)?)?,
            event_type: self.event_type.ok_or_else(corrupt)?.into(),
            named_field: self.named_field.map(Arc::from),
            field: self.field.map(Arc::from),
            first_index: to_u64(self.first_index.ok_or_else(corrupt)?),
            last_index: to_u64(self.last_index.ok_or_else(corrupt)?),
            text_bytes: to_u64(self.text_bytes.ok_or_else(corrupt)?),
        };
        Ok(Some((id.into(), state)))
    }
}

/// An entry of a log.
#[derive(Debug)]
pub(super) struct EventRow {
    pub(super) index: i64,
    pub(super) at: i64,
    pub(super) level: i16,
    pub(super) mode: Option<i16>,
    pub(super) event_type: String,
    pub(super) series: Option<String>,
    pub(super) field: Option<String>,
    pub(super) data: String,
}

impl EventRow {
    pub(super) fn into_event(self, task: &TaskRef) -> Result<Event, StoreError> {
        let series = match self.series {
            Some(id) => Some(SeriesTag {
                id: id.into(),
                mode: self.mode.map(to_mode).transpose()?,
                field: self.field.map(Arc::from),
            }),
            None => None,
        };
        Ok(Event {
            task: task.id.clone(),
            number: task.number,
            index: to_u64(self.index),
            timestamp_ms: to_u64(self.at),
            draft: EventDraft {
                event_type: self.event_type.into(),
                level: to_level(self.level)?,
                data: Json::from_compact(self.data),
                series,
            },
        })
    }
}

/// An entry of a page, or a range without any.
#[derive(Debug)]
pub(super) struct PageRow {
    pub(super) position: i64,
    pub(super) status: Option<i16>,
    pub(super) next_index: Option<i64>,
    pub(super) index: Option<i64>,
    pub(super) at: Option<i64>,
    pub(super) level: Option<i16>,
    pub(super) mode: Option<i16>,
    pub(super) event_type: Option<String>,
    pub(super) series: Option<String>,
    pub(super) field: Option<String>,
    pub(super) data: Option<String>,
}

impl PageRow {
    /// Returns the row's event, if it has one.
    pub(super) fn event(self) -> Option<EventRow> {
        Some(EventRow {
            index: self.index?,
            at: self.at?,
            level: self.level?,
            mode: self.mode,
            event_type: self.event_type?,
            series: self.series,
            field: self.field,
            data: self.data?,
        })
    }
}
