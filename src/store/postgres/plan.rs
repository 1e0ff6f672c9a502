//! Judging a batch: which requests are accepted, and what they write.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::known::{Known, KnownTask};
use super::queue::Reply;
use crate::domain::{
    Append, AppendRules, Event, Guard, IdempotencyKey, Refused, Sealed, TaskId, TaskStatus, judge,
};
use crate::store::{Appended, Before, Commit, TaskRef};

/// A write and whom to tell.
pub(super) struct Request {
    pub(super) append: Append,
    pub(super) reply: Reply<Appended>,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    /// How much room it takes while it waits.
    pub(super) bytes: usize,
}

/// What a request came to, as far as judging goes.
enum Verdict {
    Accepted(Sealed),
    Refused(Box<Refused>),
}

/// A request that was judged.
struct Decision {
    verdict: Verdict,
    rules: Arc<AppendRules>,
    guard: Option<Guard>,
    key: Option<IdempotencyKey>,
    reply: Reply<Appended>,
    deadline: Instant,
    bytes: usize,
}

/// Everything a batch does to one task.
pub(super) struct TaskPlan {
    pub(super) id: TaskId,
    /// The task as it will be; its head as it was seen is below.
    pub(super) task: KnownTask,
    pub(super) seen_index: u64,
    pub(super) seen_status: TaskStatus,
    /// In the order of arrival. A refusal may rest on what was accepted before
    /// it, so it counts only once that is durable.
    decisions: Vec<Decision>,
}

/// What judging a batch came to.
#[derive(Default)]
pub(super) struct Judged {
    /// Tasks with something to write or to answer.
    pub(super) plans: Vec<TaskPlan>,
    /// Requests whose task must be read first (or again: the verdict changes
    /// nothing, but rests on a memory that may be out of date).
    pub(super) unread: Vec<Request>,
}

/// Groups requests by task, in the order of their arrival.
fn by_task(requests: Vec<Request>) -> Vec<(TaskId, Vec<Request>)> {
    let mut at: HashMap<TaskId, usize> = HashMap::with_capacity(requests.len());
    let mut groups: Vec<(TaskId, Vec<Request>)> = Vec::new();
    for request in requests {
        let id = request.append.task.clone();
        let slot = *at.entry(id.clone()).or_insert_with(|| {
            groups.push((id, Vec::new()));
            groups.len() - 1
        });
        groups[slot].1.push(request);
    }
    groups
}

/// Judges requests by what the lane remembers.
pub(super) fn judge_batch(known: &mut Known, requests: Vec<Request>) -> Judged {
    let mut judged = Judged::default();
    for (id, requests) in by_task(requests) {
        let is_known = known
            .get(&id)
            .is_some_and(|task| requests.iter().all(|request| task.covers(&request.append.change)));
        let task = if is_known { known.take(&id) } else { None };
        let Some(task) = task else {
            judged.unread.extend(requests);
            continue;
        };
        match TaskPlan::judge(id, task, requests) {
            Ok(plan) => judged.plans.push(plan),
            Err(requests) => judged.unread.extend(requests),
        }
    }
    judged
}

impl TaskPlan {
    /// Judges the requests for one task, or gives them back when a verdict that
    /// writes nothing rests on a memory that may be out of date.
    fn judge(
        id: TaskId,
        mut task: KnownTask,
        requests: Vec<Request>,
    ) -> Result<Self, Vec<Request>> {
        let (seen_index, seen_status) = (task.state.next_index, task.state.status);
        let mut decisions: Vec<Decision> = Vec::with_capacity(requests.len());
        let mut rest = requests.into_iter();
        while let Some(Request { append, reply, deadline, bytes }) = rest.next() {
            let Append { change, rules, guard, key, .. } = append;
            let verdict = match judge(&mut task.state, change, &rules, guard.as_ref()) {
                Ok(sealed) => Verdict::Accepted(sealed),
                Err(refused) => Verdict::Refused(refused),
            };
            // What is written is checked by the statement that writes it.
            let writes = matches!(&verdict, Verdict::Accepted(sealed) if !sealed.events.is_empty());
            let is_doubtful = !task.is_fresh && !writes;
            decisions.push(Decision { verdict, rules, guard, key, reply, deadline, bytes });
            if is_doubtful {
                let back = decisions.into_iter().map(|decision| decision.into_request(&id));
                return Err(back.chain(rest).collect());
            }
        }
        Ok(Self { id, task, seen_index, seen_status, decisions })
    }

    /// Returns the accepted writes, in order.
    pub(super) fn accepted(&self) -> impl Iterator<Item = &Sealed> {
        self.decisions.iter().filter_map(|decision| match &decision.verdict {
            Verdict::Accepted(sealed) => Some(sealed),
            Verdict::Refused(_) => None,
        })
    }

    /// Returns the keys of accepted writes, with the index each begins at.
    ///
    /// A write without events leaves no key: nothing of it can be repeated.
    pub(super) fn keys(&self) -> impl Iterator<Item = (IdempotencyKey, u64)> {
        self.decisions.iter().filter_map(|decision| match &decision.verdict {
            Verdict::Accepted(sealed) if !sealed.events.is_empty() => {
                Some((decision.key?, sealed.first_index))
            }
            Verdict::Accepted(_) | Verdict::Refused(_) => None,
        })
    }

    /// Returns how many requests are written, and how many events.
    pub(super) fn sizes(&self) -> (usize, usize) {
        self.accepted()
            .fold((0, 0), |(requests, events), sealed| (requests + 1, events + sealed.events.len()))
    }

    /// Tells whether there is anything to write.
    pub(super) fn moves_head(&self) -> bool {
        self.task.state.next_index != self.seen_index
    }

    /// Answers those whose refusal rests on nothing of this batch.
    pub(super) fn answer_refused(&mut self) {
        let rests_on_nothing = self
            .decisions
            .iter()
            .position(|decision| matches!(decision.verdict, Verdict::Accepted(_)))
            .unwrap_or(self.decisions.len());
        for decision in self.decisions.drain(..rests_on_nothing) {
            decision.answer_refusal();
        }
    }

    /// Turns the plan back into requests, to be judged anew.
    pub(super) fn into_requests(self) -> Vec<Request> {
        let id = self.id;
        self.decisions.into_iter().map(|decision| decision.into_request(&id)).collect()
    }

    /// Gives up: nobody was written.
    pub(super) fn fail(self, error: &crate::store::StoreError) {
        for decision in self.decisions {
            drop(decision.reply.send(Err(error.clone())));
        }
    }

    /// Answers everybody, now that it is durable.
    pub(super) fn settle(self, timestamp_ms: u64, known: &mut Known) -> Option<Commit> {
        let task = TaskRef { id: self.id.clone(), number: self.task.number };
        let before = Before {
            task_type: self.task.state.policy.task_type.clone(),
            status: Some(self.seen_status),
        };
        let (mut written, mut owes) = (Vec::new(), false);
        for decision in self.decisions {
            let Verdict::Accepted(sealed) = decision.verdict else {
                decision.answer_refusal();
                continue;
            };
            owes |= !sealed.owed.is_empty();
            let events: Vec<Arc<Event>> = (sealed.first_index..)
                .zip(sealed.events)
                .map(|(index, draft)| {
                    let (id, number) = (task.id.clone(), task.number);
                    Arc::new(Event { task: id, number, index, timestamp_ms, draft })
                })
                .collect();
            written.extend_from_slice(&events);
            drop(decision.reply.send(Ok(Appended::Events(events))));
        }
        let mut state = self.task;
        for event in &written {
            if let Some(tag) = &event.draft.series {
                state.absent.remove(&tag.id);
            }
        }
        known.put(self.id, state);
        let commit = Commit { task, events: written, deleted: false, owes, before };
        (!commit.events.is_empty()).then_some(commit)
    }
}

/// What invariant 4 forbids, for the failpoints of the lane.
#[cfg(feature = "failpoints")]
impl TaskPlan {
    /// Answers those who were accepted as if their events were durable.
    pub(super) fn answer_early(&mut self) {
        let (id, number) = (self.id.clone(), self.task.number);
        for decision in &mut self.decisions {
            let Verdict::Accepted(sealed) = &decision.verdict else { continue };
            let events = early_events(&id, number, sealed);
            // Whoever answers in time finds nobody there any more.
            let (nobody, _) = tokio::sync::oneshot::channel();
            let reply = std::mem::replace(&mut decision.reply, nobody);
            drop(reply.send(Ok(Appended::Events(events))));
        }
    }

    /// Describes the commit that is still to come.
    pub(super) fn foretold(&self) -> Commit {
        let task = TaskRef { id: self.id.clone(), number: self.task.number };
        let early = |sealed| early_events(&task.id, task.number, sealed);
        let events = self.accepted().flat_map(early).collect();
        Commit { task, events, deleted: false, owes: false, before: Before::default() }
    }
}

#[cfg(feature = "failpoints")]
fn early_events(
    id: &TaskId,
    number: crate::domain::TaskNumber,
    sealed: &Sealed,
) -> Vec<Arc<Event>> {
    let timestamp_ms = crate::store::clock::now_ms();
    (sealed.first_index..)
        .zip(sealed.events.iter().cloned())
        .map(|(index, draft)| {
            Arc::new(Event { task: id.clone(), number, index, timestamp_ms, draft })
        })
        .collect()
}

impl Decision {
    fn answer_refusal(self) {
        if let Verdict::Refused(refused) = self.verdict {
            drop(self.reply.send(Ok(Appended::Refused(refused.refusal))));
        }
    }

    fn into_request(self, id: &TaskId) -> Request {
        let change = match self.verdict {
            Verdict::Accepted(sealed) => sealed.into_change(),
            Verdict::Refused(refused) => refused.change,
        };
        let Self { rules, guard, key, reply, deadline, bytes, .. } = self;
        let append = Append { task: id.clone(), change, rules, guard, key };
        Request { append, reply, deadline, bytes }
    }
}
