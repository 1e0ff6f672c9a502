//! A request on its way from the queue to its reply.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::domain::{
    Append, AppendRules, Change, Guard, IdempotencyKey, NewTask, Refused, Sealed, TaskId,
    TaskState, judge,
};
use crate::store::{Appended, Created, StoreError, TaskRef};

/// What a request takes up apart from what it brings.
const REQUEST_BYTES: usize = 512;

/// Where the answer goes, and what the queue knows of a request.
pub(super) struct Ticket<R> {
    reply: oneshot::Sender<Result<R, StoreError>>,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    /// When it was handed in.
    pub(super) queued_at: Instant,
    /// Bytes of memory that it takes while it waits.
    pub(super) bytes: usize,
}

/// Receives the answer to a request.
pub(in super::super) type Answer<R> = oneshot::Receiver<Result<R, StoreError>>;

impl<R> Ticket<R> {
    fn new(deadline: Instant, bytes: usize) -> (Self, Answer<R>) {
        let (reply, answer) = oneshot::channel();
        (Self { reply, deadline, queued_at: Instant::now(), bytes }, answer)
    }

    /// Answers; a caller that stopped listening needs no answer.
    pub(super) fn answer(self, answer: Result<R, StoreError>) {
        drop(self.reply.send(answer));
    }
}

#[cfg(feature = "failpoints")]
impl<R> Ticket<R> {
    /// Answers while the request is still under way; whoever answers in time
    /// finds nobody there any more.
    pub(super) fn answer_early(&mut self, answer: Result<R, StoreError>) {
        let (nobody, _) = oneshot::channel();
        drop(std::mem::replace(&mut self.reply, nobody).send(answer));
    }
}

/// A task to create.
pub(in super::super) struct CreateRequest {
    pub(super) spec: NewTask,
    /// Makes a repeat of the request take effect once.
    pub(super) key: Option<IdempotencyKey>,
    /// The creator's mark on the row.
    pub(super) nonce: i64,
    pub(super) ticket: Ticket<Created>,
}

impl CreateRequest {
    pub(in super::super) fn queue(
        spec: NewTask,
        key: Option<IdempotencyKey>,
        deadline: Instant,
    ) -> (Request, Answer<Created>) {
        let (ticket, answer) = Ticket::new(deadline, REQUEST_BYTES + spec.size_bytes());
        let request = Self { spec, key, nonce: rand::random(), ticket };
        (Request::Create(Box::new(request)), answer)
    }
}

/// How far an append has come.
enum Progress {
    Undecided(Change),
    Accepted(Sealed),
    Rejected(Box<Refused>),
}

/// A change of a task.
pub(in super::super) struct AppendRequest {
    pub(super) task: TaskId,
    rules: Arc<AppendRules>,
    guard: Option<Guard>,
    pub(super) key: Option<IdempotencyKey>,
    /// Taken out only while it is decided.
    progress: Option<Progress>,
    pub(super) ticket: Ticket<Appended>,
}

impl AppendRequest {
    pub(in super::super) fn queue(
        append: Append,
        deadline: Instant,
    ) -> (Request, Answer<Appended>) {
        let (ticket, answer) = Ticket::new(deadline, REQUEST_BYTES + append.size_bytes());
        let Append { task, change, rules, guard, key } = append;
        let progress = Some(Progress::Undecided(change));
        let request = Self { task, rules, guard, key, progress, ticket };
        (Request::Append(Box::new(request)), answer)
    }

    /// Decides the request and moves `state` on when it is accepted.
    pub(super) fn decide(&mut self, state: &mut TaskState) {
        if let Some(change) = self.take_change() {
            let decision = judge(state, change, &self.rules, self.guard.as_ref());
            self.progress = Some(match decision {
                Ok(accepted) => Progress::Accepted(accepted),
                Err(rejected) => Progress::Rejected(rejected),
            });
        }
    }

    /// Takes the decision back, so that it can be made anew.
    pub(super) fn reset(&mut self) {
        self.progress = self.take_change().map(Progress::Undecided);
    }

    fn take_change(&mut self) -> Option<Change> {
        self.progress.take().map(|progress| match progress {
            Progress::Undecided(change) => change,
            Progress::Accepted(accepted) => accepted.into_change(),
            Progress::Rejected(rejected) => rejected.change,
        })
    }

    /// Returns what was asked for, before it is decided.
    pub(super) fn change(&self) -> Option<&Change> {
        match &self.progress {
            Some(Progress::Undecided(change)) => Some(change),
            _ => None,
        }
    }

    /// Returns what is to be written, if it was accepted.
    pub(super) fn accepted(&self) -> Option<&Sealed> {
        match &self.progress {
            Some(Progress::Accepted(accepted)) => Some(accepted),
            _ => None,
        }
    }

    /// Answers a request that was rejected, or gives it back with what was
    /// accepted.
    pub(super) fn into_accepted(mut self) -> Option<(Sealed, Ticket<Appended>)> {
        match self.progress.take() {
            Some(Progress::Accepted(accepted)) => Some((accepted, self.ticket)),
            Some(Progress::Rejected(rejected)) => {
                self.ticket.answer(Ok(Appended::Refused(rejected.refusal)));
                None
            }
            Some(Progress::Undecided(_)) | None => {
                let error = StoreError::Unexpected("a request was written undecided".into());
                self.ticket.answer(Err(error));
                None
            }
        }
    }

    /// Takes what was asked for out, to answer with it.
    pub(super) fn into_change(mut self) -> Option<(Change, Ticket<Appended>)> {
        let change = self.take_change()?;
        Some((change, self.ticket))
    }
}

/// Says the same to everybody who asked.
pub(super) fn fail_all(requests: impl IntoIterator<Item = AppendRequest>, error: &StoreError) {
    for request in requests {
        request.ticket.answer(Err(error.clone()));
    }
}

/// A task to delete.
pub(in super::super) struct DeleteRequest {
    pub(super) task: TaskRef,
    pub(super) ticket: Ticket<bool>,
}

impl DeleteRequest {
    pub(in super::super) fn queue(task: TaskRef, deadline: Instant) -> (Request, Answer<bool>) {
        let (ticket, answer) = Ticket::new(deadline, REQUEST_BYTES + task.id.as_str().len());
        (Request::Delete(Self { task, ticket }), answer)
    }
}

/// A write that waits for its lane.
pub(in super::super) enum Request {
    /// Creates a task.
    Create(Box<CreateRequest>),
    /// Changes a task.
    Append(Box<AppendRequest>),
    /// Deletes a task.
    Delete(DeleteRequest),
}

impl Request {
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::Create(request) => request.ticket.deadline,
            Self::Append(request) => request.ticket.deadline,
            Self::Delete(request) => request.ticket.deadline,
        }
    }

    pub(super) fn queued_at(&self) -> Instant {
        match self {
            Self::Create(request) => request.ticket.queued_at,
            Self::Append(request) => request.ticket.queued_at,
            Self::Delete(request) => request.ticket.queued_at,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Create(request) => request.ticket.bytes,
            Self::Append(request) => request.ticket.bytes,
            Self::Delete(request) => request.ticket.bytes,
        }
    }

    /// Says that nothing was done.
    pub(super) fn fail(self, error: StoreError) {
        match self {
            Self::Create(request) => request.ticket.answer(Err(error)),
            Self::Append(request) => request.ticket.answer(Err(error)),
            Self::Delete(request) => request.ticket.answer(Err(error)),
        }
    }
}
