//! Judging a write: may it happen, and what does it come to?
//!
//! [`judge`] is the one place that says yes or no to a change of a task.
//! Every adapter calls it with the task's state under whatever guards that
//! state (a lock, or a version check), and then stores exactly what it
//! returned. A refused write leaves the state as it was.

use std::collections::HashMap;
use std::sync::Arc;

use super::{
    AuthConfig, Decision, EndpointHook, EventDraft, Guard, IdempotencyKey, Json, Level, Owed,
    STATUS_EVENT_TYPE, SeriesConflict, SeriesMode, SeriesState, SeriesWrite, TaskError, TaskId,
    TaskStatus, Webhook, json, owed,
};

/// A request to change a task: all of it happens, or nothing.
#[derive(Debug, Clone)]
pub struct Append {
    /// The task to change.
    pub task: TaskId,
    /// What to do.
    pub change: Change,
    /// What holds for every write.
    pub rules: Arc<AppendRules>,
    /// Whose write it is; `None` where nobody needs to be asked.
    pub guard: Option<Guard>,
    /// Makes a repeat of the request take effect once.
    pub key: Option<IdempotencyKey>,
}

/// What holds for every write of a service.
#[derive(Debug, Clone, Default)]
pub struct AppendRules {
    /// Longest text of an `accumulate` series, in bytes.
    pub series_text_limit: u64,
    /// Endpoints of the configuration.
    pub endpoints: Vec<EndpointHook>,
}

/// What a write does to a task.
#[derive(Debug, Clone)]
pub enum Change {
    /// Appends events, in order.
    Publish(Vec<EventDraft>),
    /// Moves the task to another state and appends the status event.
    Transition(Transition),
}

/// A move to another state.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The state to enter.
    pub to: TaskStatus,
    /// Result to keep on the task; `None` leaves what is there.
    pub result: Option<Json>,
    /// Error to keep on the task; `None` leaves what is there.
    pub error: Option<TaskError>,
}

impl Transition {
    /// Returns the move to a state, with nothing to keep on the task.
    pub fn to(status: TaskStatus) -> Self {
        Self { to: status, result: None, error: None }
    }

    /// Returns the same move with a result, which should be an object.
    #[must_use]
    pub fn with_result(mut self, result: Json) -> Self {
        self.result = Some(result);
        self
    }

    /// Returns the same move with an error.
    #[must_use]
    pub fn with_error(mut self, error: TaskError) -> Self {
        self.error = Some(error);
        self
    }

    /// Returns the event that tells readers about this transition.
    fn status_event(&self) -> EventDraft {
        let mut data = String::from("{\"status\":\"");
        data.push_str(self.to.as_str());
        data.push('"');
        if let Some(result) = &self.result {
            data.push_str(",\"result\":");
            data.push_str(result.as_str());
        }
        if let Some(error) = &self.error {
            data.push_str(",\"error\":");
            error.write_json(&mut data);
        }
        data.push('}');
        EventDraft {
            event_type: STATUS_EVENT_TYPE.into(),
            level: Level::Info,
            data: Json::from_compact(data),
            series: None,
        }
    }
}

/// What was settled when a task was created, as far as writes depend on it.
#[derive(Debug, Clone, Default)]
pub struct TaskPolicy {
    /// What kind of task it is.
    pub task_type: Option<Arc<str>>,
    /// Who else must agree before a caller may touch it.
    pub auth_config: Option<AuthConfig>,
    /// Who is told of its events.
    pub webhooks: Vec<Webhook>,
}

/// What a verdict on a task depends on.
#[derive(Debug, Clone)]
pub struct TaskState {
    /// What does not change.
    pub policy: Arc<TaskPolicy>,
    /// State of the task.
    pub status: TaskStatus,
    /// Index the next event gets.
    pub next_index: u64,
    /// The series the write names, as far as they exist.
    pub series: HashMap<Arc<str>, SeriesState>,
}

/// An accepted write, ready to be stored.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Index of the first event.
    pub first_index: u64,
    /// The events; their indexes follow on.
    pub events: Vec<EventDraft>,
    /// Series that changed, at most one entry for each.
    pub series: Vec<SeriesWrite>,
    /// Where each delta of an `accumulate` series stands in its text, in order.
    pub accumulated: Vec<Accumulated>,
    /// State to enter, with what to keep on the task.
    pub transition: Option<Transition>,
    /// Deliveries the events owe, in their order.
    pub owed: Vec<Owed>,
}

/// Where a delta stands in the text of its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accumulated {
    /// Position of the event in the request.
    pub position: usize,
    /// The text field in force.
    pub field: Option<Arc<str>>,
    /// Length of the text up to and including the delta, undecoded, in bytes.
    pub text_bytes: u64,
}

/// Why a write was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The task's own rules do not let the caller.
    Denied(Decision),
    /// The task is finished; nothing follows a terminal state.
    Closed(TaskStatus),
    /// The table of transitions has no such entry.
    IllegalTransition {
        /// State the task is in.
        from: TaskStatus,
        /// State that was asked for.
        to: TaskStatus,
    },
    /// An event does not fit the series it names.
    Series {
        /// Position of the event in the request.
        position: usize,
        /// What does not fit.
        conflict: SeriesConflict,
    },
    /// A series would grow past the longest text allowed.
    SeriesTooLong {
        /// Position of the event in the request.
        position: usize,
        /// Longest text allowed, in bytes.
        limit_bytes: u64,
    },
}

/// A refused change, given back whole.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why it was refused.
    pub refusal: Refusal,
    /// What was asked for.
    pub change: Change,
}

impl Change {
    /// Returns the events of the change as they would be stored.
    pub fn into_drafts(self) -> Vec<EventDraft> {
        match self {
            Self::Publish(events) => events,
            Self::Transition(transition) => vec![transition.status_event()],
        }
    }
}

impl Sealed {
    /// Turns the write back into the change it was judged from.
    pub fn into_change(self) -> Change {
        match self.transition {
            Some(transition) => Change::Transition(transition),
            None => Change::Publish(self.events),
        }
    }
}

/// Judges `change` against `state`; moves `state` on when it is accepted.
pub fn judge(
    state: &mut TaskState,
    change: Change,
    rules: &AppendRules,
    guard: Option<&Guard>,
) -> Result<Sealed, Box<Refused>> {
    let decision = guard.map(|guard| guard.decide(state.policy.auth_config.as_ref()));
    if let Some(denied) = decision.filter(|decision| *decision != Decision::Allowed) {
        return Err(Box::new(Refused { refusal: Refusal::Denied(denied), change }));
    }
    let (series, accumulated) = match verdict(state, &change, rules.series_text_limit) {
        Ok(folded) => folded,
        Err(refusal) => return Err(Box::new(Refused { refusal, change })),
    };
    let first_index = state.next_index;
    let (events, transition) = match change {
        Change::Publish(events) => (events, None),
        Change::Transition(transition) => {
            state.status = transition.to;
            (vec![transition.status_event()], Some(transition))
        }
    };
    let TaskPolicy { task_type, webhooks, .. } = &*state.policy;
    let owed = owed(task_type.as_deref(), webhooks, &rules.endpoints, &events);
    let sealed = Sealed { first_index, events, series, accumulated, transition, owed };
    state.next_index += sealed.events.len() as u64;
    for write in &sealed.series {
        state.series.insert(write.id.clone(), write.state.clone());
    }
    Ok(sealed)
}

fn verdict(
    state: &TaskState,
    change: &Change,
    series_text_limit: u64,
) -> Result<(Vec<SeriesWrite>, Vec<Accumulated>), Refusal> {
    match change {
        Change::Publish(_) if state.status.is_terminal() => Err(Refusal::Closed(state.status)),
        Change::Publish(events) => judge_series(state, events, series_text_limit),
        Change::Transition(Transition { to, .. }) if !state.status.may_become(*to) => {
            Err(Refusal::IllegalTransition { from: state.status, to: *to })
        }
        Change::Transition(_) => Ok((Vec::new(), Vec::new())),
    }
}

fn judge_series(
    state: &TaskState,
    events: &[EventDraft],
    limit_bytes: u64,
) -> Result<(Vec<SeriesWrite>, Vec<Accumulated>), Refusal> {
    let mut writes: Vec<SeriesWrite> = Vec::new();
    let mut accumulated = Vec::new();
    for (position, event) in events.iter().enumerate() {
        let Some(tag) = &event.series else { continue };
        let Some(mode) = tag.mode else { continue };
        let index = state.next_index + position as u64;
        let pending = writes.iter().position(|write| write.id == tag.id);
        let known = pending.map(|at| &writes[at].state).or_else(|| state.series.get(&tag.id));
        let superseded = known.filter(|_| mode == SeriesMode::Latest).map(|state| state.last_index);
        let is_new = known.is_none();
        let next = match known {
            Some(known) => known.extend(event, tag, mode, index),
            None => SeriesState::open(event, tag, mode, index),
        }
        .map_err(|conflict| Refusal::Series { position, conflict })?;
        if next.text_bytes > limit_bytes {
            return Err(Refusal::SeriesTooLong { position, limit_bytes });
        }
        if mode == SeriesMode::Accumulate {
            let (field, text_bytes) = (next.field.clone(), next.text_bytes);
            accumulated.push(Accumulated { position, field, text_bytes });
        }
        // A keep-all series is remembered for its mode alone.
        if mode == SeriesMode::KeepAll && !is_new {
            continue;
        }
        match pending {
            Some(at) => {
                writes[at].state = next;
                writes[at].superseded.extend(superseded);
            }
            None => writes.push(SeriesWrite {
                id: tag.id.clone(),
                state: next,
                superseded: superseded.into_iter().collect(),
            }),
        }
    }
    Ok((writes, accumulated))
}

impl TaskError {
    /// Appends the error to `out` as JSON.
    pub fn write_json(&self, out: &mut String) {
        out.push('{');
        if let Some(code) = &self.code {
            out.push_str("\"code\":");
            json::push_string(out, code);
            out.push(',');
        }
        out.push_str("\"message\":");
        json::push_string(out, &self.message);
        if let Some(details) = &self.details {
            out.push_str(",\"details\":");
            out.push_str(details.as_str());
        }
        out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SeriesTag;

    fn running() -> TaskState {
        TaskState {
            policy: Arc::default(),
            status: TaskStatus::Running,
            next_index: 5,
            series: HashMap::new(),
        }
    }

    fn limit(series_text_limit: u64) -> AppendRules {
        AppendRules { series_text_limit, ..AppendRules::default() }
    }

    fn delta(series: &str, data: &str) -> EventDraft {
        EventDraft {
            event_type: "llm.delta".into(),
            level: Level::Info,
            data: Json::from_valid(data),
            series: Some(SeriesTag {
                id: series.into(),
                mode: Some(SeriesMode::Accumulate),
                field: None,
            }),
        }
    }

    #[test]
    fn a_refused_request_leaves_no_trace_of_its_good_events() {
        let mut state = running();
        let events = vec![delta("a", r#"{"text":"x"}"#), delta("a", r#"{"text":7}"#)];
        let refusal =
            judge(&mut state, Change::Publish(events), &limit(100), None).unwrap_err().refusal;
        assert!(matches!(refusal, Refusal::Series { position: 1, .. }));
        assert_eq!(state.next_index, 5);
        assert!(state.series.is_empty());
    }

    #[test]
    fn a_request_sees_the_series_its_earlier_events_opened() {
        let mut state = running();
        let events = vec![delta("a", r#"{"text":"xy"}"#), delta("a", r#"{"text":"z"}"#)];
        let sealed = judge(&mut state, Change::Publish(events), &limit(3), None).unwrap();
        assert_eq!(sealed.series.len(), 1);
        let series = &state.series["a"];
        assert_eq!((series.first_index, series.last_index, series.text_bytes), (5, 6, 3));
        let more = vec![delta("a", r#"{"text":"!"}"#)];
        let refusal =
            judge(&mut state, Change::Publish(more), &limit(3), None).unwrap_err().refusal;
        assert_eq!(refusal, Refusal::SeriesTooLong { position: 0, limit_bytes: 3 });
    }

    #[test]
    fn nothing_follows_a_terminal_state() {
        let mut state = running();
        let done = Transition { to: TaskStatus::Completed, result: None, error: None };
        let sealed =
            judge(&mut state, Change::Transition(done.clone()), &limit(100), None).unwrap();
        assert_eq!(sealed.events[0].data.as_str(), r#"{"status":"completed"}"#);
        assert_eq!(state.next_index, 6);
        let again =
            judge(&mut state, Change::Transition(done), &limit(100), None).unwrap_err().refusal;
        assert!(matches!(again, Refusal::IllegalTransition { from: TaskStatus::Completed, .. }));
        let late =
            judge(&mut state, Change::Publish(Vec::new()), &limit(100), None).unwrap_err().refusal;
        assert_eq!(late, Refusal::Closed(TaskStatus::Completed));
    }
}
