//! Planning a batch: which requests are accepted, and what they write.

use std::collections::HashMap;
use std::sync::Arc;

use super::head_cache::{CachedHead, HeadCache};
use super::request::{AppendRequest, fail_all};
use crate::domain::{Event, IdempotencyKey, Sealed, Task, TaskId, TaskStatus, Transition};
use crate::store::postgres::rows::TaskRow;
use crate::store::{Appended, Before, Commit, StoreError, TaskRef};

/// Everything a batch does to one task.
pub(super) struct TaskPlan {
    pub(super) id: TaskId,
    /// The task as it will be; what it was decided from is below.
    pub(super) task: CachedHead,
    pub(super) seen_index: u64,
    pub(super) seen_status: TaskStatus,
    /// In the order of arrival. A rejection may be based on what was accepted
    /// before it, so it is answered only once that is durable.
    requests: Vec<AppendRequest>,
}

/// A batch after its requests were decided.
#[derive(Default)]
pub(super) struct Decided {
    /// Tasks with something to write or to answer.
    pub(super) plans: Vec<TaskPlan>,
    /// Requests whose task must be read first: it is not cached, or the
    /// request is rejected by a cache that may be out of date.
    pub(super) unread: Vec<AppendRequest>,
}

/// Groups requests by task, in the order of their arrival.
fn by_task(requests: Vec<AppendRequest>) -> Vec<(TaskId, Vec<AppendRequest>)> {
    let mut at: HashMap<TaskId, usize> = HashMap::with_capacity(requests.len());
    let mut groups: Vec<(TaskId, Vec<AppendRequest>)> = Vec::new();
    for request in requests {
        let id = request.task.clone();
        let slot = *at.entry(id.clone()).or_insert_with(|| {
            groups.push((id, Vec::new()));
            groups.len() - 1
        });
        groups[slot].1.push(request);
    }
    groups
}

/// Decides requests by the cache.
pub(super) fn decide_batch(cache: &mut HeadCache, requests: Vec<AppendRequest>) -> Decided {
    let mut decided = Decided::default();
    for (id, requests) in by_task(requests) {
        let is_cached = cache.get(&id).is_some_and(|task| {
            requests.iter().all(|request| request.change().is_some_and(|c| task.covers(c)))
        });
        let task = if is_cached { cache.take(&id) } else { None };
        let Some(task) = task else {
            decided.unread.extend(requests);
            continue;
        };
        match TaskPlan::decide(id, task, requests) {
            Ok(plan) => decided.plans.push(plan),
            Err(requests) => decided.unread.extend(requests),
        }
    }
    decided
}

impl TaskPlan {
    /// Decides the requests for one task, or gives them back when a decision
    /// that writes nothing is based on a cache that may be out of date.
    fn decide(
        id: TaskId,
        mut task: CachedHead,
        mut requests: Vec<AppendRequest>,
    ) -> Result<Self, Vec<AppendRequest>> {
        let (seen_index, seen_status) = (task.state.next_index, task.state.status);
        for request in &mut requests {
            request.decide(&mut task.state);
        }
        // What is written is checked by the statement that writes it.
        let writes = |request: &AppendRequest| {
            request.accepted().is_some_and(|accepted| !accepted.events.is_empty())
        };
        if !task.is_fresh && !requests.iter().all(writes) {
            requests.iter_mut().for_each(AppendRequest::reset);
            return Err(requests);
        }
        Ok(Self { id, task, seen_index, seen_status, requests })
    }

    /// Returns the accepted writes, in order.
    pub(super) fn accepted(&self) -> impl Iterator<Item = &Sealed> {
        self.requests.iter().filter_map(AppendRequest::accepted)
    }

    /// Returns the keys of accepted writes, with the index each begins at.
    ///
    /// A write without events leaves no key: nothing of it can be repeated.
    pub(super) fn keys(&self) -> impl Iterator<Item = (IdempotencyKey, u64)> {
        self.requests.iter().filter_map(|request| {
            let accepted = request.accepted().filter(|accepted| !accepted.events.is_empty())?;
            Some((request.key?, accepted.first_index))
        })
    }

    /// Returns how many requests are written, and how many events.
    pub(super) fn sizes(&self) -> (usize, usize) {
        self.accepted().fold((0, 0), |(requests, events), accepted| {
            (requests + 1, events + accepted.events.len())
        })
    }

    /// Tells whether the task changes its state.
    pub(super) fn has_transition(&self) -> bool {
        self.task.state.status != self.seen_status
    }

    /// Tells whether there is anything to write.
    pub(super) fn writes(&self) -> bool {
        self.task.state.next_index != self.seen_index
    }

    /// Answers rejections that are based on nothing of this batch.
    pub(super) fn answer_rejected(&mut self) {
        let independent = self
            .requests
            .iter()
            .position(|request| request.accepted().is_some())
            .unwrap_or(self.requests.len());
        for request in self.requests.drain(..independent) {
            drop(request.into_accepted());
        }
    }

    /// Turns the plan back into requests, to be decided anew.
    pub(super) fn into_requests(mut self) -> Vec<AppendRequest> {
        self.requests.iter_mut().for_each(AppendRequest::reset);
        self.requests
    }

    /// Gives up: nothing was written.
    pub(super) fn fail(self, error: &StoreError) {
        fail_all(self.requests, error);
    }

    /// Answers everybody, now that it is durable.
    ///
    /// `document` is the task as it is now, if it changed its state.
    pub(super) fn settle(
        self,
        at_ms: u64,
        document: Option<TaskRow>,
        cache: &mut HeadCache,
    ) -> Option<Commit> {
        let document = document.map(Task::try_from);
        let timestamp_ms = at_ms.max(self.task.last_at_ms);
        let task = TaskRef { id: self.id.clone(), number: self.task.number };
        let before = Before {
            task_type: self.task.state.policy.task_type.clone(),
            status: Some(self.seen_status),
        };
        let (mut written, mut owes) = (Vec::new(), false);
        for request in self.requests {
            let Some((accepted, ticket)) = request.into_accepted() else { continue };
            owes |= !accepted.owed.is_empty();
            let events: Vec<Arc<Event>> = (accepted.first_index..)
                .zip(accepted.events)
                .map(|(index, draft)| {
                    let (id, number) = (task.id.clone(), task.number);
                    Arc::new(Event { task: id, number, index, timestamp_ms, draft })
                })
                .collect();
            written.extend_from_slice(&events);
            ticket.answer(match (accepted.transition, events.first()) {
                (Some(step), Some(event)) => match &document {
                    Some(Ok(task)) => Ok(moved(task.clone(), step, event.clone())),
                    Some(Err(error)) => Err(error.clone()),
                    None => Err(StoreError::OutcomeUnknown("the task was not read".into())),
                },
                _ => Ok(Appended::Events(events)),
            });
        }
        let mut head = self.task;
        for event in &written {
            head.last_at_ms = timestamp_ms;
            if let Some(tag) = &event.draft.series {
                head.missing_series.remove(&tag.id);
            }
        }
        cache.put(self.id, head);
        let commit = Commit { task, events: written, deleted: false, owes, before };
        (!commit.events.is_empty()).then_some(commit)
    }
}

/// Answers a transition with the task as that step left it; the same batch may
/// have taken it further.
fn moved(mut task: Task, step: Transition, event: Arc<Event>) -> Appended {
    if task.status != step.to {
        task.status = step.to;
        task.completed_at_ms = None;
        (task.result, task.error) = (step.result, step.error);
    }
    Appended::Transitioned(event, Box::new(task))
}

/// What invariant 4 forbids, for the failpoints of the lane.
#[cfg(feature = "failpoints")]
impl TaskPlan {
    /// Answers those who were accepted as if their events were durable.
    pub(super) fn answer_early(&mut self) {
        let (id, number) = (self.id.clone(), self.task.number);
        for request in &mut self.requests {
            // Nobody knows yet how a task will be that changes its state.
            let events_only = |accepted: &&Sealed| accepted.transition.is_none();
            let Some(accepted) = request.accepted().filter(events_only) else { continue };
            let events = early_events(&id, number, accepted);
            request.ticket.answer_early(Ok(Appended::Events(events)));
        }
    }

    /// Describes the commit that is still to come.
    pub(super) fn foretold(&self) -> Commit {
        let task = TaskRef { id: self.id.clone(), number: self.task.number };
        let early = |accepted| early_events(&task.id, task.number, accepted);
        let events = self.accepted().flat_map(early).collect();
        Commit { task, events, deleted: false, owes: false, before: Before::default() }
    }
}

#[cfg(feature = "failpoints")]
fn early_events(
    id: &TaskId,
    number: crate::domain::TaskNumber,
    accepted: &Sealed,
) -> Vec<Arc<Event>> {
    let timestamp_ms = crate::store::clock::now_ms();
    (accepted.first_index..)
        .zip(accepted.events.iter().cloned())
        .map(|(index, draft)| {
            Arc::new(Event { task: id.clone(), number, index, timestamp_ms, draft })
        })
        .collect()
}
