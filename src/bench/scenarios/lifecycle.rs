//! `lifecycle`: how many tasks are created, run and completed per second.
//!
//! Afterwards the streams of some of them are read, which must hold both
//! changes of status and end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::checker::{Completeness, Ledger, Sequence};
use super::super::connection::{Connection, behind};
use super::super::events::Frame;
use super::super::memory::resident_bytes;
use super::super::readers::kind_of;
use super::super::report::{FaultKind, Latency, Recorder, Report, ServerMemory};
use super::super::stage::{Period, Stage};
use super::super::stream::EventStream;
use super::super::tasks::{RUNNING, Tasks, creation};
use super::super::{BenchError, Run};

/// Tasks whose streams are read afterwards.
const SAMPLE: usize = 500;

/// Streams that are read at the same time.
const READERS: usize = 16;

/// Requests in a row without an answer after which a producer gives up.
const PATIENCE: u32 = 3;

/// Moves a task to its end.
const COMPLETED: &str = r#"{"status":"completed","result":{"words":2}}"#;

/// Options of `lifecycle`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LifecycleOptions {
    /// Connections that run tasks at the same time.
    pub producers: usize,
    /// How long.
    pub period: Period,
}

struct Cycles {
    run: Arc<Run>,
    stage: Stage,
    /// Tasks that were begun; their numbers make their ids.
    begun: AtomicUsize,
    /// Numbers of tasks that were not completed.
    failed: Mutex<Vec<usize>>,
    completed: AtomicU64,
    /// From creating to completed.
    lives: Mutex<Recorder>,
    requests: Mutex<Recorder>,
}

impl LifecycleOptions {
    pub(super) async fn run(self, run: &Arc<Run>) -> Result<Report, BenchError> {
        let Self { producers, period } = self;
        let memory = || resident_bytes(&run.write, run.target.timeout);
        let before = memory().await;
        let cycles = Arc::new(Cycles {
            run: run.clone(),
            stage: Stage::new(run, period),
            begun: AtomicUsize::new(0),
            failed: Mutex::default(),
            completed: AtomicU64::new(0),
            lives: Mutex::default(),
            requests: Mutex::default(),
        });
        let mut workers = JoinSet::new();
        for _ in 0..producers {
            workers.spawn(work(cycles.clone()));
        }
        let counters = || [cycles.completed.load(Ordering::Relaxed), 0];
        let measured = cycles.stage.measure(run, workers, counters).await;
        let after = memory().await;
        let delivered = read_some(run, &cycles).await;
        let begun = cycles.begun.load(Ordering::Relaxed);
        let ids: Vec<String> = (0..begun).map(|number| Tasks::id(run, number)).collect();
        Tasks::leave(run, &ids).await;
        let summary = |name, recorder: &Mutex<Recorder>| {
            Some(Latency { name, summary: recorder.lock().summary()? })
        };
        let latencies = [summary("cycle", &cycles.lives), summary("request", &cycles.requests)];
        let (warmup, duration, count) = period.parameters();
        let parameters = json!({
            "producers": producers,
            "warmup": warmup,
            "duration": duration,
            "count": count,
        });
        Ok(Report {
            seconds: measured.seconds(),
            rate: measured.rates()[0],
            rate_unit: "tasks/s",
            latencies: latencies.into_iter().flatten().collect(),
            acknowledged: 2 * cycles.completed.load(Ordering::Relaxed),
            delivered,
            server_memory: ServerMemory::between(before, after),
            ..run.report("lifecycle", parameters)
        })
    }
}

/// A prepared request in which a task's id is changed.
struct Step {
    bytes: Vec<u8>,
    id_at: usize,
    expected: u16,
}

impl Step {
    fn all(run: &Run) -> [Self; 3] {
        let id = Tasks::id(run, 0);
        let path = format!("/tasks/{id}/status");
        let step = |method, path, body, expected| {
            let bytes = run.write.request(method, path, Some(body));
            // It was just put in.
            let id_at = behind(&bytes, id.as_bytes()).unwrap_or_default() - id.len();
            Self { bytes, id_at, expected }
        };
        [
            step("POST", "/tasks", &creation(&id), 201),
            step("PATCH", &path, RUNNING, 200),
            step("PATCH", &path, COMPLETED, 200),
        ]
    }
}

async fn work(cycles: Arc<Cycles>) {
    let run = &cycles.run;
    let mut connection = match Connection::open(&run.write, run.target.timeout).await {
        Ok(connection) => connection,
        Err(error) => {
            run.faults.add(FaultKind::Unanswered, || format!("a producer: {error}"));
            return;
        }
    };
    let mut steps = Step::all(run);
    let mut failures = 0;
    while failures < PATIENCE && cycles.stage.may_begin(1) {
        let number = cycles.begun.fetch_add(1, Ordering::Relaxed);
        let id = Tasks::id(run, number);
        let began = run.clock.micros();
        if complete(&cycles, &mut connection, &mut steps, &id, &mut failures).await {
            let now = run.clock.micros();
            cycles.completed.fetch_add(1, Ordering::Relaxed);
            if cycles.stage.counts(now) {
                cycles.lives.lock().record(now - began);
            }
        } else {
            cycles.failed.lock().push(number);
        }
    }
}

/// Takes a task through its life; returns whether it got to the end.
async fn complete(
    cycles: &Cycles,
    connection: &mut Connection,
    steps: &mut [Step; 3],
    id: &str,
    failures: &mut u32,
) -> bool {
    let run = &cycles.run;
    for Step { bytes, id_at, expected } in steps {
        bytes[*id_at..*id_at + id.len()].copy_from_slice(id.as_bytes());
        let began = run.clock.micros();
        let reply = match connection.exchange(bytes).await {
            Ok(reply) => reply,
            Err(error) => {
                *failures += 1;
                run.faults.add(error.kind(), || format!("task {id}: {error}"));
                return false;
            }
        };
        *failures = 0;
        if reply.status != *expected {
            run.faults.add(FaultKind::Refused, || {
                format!("task {id} was answered {}: {}", reply.status, reply.excerpt())
            });
            return false;
        }
        let now = run.clock.micros();
        if cycles.stage.counts(now) {
            cycles.requests.lock().record(now - began);
        }
    }
    true
}

/// Reads the streams of some tasks that were completed, evenly spread. Returns
/// how many events they held.
async fn read_some(run: &Arc<Run>, cycles: &Cycles) -> u64 {
    let begun = cycles.begun.load(Ordering::Relaxed);
    let failed = cycles.failed.lock().clone();
    let stride = begun.div_ceil(SAMPLE).max(1);
    let some: Vec<usize> =
        (0..begun).step_by(stride).filter(|number| !failed.contains(number)).collect();
    run.progress.begin("reading back", some.len());
    stream::iter(some)
        .map(|number| async move {
            let id = Tasks::id(run, number);
            let events = read_life(run, &id).await;
            run.progress.advance(1);
            events
        })
        .buffer_unordered(READERS)
        .fold(0, |sum, events| async move { sum + events })
        .await
}

/// Reads the stream of a completed task to its end.
async fn read_life(run: &Run, id: &str) -> u64 {
    let (who, patience) = (format!("task {id}, read back"), run.target.timeout);
    let path = format!("/tasks/{id}/events");
    let mut stream = match EventStream::open(&run.read, &path, patience).await {
        Ok(stream) => stream,
        Err(error) => {
            run.faults.add(kind_of(&error), || format!("{who}: {error}"));
            return 0;
        }
    };
    let mut sequence = Sequence::new(who.clone(), 0, Completeness::Every);
    let mut reason = None;
    let reading = async {
        let mut is_open = true;
        while is_open && reason.is_none() {
            let read = stream.read(|frames| {
                for frame in frames {
                    match frame {
                        Ok(Frame::Event(event)) => sequence.see(&event, &run.faults),
                        Ok(Frame::Done(data)) => reason = Some(data.to_vec()),
                        Ok(Frame::Silence) => {}
                        Err(error) => {
                            run.faults.add(FaultKind::Malformed, || format!("{who}: {error}"));
                        }
                    }
                }
            });
            is_open = matches!(read.await, Ok(true));
        }
    };
    // Whether it came too late or not at all, the end was not found.
    let _ = timeout(patience, reading).await;
    // Two changes of status and nothing else.
    sequence.conclude(&Ledger::after(2), &run.faults);
    let is_completed = reason.is_some_and(|data| behind(&data, b"\"completed\"").is_some());
    if !is_completed {
        run.faults.add(FaultKind::Cut, || format!("{who}: it does not end as completed"));
    }
    sequence.next()
}
