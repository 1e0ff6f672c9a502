//! The waiting room of a lane: bounded by bytes, full means no.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use super::births::Birth;
use crate::domain::{Append, Change};
use crate::store::{Appended, StoreError, TaskRef};

/// Most jobs of one batch.
const BATCH_JOBS: usize = 1024;

/// How long jobs are kept waiting for others that are expected.
const MOMENT: Duration = Duration::from_millis(1);

/// Bytes after which a batch takes no further job.
const BATCH_BYTES: usize = 2 << 20;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A write that waits for its lane.
pub(super) struct Job {
    /// What to do, and whom to tell.
    pub(super) work: Work,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    /// When it was handed in.
    pub(super) since: Instant,
    /// How much room it takes.
    pub(super) bytes: usize,
}

pub(super) enum Work {
    Create(Box<Birth>),
    Append { append: Append, reply: Reply<Appended> },
    Delete { task: TaskRef, reply: Reply<bool> },
}

impl Job {
    pub(super) fn new(work: Work, deadline: Instant) -> Self {
        let bytes = match &work {
            Work::Create(birth) => 1024 + birth.size_bytes(),
            Work::Append { append, .. } => 512 + size_of_change(&append.change),
            Work::Delete { .. } => 512,
        };
        Self { work, deadline, since: Instant::now(), bytes }
    }

    /// Tells the caller that nothing was done.
    pub(super) fn fail(self, error: StoreError) {
        // A caller that stopped listening needs no answer.
        match self.work {
            Work::Create(birth) => drop(birth.reply.send(Err(error))),
            Work::Append { reply, .. } => drop(reply.send(Err(error))),
            Work::Delete { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

fn size_of_change(change: &Change) -> usize {
    match change {
        Change::Publish(events) => events.iter().map(|event| 256 + event.data.as_str().len()).sum(),
        Change::Transition(transition) => {
            transition.result.as_ref().map_or(256, |result| 256 + result.as_str().len())
        }
    }
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
    in_flight: bool,
    /// From how many jobs on the lane wants to hear of them.
    wanted: usize,
}

/// The jobs of one lane.
pub(super) struct LaneQueue {
    waiting: Mutex<Waiting>,
    max_bytes: usize,
    arrived: Notify,
    drained: Notify,
}

impl LaneQueue {
    pub(super) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            max_bytes,
            arrived: Notify::new(),
            drained: Notify::new(),
        })
    }

    /// Adds a job, unless there is no room or no future.
    pub(super) fn push(&self, job: Job) -> Result<(), StoreError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(StoreError::Unavailable("shutting down".into()));
        }
        if waiting.bytes + job.bytes > self.max_bytes {
            return Err(StoreError::Overloaded);
        }
        waiting.bytes += job.bytes;
        waiting.jobs.push_back(job);
        let is_enough = waiting.jobs.len() >= waiting.wanted;
        drop(waiting);
        if is_enough {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Returns how many bytes wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.lock().bytes
    }

    /// Returns how many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().jobs.len()
    }

    /// Takes what has queued up, waiting for the first job; empty at the end.
    pub(super) async fn take(&self) -> Vec<Job> {
        self.first().await;
        let mut waiting = self.waiting.lock();
        waiting.in_flight = !waiting.jobs.is_empty();
        Self::take_batch(&mut waiting)
    }

    /// Waits until `count` jobs are there, but for a moment only once there is
    /// one; tells whether they came.
    pub(super) async fn gather(&self, count: usize) -> bool {
        self.first().await;
        let mut moment = std::pin::pin!(sleep(MOMENT));
        loop {
            {
                let mut waiting = self.waiting.lock();
                if waiting.jobs.len() >= count || waiting.closed {
                    return true;
                }
                waiting.wanted = count;
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                () = &mut moment => return self.len() >= count,
            }
        }
    }

    /// Waits until there is a job, or until none will come any more.
    async fn first(&self) {
        loop {
            {
                let mut waiting = self.waiting.lock();
                // Whoever waited for more may have been told to stop.
                waiting.wanted = 1;
                if !waiting.jobs.is_empty() {
                    return;
                }
                waiting.in_flight = false;
                self.drained.notify_waiters();
                if waiting.closed {
                    return;
                }
            }
            self.arrived.notified().await;
        }
    }

    fn take_batch(waiting: &mut Waiting) -> Vec<Job> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_JOBS && bytes < BATCH_BYTES {
            let Some(job) = waiting.jobs.pop_front() else { break };
            waiting.bytes -= job.bytes;
            bytes += job.bytes;
            batch.push(job);
        }
        batch
    }

    /// Accepts no more jobs and waits until those accepted are answered.
    pub(super) async fn close(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            {
                let mut waiting = self.waiting.lock();
                waiting.closed = true;
                if waiting.jobs.is_empty() && !waiting.in_flight {
                    break;
                }
            }
            drained.await;
        }
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{TaskId, TaskNumber};

    fn job() -> (Job, oneshot::Receiver<Result<bool, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let task = TaskRef { id: TaskId::parse("t").unwrap(), number: TaskNumber::new(1).unwrap() };
        (Job::new(Work::Delete { task, reply }, Instant::now() + Duration::from_secs(1)), answer)
    }

    #[tokio::test]
    async fn a_full_lane_refuses_at_once_and_takes_again_when_there_is_room() {
        let room_for_two = 2 * job().0.bytes;
        let queue = LaneQueue::new(room_for_two);
        queue.push(job().0).unwrap();
        queue.push(job().0).unwrap();
        assert!(matches!(queue.push(job().0), Err(StoreError::Overloaded)));
        assert_eq!(queue.take().await.len(), 2);
        queue.push(job().0).unwrap();
    }

    #[tokio::test]
    async fn those_who_are_expected_are_waited_for_and_others_for_a_moment_only() {
        let queue = LaneQueue::new(usize::MAX);
        queue.push(job().0).unwrap();
        let (came, ()) = tokio::join!(queue.gather(3), async {
            queue.push(job().0).unwrap();
            tokio::task::yield_now().await;
            queue.push(job().0).unwrap();
        });
        assert!(came);
        assert_eq!(queue.take().await.len(), 3);
        queue.push(job().0).unwrap();
        assert!(!queue.gather(2).await);
        assert_eq!(queue.take().await.len(), 1);
    }

    #[tokio::test]
    async fn a_lane_that_waits_for_others_can_be_closed() {
        let queue = LaneQueue::new(usize::MAX);
        let lane = async {
            queue.gather(2).await;
            assert!(queue.take().await.is_empty());
        };
        tokio::join!(lane, queue.close());
    }

    #[tokio::test]
    async fn a_closed_lane_finishes_what_it_took_and_takes_no_more() {
        let queue = LaneQueue::new(usize::MAX);
        let (accepted, answer) = job();
        queue.push(accepted).unwrap();
        let served = queue.clone();
        let lane = async move {
            loop {
                let jobs = served.take().await;
                if jobs.is_empty() {
                    return;
                }
                for job in jobs {
                    if let Work::Delete { reply, .. } = job.work {
                        reply.send(Ok(true)).unwrap();
                    }
                }
            }
        };
        tokio::join!(lane, queue.close());
        assert!(answer.await.unwrap().unwrap());
        assert!(matches!(queue.push(job().0), Err(StoreError::Unavailable(_))));
    }
}
