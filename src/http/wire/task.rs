//! Tasks on the wire.

use std::sync::Arc;

use super::auth_config::{read_auth_config, write_auth_config};
use super::cleanup::{read_cleanup, write_cleanup};
use super::fields::{Field, Place, begins_with, body_text, fields, wrong_kind};
use super::push_number;
use super::webhooks::{read_webhooks, write_webhooks};
use crate::auth::AuthMode;
use crate::domain::{
    Json, NewTask, TargetPolicy, Task, TaskError, TaskId, TaskStatus, Transition, json,
};
use crate::engine::Limits;
use crate::http::error::{ApiError, ErrorCode};

/// Longest time to live, in seconds: ten years.
const LONGEST_TTL_SECONDS: u64 = 315_360_000;

/// Reads the task a body describes; `make_id` names one that has no id, and
/// `targets` says where its webhooks may lead.
///
/// Rules of its own are refused in a mode that could not hold to them.
pub(in crate::http) fn read_new_task(
    body: &[u8],
    limits: &Limits,
    mode: AuthMode,
    targets: &TargetPolicy,
    make_id: impl FnOnce() -> TaskId,
) -> Result<NewTask, ApiError> {
    let text = if body.is_empty() { "{}" } else { body_text(body)? };
    if !begins_with(text, '{') {
        return Err(wrong_kind(text, "the body must be an object"));
    }
    let [id, task_type, params, metadata, tags, ttl, webhooks, auth_config, cleanup] = fields(
        text,
        Place::Body,
        ["id", "type", "params", "metadata", "tags", "ttl", "webhooks", "authConfig", "cleanup"],
    )?;
    if auth_config.is_present() && mode == AuthMode::None {
        let message = "this server tells nobody apart; leave authConfig out or configure auth.mode";
        return Err(ApiError::new(ErrorCode::AuthNotConfigured, message).at(auth_config.path()));
    }
    let id = match id.string()? {
        None => make_id(),
        Some(text) => {
            TaskId::parse(&text).map_err(|invalid| ApiError::invalid("/id", invalid.to_string()))?
        }
    };
    Ok(NewTask {
        id,
        task_type: task_type.event_type()?,
        params: params.object(limits.nesting)?,
        metadata: metadata.object(limits.nesting)?,
        tags: tags.labels(limits.tags)?,
        ttl_seconds: ttl.whole_number(1..=LONGEST_TTL_SECONDS)?,
        auth_config: read_auth_config(&auth_config)?,
        webhooks: read_webhooks(&webhooks, limits.webhooks_per_task, targets)?,
        cleanup: read_cleanup(&cleanup)?,
    })
}

/// Reads the transition a body asks for.
pub(in crate::http) fn read_transition(
    body: &[u8],
    limits: &Limits,
) -> Result<Transition, ApiError> {
    let text = body_text(body)?;
    if !begins_with(text, '{') {
        return Err(wrong_kind(text, "the body must be an object"));
    }
    let [status, result, error] = fields(text, Place::Body, ["status", "result", "error"])?;
    let known = TaskStatus::ALL.into_iter().map(TaskStatus::as_str);
    let transition = Transition {
        to: status.required(status.word(TaskStatus::parse, known)?)?,
        result: result.object(limits.nesting)?,
        error: read_error(&error, limits)?,
    };
    check_outcome(&result, &error, limits.outcome_bytes)?;
    Ok(transition)
}

fn read_error(error: &Field<'_>, limits: &Limits) -> Result<Option<TaskError>, ApiError> {
    let Some([code, message, details]) = error.fields(["code", "message", "details"])? else {
        return Ok(None);
    };
    Ok(Some(TaskError {
        code: code.string()?.map(Arc::from),
        message: message.required(message.string()?)?.into(),
        details: details.object(limits.nesting)?,
    }))
}

/// Refuses a result and an error that together are too long.
fn check_outcome(result: &Field<'_>, error: &Field<'_>, most: usize) -> Result<(), ApiError> {
    if result.sent_bytes() + error.sent_bytes() <= most {
        return Ok(());
    }
    // Whitespace between tokens is not kept and does not count.
    let kept =
        |field: &Field<'_>| field.sent().map_or(0, |text| Json::from_valid(text).as_str().len());
    if kept(result) + kept(error) > most {
        let message = format!("result and error together are limited to {most} bytes");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).over(most as u64));
    }
    Ok(())
}

/// How many streams of a task are open, where an answer says so.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) enum ReaderCount {
    /// The answer does not say.
    Unsaid,
    /// So many on this instance.
    Here(usize),
}

/// How much of a task an answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Visibility {
    /// What whoever may read it sees.
    Reader,
    /// Also what is only for those who manage it: its rules and webhooks.
    Manager,
}

/// Appends a task to `out`.
pub(in crate::http) fn write_task(
    out: &mut String,
    task: &Task,
    readers: ReaderCount,
    visibility: Visibility,
) {
    let spec = &task.spec;
    // An id of the pattern for task ids needs no escape.
    out.push_str("{\"id\":\"");
    out.push_str(spec.id.as_str());
    out.push('"');
    if let Some(task_type) = &spec.task_type {
        out.push_str(",\"type\":");
        json::push_string(out, task_type);
    }
    out.push_str(",\"status\":\"");
    out.push_str(task.status.as_str());
    out.push('"');
    push_payload(out, ",\"params\":", spec.params.as_ref());
    push_payload(out, ",\"result\":", task.result.as_ref());
    if let Some(error) = &task.error {
        out.push_str(",\"error\":");
        error.write_json(out);
    }
    push_payload(out, ",\"metadata\":", spec.metadata.as_ref());
    out.push_str(",\"createdAt\":");
    push_number(out, task.created_at_ms);
    out.push_str(",\"updatedAt\":");
    push_number(out, task.updated_at_ms);
    if let Some(completed_at_ms) = task.completed_at_ms {
        out.push_str(",\"completedAt\":");
        push_number(out, completed_at_ms);
    }
    if let Some(ttl_seconds) = spec.ttl_seconds {
        out.push_str(",\"ttl\":");
        push_number(out, ttl_seconds);
    }
    if let (Some(rules), Visibility::Manager) = (&spec.auth_config, visibility) {
        out.push_str(",\"authConfig\":");
        write_auth_config(out, rules);
    }
    if let (Some(webhooks), Visibility::Manager) = (&spec.webhooks, visibility) {
        out.push_str(",\"webhooks\":");
        write_webhooks(out, webhooks);
    }
    if let Some(rules) = &spec.cleanup {
        out.push_str(",\"cleanup\":");
        write_cleanup(out, rules);
    }
    if let Some(tags) = &spec.tags {
        for (position, tag) in tags.iter().enumerate() {
            out.push_str(if position == 0 { ",\"tags\":[" } else { "," });
            json::push_string(out, tag);
        }
        out.push_str(if tags.is_empty() { ",\"tags\":[]" } else { "]" });
    }
    if let ReaderCount::Here(count) = readers {
        out.push_str(if count > 0 { ",\"hot\":true" } else { ",\"hot\":false" });
        out.push_str(",\"subscriberCount\":");
        push_number(out, count as u64);
    }
    out.push('}');
}

fn push_payload(out: &mut String, name: &str, payload: Option<&Json>) {
    if let Some(payload) = payload {
        out.push_str(name);
        out.push_str(payload.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{TaskNumber, WebhookSecret};

    fn made() -> TaskId {
        TaskId::parse("made").unwrap()
    }

    fn create(body: &str) -> Result<NewTask, ApiError> {
        let targets = TargetPolicy::default();
        read_new_task(body.as_bytes(), &Limits::default(), AuthMode::Jwt, &targets, made)
    }

    fn pending(spec: NewTask) -> Task {
        Task {
            spec,
            number: TaskNumber::new(1).unwrap(),
            status: TaskStatus::Pending,
            result: None,
            error: None,
            created_at_ms: 1,
            updated_at_ms: 1,
            completed_at_ms: None,
        }
    }

    fn transition(body: &str) -> Result<Transition, ApiError> {
        read_transition(body.as_bytes(), &Limits::default())
    }

    #[test]
    fn an_empty_body_is_a_task_without_anything() {
        for body in ["", "{}", " {\n}", r#"{"id":null,"webhooks":null,"x":[]}"#] {
            let task = create(body).unwrap();
            assert_eq!(task.id, made(), "{body}");
            assert!(task.params.is_none() && task.tags.is_none() && task.ttl_seconds.is_none());
        }
    }

    #[test]
    fn what_is_wrong_with_a_task_is_pointed_at() {
        for (body, path) in [
            (r#"{"id":""}"#, "/id"),
            (r#"{"id":"a b"}"#, "/id"),
            (r#"{"id":7}"#, "/id"),
            (r#"{"id":"a\u0000"}"#, "/id"),
            (r#"{"type":"a,b"}"#, "/type"),
            (r#"{"type":"\udc00"}"#, "/type"),
            (r#"{"params":[]}"#, "/params"),
            (r#"{"params":"{}"}"#, "/params"),
            (r#"{"metadata":1}"#, "/metadata"),
            (r#"{"ttl":0}"#, "/ttl"),
            (r#"{"ttl":315360001}"#, "/ttl"),
            (r#"{"ttl":1.5}"#, "/ttl"),
            (r#"{"ttl":"60"}"#, "/ttl"),
            (r#"{"tags":{}}"#, "/tags"),
            (r#"{"tags":["a",""]}"#, "/tags/1"),
        ] {
            let error = create(body).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidRequest, "{body}");
            assert_eq!(error.path(), Some(path), "{body}");
        }
        assert_eq!(create("[]").unwrap_err().code(), ErrorCode::InvalidRequest);
        assert_eq!(create(" ").unwrap_err().code(), ErrorCode::InvalidJson);
    }

    #[test]
    fn webhooks_are_shown_to_those_who_manage_the_task_and_cleanup_to_all() {
        let cleanup = r#","cleanup":{"rules":[{"target":"task"}]}"#;
        let webhooks = r#","webhooks":[{"url":"http://a.example"}]"#;
        let mut task = pending(create(&format!(r#"{{"ttl":60{webhooks}{cleanup}}}"#)).unwrap());
        task.spec.webhooks.as_mut().unwrap()[0].secret = Some(WebhookSecret::new("canary"));
        let written = |visibility| {
            let mut out = String::new();
            write_task(&mut out, &task, ReaderCount::Unsaid, visibility);
            out
        };
        let managed = format!(r#","ttl":60{webhooks}{cleanup}}}"#);
        assert!(written(Visibility::Manager).ends_with(&managed));
        assert!(written(Visibility::Reader).ends_with(&format!(r#","ttl":60{cleanup}}}"#)));
    }

    #[test]
    fn a_transition_is_read_with_its_outcome() {
        let read = transition(
            r#"{"status":"failed","result":{ "a" : 1.0 },"error":{"message":"m","code":"c","details":{"d":[]}}}"#,
        )
        .unwrap();
        assert_eq!(read.to, TaskStatus::Failed);
        assert_eq!(read.result.unwrap().as_str(), r#"{"a":1.0}"#);
        let error = read.error.unwrap();
        assert_eq!((&*error.message, error.code.as_deref()), ("m", Some("c")));
        assert_eq!(error.details.unwrap().as_str(), r#"{"d":[]}"#);
    }

    #[test]
    fn what_is_wrong_with_a_transition_is_pointed_at() {
        for (body, path) in [
            ("{}", "/status"),
            (r#"{"status":"done"}"#, "/status"),
            (r#"{"status":1}"#, "/status"),
            (r#"{"status":"failed","result":[]}"#, "/result"),
            (r#"{"status":"failed","error":"x"}"#, "/error"),
            (r#"{"status":"failed","error":{}}"#, "/error/message"),
            (r#"{"status":"failed","error":{"message":1}}"#, "/error/message"),
            (r#"{"status":"failed","error":{"message":"\u0000"}}"#, "/error/message"),
            (r#"{"status":"failed","error":{"message":"m","code":"\ud800"}}"#, "/error/code"),
            (r#"{"status":"failed","error":{"message":"m","details":7}}"#, "/error/details"),
        ] {
            let error = transition(body).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidRequest, "{body}");
            assert_eq!(error.path(), Some(path), "{body}");
        }
        assert_eq!(transition("").unwrap_err().code(), ErrorCode::InvalidJson);
    }

    #[test]
    fn an_outcome_is_measured_without_its_whitespace() {
        let limits = Limits { outcome_bytes: 20, ..Limits::default() };
        let read = |body: &str| read_transition(body.as_bytes(), &limits);
        let spaced = r#"{"status":"failed","result":{ "a" : 1  ,  "b" : 2 }}"#;
        assert!(read(spaced).is_ok());
        let error =
            read(r#"{"status":"failed","result":{"a":1},"error":{"message":"m"}}"#).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
        assert!(error.message().contains("20 bytes"));
    }

    #[test]
    fn tasks_are_written_in_the_documented_order() {
        let spec = create(
            r#"{"id":"t","type":"a.b","params":{"p":1e400},"metadata":{},"tags":["x","y"],"ttl":60}"#,
        );
        let mut task = Task {
            spec: spec.unwrap(),
            number: TaskNumber::new(1).unwrap(),
            status: TaskStatus::Failed,
            result: Some(Json::from_valid("{}")),
            error: Some(TaskError { code: None, message: "m".into(), details: None }),
            created_at_ms: 1,
            updated_at_ms: 2,
            completed_at_ms: Some(2),
        };
        let written = |task: &Task, readers| {
            let mut out = String::new();
            write_task(&mut out, task, readers, Visibility::Manager);
            out
        };
        assert_eq!(
            written(&task, ReaderCount::Here(2)),
            r#"{"id":"t","type":"a.b","status":"failed","params":{"p":1e400},"result":{},"error":{"message":"m"},"metadata":{},"createdAt":1,"updatedAt":2,"completedAt":2,"ttl":60,"tags":["x","y"],"hot":true,"subscriberCount":2}"#
        );
        task.spec = create(r#"{"tags":[]}"#).unwrap();
        (task.result, task.error, task.completed_at_ms) = (None, None, None);
        assert_eq!(
            written(&task, ReaderCount::Unsaid),
            r#"{"id":"made","status":"failed","createdAt":1,"updatedAt":2,"tags":[]}"#
        );
    }

    #[test]
    fn rules_are_shown_to_those_who_manage_the_task_and_need_a_mode_that_keeps_them() {
        let rules = r#"{"rules":[{"match":{"scope":["*"]},"require":{"sub":["a"]}}]}"#;
        let body = format!(r#"{{"id":"t","ttl":60,"authConfig":{rules},"tags":[]}}"#);
        let task = pending(create(&body).unwrap());
        let written = |visibility| {
            let mut out = String::new();
            write_task(&mut out, &task, ReaderCount::Unsaid, visibility);
            out
        };
        let shown = format!(r#","ttl":60,"authConfig":{rules},"tags":[]"#);
        assert!(written(Visibility::Manager).contains(&shown));
        assert!(!written(Visibility::Reader).contains("authConfig"));
        let read = |body: &str| {
            let (limits, targets) = (Limits::default(), TargetPolicy::default());
            read_new_task(body.as_bytes(), &limits, AuthMode::None, &targets, made)
        };
        let error = read(&body).unwrap_err();
        assert_eq!(
            (error.code(), error.path()),
            (ErrorCode::AuthNotConfigured, Some("/authConfig"))
        );
        assert!(read(r#"{"authConfig":null}"#).is_ok());
    }
}
