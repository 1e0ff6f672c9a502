//! Measures any server that speaks the wire contract, and checks it meanwhile.
//!
//! A scenario makes tasks of its own, puts a load on the server, and reports
//! rates and latencies together with every promise the server broke: an
//! acknowledged event that a reader did not get, got twice or got out of order,
//! a request that was refused or never answered. A figure without faults is
//! therefore a figure of work that was really done.
//!
//! The load shares the machine's processors with the server more often than
//! not, so it must cost little: prepared requests are changed in place, answers
//! and frames are read where they lie, and what is remembered of an event is
//! its share of a few sums.
//!
//! Nothing in here knows the service; it knows the wire contract.

mod checker;
mod chunked;
mod clock;
mod connection;
mod endpoint;
mod events;
mod faults;
mod files;
mod load;
mod log;
mod memory;
pub mod postgres;
mod progress;
mod readers;
mod report;
mod scenarios;
mod stage;
mod stream;
mod tasks;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

pub use self::endpoint::{BaseUrl, Token};
pub use self::load::{LoadOptions, Series};
pub use self::progress::{Phase, Progress};
pub use self::report::{Fault, FaultKind, Latency, Recorder, Report, ServerMemory, Summary};
pub use self::scenarios::Scenario;
pub use self::scenarios::fanout::FanoutOptions;
pub use self::scenarios::idle::IdleOptions;
pub use self::scenarios::join::JoinOptions;
pub use self::scenarios::lifecycle::LifecycleOptions;
pub use self::scenarios::publish::PublishOptions;
pub use self::scenarios::replay::ReplayOptions;
pub use self::scenarios::stream::StreamOptions;
pub use self::stage::{Period, Until};

use self::clock::Clock;
use self::connection::NoReply;
use self::endpoint::Endpoint;
use self::faults::Faults;

/// Why a run could not begin. Once it has, all that goes wrong is a
/// [`Fault`] of its [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Nobody answers at the server's address.
    #[error("cannot reach {url}: {source}")]
    Unreachable {
        /// The server's base.
        url: String,
        /// What the system said.
        source: io::Error,
    },
    /// A request that prepares the run was refused.
    #[error("{request} was answered {status}: {body}")]
    Refused {
        /// Method and path.
        request: String,
        /// The status.
        status: u16,
        /// The beginning of the answer's body.
        body: String,
    },
    /// A request that prepares the run was not answered.
    #[error("{request}: {reason}")]
    Unanswered {
        /// Method and path.
        request: String,
        /// What happened instead.
        reason: String,
    },
    /// The streams of a run are more files than the process may open.
    #[error(
        "this needs {needed} open files and the process may have {allowed}; \
         raise the limit (ulimit -n {needed}) or ask for fewer"
    )]
    TooManyFiles {
        /// How many the run needs.
        needed: u64,
        /// How many the system allows.
        allowed: u64,
    },
    /// The threads that make the load could not be started.
    #[error("cannot start the threads that make the load: {0}")]
    Threads(io::Error),
}

impl BenchError {
    fn unanswered(request: &str, reason: &NoReply) -> Self {
        Self::Unanswered { request: request.to_owned(), reason: reason.to_string() }
    }
}

/// The server to measure, and how to go about it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where to write.
    pub url: BaseUrl,
    /// Where to read, when that is another instance.
    pub read_url: Option<BaseUrl>,
    /// Credentials for all requests.
    pub token: Option<Token>,
    /// How long an answer may take, and a reader may hear nothing of what it is owed.
    pub timeout: Duration,
    /// Threads that make the load. One loads the machine least.
    pub threads: usize,
    /// Whether the tasks are deleted afterwards.
    pub delete: bool,
}

/// Runs a scenario to its end.
///
/// # Errors
///
/// Fails when the run could not be prepared. A server that breaks promises is
/// no error: see [`Report::faults`].
pub async fn run(
    target: Target,
    scenario: Scenario,
    progress: Arc<Progress>,
) -> Result<Report, BenchError> {
    let (threads, files) = (target.threads, scenario.files());
    let work = move || {
        files::allow(files)?;
        let mut builder = match threads {
            // Without a second thread there is nobody to hand work to, and
            // nothing to pay for being able to.
            ..=1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder
            .worker_threads(threads.max(1))
            .enable_all()
            .build()
            .map_err(BenchError::Threads)?;
        runtime.block_on(async {
            let run = Run::prepare(target, progress).await?;
            scenario.run(&Arc::new(run)).await
        })
    };
    // On threads of its own: whatever else the process does takes nothing from them.
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(ended) => Err(BenchError::Threads(io::Error::other(ended))),
        },
    }
}

/// What all parts of a run share.
#[derive(Debug)]
struct Run {
    target: Target,
    write: Endpoint,
    read: Endpoint,
    clock: Clock,
    faults: Faults,
    progress: Arc<Progress>,
    /// Begins the id of every task, so that runs do not meet.
    name: String,
}

impl Run {
    async fn prepare(target: Target, progress: Arc<Progress>) -> Result<Self, BenchError> {
        let write = Endpoint::find(&target.url, target.token.as_ref()).await?;
        let read = match &target.read_url {
            Some(url) => Endpoint::find(url, target.token.as_ref()).await?,
            None => write.clone(),
        };
        let name = format!("bench-{:08x}", rand::random::<u32>());
        let (clock, faults) = (Clock::start(), Faults::default());
        Ok(Self { target, write, read, clock, faults, progress, name })
    }

    /// Returns a report without figures.
    fn report(&self, scenario: &'static str, parameters: Value) -> Report {
        let parameters = match parameters {
            Value::Object(parameters) => parameters,
            _ => Map::new(),
        };
        let given = |(_, value): &(String, Value)| !value.is_null();
        Report {
            scenario,
            url: self.target.url.to_string(),
            read_url: self.target.read_url.as_ref().map(ToString::to_string),
            parameters: parameters.into_iter().filter(given).collect(),
            seconds: 0.0,
            rate: 0.0,
            rate_unit: "events/s",
            delivery_rate: None,
            latencies: Vec::new(),
            acknowledged: 0,
            delivered: 0,
            server_memory: None,
            faults: self.faults.list(),
        }
    }
}
