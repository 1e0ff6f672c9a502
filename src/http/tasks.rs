//! Tasks: create, find, list, transition, delete.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Query, Submission, Submitted, TaskPath};
use super::wire::{
    ReaderCount, is_label, json_response, mark_replay, read_new_task, read_transition, write_task,
};
use super::{AppState, fresh};
use crate::domain::{
    Action, ListQuery, Principal, Task, TaskGrant, TaskId, TaskNumber, TaskStatus, TypePattern,
};
use crate::engine::{Limits, WriteContext};

/// Tasks on a page when the caller does not say how many.
const DEFAULT_PAGE: usize = 500;

/// Words for states that clients know and no task has yet: they match nothing.
const FUTURE: [&str; 3] = ["assigned", "paused", "blocked"];

/// First character of a cursor; another form of cursor gets another.
const CURSOR_VERSION: char = 'a';

/// Creates a task: `POST /tasks`.
pub(super) async fn create_task(
    State(app): State<AppState>,
    submission: Submission,
) -> Result<Response, ApiError> {
    let Submitted { caller, repeatable, body, held: _held } =
        submission.accept(Action::CreateTask).await?;
    let mode = app.authenticator.mode();
    let task = read_new_task(&body, app.engine.limits(), mode, &app.targets, fresh::task_id)?;
    caller.authorize(Action::CreateTask, Some(&task.id))?;
    if task.webhooks.is_some() {
        caller.allow(Action::CreateWebhooks)?;
    }
    let key = repeatable.key(&caller, "create", None, &body);
    let written = app.engine.create_task(task, key).await?;
    let response = answer(StatusCode::CREATED, &caller, &written.outcome, ReaderCount::Unsaid);
    Ok(mark_replay(response, written.replayed))
}

/// Returns a task: `GET /tasks/{id}`.
pub(super) async fn find_task(
    State(app): State<AppState>,
    caller: Caller,
    path: TaskPath,
) -> Result<Response, ApiError> {
    caller.allow(Action::ReadTask)?;
    let id = path.id()?;
    caller.authorize(Action::ReadTask, Some(&id))?;
    let task = app.engine.find_task(&id).await?.ok_or_else(ApiError::task_not_found)?;
    caller.admit(Action::ReadTask, task.spec.auth_config.as_ref())?;
    let readers = ReaderCount::Here(app.dispatcher.reader_count(task.number));
    Ok(answer(StatusCode::OK, &caller, &task, readers))
}

/// Returns a page of tasks, newest first: `GET /tasks`.
pub(super) async fn list_tasks(
    State(app): State<AppState>,
    caller: Caller,
    query: Query,
) -> Result<Response, ApiError> {
    caller.authorize(Action::ReadAnyTask, None)?;
    let list = read_list_query(&query, caller.principal(), app.engine.limits())?;
    let guard = caller.guard(Action::ReadAnyTask);
    let page = app.engine.list_tasks(&list, guard.as_ref()).await?;
    let size: usize = page.tasks.iter().map(Task::size_bytes).sum();
    let mut body = String::with_capacity(size + 64);
    body.push_str("{\"tasks\":[");
    for (position, task) in page.tasks.iter().enumerate() {
        if position > 0 {
            body.push(',');
        }
        let readers = ReaderCount::Here(app.dispatcher.reader_count(task.number));
        write_task(&mut body, task, readers, caller.visibility(task));
    }
    body.push(']');
    if let Some(next) = page.next {
        body.push_str(",\"nextCursor\":\"");
        body.push_str(&encode_cursor(next));
        body.push('"');
    }
    body.push('}');
    Ok(json_response(StatusCode::OK, body))
}

/// Moves a task to another status: `PATCH /tasks/{id}/status`.
pub(super) async fn transition_task(
    State(app): State<AppState>,
    path: TaskPath,
    submission: Submission,
) -> Result<Response, ApiError> {
    let Submitted { caller, repeatable, body, held: _held } =
        submission.accept(Action::ManageTask).await?;
    let transition = read_transition(&body, app.engine.limits())?;
    let id = path.id()?;
    caller.authorize(Action::ManageTask, Some(&id))?;
    let context = WriteContext {
        guard: caller.guard(Action::ManageTask),
        key: repeatable.key(&caller, "transition", Some(&id), &body),
    };
    let written = app.engine.transition(&id, transition, context).await?;
    let response = answer(StatusCode::OK, &caller, &written.outcome, ReaderCount::Unsaid);
    Ok(mark_replay(response, written.replayed))
}

/// Deletes a task with all it owns: `DELETE /tasks/{id}`.
pub(super) async fn delete_task(
    State(app): State<AppState>,
    caller: Caller,
    path: TaskPath,
) -> Result<Response, ApiError> {
    caller.allow(Action::ManageTask)?;
    let id: TaskId = path.id()?;
    caller.authorize(Action::ManageTask, Some(&id))?;
    let task = app.engine.find_task(&id).await?.ok_or_else(ApiError::task_not_found)?;
    caller.admit(Action::ManageTask, task.spec.auth_config.as_ref())?;
    if app.engine.delete_task(&task).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(ApiError::task_not_found())
    }
}

fn answer(status: StatusCode, caller: &Caller, task: &Task, readers: ReaderCount) -> Response {
    let mut body = String::with_capacity(task.size_bytes());
    write_task(&mut body, task, readers, caller.visibility(task));
    json_response(status, body)
}

fn read_list_query(
    query: &Query,
    caller: &Principal,
    limits: &Limits,
) -> Result<ListQuery, ApiError> {
    let most = limits.list_tasks;
    let limit = query.integer("limit", 1..=i64::try_from(most).unwrap_or(i64::MAX))?;
    let before = match query.last("cursor")? {
        None => None,
        Some(text) => Some(decode_cursor(&text).ok_or_else(|| {
            query.invalid("cursor", "must be the nextCursor of a page of this list")
        })?),
    };
    let mut tags = Vec::new();
    for tag in query.all("tag")? {
        if !is_label(&tag) {
            let problem = "must be 1 to 255 bytes without control characters";
            return Err(query.invalid("tag", problem));
        }
        tags.push(tag.into());
    }
    let known: Vec<_> = TaskStatus::ALL.into_iter().map(TaskStatus::as_str).chain(FUTURE).collect();
    let unknown_status = format!("must be a comma list of {}", known.join(", "));
    let bad_pattern =
        "must be a comma list of types; a * may stand alone or after a final dot, as in llm.*";
    let status = |word: &str| match TaskStatus::parse(word) {
        Some(status) => Some(Some(status)),
        None => FUTURE.contains(&word).then_some(None),
    };
    let statuses = query.list("status", &unknown_status, status)?;
    let matches_nothing = !statuses.is_empty() && statuses.iter().all(Option::is_none);
    Ok(ListQuery {
        statuses: statuses.into_iter().flatten().collect(),
        types: query.list("type", bad_pattern, |entry| TypePattern::parse(entry).ok())?,
        tags,
        before,
        grant: if matches_nothing { TaskGrant::Only(Vec::new()) } else { caller.tasks.clone() },
        limit: limit.and_then(|limit| limit.try_into().ok()).unwrap_or(DEFAULT_PAGE.min(most)),
        max_bytes: limits.list_page_bytes,
    })
}

fn encode_cursor(before: TaskNumber) -> String {
    format!("{CURSOR_VERSION}{:x}", before.get())
}

fn decode_cursor(text: &str) -> Option<TaskNumber> {
    let number = u64::from_str_radix(text.strip_prefix(CURSOR_VERSION)?, 16).ok()?;
    let before = TaskNumber::new(number)?;
    // One page has one cursor: no other spelling of the number is one.
    (encode_cursor(before) == text).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::FromRequestParts as _;
    use axum::http::Request;

    async fn read(text: &str) -> Result<ListQuery, ApiError> {
        let request = Request::get(format!("/tasks?{text}")).body(()).unwrap();
        let mut parts = request.into_parts().0;
        let query = Query::from_request_parts(&mut parts, &()).await.unwrap();
        read_list_query(&query, &Principal::unrestricted(), &Limits::default())
    }

    #[test]
    fn a_cursor_has_one_spelling_and_no_other() {
        for number in [0, 1, 0xabc, TaskNumber::MAX.get()] {
            let number = TaskNumber::new(number).unwrap();
            assert_eq!(decode_cursor(&encode_cursor(number)), Some(number));
        }
        for bad in ["", "a", "1", "a01", "aA", "a+1", "b1", "a10000000000", "a-1", "a1 "] {
            assert_eq!(decode_cursor(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_list_is_read_with_all_its_filters() {
        let list = read("status=pending,running&type=llm.*,x&tag=a&tag=b&limit=7&cursor=aff")
            .await
            .unwrap();
        assert_eq!(list.statuses, [TaskStatus::Pending, TaskStatus::Running]);
        assert_eq!(list.types.len(), 2);
        assert_eq!(list.tags, ["a".into(), "b".into()]);
        assert_eq!((list.limit, list.before), (7, TaskNumber::new(255)));
        let list = read("").await.unwrap();
        assert_eq!((list.limit, list.before), (500, None));
        assert!(list.statuses.is_empty() && list.types.is_empty() && list.tags.is_empty());
    }

    #[tokio::test]
    async fn states_that_no_task_has_yet_match_nothing() {
        let list = read("status=paused,assigned").await.unwrap();
        assert_eq!(list.grant, TaskGrant::Only(Vec::new()));
        let list = read("status=blocked,running").await.unwrap();
        assert_eq!((list.statuses, list.grant), (vec![TaskStatus::Running], TaskGrant::Every));
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_list_is_named() {
        for (text, path) in [
            ("limit=0", "/query/limit"),
            ("limit=501", "/query/limit"),
            ("limit=ten", "/query/limit"),
            ("status=done", "/query/status"),
            ("status=pending,Running", "/query/status"),
            ("type=a*", "/query/type"),
            ("tag=", "/query/tag"),
            ("tag=%00", "/query/tag"),
            ("cursor=", "/query/cursor"),
            ("cursor=zzz", "/query/cursor"),
        ] {
            assert_eq!(read(text).await.unwrap_err().path(), Some(path), "{text}");
        }
    }
}
