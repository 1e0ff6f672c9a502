//! What the tests share: a Postgres, a server, a client and a stream reader.
//!
//! Nothing in here sleeps to let time pass. Waiting is always for a condition,
//! with a deadline that turns waiting in vain into a failure that says what
//! did not happen.

pub mod client;
#[cfg(feature = "sentry")]
pub mod envelopes;
pub mod everything;
pub mod place;
pub mod pooler;
pub mod postgres;
pub mod private_postgres;
pub mod proxy;
pub mod receiver;
pub mod server;
pub mod sse;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Longest wait for anything that should happen; generous, because a loaded
/// machine is slow and waiting costs only a failing test anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a variable of the environment the tests run in.
#[expect(clippy::disallowed_methods, reason = "the rule is for the program, not for its tests")]
pub fn environment_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Waits for `work`, or fails saying that `what` did not happen.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let Ok(value) = timeout(PATIENCE, work).await else {
        panic!("waited {PATIENCE:?} in vain: {what}");
    };
    value
}

/// Looks again and again until `look` finds something.
pub async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        // The pause between two looks, not a wait for the condition.
        sleep(Duration::from_millis(10)).await;
    }
}

/// Where a server keeps its tasks: the two kinds every rule is checked on.
#[derive(Debug, Clone)]
pub enum Backend {
    /// In the server's memory.
    Memory,
    /// In a database of the test's own.
    Postgres(postgres::Database),
}

impl Backend {
    /// Makes a backend in Postgres with a fresh, migrated database.
    pub async fn postgres() -> Self {
        Self::Postgres(postgres::Database::migrated().await)
    }

    /// Starts a server with the default configuration.
    pub async fn start(&self) -> server::Server {
        self.start_with(&[]).await
    }

    /// Starts a server with these environment variables on top.
    pub async fn start_with(&self, environment: &[(&str, &str)]) -> server::Server {
        server::Server::start(self, environment).await
    }

    /// Starts instances that serve the same tasks. In memory there can be only
    /// one, so both are the same one.
    pub async fn start_two(&self) -> (server::Server, server::Server) {
        let first = self.start().await;
        let second = match self {
            Self::Memory => first.clone(),
            Self::Postgres(_) => self.start().await,
        };
        (first, second)
    }
}

/// Turns each case into two tests, one per kind of store.
///
/// A case is an async function that takes a [`Backend`]. One that is missing
/// from the list is dead code, which the compiler reports.
macro_rules! on_every_store {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(crate::support::Backend::Memory).await;
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(crate::support::Backend::postgres().await).await;
                }
            )*
        }
    };
}
pub(crate) use on_every_store;
