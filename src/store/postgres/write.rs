//! The append statement: a judged batch as arrays.

use super::codes::{of_level, of_mode, of_number, of_status, to_i64};
use super::plan::TaskPlan;
use super::session::Session;
use crate::domain::{EventDraft, SeriesMode, SeriesWrite};

/// Which lane writes, and the number of the batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchId {
    pub(super) lane: i64,
    pub(super) batch: i64,
}

/// What came of a batch that was sent.
#[derive(Debug)]
pub(super) enum Sent {
    /// It is durable; these tasks moved, at these times.
    Moved(Vec<(i64, i64)>),
    /// It had been carried out before.
    Again,
}

#[derive(Default)]
struct Heads {
    task: Vec<i64>,
    seen_index: Vec<i64>,
    seen_status: Vec<i16>,
    next_index: Vec<i64>,
    status: Vec<i16>,
    has_transition: Vec<bool>,
}

#[derive(Default)]
struct Entries<'a> {
    task: Vec<i64>,
    index: Vec<i64>,
    level: Vec<i16>,
    mode: Vec<Option<i16>>,
    event_type: Vec<&'a str>,
    series: Vec<Option<&'a str>>,
    field: Vec<Option<&'a str>>,
    data: Vec<&'a str>,
    is_delta: Vec<bool>,
}

impl<'a> Entries<'a> {
    fn push(&mut self, task: i64, index: u64, draft: &'a EventDraft) {
        let tag = draft.series.as_ref();
        let mode = tag.and_then(|tag| tag.mode);
        self.task.push(task);
        self.index.push(to_i64(index));
        self.level.push(of_level(draft.level));
        self.mode.push(mode.map(of_mode));
        self.event_type.push(&draft.event_type);
        self.series.push(tag.map(|tag| &*tag.id));
        self.field.push(tag.and_then(|tag| tag.field.as_deref()));
        self.data.push(draft.data.as_str());
        self.is_delta.push(mode == Some(SeriesMode::Accumulate));
    }
}

#[derive(Default)]
struct Series<'a> {
    task: Vec<i64>,
    id: Vec<&'a str>,
    mode: Vec<i16>,
    level: Vec<i16>,
    event_type: Vec<&'a str>,
    named_field: Vec<Option<&'a str>>,
    field: Vec<Option<&'a str>>,
    first_index: Vec<i64>,
    last_index: Vec<i64>,
    text_bytes: Vec<i64>,
}

impl<'a> Series<'a> {
    fn push(&mut self, task: i64, write: &'a SeriesWrite) {
        let state = &write.state;
        self.task.push(task);
        self.id.push(&write.id);
        self.mode.push(of_mode(state.mode));
        self.level.push(of_level(state.level));
        self.event_type.push(&state.event_type);
        self.named_field.push(state.named_field.as_deref());
        self.field.push(state.field.as_deref());
        self.first_index.push(to_i64(state.first_index));
        self.last_index.push(to_i64(state.last_index));
        self.text_bytes.push(to_i64(state.text_bytes));
    }
}

#[derive(Default)]
struct Outcomes<'a> {
    task: Vec<i64>,
    result: Vec<Option<&'a str>>,
    error: Vec<Option<String>>,
}

#[derive(Default)]
struct Owes<'a> {
    task: Vec<i64>,
    index: Vec<i64>,
    hook: Vec<&'a str>,
    receiver: Vec<i64>,
}

#[derive(Default)]
struct Keys {
    task: Vec<i64>,
    key: Vec<Vec<u8>>,
    request: Vec<Vec<u8>>,
    first_index: Vec<i64>,
}

/// A batch as the columns of the append statement.
#[derive(Default)]
struct Columns<'a> {
    owes: Owes<'a>,
    keys: Keys,
    heads: Heads,
    entries: Entries<'a>,
    series: Series<'a>,
    outcomes: Outcomes<'a>,
    /// Whether the batch begins a series.
    has_new_series: bool,
}

/// The statements that carry out a batch, from the one that does least.
#[derive(Debug, PartialEq, Eq)]
enum Statement {
    Deltas,
    Append,
    AppendWithDebts,
}

impl<'a> Columns<'a> {
    fn of(plans: &'a [TaskPlan]) -> Self {
        let mut columns = Self::default();
        for plan in plans {
            columns.add(plan);
        }
        columns
    }

    fn add(&mut self, plan: &'a TaskPlan) {
        let task = of_number(plan.task.number);
        self.heads.task.push(task);
        self.heads.seen_index.push(to_i64(plan.seen_index));
        self.heads.seen_status.push(of_status(plan.seen_status));
        self.heads.next_index.push(to_i64(plan.task.state.next_index));
        self.heads.status.push(of_status(plan.task.state.status));
        self.heads.has_transition.push(plan.accepted().any(|sealed| sealed.transition.is_some()));
        let (mut result, mut error, mut has_outcome) = (None, None, false);
        let mut newest: Vec<&SeriesWrite> = Vec::new();
        for sealed in plan.accepted() {
            for (index, draft) in (sealed.first_index..).zip(&sealed.events) {
                self.entries.push(task, index, draft);
            }
            for owed in &sealed.owed {
                self.owes.task.push(task);
                self.owes.index.push(to_i64(sealed.first_index + owed.position as u64));
                self.owes.hook.push(owed.hook.as_str());
                self.owes.receiver.push(owed.receiver.cast_signed());
            }
            // Several requests may write one series: its last state counts.
            for write in &sealed.series {
                match newest.iter_mut().find(|known| known.id == write.id) {
                    Some(known) => *known = write,
                    None => newest.push(write),
                }
            }
            if let Some(step) = &sealed.transition {
                has_outcome |= step.result.is_some() || step.error.is_some();
                result = step.result.as_ref().map(crate::domain::Json::as_str).or(result);
                error = step.error.as_ref().map(error_text).or(error);
            }
        }
        for (key, first_index) in plan.keys() {
            self.keys.task.push(task);
            self.keys.key.push(key.key.to_vec());
            self.keys.request.push(key.request.to_vec());
            self.keys.first_index.push(to_i64(first_index));
        }
        for write in newest {
            self.has_new_series |= write.state.first_index >= plan.seen_index;
            self.series.push(task, write);
        }
        if has_outcome {
            self.outcomes.task.push(task);
            self.outcomes.result.push(result);
            self.outcomes.error.push(error);
        }
    }

    /// Returns the statement that does all the batch needs, and little more:
    /// what a statement could do costs also where it has nothing to do.
    fn statement(&self) -> Statement {
        let changes_state = self.heads.has_transition.contains(&true);
        if !self.owes.task.is_empty() || !self.keys.task.is_empty() {
            Statement::AppendWithDebts
        } else if changes_state || self.has_new_series || self.entries.is_delta.contains(&false) {
            Statement::Append
        } else {
            Statement::Deltas
        }
    }
}

fn error_text(error: &crate::domain::TaskError) -> String {
    let mut text = String::new();
    error.write_json(&mut text);
    text
}

/// Sends the plans as one statement; they must be sorted by task number.
pub(super) async fn send(
    connection: &mut Session,
    id: BatchId,
    plans: &[TaskPlan],
) -> Result<Sent, sqlx::Error> {
    let columns = Columns::of(plans);
    if columns.statement() == Statement::Deltas {
        send_deltas(connection, id, &columns).await
    } else {
        send_all(connection, id, &columns).await
    }
}

/// Sends a batch of nothing but deltas to series that are there.
async fn send_deltas(
    connection: &mut Session,
    id: BatchId,
    columns: &Columns<'_>,
) -> Result<Sent, sqlx::Error> {
    let Columns { heads, entries, series, .. } = columns;
    let receipt = sqlx::query_file!(
        "sql/lanes/append_deltas.sql",
        id.lane,
        id.batch,
        &heads.task,
        &heads.seen_index,
        &heads.seen_status,
        &heads.next_index,
        &entries.task,
        &entries.index,
        &entries.level,
        &entries.mode as &[Option<i16>],
        &entries.event_type as &[&str],
        &entries.series as &[Option<&str>],
        &entries.field as &[Option<&str>],
        &entries.data as &[&str],
        &series.task,
        &series.id as &[&str],
        &series.field as &[Option<&str>],
        &series.last_index,
        &series.text_bytes,
    )
    .fetch_optional(connection)
    .await?;
    Ok(receipt.map_or(Sent::Again, |receipt| {
        Sent::Moved(receipt.task.into_iter().zip(receipt.moved_at).collect())
    }))
}

/// Sends a batch of whatever it is.
async fn send_all(
    connection: &mut Session,
    id: BatchId,
    columns: &Columns<'_>,
) -> Result<Sent, sqlx::Error> {
    let Columns { heads, entries, series, outcomes, owes, keys, .. } = columns;
    /// Sends the statement in a file, with what it takes beside the rest.
    macro_rules! send {
        ($file:literal $(, $more:expr)*) => {{
            let rows = sqlx::query_file!(
                $file,
                id.lane,
                id.batch,
                &heads.task,
                &heads.seen_index,
                &heads.seen_status,
                &heads.next_index,
                &heads.status,
                &heads.has_transition,
                &entries.task,
                &entries.index,
                &entries.level,
                &entries.mode as &[Option<i16>],
                &entries.event_type as &[&str],
                &entries.series as &[Option<&str>],
                &entries.field as &[Option<&str>],
                &entries.data as &[&str],
                &entries.is_delta,
                &series.task,
                &series.id as &[&str],
                &series.mode,
                &series.level,
                &series.event_type as &[&str],
                &series.named_field as &[Option<&str>],
                &series.field as &[Option<&str>],
                &series.first_index,
                &series.last_index,
                &series.text_bytes,
                &outcomes.task,
                &outcomes.result as &[Option<&str>],
                &outcomes.error as &[Option<String>],
                $($more),*
            )
            .fetch_all(connection)
            .await?;
            let moved = rows.iter().filter_map(|row| Some((row.task?, row.at?))).collect();
            Ok(if rows.is_empty() { Sent::Again } else { Sent::Moved(moved) })
        }};
    }
    if columns.statement() == Statement::Append {
        return send!("sql/lanes/append.sql");
    }
    send!(
        "sql/lanes/append_with_debts.sql",
        &owes.task,
        &owes.index,
        &owes.hook as &[&str],
        &owes.receiver,
        &keys.task,
        &keys.key,
        &keys.request,
        &keys.first_index
    )
}

/// Reads what came of a batch whose reply was lost; `None` when nothing did.
pub(super) async fn look_up(
    connection: &mut Session,
    id: BatchId,
) -> Result<Option<Vec<(i64, i64)>>, sqlx::Error> {
    let receipt = sqlx::query_file!("sql/lanes/receipt.sql", id.lane, id.batch)
        .fetch_optional(connection)
        .await?;
    Ok(receipt.map(|receipt| receipt.task.into_iter().zip(receipt.moved_at).collect()))
}

#[cfg(test)]
mod tests {
    /// Keeps the statement itself, less comments and empty lines.
    fn statement<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        lines.filter(|line| !line.trim_start().starts_with("--") && !line.is_empty()).collect()
    }

    #[test]
    fn the_append_without_debts_is_the_one_with_debts_less_its_marked_parts() {
        let whole = include_str!("../../../sql/lanes/append_with_debts.sql");
        let mut is_marked = false;
        let plain = whole.lines().filter(|line| {
            match line.trim() {
                "-- only with debts: begin" => is_marked = true,
                "-- only with debts: end" => is_marked = false,
                _ => {}
            }
            !is_marked
        });
        let lean = include_str!("../../../sql/lanes/append.sql");
        assert_eq!(statement(plain), statement(lean.lines()));
    }
}
