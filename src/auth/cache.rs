//! Answers that hold for a moment, and questions that are asked once.
//!
//! Callers with the same question while it is being asked share one answer.
//! Nothing that was asked is kept, only a digest of it.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, WeakShared};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Most answers kept. Past it those that have run out go, and if that is not
/// enough, all.
const MOST_ANSWERS: usize = 10_000;

/// A digest of a question.
pub(super) type Key = [u8; 32];

/// An answer, and when the question was asked.
type Dated<A> = (A, Instant);

enum Entry<A: Clone> {
    /// Somebody is asking. A question that nobody waits for is not asked on.
    Asking(WeakShared<BoxFuture<'static, Dated<A>>>),
    Known(Dated<A>),
}

/// Answers by question.
pub(super) struct Answers<A: Clone> {
    hold: Duration,
    entries: Mutex<HashMap<Key, Entry<A>>>,
}

impl<A: Clone + Send + Sync + 'static> Answers<A> {
    /// Makes a store of answers that hold for `hold` after they were asked for.
    pub(super) fn new(hold: Duration) -> Self {
        Self { hold, entries: Mutex::default() }
    }

    /// Returns the answer that is known, or the one that `ask` gets.
    ///
    /// Only answers that `keeps` accepts are known afterwards.
    pub(super) async fn get(
        &self,
        key: Key,
        ask: impl FnOnce() -> BoxFuture<'static, A>,
        keeps: fn(&A) -> bool,
    ) -> A {
        let now = Instant::now();
        let pending = {
            let mut entries = self.entries.lock();
            let pending = match entries.get(&key) {
                Some(Entry::Known((answer, asked))) if now < *asked + self.hold => {
                    return answer.clone();
                }
                Some(Entry::Asking(pending)) => pending.upgrade(),
                Some(Entry::Known(_)) | None => None,
            };
            pending.unwrap_or_else(|| {
                let pending = ask().map(move |answer| (answer, now)).boxed().shared();
                self.make_room(&mut entries, now);
                // A future that nobody has polled yet can always be pointed to.
                if let Some(weak) = pending.downgrade() {
                    entries.insert(key, Entry::Asking(weak));
                }
                pending
            })
        };
        let (answer, asked) = pending.await;
        let mut entries = self.entries.lock();
        if keeps(&answer) {
            entries.insert(key, Entry::Known((answer.clone(), asked)));
        } else if entries.get(&key).is_some_and(Entry::is_answered) {
            entries.remove(&key);
        }
        answer
    }

    fn make_room(&self, entries: &mut HashMap<Key, Entry<A>>, now: Instant) {
        if entries.len() < MOST_ANSWERS {
            return;
        }
        entries.retain(|_, entry| match entry {
            Entry::Known((_, asked)) => now < *asked + self.hold,
            Entry::Asking(_) => !entry.is_answered(),
        });
        if entries.len() >= MOST_ANSWERS {
            entries.clear();
        }
    }
}

impl<A: Clone> Entry<A> {
    /// Tells whether nobody is waiting for the answer any more.
    fn is_answered(&self) -> bool {
        match self {
            Self::Asking(pending) => {
                pending.upgrade().is_none_or(|pending| pending.peek().is_some())
            }
            Self::Known(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    #[derive(Default)]
    struct Oracle(Arc<AtomicUsize>);

    impl Oracle {
        fn ask(&self) -> BoxFuture<'static, usize> {
            let asked = self.0.clone();
            async move {
                sleep(Duration::from_secs(1)).await;
                asked.fetch_add(1, Ordering::SeqCst)
            }
            .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_shared_while_it_is_asked_and_holds_from_then_on() {
        let (answers, oracle) = (Answers::new(Duration::from_secs(5)), Oracle::default());
        let get = || answers.get([0; 32], || oracle.ask(), |_| true);
        assert_eq!(futures_util::future::join(get(), get()).await, (0, 0));
        advance(Duration::from_millis(3_900)).await;
        assert_eq!(get().await, 0);
        advance(Duration::from_millis(200)).await;
        assert_eq!(get().await, 1);
        assert_eq!(answers.get([1; 32], || oracle.ask(), |_| true).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_everybody_gave_up_on_is_asked_anew() {
        let (answers, oracle) = (Answers::new(Duration::from_secs(5)), Oracle::default());
        let get = || answers.get([0; 32], || oracle.ask(), |_| true);
        assert!(timeout(Duration::from_millis(500), get()).await.is_err());
        assert_eq!(get().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_to_be_kept_is_not() {
        let (answers, oracle) = (Answers::new(Duration::from_secs(5)), Oracle::default());
        let get = || answers.get([0; 32], || oracle.ask(), |_| false);
        assert_eq!((get().await, get().await), (0, 1));
        assert!(answers.entries.lock().is_empty());
    }
}
