//! Which connections are idle, for when there are too many.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::stall::RequestCount;
use crate::http::Stalled;

/// The connections of a server, as far as one of them may have to go.
#[derive(Debug, Clone, Default)]
pub(super) struct IdleConnections(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    places: Mutex<HashMap<u64, Arc<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    requests: RequestCount,
    stalled: Stalled,
    last_request: Mutex<Instant>,
    close: Notify,
    is_told: AtomicBool,
}

impl Connection {
    /// Says whether nothing is under way: every request has its answer, and
    /// none of these is a stream.
    fn is_idle(&self) -> bool {
        self.requests.is_between() && !self.stalled.is_streaming()
    }

    /// Has the connection closed, once.
    fn tell(&self) {
        self.is_told.store(true, Ordering::Release);
        self.close.notify_one();
    }

    fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Acquire)
    }
}

impl IdleConnections {
    /// Adds a connection until the place is dropped.
    pub(super) fn enter(&self, requests: RequestCount, stalled: Stalled) -> Place {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let last_request = Mutex::new(Instant::now());
        let (close, is_told) = (Notify::new(), AtomicBool::new(false));
        let connection = Arc::new(Connection { requests, stalled, last_request, close, is_told });
        self.0.places.lock().insert(number, connection.clone());
        Place { number, connection, connections: self.clone() }
    }

    /// Closes the connection that has been idle for longest; says whether
    /// there was one.
    pub(super) fn close_longest(&self) -> bool {
        let places = self.0.places.lock();
        let idle = places.values().filter(|place| place.is_idle() && !place.is_told());
        let longest = idle.min_by_key(|connection| *connection.last_request.lock());
        longest.inspect(|connection| connection.tell()).is_some()
    }

    /// Closes every connection that has been idle for so long.
    pub(super) fn close_those_idle_for(&self, time: Duration) {
        let places = self.0.places.lock();
        for connection in places.values().filter(|connection| connection.is_idle()) {
            if connection.last_request.lock().elapsed() >= time {
                connection.tell();
            }
        }
    }
}

/// A connection among the others.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    connection: Arc<Connection>,
    connections: IdleConnections,
}

impl Place {
    /// Notes that a request came.
    pub(super) fn touch(&self) {
        *self.connection.last_request.lock() = Instant::now();
    }

    /// Waits until the connection has to go.
    pub(super) async fn told_to_close(&self) {
        self.connection.close.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.0.places.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    async fn is_told(place: &Place) -> bool {
        timeout(Duration::from_millis(1), place.told_to_close()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_idles_longest_goes_first_and_a_busy_one_stays() {
        let connections = IdleConnections::default();
        let busy = RequestCount::default();
        busy.begin();
        let _busy = connections.enter(busy, Stalled::default());
        let first = connections.enter(RequestCount::default(), Stalled::default());
        advance(Duration::from_secs(1)).await;
        let second = connections.enter(RequestCount::default(), Stalled::default());
        advance(Duration::from_secs(1)).await;
        first.touch();
        assert!(connections.close_longest());
        assert!(is_told(&second).await && !is_told(&first).await);
        drop(second);
        assert!(connections.close_longest());
        assert!(is_told(&first).await);
        drop(first);
        assert!(!connections.close_longest());
    }
}
