//! The append statement, and its variant for contended tasks.
//!
//! Group commit: one autocommit statement writes what a batch of requests
//! wants of any number of tasks. The primary key of the log is the concurrency
//! check. With it the statement writes a receipt, whose key is lane and batch
//! number: a batch that is sent again after a lost reply violates it and takes
//! effect once.

use super::super::columns::{of_level, of_mode, of_number, of_status, to_i64};
use super::super::error::{Failure, Table, classify};
use super::super::rows::{AppendRow, TaskRow};
use super::super::session::Session;
use super::connection::Statement;
use super::plan::TaskPlan;
use super::receipt::{Receipt, look_up, void};
use crate::domain::{EventDraft, SeriesWrite};

/// Which lane writes, the number of the batch, and for which run of which
/// server its contents were decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchId {
    pub(super) lane: i64,
    pub(super) batch: i64,
    pub(super) server: i64,
}

/// A batch, or some of it, that is durable.
#[derive(Debug)]
pub(super) struct Written {
    /// The store's clock, Unix milliseconds.
    pub(super) at: i64,
    /// Numbers of the tasks; `None` for all of the batch.
    pub(super) tasks: Option<Vec<i64>>,
    /// Tasks that changed their state, as they are now; some may be missing.
    pub(super) documents: Vec<TaskRow>,
}

impl Written {
    fn all(at: i64) -> Self {
        Self { at, tasks: None, documents: Vec::new() }
    }

    pub(super) fn some((at, tasks): Receipt) -> Self {
        Self { at, tasks: Some(tasks), documents: Vec::new() }
    }
}

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is durable.
    Written(Written),
    /// It did not happen, because it was based on outdated state.
    Stale {
        /// What is outdated.
        what: Stale,
        /// Whether its number is used up.
        is_spent: bool,
    },
}

/// What a batch that did not happen was wrong about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stale {
    /// Another server answers, or the same one after a restart.
    Server,
    /// The lane is not registered any more.
    Lane,
    /// A task is in another state, or gone.
    Head,
}

#[derive(Default)]
struct Tasks {
    task: Vec<i64>,
    from_index: Vec<i64>,
    next_index: Vec<i64>,
    seen_status: Vec<i16>,
}

#[derive(Default)]
struct Transitions<'a> {
    task: Vec<i64>,
    seen_status: Vec<i16>,
    from_index: Vec<i64>,
    status: Vec<i16>,
    next_index: Vec<i64>,
    floor_at: Vec<i64>,
    result: Vec<Option<&'a str>>,
    error: Vec<Option<String>>,
}

#[derive(Default)]
struct Events<'a> {
    task: Vec<i64>,
    index: Vec<i64>,
    floor_at: Vec<i64>,
    level: Vec<i16>,
    mode: Vec<Option<i16>>,
    event_type: Vec<&'a str>,
    series: Vec<Option<&'a str>>,
    field: Vec<Option<&'a str>>,
    member: Vec<Option<&'a str>>,
    text_bytes: Vec<Option<i64>>,
    data: Vec<&'a str>,
}

#[derive(Default)]
struct Openings<'a> {
    task: Vec<i64>,
    id: Vec<&'a str>,
    mode: Vec<i16>,
    level: Vec<i16>,
    event_type: Vec<&'a str>,
    named_field: Vec<Option<&'a str>>,
    first_index: Vec<i64>,
}

#[derive(Default)]
struct Outbox<'a> {
    task: Vec<i64>,
    index: Vec<i64>,
    hook: Vec<&'a str>,
    receiver: Vec<i64>,
    floor_at: Vec<i64>,
}

#[derive(Default)]
struct Keys {
    key: Vec<Vec<u8>>,
    request: Vec<Vec<u8>>,
    task: Vec<i64>,
    first_index: Vec<i64>,
    floor_at: Vec<i64>,
}

/// A batch as the columns of the statements; plans are sorted by task number.
#[derive(Default)]
struct Columns<'a> {
    tasks: Tasks,
    transitions: Transitions<'a>,
    events: Events<'a>,
    openings: Openings<'a>,
    outbox: Outbox<'a>,
    keys: Keys,
}

impl<'a> Columns<'a> {
    fn of(plans: &'a [TaskPlan]) -> Self {
        let mut columns = Self::default();
        let mut keys = Vec::new();
        for plan in plans {
            columns.add(plan);
            let (task, floor_at) = (of_number(plan.task.number), to_i64(plan.task.last_at_ms));
            keys.extend(plan.keys().map(|(key, first_index)| (key, task, first_index, floor_at)));
        }
        // Ascending, in every statement that inserts keys.
        keys.sort_unstable_by_key(|(key, ..)| key.key);
        for (key, task, first_index, floor_at) in keys {
            columns.keys.key.push(key.key.to_vec());
            columns.keys.request.push(key.request.to_vec());
            columns.keys.task.push(task);
            columns.keys.first_index.push(to_i64(first_index));
            columns.keys.floor_at.push(floor_at);
        }
        columns
    }

    /// Tells whether the batch does nothing but add to logs.
    fn are_only_events(&self) -> bool {
        self.transitions.task.is_empty()
            && self.openings.task.is_empty()
            && self.outbox.task.is_empty()
            && self.keys.task.is_empty()
    }

    fn add(&mut self, plan: &'a TaskPlan) {
        let (task, floor_at) = (of_number(plan.task.number), to_i64(plan.task.last_at_ms));
        self.tasks.task.push(task);
        self.tasks.from_index.push(to_i64(plan.seen_index));
        self.tasks.next_index.push(to_i64(plan.task.state.next_index));
        self.tasks.seen_status.push(of_status(plan.seen_status));
        let (mut result, mut error) = (None, None);
        for accepted in plan.accepted() {
            let mut accumulated = accepted.accumulated.iter().peekable();
            for (position, draft) in accepted.events.iter().enumerate() {
                let place = accumulated.next_if(|place| place.position == position);
                let index = to_i64(accepted.first_index + position as u64);
                self.events.push(task, index, floor_at, draft);
                let named = draft.series.as_ref().and_then(|tag| tag.field.as_ref());
                let in_force = place.and_then(|place| place.field.as_ref());
                self.events.member.push(in_force.filter(|_| named.is_none()).map(|field| &**field));
                self.events.text_bytes.push(place.map(|place| to_i64(place.text_bytes)));
            }
            for owed in &accepted.owed {
                self.outbox.task.push(task);
                self.outbox.index.push(to_i64(accepted.first_index + owed.position as u64));
                self.outbox.hook.push(owed.hook.as_str());
                self.outbox.receiver.push(owed.receiver.cast_signed());
                self.outbox.floor_at.push(floor_at);
            }
            for write in &accepted.series {
                if write.state.first_index >= accepted.first_index {
                    self.openings.push(task, write);
                }
            }
            if let Some(step) = &accepted.transition {
                result = step.result.as_ref().map(crate::domain::Json::as_str).or(result);
                error = step.error.as_ref().map(error_text).or(error);
            }
        }
        if plan.has_transition() {
            let transitions = &mut self.transitions;
            transitions.task.push(task);
            transitions.seen_status.push(of_status(plan.seen_status));
            transitions.from_index.push(to_i64(plan.seen_index));
            transitions.status.push(of_status(plan.task.state.status));
            transitions.next_index.push(to_i64(plan.task.state.next_index));
            transitions.floor_at.push(floor_at);
            transitions.result.push(result);
            transitions.error.push(error);
        }
    }
}

impl<'a> Events<'a> {
    fn push(&mut self, task: i64, index: i64, floor_at: i64, draft: &'a EventDraft) {
        let tag = draft.series.as_ref();
        self.task.push(task);
        self.index.push(index);
        self.floor_at.push(floor_at);
        self.level.push(of_level(draft.level));
        self.mode.push(tag.and_then(|tag| tag.mode).map(of_mode));
        self.event_type.push(&draft.event_type);
        self.series.push(tag.map(|tag| &*tag.id));
        self.field.push(tag.and_then(|tag| tag.field.as_deref()));
        self.data.push(draft.data.as_str());
    }
}

impl<'a> Openings<'a> {
    fn push(&mut self, task: i64, write: &'a SeriesWrite) {
        let state = &write.state;
        self.task.push(task);
        self.id.push(&write.id);
        self.mode.push(of_mode(state.mode));
        self.level.push(of_level(state.level));
        self.event_type.push(&state.event_type);
        self.named_field.push(state.named_field.as_deref());
        self.first_index.push(to_i64(state.first_index));
    }
}

fn error_text(error: &crate::domain::TaskError) -> String {
    let mut text = String::new();
    error.write_json(&mut text);
    text
}

/// Appends a batch, all of it or nothing.
pub(super) struct AppendBatch<'a> {
    id: BatchId,
    columns: Columns<'a>,
}

impl<'a> AppendBatch<'a> {
    pub(super) fn new(id: BatchId, plans: &'a [TaskPlan]) -> Self {
        Self { id, columns: Columns::of(plans) }
    }

    pub(super) async fn send(&self, session: &mut Session) -> Result<Outcome, sqlx::Error> {
        if self.columns.are_only_events() {
            self.send_events(session).await
        } else {
            self.send_all(session).await
        }
    }

    async fn send_events(&self, session: &mut Session) -> Result<Outcome, sqlx::Error> {
        let Columns { tasks, events, .. } = &self.columns;
        let row = sqlx::query_file!(
            "sql/write/append_events.sql",
            self.id.lane,
            self.id.batch,
            self.id.server,
            &tasks.task,
            &tasks.from_index,
            &tasks.next_index,
            &tasks.seen_status,
            &events.task,
            &events.index,
            &events.floor_at,
            &events.level,
            &events.mode as &[Option<i16>],
            &events.event_type as &[&str],
            &events.series as &[Option<&str>],
            &events.field as &[Option<&str>],
            &events.member as &[Option<&str>],
            &events.text_bytes as &[Option<i64>],
            &events.data as &[&str],
        )
        .fetch_one(session)
        .await?;
        Ok(outcome(row.is_server, row.is_registered, row.at.map(Written::all)))
    }

    async fn send_all(&self, session: &mut Session) -> Result<Outcome, sqlx::Error> {
        let Columns { tasks, transitions, events, openings, outbox, keys } = &self.columns;
        let rows = sqlx::query_file_as!(
            AppendRow,
            "sql/write/append.sql",
            self.id.lane,
            self.id.batch,
            self.id.server,
            &tasks.task,
            &tasks.from_index,
            &tasks.next_index,
            &tasks.seen_status,
            &events.task,
            &events.index,
            &events.floor_at,
            &events.level,
            &events.mode as &[Option<i16>],
            &events.event_type as &[&str],
            &events.series as &[Option<&str>],
            &events.field as &[Option<&str>],
            &events.member as &[Option<&str>],
            &events.text_bytes as &[Option<i64>],
            &events.data as &[&str],
            &transitions.task,
            &transitions.seen_status,
            &transitions.from_index,
            &transitions.status,
            &transitions.next_index,
            &transitions.floor_at,
            &transitions.result as &[Option<&str>],
            &transitions.error as &[Option<String>],
            &keys.key,
            &keys.request,
            &keys.task,
            &keys.first_index,
            &keys.floor_at,
            &openings.task,
            &openings.id as &[&str],
            &openings.mode,
            &openings.level,
            &openings.event_type as &[&str],
            &openings.named_field as &[Option<&str>],
            &openings.first_index,
            &outbox.task,
            &outbox.index,
            &outbox.hook as &[&str],
            &outbox.receiver,
            &outbox.floor_at,
        )
        .fetch_all(session)
        .await?;
        Ok(outcome_of(rows))
    }
}

/// Reads what the statement says: the same of the batch in each row, and a task
/// in each that changed its state.
fn outcome_of(rows: Vec<AppendRow>) -> Outcome {
    let (mut is_server, mut is_registered, mut at) = (true, true, None);
    let mut documents = Vec::new();
    for row in rows {
        (is_server, is_registered, at) = (row.is_server, row.is_registered, row.at);
        documents.extend(row.into_document());
    }
    outcome(is_server, is_registered, at.map(|at| Written { at, tasks: None, documents }))
}

impl Statement for AppendBatch<'_> {
    type Output = Outcome;

    async fn run(
        &mut self,
        session: &mut Session,
        is_repeat: bool,
    ) -> Result<Outcome, sqlx::Error> {
        let outcome = self.send(session).await;
        resolve(session, self.id, is_repeat, outcome).await
    }
}

/// Appends a batch for contended tasks: those whose index is taken drop out.
pub(super) struct ClaimBatch<'a> {
    id: BatchId,
    columns: Columns<'a>,
}

impl<'a> ClaimBatch<'a> {
    /// The plans must change no state.
    pub(super) fn new(id: BatchId, plans: &'a [TaskPlan]) -> Self {
        Self { id, columns: Columns::of(plans) }
    }

    async fn send(&self, session: &mut Session) -> Result<Outcome, sqlx::Error> {
        let Columns { tasks, events, openings, outbox, keys, .. } = &self.columns;
        let row = sqlx::query_file!(
            "sql/write/claim.sql",
            self.id.lane,
            self.id.batch,
            self.id.server,
            &tasks.task,
            &tasks.from_index,
            &tasks.next_index,
            &tasks.seen_status,
            &events.task,
            &events.index,
            &events.floor_at,
            &events.level,
            &events.mode as &[Option<i16>],
            &events.event_type as &[&str],
            &events.series as &[Option<&str>],
            &events.field as &[Option<&str>],
            &events.member as &[Option<&str>],
            &events.text_bytes as &[Option<i64>],
            &events.data as &[&str],
            &keys.key,
            &keys.request,
            &keys.task,
            &keys.first_index,
            &keys.floor_at,
            &openings.task,
            &openings.id as &[&str],
            &openings.mode,
            &openings.level,
            &openings.event_type as &[&str],
            &openings.named_field as &[Option<&str>],
            &openings.first_index,
            &outbox.task,
            &outbox.index,
            &outbox.hook as &[&str],
            &outbox.receiver,
            &outbox.floor_at,
        )
        .fetch_one(session)
        .await?;
        let written = row.at.map(|at| Written::some((at, row.written.unwrap_or_default())));
        Ok(outcome(row.is_server, row.is_registered, written))
    }
}

impl Statement for ClaimBatch<'_> {
    type Output = Outcome;

    async fn run(
        &mut self,
        session: &mut Session,
        is_repeat: bool,
    ) -> Result<Outcome, sqlx::Error> {
        let outcome = self.send(session).await;
        resolve(session, self.id, is_repeat, outcome).await
    }
}

fn outcome(is_server: bool, is_registered: bool, written: Option<Written>) -> Outcome {
    let what = match (is_server, is_registered, written) {
        (_, _, Some(written)) => return Outcome::Written(written),
        (false, ..) => Stale::Server,
        (true, false, None) => Stale::Lane,
        (true, true, None) => Stale::Head,
    };
    Outcome::Stale { what, is_spent: false }
}

/// Finds out what a batch came to that may have been sent before.
///
/// Its number may get other contents only when no earlier copy can commit any
/// more. After a violated key none can: it would have met the same key. After
/// a refusal for outdated state one can, so its number is spent on nothing.
async fn resolve(
    session: &mut Session,
    id: BatchId,
    is_repeat: bool,
    outcome: Result<Outcome, sqlx::Error>,
) -> Result<Outcome, sqlx::Error> {
    // Breaks the order of a batch: it hears of the log before its receipt, and
    // takes its own rows for those of another writer.
    failpoint!("receipt-after-log", |_| {
        if outcome.as_ref().is_err_and(|error| is_receipt(error, is_repeat)) {
            return Ok(Outcome::Stale { what: Stale::Head, is_spent: true });
        }
    });
    let written = |receipt| Outcome::Written(Written::some(receipt));
    match outcome {
        Ok(Outcome::Stale { what, .. }) if is_repeat => {
            let is_void = void(session, id).await?;
            let receipt = if is_void { None } else { look_up(session, id).await? };
            Ok(receipt.map_or(Outcome::Stale { what, is_spent: true }, written))
        }
        Err(error) if is_receipt(&error, is_repeat) => {
            look_up(session, id).await?.map(written).ok_or(error)
        }
        outcome => outcome,
    }
}

/// Tells whether there may be a receipt, after a violated key: of the receipts
/// themselves, or of a batch that may have been sent before.
fn is_receipt(error: &sqlx::Error, is_repeat: bool) -> bool {
    match classify(error) {
        Failure::Conflict(table) => is_repeat || table == Table::Receipt,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    /// Keeps the statement itself, less comments and empty lines.
    fn statement<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        lines.filter(|line| !line.trim_start().starts_with("--") && !line.is_empty()).collect()
    }

    #[test]
    fn the_append_of_events_is_the_whole_append_less_its_marked_parts() {
        let whole = include_str!("../../../../sql/write/append.sql");
        let mut is_marked = false;
        let rest = whole.lines().filter(|line| {
            match line.trim() {
                "-- only with more: begin" => is_marked = true,
                "-- only with more: end" => is_marked = false,
                _ => {}
            }
            !is_marked
        });
        let events = include_str!("../../../../sql/write/append_events.sql");
        assert_eq!(statement(rest), statement(events.lines()));
    }
}
