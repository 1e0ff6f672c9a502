//! Readers that follow tasks live, while others publish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Run;
use super::checker::{Completeness, Sequence};
use super::events::Frame;
use super::report::{FaultKind, Latency, Recorder};
use super::stage::Stage;
use super::stream::{EventStream, Frames, OpenError};
use super::tasks::Tasks;

/// Streams that are being opened at the same time.
const OPENING: usize = 64;

/// How often is looked whether readers have arrived somewhere.
const LOOK: Duration = Duration::from_millis(2);

/// Readers of tasks.
#[derive(Debug)]
pub(super) struct Readers {
    run: Arc<Run>,
    tasks: Arc<Tasks>,
    stage: Arc<Stage>,
    all: Vec<Reader>,
    /// Events of ours that arrived, over all readers.
    delivered: AtomicU64,
    /// From publishing to delivery.
    delivery: Mutex<Recorder>,
    /// From asking for a stream to its first frame.
    opening: Mutex<Recorder>,
    followers: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Reader {
    task: usize,
    sequence: Mutex<Sequence>,
    /// The index after the newest event that arrived.
    next: AtomicU64,
    is_over: AtomicBool,
}

impl Readers {
    /// Opens streams, reader by reader to the next task, and waits until each
    /// has shown the change to `running` that begins every log.
    pub(super) async fn open(
        run: &Arc<Run>,
        tasks: &Arc<Tasks>,
        stage: &Arc<Stage>,
        count: usize,
        completeness: Completeness,
    ) -> Arc<Self> {
        let reader = |number: usize| {
            let task = number % tasks.count();
            let who = format!("task {}, reader {number}", tasks.ids()[task]);
            Reader {
                task,
                sequence: Mutex::new(Sequence::new(who, 0, completeness)),
                next: AtomicU64::new(0),
                is_over: AtomicBool::new(false),
            }
        };
        let readers = Arc::new(Self {
            run: run.clone(),
            tasks: tasks.clone(),
            stage: stage.clone(),
            all: (0..count).map(reader).collect(),
            delivered: AtomicU64::new(0),
            delivery: Mutex::default(),
            opening: Mutex::default(),
            followers: Mutex::default(),
        });
        run.progress.begin("opening streams", count);
        stream::iter(0..count)
            .map(|number| readers.clone().begin(number))
            .buffer_unordered(OPENING)
            .for_each(|()| async { run.progress.advance(1) })
            .await;
        readers.arrive(|_| 1).await;
        readers
    }

    async fn begin(self: Arc<Self>, number: usize) {
        let reader = &self.all[number];
        let asked = self.run.clock.micros();
        let path = format!("/tasks/{}/events", self.tasks.ids()[reader.task]);
        match EventStream::open(&self.run.read, &path, self.run.target.timeout).await {
            Ok(stream) => {
                let follow = self.clone().follow(number, stream, asked);
                self.followers.lock().spawn(follow);
            }
            Err(error) => {
                reader.is_over.store(true, Ordering::Relaxed);
                self.run.faults.add(kind_of(&error), || format!("{path}: {error}"));
            }
        }
    }

    async fn follow(self: Arc<Self>, number: usize, mut stream: EventStream, asked: u64) {
        let reader = &self.all[number];
        let mut is_open = false;
        loop {
            let read = stream.read(|frames| self.take(reader, frames)).await;
            if !is_open && reader.next.load(Ordering::Relaxed) > 0 {
                is_open = true;
                self.opening.lock().record(self.run.clock.micros() - asked);
            }
            let reason = match read {
                Ok(true) => continue,
                Ok(false) => "it ended".to_owned(),
                Err(error) => error.to_string(),
            };
            let id = &self.tasks.ids()[reader.task];
            let who = || format!("the stream of task {id}, reader {number}: {reason}");
            self.run.faults.add(FaultKind::Cut, who);
            break;
        }
        reader.is_over.store(true, Ordering::Relaxed);
    }

    /// Takes what arrived at once.
    fn take(&self, reader: &Reader, frames: &mut Frames<'_>) {
        let now = self.run.clock.micros();
        let mut sequence = reader.sequence.lock();
        let before = sequence.events();
        let mut latencies = self.delivery.lock();
        for frame in frames {
            match frame {
                Ok(Frame::Event(event)) => {
                    sequence.see(&event, &self.run.faults);
                    if let Some(mark) = event.mark
                        && self.stage.counts(mark.sent)
                    {
                        latencies.record(now.saturating_sub(mark.sent));
                    }
                }
                Ok(Frame::Silence | Frame::Done(_)) => {}
                Err(error) => {
                    let id = &self.tasks.ids()[reader.task];
                    let text = || format!("the stream of task {id}: {error}");
                    self.run.faults.add(FaultKind::Malformed, text);
                }
            }
        }
        drop(latencies);
        self.delivered.fetch_add(sequence.events() - before, Ordering::Relaxed);
        reader.next.store(sequence.next(), Ordering::Release);
    }

    /// Returns how many readers there are.
    pub(super) fn count(&self) -> u64 {
        self.all.len() as u64
    }

    /// Returns how many events of ours arrived, over all readers.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Waits until every reader has seen what was acknowledged, or until
    /// nothing more arrives.
    pub(super) async fn settle(&self) {
        self.run.progress.begin("waiting for deliveries", 0);
        self.arrive(|task| self.tasks.ledger(task).next()).await;
    }

    /// Waits until every reader has come to the index of its task, or none
    /// comes nearer.
    async fn arrive(&self, goal: impl Fn(usize) -> u64 + Send + Sync) {
        let patience = self.run.target.timeout;
        let mut deadline = Instant::now() + patience;
        let mut arrived = 0;
        loop {
            let has_arrived = |reader: &&Reader| {
                reader.is_over.load(Ordering::Relaxed)
                    || reader.next.load(Ordering::Acquire) >= goal(reader.task)
            };
            let missing = self.all.iter().filter(|reader| !has_arrived(reader)).count();
            let progress = self.delivered() + (self.all.len() - missing) as u64;
            if progress > arrived {
                arrived = progress;
                deadline = Instant::now() + patience;
            }
            if missing == 0 || Instant::now() > deadline {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// Closes the streams and compares what each showed with what was acknowledged.
    pub(super) async fn conclude(&self) {
        let mut followers = std::mem::take(&mut *self.followers.lock());
        followers.shutdown().await;
        for reader in &self.all {
            let ledger = self.tasks.ledger(reader.task);
            reader.sequence.lock().conclude(ledger, &self.run.faults);
        }
    }

    /// Returns how long events took from publishing to delivery.
    pub(super) fn delivery(&self) -> Option<Latency> {
        let summary = self.delivery.lock().summary()?;
        Some(Latency { name: "delivery", summary })
    }

    /// Returns how long streams took to open.
    pub(super) fn opening(&self) -> Option<Latency> {
        let summary = self.opening.lock().summary()?;
        Some(Latency { name: "open", summary })
    }
}

/// Returns what kind of fault it is that a stream was not opened.
pub(super) fn kind_of(error: &OpenError) -> FaultKind {
    match error {
        OpenError::Refused { .. } => FaultKind::Refused,
        OpenError::NoReply(error) => error.kind(),
    }
}
