//! The queue of a lane: bounded by bytes; when it is full, requests are refused.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::request::Request;
use crate::store::StoreError;

/// Most requests of one batch.
const BATCH_REQUESTS: usize = 1024;

/// Longest time that requests are kept waiting for others that are expected.
const MAX_LINGER: Duration = Duration::from_millis(1);

/// Bytes after which a batch takes no further request.
const BATCH_BYTES: usize = 2 << 20;

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    bytes: usize,
    closed: bool,
    in_flight: bool,
    /// From how many requests on the lane wants to hear of them.
    wanted: usize,
}

/// The requests of one lane.
pub(in super::super) struct LaneQueue {
    waiting: Mutex<Waiting>,
    max_bytes: usize,
    arrived: Notify,
    drained: Notify,
}

impl LaneQueue {
    pub(in super::super) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            max_bytes,
            arrived: Notify::new(),
            drained: Notify::new(),
        })
    }

    /// Adds a request, unless the queue is full or closed.
    pub(in super::super) fn push(&self, request: Request) -> Result<(), StoreError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(StoreError::Unavailable("shutting down".into()));
        }
        if waiting.bytes + request.bytes() > self.max_bytes {
            return Err(StoreError::Overloaded);
        }
        waiting.bytes += request.bytes();
        waiting.requests.push_back(request);
        let is_enough = waiting.requests.len() >= waiting.wanted;
        drop(waiting);
        if is_enough {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Returns how many bytes wait.
    pub(in super::super) fn waiting_bytes(&self) -> usize {
        self.waiting.lock().bytes
    }

    /// Returns how many requests wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().requests.len()
    }

    /// Takes what has queued up, waiting for the first request; empty at the end.
    pub(super) async fn take(&self) -> Vec<Request> {
        self.first().await;
        let mut waiting = self.waiting.lock();
        waiting.in_flight = !waiting.requests.is_empty();
        Self::take_batch(&mut waiting)
    }

    /// Waits until `count` requests are there, but once there is one no longer
    /// than [`MAX_LINGER`]; returns whether they came.
    pub(super) async fn linger(&self, count: usize) -> bool {
        self.first().await;
        let mut timeout = std::pin::pin!(sleep(MAX_LINGER));
        loop {
            {
                let mut waiting = self.waiting.lock();
                if waiting.requests.len() >= count || waiting.closed {
                    return true;
                }
                waiting.wanted = count;
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                () = &mut timeout => return self.len() >= count,
            }
        }
    }

    /// Waits until there is a request, or until none will come any more.
    async fn first(&self) {
        loop {
            {
                let mut waiting = self.waiting.lock();
                // A lane that lingered may have stopped waiting for more.
                waiting.wanted = 1;
                if !waiting.requests.is_empty() {
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

    fn take_batch(waiting: &mut Waiting) -> Vec<Request> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_REQUESTS && bytes < BATCH_BYTES {
            let Some(request) = waiting.requests.pop_front() else { break };
            waiting.bytes -= request.bytes();
            bytes += request.bytes();
            batch.push(request);
        }
        batch
    }

    /// Accepts no more requests and waits until those accepted are answered.
    pub(in super::super) async fn close(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            {
                let mut waiting = self.waiting.lock();
                waiting.closed = true;
                if waiting.requests.is_empty() && !waiting.in_flight {
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
    use std::time::Instant;

    use super::super::request::{Answer, DeleteRequest};
    use super::*;
    use crate::domain::{TaskId, TaskNumber};
    use crate::store::TaskRef;

    fn request() -> (Request, Answer<bool>) {
        let task = TaskRef { id: TaskId::parse("t").unwrap(), number: TaskNumber::new(1).unwrap() };
        DeleteRequest::queue(task, Instant::now() + Duration::from_secs(1))
    }

    #[tokio::test]
    async fn a_full_lane_refuses_at_once_and_takes_again_when_there_is_room() {
        let room_for_two = 2 * request().0.bytes();
        let queue = LaneQueue::new(room_for_two);
        queue.push(request().0).unwrap();
        queue.push(request().0).unwrap();
        assert!(matches!(queue.push(request().0), Err(StoreError::Overloaded)));
        assert_eq!(queue.take().await.len(), 2);
        queue.push(request().0).unwrap();
    }

    #[tokio::test]
    async fn expected_requests_are_waited_for_and_missing_ones_only_briefly() {
        let queue = LaneQueue::new(usize::MAX);
        queue.push(request().0).unwrap();
        let (came, ()) = tokio::join!(queue.linger(3), async {
            queue.push(request().0).unwrap();
            tokio::task::yield_now().await;
            queue.push(request().0).unwrap();
        });
        assert!(came);
        assert_eq!(queue.take().await.len(), 3);
        queue.push(request().0).unwrap();
        assert!(!queue.linger(2).await);
        assert_eq!(queue.take().await.len(), 1);
    }

    #[tokio::test]
    async fn a_lane_that_lingers_can_be_closed() {
        let queue = LaneQueue::new(usize::MAX);
        let lane = async {
            queue.linger(2).await;
            assert!(queue.take().await.is_empty());
        };
        tokio::join!(lane, queue.close());
    }

    #[tokio::test]
    async fn a_closed_lane_finishes_what_it_took_and_takes_no_more() {
        let queue = LaneQueue::new(usize::MAX);
        let (accepted, answer) = request();
        queue.push(accepted).unwrap();
        let served = queue.clone();
        let lane = async move {
            loop {
                let requests = served.take().await;
                if requests.is_empty() {
                    return;
                }
                for request in requests {
                    if let Request::Delete(delete) = request {
                        delete.ticket.answer(Ok(true));
                    }
                }
            }
        };
        tokio::join!(lane, queue.close());
        assert!(answer.await.unwrap().unwrap());
        assert!(matches!(queue.push(request().0), Err(StoreError::Unavailable(_))));
    }
}
