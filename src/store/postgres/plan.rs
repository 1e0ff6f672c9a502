//! Judging a batch: which requests are accepted, and what they write.

use std::collections::HashMap;
use std::sync::Arc;

use super::known::{Known, KnownTask};
use super::queue::Reply;
use crate::domain::{Append, Event, Refusal, Sealed, TaskId, TaskStatus, judge};
use crate::store::{Appended, Commit, TaskRef};

/// A write and whom to tell.
pub(super) struct Request {
    pub(super) append: Append,
    pub(super) reply: Reply<Appended>,
}

/// An accepted write.
pub(super) struct Accepted {
    pub(super) sealed: Sealed,
    series_text_limit: u64,
    reply: Reply<Appended>,
}

/// Everything a batch does to one task.
pub(super) struct TaskPlan {
    pub(super) id: TaskId,
    /// The task as it will be; its head as it was seen is below.
    pub(super) task: KnownTask,
    pub(super) seen_index: u64,
    pub(super) seen_status: TaskStatus,
    pub(super) accepted: Vec<Accepted>,
    refused: Vec<(Refusal, Reply<Appended>)>,
}

/// What judging a batch came to.
#[derive(Default)]
pub(super) struct Judged {
    /// Tasks with something to write or to answer.
    pub(super) plans: Vec<TaskPlan>,
    /// Requests whose task must be read first (or again: the verdict was no,
    /// but on a memory that may be out of date).
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
    /// Judges the requests for one task, or gives them back when a refusal
    /// rests on a memory that may be out of date.
    fn judge(
        id: TaskId,
        mut task: KnownTask,
        requests: Vec<Request>,
    ) -> Result<Self, Vec<Request>> {
        let (seen_index, seen_status) = (task.state.next_index, task.state.status);
        let mut accepted: Vec<Accepted> = Vec::with_capacity(requests.len());
        let mut refused = Vec::new();
        let mut rest = requests.into_iter();
        while let Some(Request { append, reply }) = rest.next() {
            let Append { task: request_task, change, series_text_limit } = append;
            match judge(&mut task.state, change, series_text_limit) {
                Ok(sealed) => accepted.push(Accepted { sealed, series_text_limit, reply }),
                Err(no) if task.is_fresh => refused.push((no.refusal, reply)),
                Err(no) => {
                    let append =
                        Append { task: request_task, change: no.change, series_text_limit };
                    let back = accepted.into_iter().map(|accepted| accepted.into_request(&id));
                    return Err(back.chain([Request { append, reply }]).chain(rest).collect());
                }
            }
        }
        Ok(Self { id, task, seen_index, seen_status, accepted, refused })
    }

    /// Tells whether there is anything to write.
    pub(super) fn moves_head(&self) -> bool {
        self.task.state.next_index != self.seen_index
    }

    /// Answers those who were refused, whatever becomes of the others.
    pub(super) fn answer_refused(&mut self) {
        for (refusal, reply) in self.refused.drain(..) {
            drop(reply.send(Ok(Appended::Refused(refusal))));
        }
    }

    /// Turns the plan back into requests, to be judged anew.
    pub(super) fn into_requests(self) -> Vec<Request> {
        let id = self.id;
        self.accepted.into_iter().map(|accepted| accepted.into_request(&id)).collect()
    }

    /// Gives up: nobody was written.
    pub(super) fn fail(self, error: &crate::store::StoreError) {
        for accepted in self.accepted {
            drop(accepted.reply.send(Err(error.clone())));
        }
    }

    /// Answers those who were accepted, now that it is durable.
    pub(super) fn settle(self, timestamp_ms: u64, known: &mut Known) -> Option<Commit> {
        let task = TaskRef { id: self.id.clone(), number: self.task.number };
        let mut written = Vec::new();
        for accepted in self.accepted {
            let events: Vec<Arc<Event>> = (accepted.sealed.first_index..)
                .zip(accepted.sealed.events)
                .map(|(index, draft)| {
                    let (id, number) = (task.id.clone(), task.number);
                    Arc::new(Event { task: id, number, index, timestamp_ms, draft })
                })
                .collect();
            written.extend_from_slice(&events);
            drop(accepted.reply.send(Ok(Appended::Events(events))));
        }
        let mut state = self.task;
        for event in &written {
            if let Some(tag) = &event.draft.series {
                state.absent.remove(&tag.id);
            }
        }
        known.put(self.id, state);
        (!written.is_empty()).then_some(Commit { task, events: written, deleted: false })
    }
}

impl Accepted {
    fn into_request(self, id: &TaskId) -> Request {
        let append = Append {
            task: id.clone(),
            change: self.sealed.into_change(),
            series_text_limit: self.series_text_limit,
        };
        Request { append, reply: self.reply }
    }
}
