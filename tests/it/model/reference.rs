//! The model: what a store is, in plain maps and lists.
//!
//! It is written from the documents, not from the code: no rule of the crate
//! is called. Times and numbers are not part of it; those a store says first,
//! and then has to stand by (see `case`).

use std::collections::BTreeMap;

use taskcast::domain::{Level, Refusal, SeriesConflict, SeriesMode, TaskStatus};

use super::command::{Change, Command, Creation, Name, Request, Sent, Spec, Step, repeated};
use super::draft::{Draft, text_of};
use super::rules::Rule;

/// An event of a log.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) draft: Draft,
    /// A newer event stands for its `latest` series.
    pub(super) is_superseded: bool,
    /// Cleanup took it.
    pub(super) is_removed: bool,
}

impl Entry {
    pub(super) fn is_left(&self) -> bool {
        !self.is_superseded && !self.is_removed
    }
}

/// A series of a task.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) mode: SeriesMode,
    pub(super) kind: &'static str,
    pub(super) level: Level,
    /// The member its text is in, once that is known.
    pub(super) field: Option<&'static str>,
    /// Indexes of its events.
    pub(super) members: Vec<usize>,
    text_bytes: u64,
}

/// A task, from its creation on; an id may have several, one after another.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) name: Name,
    pub(super) spec: Spec,
    pub(super) status: TaskStatus,
    pub(super) result: Option<&'static str>,
    pub(super) error: Option<Failure>,
    pub(super) log: Vec<Entry>,
    pub(super) series: BTreeMap<&'static str, Series>,
    /// Index of the event of the last transition.
    pub(super) moved_at: Option<usize>,
    pub(super) is_deleted: bool,
}

/// An error a task may end with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Failure {
    pub(super) code: Option<&'static str>,
    pub(super) message: &'static str,
    pub(super) details: Option<&'static str>,
}

/// What a request with a key did.
#[derive(Debug, Clone)]
struct Did {
    life: usize,
    first: usize,
    count: usize,
}

/// What a command is answered with; reads are compared with the whole state.
#[derive(Debug, Clone, Default)]
pub(super) enum Reply {
    #[default]
    Nothing,
    Created(usize),
    Recreated(usize),
    Exists,
    KeyConflict,
    Stored {
        life: usize,
        first: usize,
        count: usize,
    },
    Replayed {
        life: usize,
        first: usize,
        count: usize,
    },
    NoSuchTask,
    Refused(Refusal),
    Deleted(bool),
    Several(Vec<Reply>),
}

/// A whole store.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) lives: Vec<Life>,
    pub(super) names: BTreeMap<Name, usize>,
    pub(super) made: usize,
    creations: Vec<(u8, Creation, usize)>,
    appends: Vec<(Name, u8, Change, Did)>,
    /// Requests with keys, sent so far.
    pub(super) sent: Vec<Sent>,
    /// What the last command is answered with.
    pub(super) reply: Reply,
}

/// The table of transitions.
fn may_become(from: TaskStatus, to: TaskStatus) -> bool {
    use TaskStatus::{Cancelled, Completed, Failed, Pending, Running, Timeout};
    matches!(
        (from, to),
        (Pending, Running | Cancelled | Timeout)
            | (Running, Completed | Failed | Timeout | Cancelled)
    )
}

impl Life {
    fn new(name: Name, spec: Spec) -> Self {
        Self {
            name,
            spec,
            status: TaskStatus::Pending,
            result: None,
            error: None,
            log: Vec::new(),
            series: BTreeMap::new(),
            moved_at: None,
            is_deleted: false,
        }
    }

    /// Returns the task as it was created.
    pub(super) fn fresh(&self) -> Self {
        Self::new(self.name, self.spec.clone())
    }

    pub(super) fn is_finished(&self) -> bool {
        !matches!(self.status, TaskStatus::Pending | TaskStatus::Running)
    }

    fn carry_out(&mut self, change: &Change, text_limit: u64) -> Result<(), Refusal> {
        match change {
            Change::Publish { drafts, times } => {
                let all: Vec<&Draft> = repeated(drafts, *times).collect();
                self.publish(&all, text_limit)
            }
            Change::Enter { to, result, error } => {
                if !may_become(self.status, *to) {
                    return Err(Refusal::IllegalTransition { from: self.status, to: *to });
                }
                self.status = *to;
                self.result = result.or(self.result);
                self.error = error.or(self.error);
                self.moved_at = Some(self.log.len());
                self.push(Draft::status(status_data(*to, *result, *error)));
                Ok(())
            }
        }
    }

    fn push(&mut self, draft: Draft) {
        self.log.push(Entry { draft, is_superseded: false, is_removed: false });
    }

    fn publish(&mut self, drafts: &[&Draft], text_limit: u64) -> Result<(), Refusal> {
        if self.is_finished() {
            return Err(Refusal::Closed(self.status));
        }
        let mut series = self.series.clone();
        for (position, draft) in drafts.iter().enumerate() {
            join(&mut series, draft, self.log.len() + position)
                .map_err(|conflict| Refusal::Series { position, conflict })?;
            let tag = draft.tag.as_ref();
            let text_bytes = tag.and_then(|tag| series.get(tag.id)).map_or(0, |s| s.text_bytes);
            if draft.is_delta() && text_bytes > text_limit {
                return Err(Refusal::SeriesTooLong { position, limit_bytes: text_limit });
            }
        }
        self.series = series;
        for draft in drafts {
            self.push(Draft::clone(draft));
        }
        for series in self.series.values().filter(|series| series.mode == SeriesMode::Latest) {
            for index in &series.members[..series.members.len() - 1] {
                self.log[*index].is_superseded = true;
            }
        }
        Ok(())
    }

    /// Returns the text of an `accumulate` series up to and with an index.
    pub(super) fn text(&self, series: &Series, last: usize) -> String {
        let Some(field) = series.field else { return String::new() };
        let members = series.members.iter().take_while(|index| **index <= last);
        members.filter_map(|index| text_of(self.log[*index].draft.data.member(field)?)).collect()
    }

    /// Carries out a cleanup rule.
    fn clean(&mut self, rule: &Rule) {
        if rule.is_distant {
            return;
        }
        if rule.removes_task {
            self.is_deleted = true;
            return;
        }
        for entry in &mut self.log {
            entry.is_removed |= rule.admits(&entry.draft);
        }
    }
}

/// Lets an event join the series it names, or begin it.
fn join(
    series: &mut BTreeMap<&'static str, Series>,
    draft: &Draft,
    index: usize,
) -> Result<(), SeriesConflict> {
    let Some((tag, mode)) = draft.series() else { return Ok(()) };
    let accumulates = mode == SeriesMode::Accumulate;
    let is_new = !series.contains_key(tag.id);
    let known = series.entry(tag.id).or_insert_with(|| Series {
        mode,
        kind: draft.kind,
        level: draft.level,
        field: tag.field.filter(|_| accumulates),
        members: Vec::new(),
        text_bytes: 0,
    });
    if mode != known.mode {
        return Err(SeriesConflict::Mode(known.mode));
    }
    if accumulates && !is_new {
        if draft.kind != known.kind {
            return Err(SeriesConflict::Type(known.kind.into()));
        }
        if draft.level != known.level {
            return Err(SeriesConflict::Level(known.level));
        }
        if tag.field.is_some() && tag.field != known.field {
            return Err(SeriesConflict::Field(tag.field.unwrap_or_default().into()));
        }
    }
    if accumulates {
        let defaults = ["text", "delta"].into_iter();
        let field = known.field.or_else(|| defaults.clone().find(|name| has(draft, name)));
        if let Some((field, value)) = field.and_then(|f| Some((f, draft.data.member(f)?))) {
            let text = text_of(value).ok_or_else(|| SeriesConflict::NotText(field.into()))?;
            known.text_bytes += text.len() as u64;
            known.field = Some(field);
        }
    }
    known.members.push(index);
    Ok(())
}

fn has(draft: &Draft, name: &str) -> bool {
    draft.data.member(name).is_some()
}

/// Writes what the event of a transition carries.
fn status_data(to: TaskStatus, result: Option<&str>, error: Option<Failure>) -> String {
    let status = match to {
        TaskStatus::Pending => "pending",
        TaskStatus::Running => "running",
        TaskStatus::Completed => "completed",
        TaskStatus::Failed => "failed",
        TaskStatus::Timeout => "timeout",
        TaskStatus::Cancelled => "cancelled",
    };
    let mut members = vec![format!("\"status\":\"{status}\"")];
    members.extend(result.map(|result| format!("\"result\":{result}")));
    members.extend(error.map(|error| {
        let code = error.code.map(|code| format!("\"code\":\"{code}\",")).unwrap_or_default();
        let details = error.details.map(|text| format!(",\"details\":{text}")).unwrap_or_default();
        format!("\"error\":{{{code}\"message\":\"{}\"{details}}}", error.message)
    }));
    format!("{{{}}}", members.join(","))
}

impl Model {
    /// Returns the task that has a name now.
    pub(super) fn current(&self, name: Name) -> Option<&Life> {
        Some(&self.lives[*self.names.get(&name)?])
    }

    /// Returns the store after a command.
    pub(super) fn after(mut self, step: &Step) -> Self {
        self.reply = match &step.command {
            Command::Create(creation) => self.create(creation),
            Command::Append(request) => self.append(request),
            Command::Burst(requests) => {
                Reply::Several(requests.iter().map(|request| self.append(request)).collect())
            }
            Command::Again(position) => match self.again(*position) {
                Some(Sent::Create(creation)) => self.create(&creation),
                Some(Sent::Append(request)) => self.append(&request),
                None => Reply::Nothing,
            },
            Command::Delete { life } => self.delete(*life),
            Command::Cleanup { rules, .. } => self.clean(rules.rules()),
            _ => Reply::Nothing,
        };
        self
    }

    /// Returns the keyed request that is sent again.
    pub(super) fn again(&self, position: usize) -> Option<Sent> {
        let at = position.checked_rem(self.sent.len())?;
        Some(self.sent[at].clone())
    }

    fn create(&mut self, creation: &Creation) -> Reply {
        let name = match creation.id {
            Some(id) => Name::Given(id),
            None => Name::Made(self.made),
        };
        self.made += usize::from(creation.id.is_none());
        if let Some(key) = creation.key {
            self.sent.push(Sent::Create(creation.clone()));
            let known = self.creations.iter().find(|(known, ..)| *known == key);
            if let Some((_, first, life)) = known {
                let is_same = first.id == creation.id && first.spec == creation.spec;
                return if is_same { Reply::Recreated(*life) } else { Reply::KeyConflict };
            }
        }
        if self.names.contains_key(&name) {
            return Reply::Exists;
        }
        let life = self.lives.len();
        self.lives.push(Life::new(name, creation.spec.clone()));
        self.names.insert(name, life);
        if let Some(key) = creation.key {
            self.creations.push((key, creation.clone(), life));
        }
        Reply::Created(life)
    }

    fn append(&mut self, request: &Request) -> Reply {
        let Request { name, change, key, text_limit } = request;
        if let Some(key) = key {
            self.sent.push(Sent::Append(request.clone()));
            let known =
                self.appends.iter().find(|(whose, known, ..)| whose == name && known == key);
            if let Some((_, _, first_change, Did { life, first, count })) = known {
                if first_change != change {
                    return Reply::KeyConflict;
                }
                return Reply::Replayed { life: *life, first: *first, count: *count };
            }
        }
        let Some(life) = self.names.get(name).copied() else { return Reply::NoSuchTask };
        let first = self.lives[life].log.len();
        if let Err(refusal) = self.lives[life].carry_out(change, *text_limit) {
            return Reply::Refused(refusal);
        }
        let count = self.lives[life].log.len() - first;
        // What changed nothing leaves no key behind.
        if let Some(key) = key.filter(|_| count > 0) {
            self.appends.push((*name, key, change.clone(), Did { life, first, count }));
        }
        Reply::Stored { life, first, count }
    }

    fn delete(&mut self, life: usize) -> Reply {
        let Some(doomed) = self.lives.get_mut(life) else { return Reply::Nothing };
        let was_there = !std::mem::replace(&mut doomed.is_deleted, true);
        self.forget_deleted();
        Reply::Deleted(was_there)
    }

    fn forget_deleted(&mut self) {
        let lives = &self.lives;
        self.names.retain(|_, life| !lives[*life].is_deleted);
    }

    fn clean(&mut self, configured: &[Rule]) -> Reply {
        for life in self.lives.iter_mut().filter(|life| life.is_finished() && !life.is_deleted) {
            let own = life.spec.rule.map(super::rules::Own::rule);
            for rule in own.iter().chain(configured) {
                if rule.applies(life.spec.kind, life.status) {
                    life.clean(rule);
                }
            }
        }
        self.forget_deleted();
        Reply::Nothing
    }
}
