//! Names of receivers, resolved by the system on few threads.
//!
//! The system's resolver blocks a thread until it has an answer, which a slow
//! name server can put off for half a minute, and giving up the wait does not
//! give the thread back. So a lookup takes one of a few permits that is held
//! until the thread is back, a name has one lookup at a time that everybody
//! shares who wants it, and an answer that is not too old stands in for a
//! lookup that takes long.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::connector::Resolve;

/// Lookups under way at the same time.
const THREADS: usize = 16;

/// How long an answer is used without asking again.
const FRESH: Duration = Duration::from_secs(5);

/// How long an answer stands in for a lookup that takes longer than this.
const STALE: Duration = Duration::from_mins(5);
const SLOW: Duration = Duration::from_millis(200);

/// Most answers to remember.
const MOST_ANSWERS: usize = 4_096;

type Answer = Result<Arc<[IpAddr]>, io::ErrorKind>;
/// An answer and when it came.
type Known = (Instant, Arc<[IpAddr]>);
type Lookup = watch::Receiver<Option<Answer>>;
type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Resolves names with the system's resolver.
pub(super) struct SystemResolver {
    shared: Arc<State>,
}

struct State {
    ask: Box<Ask>,
    fresh: Duration,
    permits: Arc<Semaphore>,
    lookups: Mutex<HashMap<Arc<str>, Lookup>>,
    answers: Mutex<HashMap<Arc<str>, Known>>,
}

impl SystemResolver {
    pub(super) fn new() -> Self {
        Self::asking(FRESH, |host| {
            Ok((host, 0).to_socket_addrs()?.map(|found| found.ip()).collect())
        })
    }

    /// Makes one that asks in another way; `ask` may block.
    fn asking(
        fresh: Duration,
        ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(State {
                ask: Box::new(ask),
                fresh,
                permits: Arc::new(Semaphore::new(THREADS)),
                lookups: Mutex::default(),
                answers: Mutex::default(),
            }),
        }
    }

    fn known(&self, host: &str) -> Option<(Duration, Arc<[IpAddr]>)> {
        let answers = self.shared.answers.lock();
        let (at, addresses) = answers.get(host)?;
        Some((at.elapsed(), addresses.clone()))
    }

    /// Looks a name up, or waits for the lookup of it that is under way.
    async fn look_up(&self, host: &str) -> Answer {
        let under_way = self.shared.lookups.lock().get(host).cloned();
        let mut lookup = if let Some(lookup) = under_way {
            lookup
        } else {
            // Whoever gives up waits for no thread any more.
            let permit = self.shared.permits.clone().acquire_owned().await;
            let permit = permit.map_err(|_| io::ErrorKind::Other)?;
            match self.known(host) {
                Some((age, addresses)) if age < self.shared.fresh => return Ok(addresses),
                _ => begin(&self.shared, host, permit),
            }
        };
        let answer = lookup.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answer.unwrap_or_else(|| {
            // It panicked, and took no notice of its end.
            self.shared.lookups.lock().remove(host);
            Err(io::ErrorKind::Other)
        })
    }
}

/// Begins the lookup of a name, unless one is under way.
fn begin(state: &Arc<State>, host: &str, permit: OwnedSemaphorePermit) -> Lookup {
    let mut lookups = state.lookups.lock();
    if let Some(lookup) = lookups.get(host) {
        return lookup.clone();
    }
    let host: Arc<str> = host.into();
    let (tell, lookup) = watch::channel(None);
    lookups.insert(host.clone(), lookup.clone());
    let state = state.clone();
    // It goes on when nobody waits any more.
    tokio::task::spawn_blocking(move || {
        let answer: Answer = (state.ask)(&host).map(Arc::from).map_err(|error| error.kind());
        if let Ok(addresses) = &answer {
            state.remember(host.clone(), addresses.clone());
        }
        state.lookups.lock().remove(&host);
        tell.send_replace(Some(answer));
        // Now, and no sooner, the thread is free.
        drop(permit);
    });
    lookup
}

impl State {
    fn remember(&self, host: Arc<str>, addresses: Arc<[IpAddr]>) {
        let mut answers = self.answers.lock();
        if answers.len() >= MOST_ANSWERS {
            answers.retain(|_, (at, _)| at.elapsed() < self.fresh);
        }
        if answers.len() < MOST_ANSWERS {
            answers.insert(host, (Instant::now(), addresses));
        }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let known = self.known(host).filter(|(age, _)| *age < STALE);
        if let Some((age, addresses)) = &known
            && *age < self.shared.fresh
        {
            return Ok(addresses.to_vec());
        }
        let lookup = self.look_up(host);
        let answer = match known {
            None => lookup.await,
            Some((_, addresses)) => timeout(SLOW, lookup).await.unwrap_or(Ok(addresses)),
        };
        answer.map(|addresses| addresses.to_vec()).map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::FutureExt as _;
    use tokio::task::JoinSet;

    use super::*;

    fn address() -> Vec<IpAddr> {
        vec![IpAddr::from([127, 0, 0, 1])]
    }

    /// A resolver whose names beginning with `slow` wait until they are let go.
    fn slow(fresh: Duration) -> (SystemResolver, mpsc::SyncSender<()>, Arc<AtomicUsize>) {
        let (let_go, wait) = mpsc::sync_channel(8);
        let (wait, asked) = (Mutex::new(wait), Arc::<AtomicUsize>::default());
        let count = asked.clone();
        let resolver = SystemResolver::asking(fresh, move |host| {
            count.fetch_add(1, Ordering::SeqCst);
            if host.starts_with("slow") {
                // Ends when the test does, at the latest.
                let _ = wait.lock().recv();
            }
            Ok(address())
        });
        (resolver, let_go, asked)
    }

    async fn until_asked(asked: &AtomicUsize, count: usize) {
        while asked.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_name_is_looked_up_once_for_all_who_wait() {
        let (resolver, let_go, asked) = slow(FRESH);
        let resolver = Arc::new(resolver);
        let mut waiting = JoinSet::new();
        for _ in 0..20 {
            let resolver = resolver.clone();
            waiting.spawn(async move { resolver.resolve("slow.example").await.unwrap() });
        }
        until_asked(&asked, 1).await;
        let_go.send(()).unwrap();
        assert!(waiting.join_all().await.iter().all(|found| *found == address()));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(resolver.resolve("slow.example").await.unwrap(), address(), "still fresh");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn giving_up_the_wait_does_not_free_a_thread_that_is_still_busy() {
        let (resolver, let_go, asked) = slow(FRESH);
        for number in 0..4 * THREADS {
            let name = format!("slow{number}.example");
            // Asks, and gives up at once.
            assert!(resolver.resolve(&name).now_or_never().is_none());
        }
        until_asked(&asked, THREADS).await;
        // The service's own blocking work finds a thread.
        tokio::task::spawn_blocking(|| {}).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), THREADS);
        assert_eq!(resolver.shared.permits.available_permits(), 0);
        let_go.send(()).unwrap();
        while resolver.shared.permits.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(asked.load(Ordering::SeqCst), THREADS);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_old_answer_stands_in_for_a_lookup_that_takes_long() {
        let (resolver, let_go, asked) = slow(Duration::ZERO);
        let_go.send(()).unwrap();
        assert_eq!(resolver.resolve("slow.example").await.unwrap(), address());
        assert_eq!(resolver.resolve("slow.example").await.unwrap(), address());
        until_asked(&asked, 2).await;
    }
}
