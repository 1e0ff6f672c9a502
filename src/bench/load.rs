//! Producers: each a connection that publishes, one request after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Run;
use super::connection::{Connection, behind};
use super::events::{Place, acknowledged, event, places, put};
use super::readers::Readers;
use super::report::{FaultKind, Latency, Recorder};
use super::stage::{Measured, Period, Stage};
use super::tasks::Tasks;

/// Numbers a producer has for its events.
const NUMBERS: u64 = 1_000_000_000;

/// Requests in a row without an answer after which a producer gives up.
const PATIENCE: u32 = 3;

/// How long a producer that is too far ahead of its readers waits.
const BRAKE: Duration = Duration::from_millis(1);

/// Text of an event outside of series, of the size of a few words.
const TEXT: &str = "hello world token";

/// Text of an event in a series, of the size of a token.
const DELTA: &str = "token ";

/// How the events of a producer belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Series {
    /// A series that keeps all its events.
    KeepAll,
    /// A series whose text grows.
    Accumulate,
    /// A series in which the newest event counts.
    Latest,
}

impl Series {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::KeepAll, Self::Accumulate, Self::Latest];

    /// Returns the mode as the wire contract spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeepAll => "keep-all",
            Self::Accumulate => "accumulate",
            Self::Latest => "latest",
        }
    }
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadOptions {
    /// Tasks that are published to.
    pub tasks: usize,
    /// Connections that publish at the same time.
    pub producers: usize,
    /// Events in a request.
    pub events: usize,
    /// Events per second over all producers; without it each producer sends the
    /// next request as soon as the last is answered.
    pub rate: Option<f64>,
    /// The kind of series each producer has, if any. A producer with a series
    /// publishes to one task, else to all in turn.
    pub series: Option<Series>,
    /// How long.
    pub period: Period,
}

impl LoadOptions {
    /// Returns the options as they stand in a report.
    pub(super) fn parameters(&self) -> serde_json::Value {
        let (warmup, duration, count) = self.period.parameters();
        serde_json::json!({
            "tasks": self.tasks,
            "producers": self.producers,
            "eventsPerRequest": self.events,
            "rate": self.rate,
            "series": self.series.map(Series::as_str),
            "warmup": warmup,
            "duration": duration,
            "count": count,
        })
    }
}

/// A load on some tasks.
#[derive(Debug)]
pub(super) struct Load {
    run: Arc<Run>,
    options: LoadOptions,
    tasks: Arc<Tasks>,
    stage: Arc<Stage>,
    /// Events acknowledged so far.
    acknowledged: AtomicU64,
    latency: Mutex<Recorder>,
    brake: Option<Brake>,
}

/// Keeps producers from running away from readers.
#[derive(Debug)]
pub(super) struct Brake {
    /// Who must not be left behind.
    pub(super) readers: Arc<Readers>,
    /// Events a reader may be behind, on average.
    pub(super) events: u64,
}

impl Load {
    pub(super) fn new(
        run: &Arc<Run>,
        options: LoadOptions,
        tasks: &Arc<Tasks>,
        stage: &Arc<Stage>,
        brake: Option<Brake>,
    ) -> Arc<Self> {
        Arc::new(Self {
            run: run.clone(),
            options,
            tasks: tasks.clone(),
            stage: stage.clone(),
            acknowledged: AtomicU64::new(0),
            latency: Mutex::default(),
            brake,
        })
    }

    /// Publishes for as long as the stage lasts; the second counter is that of
    /// the readers, if there are any.
    pub(super) async fn measure(self: &Arc<Self>, readers: Option<&Readers>) -> Measured {
        let mut workers = JoinSet::new();
        self.stage.begin();
        for number in 0..self.options.producers {
            let producer = Producer::new(self.clone(), number);
            workers.spawn(producer.work());
        }
        let counters = || {
            let delivered = readers.map_or(0, Readers::delivered);
            [self.acknowledged.load(Ordering::Relaxed), delivered]
        };
        self.stage.measure(&self.run, workers, counters).await
    }

    /// Returns how long requests took.
    pub(super) fn latency(&self) -> Option<Latency> {
        let summary = self.latency.lock().summary()?;
        Some(Latency { name: "request", summary })
    }

    fn is_too_far_ahead(&self) -> bool {
        self.brake.as_ref().is_some_and(|Brake { readers, events }| {
            let count = readers.count();
            let owed = self.acknowledged.load(Ordering::Relaxed) * count;
            owed > readers.delivered() + events * count
        })
    }
}

/// A prepared request.
#[derive(Debug)]
struct Prepared {
    bytes: Vec<u8>,
    task_at: usize,
    /// Where number and instant of the first event stand.
    first: (usize, usize),
    /// How far from one event to the next.
    stride: usize,
    events: usize,
}

impl Prepared {
    fn new(load: &Load, producer: usize) -> Self {
        let LoadOptions { events, series, .. } = load.options;
        let name = format!("s{producer}");
        let event = match series {
            Some(series) => event(DELTA, Some((&name, series.as_str()))),
            None => event(TEXT, None),
        };
        let body = match events {
            1 => event.clone(),
            _ => format!("[{}]", vec![event.as_str(); events].join(",")),
        };
        let id = &load.tasks.ids()[0];
        let path = format!("/tasks/{id}/events");
        let bytes = load.run.write.request("POST", &path, Some(&body));
        // Both were just put in.
        let task_at = behind(&bytes, id.as_bytes()).unwrap_or_default() - id.len();
        let first = places(&bytes).unwrap_or_default();
        Self { bytes, task_at, first, stride: event.len() + 1, events }
    }

    fn fill(&mut self, task: &str, number: u64, sent: u64) {
        self.bytes[self.task_at..self.task_at + task.len()].copy_from_slice(task.as_bytes());
        let (mut number_at, mut instant_at) = self.first;
        for number in (number..).take(self.events) {
            put(&mut self.bytes, number_at, number);
            put(&mut self.bytes, instant_at, sent);
            number_at += self.stride;
            instant_at += self.stride;
        }
    }
}

struct Producer {
    load: Arc<Load>,
    number: usize,
    request: Prepared,
    places: Vec<Place>,
    /// Requests begun.
    turns: u64,
    failures: u32,
}

impl Producer {
    fn new(load: Arc<Load>, number: usize) -> Self {
        let request = Prepared::new(&load, number);
        Self { load, number, request, places: Vec::new(), turns: 0, failures: 0 }
    }

    async fn work(mut self) {
        let load = self.load.clone();
        let run = &load.run;
        let opened = Connection::open(&run.write, run.target.timeout).await;
        let mut connection = match opened {
            Ok(connection) => connection,
            Err(error) => {
                run.faults.add(FaultKind::Unanswered, || format!("a producer: {error}"));
                return;
            }
        };
        while load.stage.may_begin(load.options.events) {
            let Some(began) = self.turn().await else { break };
            self.publish(&mut connection, began).await;
            if self.failures == PATIENCE {
                break;
            }
        }
    }

    /// Waits until it is this producer's turn; returns when that was.
    async fn turn(&self) -> Option<u64> {
        let LoadOptions { producers, events, rate, .. } = self.load.options;
        let Some(rate) = rate else {
            while self.load.is_too_far_ahead() && self.load.stage.may_begin(0) {
                sleep(BRAKE).await;
            }
            return Some(self.load.run.clock.micros());
        };
        let before = self.number as u64 + self.turns * producers as u64;
        #[expect(clippy::cast_precision_loss, reason = "no run has 2^52 events")]
        let after = before as f64 * events as f64 / rate;
        self.load.stage.turn(after).await
    }

    /// Returns the task of this turn.
    fn task(&self) -> usize {
        let LoadOptions { tasks, producers, series, .. } = self.load.options;
        if series.is_some() {
            return self.number % tasks;
        }
        // Spread, so that producers do not walk over the tasks in step.
        let start = self.number * tasks / producers;
        (start + (self.turns % tasks as u64) as usize) % tasks
    }

    async fn publish(&mut self, connection: &mut Connection, began: u64) {
        let (task, load) = (self.task(), &self.load);
        let events = self.request.events;
        let number = self.number as u64 * NUMBERS + self.turns * events as u64;
        self.turns += 1;
        let (id, ledger) = (&load.tasks.ids()[task], load.tasks.ledger(task));
        self.request.fill(id, number, began);
        let faults = &load.run.faults;
        let reply = match connection.exchange(&self.request.bytes).await {
            Ok(reply) => reply,
            Err(error) => {
                ledger.lose(events);
                self.failures += 1;
                faults.add(error.kind(), || format!("publishing to task {id}: {error}"));
                return;
            }
        };
        self.failures = 0;
        if reply.status != 201 {
            // What was refused is not stored; what failed may be.
            if reply.status >= 500 {
                ledger.lose(events);
            }
            faults.add(FaultKind::Refused, || {
                let (status, body) = (reply.status, reply.excerpt());
                format!("publishing to task {id} was answered {status}: {body}")
            });
            return;
        }
        if let Err(error) = acknowledged(reply.body, events, &mut self.places) {
            ledger.lose(events);
            faults.add(FaultKind::Malformed, || format!("publishing to task {id}: {error}"));
            return;
        }
        let now = load.run.clock.micros();
        ledger.acknowledge(&self.places, number);
        load.acknowledged.fetch_add(events as u64, Ordering::Relaxed);
        if load.stage.counts(now) {
            load.latency.lock().record(now - began);
        }
    }
}
