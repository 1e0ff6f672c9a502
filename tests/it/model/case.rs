//! One run of commands, carried out on stores and compared with the model.
//!
//! Times and numbers are what the stores say first: they are noted, must be in
//! order, and from then on every store has to say the same.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use taskcast::domain::{
    Append, AppendRules, Change as Sending, Event, IdempotencyKey, Json, ListQuery, NewTask, Task,
    TaskError, TaskGrant, TaskId, TaskNumber, Transition,
};
use taskcast::store::{Appended, Created, JournalMark, Store, TaskRef};

use super::command::{Change, Command, Creation, Name, Request, Sent, Step, repeated};
use super::draft::Draft;
use super::reference::{Life, Model, Reply};
use crate::store::open::Fresh;

/// Whether a store did what the model does.
pub(super) type Verdict = Result<(), TestCaseError>;

/// A run of commands on stores that hold the same tasks.
pub(super) struct Case<'a> {
    stores: &'a [Fresh],
    /// Begins every id, so that runs do not meet.
    prefix: String,
    /// Numbers of tasks, by life.
    pub(super) numbers: Vec<TaskNumber>,
    /// When tasks were created, by life.
    pub(super) created: Vec<u64>,
    /// When events were stored, by life and index.
    times: HashMap<(usize, usize), u64>,
    pub(super) mark: JournalMark,
    /// How far the journal told of each task.
    pub(super) told: HashMap<TaskNumber, u64>,
}

impl<'a> Case<'a> {
    /// Begins a run: whatever an earlier one left behind goes first.
    pub(super) async fn begin(stores: &'a [Fresh], prefix: String) -> Self {
        let every = ListQuery {
            statuses: Vec::new(),
            types: Vec::new(),
            tags: Vec::new(),
            before: None,
            grant: TaskGrant::Every,
            limit: 100,
            max_bytes: 4 << 20,
        };
        loop {
            let page = stores[0].list(&every).await.unwrap();
            for task in &page.tasks {
                assert!(stores[0].delete(&TaskRef::from(task)).await.unwrap());
            }
            if page.next.is_none() {
                break;
            }
        }
        let mark = stores[0].journal(None).await.unwrap().mark;
        Self {
            stores,
            prefix,
            numbers: Vec::new(),
            created: Vec::new(),
            times: HashMap::new(),
            mark,
            told: HashMap::new(),
        }
    }

    /// Carries out a command and compares; `before` is the model before it,
    /// `model` after it.
    pub(super) async fn step(&mut self, step: &Step, before: &Model, model: &Model) -> Verdict {
        let store: &dyn Store = &*self.stores[step.instance % self.stores.len()];
        match &step.command {
            Command::Create(creation) => self.create(store, creation, before, model).await,
            Command::Append(request) => {
                let appended = store.append(self.sending(request)).await.unwrap();
                self.check_append(&model.reply, &appended, model)
            }
            Command::Burst(requests) => {
                let sendings = requests.iter().map(|request| store.append(self.sending(request)));
                let appended = join_all(sendings).await;
                let Reply::Several(replies) = &model.reply else { unreachable!() };
                for (reply, appended) in replies.iter().zip(appended) {
                    self.check_append(reply, &appended.unwrap(), model)?;
                }
                Ok(())
            }
            Command::Again(position) => match before.again(*position) {
                Some(Sent::Create(creation)) => self.create(store, &creation, before, model).await,
                Some(Sent::Append(request)) => {
                    let appended = store.append(self.sending(&request)).await.unwrap();
                    self.check_append(&model.reply, &appended, model)
                }
                None => Ok(()),
            },
            Command::Delete { life } => {
                let Reply::Deleted(expected) = model.reply else { return Ok(()) };
                let deleted = store.delete(&self.task_ref(model, *life)).await.unwrap();
                prop_assert_eq!(deleted, expected, "delete of life {}", life);
                Ok(())
            }
            Command::Cleanup { rules, bites } => self.clean(store, *rules, bites, model).await,
            Command::Purge { limit } => {
                store.purge(*limit).await.unwrap();
                Ok(())
            }
            look => self.look(store, look, model).await,
        }
    }

    /// Returns the stores one after another.
    pub(super) fn stores(&self) -> impl Iterator<Item = &'a dyn Store> + use<'a> {
        self.stores.iter().map(|store| &**store)
    }

    /// Returns an id of this run.
    pub(super) fn id(&self, name: Name) -> TaskId {
        let id = match name {
            Name::Given(n) => format!("{}-{n}", self.prefix),
            Name::Made(n) => format!("{}-made-{n}", self.prefix),
        };
        TaskId::parse(&id).unwrap()
    }

    /// Returns the label every task of this run has.
    pub(super) fn label(&self) -> Arc<str> {
        self.prefix.as_str().into()
    }

    /// Returns what names the task of a life.
    pub(super) fn task_ref(&self, model: &Model, life: usize) -> TaskRef {
        TaskRef { id: self.id(model.lives[life].name), number: self.numbers[life] }
    }

    fn key(&self, purpose: &str, key: u8, request: &str) -> IdempotencyKey {
        let digest = |text: &str| {
            use std::hash::{DefaultHasher, Hash as _, Hasher as _};
            let mut digest = [0; 32];
            for (at, eight) in digest.chunks_mut(8).enumerate() {
                let mut hasher = DefaultHasher::new();
                (at, text).hash(&mut hasher);
                eight.copy_from_slice(&hasher.finish().to_le_bytes());
            }
            digest
        };
        IdempotencyKey {
            key: digest(&format!("{} {purpose} {key}", self.prefix)),
            request: digest(request),
        }
    }

    fn sending(&self, request: &Request) -> Append {
        let Request { name, change, key, text_limit } = request;
        let key = key.map(|key| self.key(&format!("{name:?}"), key, &format!("{change:?}")));
        let change = match change {
            Change::Publish { drafts, times } => {
                Sending::Publish(repeated(drafts, *times).map(Draft::sent).collect())
            }
            Change::Enter { to, result, error } => Sending::Transition(Transition {
                to: *to,
                result: result.map(Json::from_valid),
                error: error.map(failure),
            }),
        };
        let rules = AppendRules { series_text_limit: *text_limit, ..AppendRules::default() };
        Append { task: self.id(*name), change, rules: Arc::new(rules), guard: None, key }
    }

    fn spec(&self, name: Name, spec: &super::command::Spec) -> NewTask {
        let mut tags = vec![self.label()];
        tags.extend(spec.is_tagged.then(|| "tagged".into()));
        NewTask {
            task_type: spec.kind.map(Into::into),
            params: spec.params.map(Json::from_valid),
            tags: Some(tags),
            ttl_seconds: spec.ttl_seconds,
            cleanup: spec.rule.map(|own| vec![own.rule().sent()]),
            ..NewTask::new(self.id(name))
        }
    }

    async fn create(
        &mut self,
        store: &dyn Store,
        creation: &Creation,
        before: &Model,
        model: &Model,
    ) -> Verdict {
        let Creation { id, spec, key } = creation;
        let name = id.map_or(Name::Made(before.made), Name::Given);
        let key = key.map(|key| self.key("create", key, &format!("{id:?} {spec:?}")));
        let created = store.create(self.spec(name, spec), key).await.unwrap();
        match (&model.reply, created) {
            (Reply::Created(life), Created::New(task)) => {
                let last = self.numbers.last();
                prop_assert!(last.is_none_or(|last| *last < task.number), "numbers rise");
                self.numbers.push(task.number);
                self.created.push(task.created_at_ms);
                self.check_task(&task, *life, &model.lives[*life].fresh())
            }
            (Reply::Recreated(life), Created::Replayed(task)) => {
                self.check_task(&task, *life, &model.lives[*life].fresh())
            }
            (Reply::Exists, Created::Exists) | (Reply::KeyConflict, Created::KeyConflict) => Ok(()),
            (expected, created) => {
                Err(TestCaseError::fail(format!("{created:?} instead of {expected:?}")))
            }
        }
    }

    /// Compares a task with a life, every member of it.
    pub(super) fn check_task(&self, task: &Task, life: usize, expected: &Life) -> Verdict {
        let created_at_ms = self.created[life];
        let moved_at_ms = expected.moved_at.map(|index| self.times[&(life, index)]);
        let expected = Task {
            spec: self.spec(expected.name, &expected.spec),
            number: self.numbers[life],
            status: expected.status,
            result: expected.result.map(Json::from_valid),
            error: expected.error.map(failure),
            created_at_ms,
            updated_at_ms: moved_at_ms.unwrap_or(created_at_ms),
            completed_at_ms: moved_at_ms.filter(|_| expected.is_finished()),
        };
        prop_assert_eq!(format!("{task:?}"), format!("{expected:?}"));
        Ok(())
    }

    fn check_append(&mut self, expected: &Reply, appended: &Appended, model: &Model) -> Verdict {
        match (expected, appended) {
            (
                Reply::Stored { life, first, count },
                Appended::Events(_) | Appended::Transitioned(..),
            ) => {
                let events = &appended.clone().into_stored().unwrap_or_default();
                prop_assert_eq!(events.len(), *count);
                if let Some(event) = events.first() {
                    let at = event.timestamp_ms;
                    let before = first.checked_sub(1).map_or(0, |last| self.times[&(*life, last)]);
                    prop_assert!(before <= at, "{} is followed by {}", before, at);
                    self.times.extend((*first..first + count).map(|index| ((*life, index), at)));
                }
                self.check_events(events, model, *life, *first..first + count)
            }
            (Reply::Replayed { life, first, count }, Appended::Replayed(events)) => {
                self.check_events(events, model, *life, *first..first + count)
            }
            (Reply::Refused(expected), Appended::Refused(refusal)) => {
                prop_assert_eq!(refusal, expected);
                Ok(())
            }
            (Reply::NoSuchTask, Appended::NoSuchTask)
            | (Reply::KeyConflict, Appended::KeyConflict) => Ok(()),
            (expected, appended) => {
                Err(TestCaseError::fail(format!("{appended:?} instead of {expected:?}")))
            }
        }
    }

    /// Compares events with those of a life at these indexes.
    pub(super) fn check_events(
        &self,
        events: &[Arc<Event>],
        model: &Model,
        life: usize,
        indexes: impl IntoIterator<Item = usize>,
    ) -> Verdict {
        let expected: Vec<Event> =
            indexes.into_iter().map(|index| self.event(model, life, index)).collect();
        let indexes = |events: &mut dyn Iterator<Item = u64>| events.collect::<Vec<_>>();
        prop_assert_eq!(
            indexes(&mut events.iter().map(|event| event.index)),
            indexes(&mut expected.iter().map(|event| event.index))
        );
        for (event, expected) in events.iter().zip(&expected) {
            prop_assert_eq!(&**event, expected);
        }
        Ok(())
    }

    /// Returns an event of a life as a store gives it.
    pub(super) fn event(&self, model: &Model, life: usize, index: usize) -> Event {
        Event {
            task: self.id(model.lives[life].name),
            number: self.numbers[life],
            index: index as u64,
            timestamp_ms: self.times[&(life, index)],
            draft: model.lives[life].log[index].draft.sent(),
        }
    }

    /// Returns when an event was stored.
    pub(super) fn time(&self, life: usize, index: usize) -> Option<u64> {
        self.times.get(&(life, index)).copied()
    }
}

fn failure(failure: super::reference::Failure) -> TaskError {
    TaskError {
        code: failure.code.map(Into::into),
        message: failure.message.into(),
        details: failure.details.map(Json::from_valid),
    }
}
