//! The only writer of task state.
//!
//! A use case validates what the domain cannot know (limits, defaults), asks
//! the store for one atomic operation, and names every way it can end in an
//! error of its own. Waking readers is not done here: stores report commits
//! to the dispatcher themselves, so that a caller that hangs up early cannot
//! keep readers waiting.

mod error;
mod fresh;
mod limits;
mod listing;

use std::sync::Arc;

pub use error::{CreateTaskError, PublishError, TransitionError};
pub use fresh::fresh_task_id;
pub use limits::Limits;

use crate::domain::{
    Append, AppendRules, Change, Decision, DeliveryId, EndpointHook, Event, EventDraft, Guard,
    IdempotencyKey, ListQuery, NewTask, Refusal, Task, TaskId, TaskNumber, TaskPage, Transition,
};
use crate::metrics::{AppendKind, AppendOutcome, Metrics};
use crate::store::{Appended, Created, HeadStatus, Store, StoreError};
pub use crate::store::{Attempted, Delivery, DeliveryState};

/// What a write brings along beside what it writes.
#[derive(Debug, Clone, Default)]
pub struct WriteContext {
    /// Whose write it is, where a task's own rules shall have a say.
    pub guard: Option<Guard>,
    /// Makes a repeat of the request take effect once.
    pub key: Option<IdempotencyKey>,
}

/// A write that was carried out, now or before.
#[derive(Debug, Clone)]
pub struct Written<T> {
    /// What came of it.
    pub outcome: T,
    /// Whether an earlier request with the same key did it.
    pub replayed: bool,
}

impl<T> Written<T> {
    fn now(outcome: T) -> Self {
        Self { outcome, replayed: false }
    }

    fn before(outcome: T) -> Self {
        Self { outcome, replayed: true }
    }
}

/// Creates, moves and deletes tasks and publishes their events.
#[derive(Clone)]
pub struct Engine {
    store: Arc<dyn Store>,
    limits: Limits,
    rules: Arc<AppendRules>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes an engine over a store; `endpoints` hear of every task's events.
    pub fn new(store: Arc<dyn Store>, limits: Limits, endpoints: Vec<EndpointHook>) -> Self {
        let rules = AppendRules { series_text_limit: limits.series_text_bytes, endpoints };
        Self { store, limits, rules: Arc::new(rules), metrics: Arc::default() }
    }

    /// Returns the engine with its appends counted by `metrics`.
    #[must_use]
    pub fn counted_by(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Returns the limits requests must keep.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Creates a pending task.
    pub async fn create_task(
        &self,
        task: NewTask,
        key: Option<IdempotencyKey>,
    ) -> Result<Written<Task>, CreateTaskError> {
        if task.text_bytes() > self.limits.task_bytes {
            return Err(CreateTaskError::TooLarge(self.limits.task_bytes));
        }
        let id = task.id.clone();
        match self.store.create(task, key).await? {
            Created::New(task) => Ok(Written::now(*task)),
            Created::Replayed(task) if self.may_repeat(task.number, None).await? => {
                Ok(Written::before(*task))
            }
            Created::Replayed(_) => Err(CreateTaskError::Gone),
            Created::Exists => Err(CreateTaskError::Exists(id)),
            Created::KeyConflict => Err(CreateTaskError::KeyConflict),
        }
    }

    /// Returns a task.
    pub async fn find_task(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        self.store.find(id).await
    }

    /// Returns a page of tasks, newest first; with a guard, of those whose
    /// own rules let the caller see them.
    ///
    /// A page may be short, even empty, while more follow: what rules hide is
    /// made up for, but only with so much effort.
    pub async fn list_tasks(
        &self,
        query: &ListQuery,
        guard: Option<&Guard>,
    ) -> Result<TaskPage, StoreError> {
        match guard {
            None => self.store.list(query).await,
            Some(guard) => listing::list_guarded(&*self.store, query, guard).await,
        }
    }

    /// Deletes a task; `false` when it is gone already.
    pub async fn delete_task(&self, task: &Task) -> Result<bool, StoreError> {
        self.store.delete(&task.into()).await
    }

    /// Publishes events in one atomic append: all of them or none.
    pub async fn publish(
        &self,
        id: &TaskId,
        events: Vec<EventDraft>,
        context: WriteContext,
    ) -> Result<Written<Vec<Arc<Event>>>, PublishError> {
        let guard = context.guard.clone();
        match self.append(id, Change::Publish(events), context).await? {
            Appended::Events(events) => Ok(Written::now(events)),
            Appended::Replayed(events) => {
                let may_repeat = match events.first() {
                    Some(first) => self.may_repeat(first.number, guard.as_ref()).await?,
                    None => true,
                };
                if may_repeat { Ok(Written::before(events)) } else { Err(PublishError::NoSuchTask) }
            }
            Appended::NoSuchTask => Err(PublishError::NoSuchTask),
            Appended::KeyConflict => Err(PublishError::KeyConflict),
            Appended::Refused(Refusal::Denied(decision)) => Err(PublishError::Denied(decision)),
            Appended::Refused(Refusal::Closed(status)) => Err(PublishError::Closed(status)),
            Appended::Refused(Refusal::Series { position, conflict }) => {
                Err(PublishError::Series { position, conflict })
            }
            Appended::Refused(Refusal::SeriesTooLong { position, limit_bytes }) => {
                Err(PublishError::SeriesTooLong { position, limit_bytes })
            }
            Appended::Transitioned(..) | Appended::Refused(Refusal::IllegalTransition { .. }) => {
                unreachable!("the domain answers publishing as such, never as a transition")
            }
        }
    }

    /// Moves a task to another state and returns it as it is then.
    pub async fn transition(
        &self,
        id: &TaskId,
        transition: Transition,
        context: WriteContext,
    ) -> Result<Written<Task>, TransitionError> {
        let (to, guard) = (transition.to, context.guard.clone());
        let (result, error) = (transition.result.clone(), transition.error.clone());
        let events = match self.append(id, Change::Transition(transition), context).await? {
            Appended::Transitioned(_, task) => return Ok(Written::now(*task)),
            Appended::Replayed(events) => events,
            Appended::NoSuchTask => return Err(TransitionError::NoSuchTask),
            Appended::KeyConflict => return Err(TransitionError::KeyConflict),
            Appended::Refused(Refusal::Denied(decision)) => {
                return Err(TransitionError::Denied(decision));
            }
            Appended::Refused(Refusal::IllegalTransition { from, to }) => {
                return Err(TransitionError::Illegal { from, to });
            }
            Appended::Events(_) | Appended::Refused(_) => {
                unreachable!("the domain answers a transition as one")
            }
        };
        // A repeat answers for the task its first run wrote to, which may be gone,
        // and another may have its id.
        let task = self.store.find(id).await?;
        let event = events.first().ok_or(TransitionError::NoSuchTask)?;
        let mut task =
            task.filter(|task| task.number == event.number).ok_or(TransitionError::NoSuchTask)?;
        let rules = task.spec.auth_config.as_ref();
        if guard.is_some_and(|guard| guard.decide(rules) != Decision::Allowed) {
            return Err(TransitionError::NoSuchTask);
        }
        // It may have moved on since; the caller hears of its own step.
        task.status = to;
        task.updated_at_ms = event.timestamp_ms;
        task.completed_at_ms = to.is_terminal().then_some(event.timestamp_ms);
        if !to.is_terminal() {
            // What it has besides came with a later step.
            (task.result, task.error) = (result, error);
        }
        Ok(Written::before(task))
    }

    /// Says whether a repeat is answered for the task its first run wrote to:
    /// while that task is there and the caller may still do what it asks.
    ///
    /// The task is looked up by number, since another may have its id by now.
    async fn may_repeat(
        &self,
        task: TaskNumber,
        guard: Option<&Guard>,
    ) -> Result<bool, StoreError> {
        let heads = self.store.heads(&[task]).await?;
        Ok(heads.first().is_some_and(|head| {
            let rules = head.auth_config.as_deref();
            head.status != HeadStatus::Deleted
                && guard.is_none_or(|guard| guard.decide(rules) == Decision::Allowed)
        }))
    }

    async fn append(
        &self,
        task: &TaskId,
        change: Change,
        context: WriteContext,
    ) -> Result<Appended, StoreError> {
        let WriteContext { guard, key } = context;
        let (task, rules) = (task.clone(), self.rules.clone());
        let kind = match &change {
            Change::Publish(_) => AppendKind::Publish,
            Change::Transition(_) => AppendKind::Transition,
        };
        let outcome = self.store.append(Append { task, change, rules, guard, key }).await;
        let (counted, events) = counted_as(&outcome);
        self.metrics.append(kind, counted, events);
        outcome
    }

    /// Returns up to `limit` deliveries of a task's events, newest event first.
    pub async fn deliveries(
        &self,
        task: &Task,
        before: Option<&DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.store.deliveries(&task.into(), before, limit).await
    }

    /// Makes a delivery due at once; `None` when there is none of that id.
    pub async fn redeliver(
        &self,
        task: &Task,
        id: &DeliveryId,
    ) -> Result<Option<Delivery>, StoreError> {
        self.store.redeliver(&task.into(), id).await
    }
}

/// Says how an append is counted, and how many events it stored.
fn counted_as(outcome: &Result<Appended, StoreError>) -> (AppendOutcome, usize) {
    let counted = match outcome {
        Ok(Appended::Events(events)) => return (AppendOutcome::Accepted, events.len()),
        Ok(Appended::Transitioned(..)) => return (AppendOutcome::Accepted, 1),
        Ok(Appended::Replayed(_)) => AppendOutcome::Replayed,
        Ok(Appended::KeyConflict) => AppendOutcome::KeyConflict,
        Ok(Appended::NoSuchTask) => AppendOutcome::NoSuchTask,
        Ok(Appended::Refused(_)) => AppendOutcome::Refused,
        Err(StoreError::Unavailable(_)) => AppendOutcome::Unavailable,
        Err(StoreError::Overloaded) => AppendOutcome::Overloaded,
        Err(StoreError::Full) => AppendOutcome::Full,
        Err(StoreError::OutcomeUnknown(_)) => AppendOutcome::OutcomeUnknown,
        Err(StoreError::Corrupt(_) | StoreError::Unexpected(_)) => AppendOutcome::Failed,
    };
    (counted, 0)
}
