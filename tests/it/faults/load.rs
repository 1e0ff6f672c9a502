//! The load under which faults happen: producers that publish at a steady
//! rate, some of them with keys, and subscribers that follow, some of them
//! coming and going.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::history::{
    Connection, Ending, History, Label, Outcome, Place, Publication, Reader, Seen, event,
};
use super::instance::Instance;
use crate::support::sse::Stream;

/// A subscriber that got nothing for this long tries another connection.
const IDLE: Duration = Duration::from_secs(8);

/// Surprises a subscriber remembers.
const SURPRISES: usize = 10;

/// How much of what, at which pace.
#[derive(Debug, Clone)]
pub struct Load {
    /// Tasks that are written to.
    pub tasks: usize,
    /// Producers of each; every second one sends keys and repeats.
    pub producers: usize,
    /// Publications a second, all together.
    pub rate: u32,
    /// Subscribers, spread over tasks and instances; a third of them reconnect
    /// at random.
    pub subscribers: usize,
    /// How many tasks of a hundred end while others go on.
    pub ending: u32,
    /// Whether producers go to the first instance and subscribers to the others.
    pub apart: bool,
    /// How long a producer waits for an answer.
    pub request_timeout: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            tasks: 24,
            producers: 2,
            rate: 240,
            subscribers: 72,
            ending: 25,
            apart: false,
            request_timeout: Duration::from_secs(15),
        }
    }
}

/// What everyone who takes part shares.
pub(super) struct Shared {
    pub(super) instances: Vec<Arc<Instance>>,
    pub(super) tasks: Vec<String>,
    pub(super) history: Mutex<History>,
    pub(super) readers: Vec<Mutex<Reader>>,
    pub(super) acknowledged: AtomicU64,
    pub(super) delivered: AtomicU64,
    /// Publications that were acknowledged after an attempt nobody knows about.
    pub(super) taken_over: AtomicU64,
    /// Answers to requests to publish, whatever they said.
    pub(super) answers: AtomicU64,
    pub(super) finished_readers: AtomicUsize,
    stop: AtomicBool,
    apart: bool,
    request_timeout: Duration,
    seed: u64,
}

/// A load that is under way.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    producers: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Creates the tasks and begins to write and read them.
    pub(super) async fn start(instances: Vec<Arc<Instance>>, load: &Load, seed: u64) -> Self {
        let mut tasks = Vec::new();
        for number in 0..load.tasks {
            let client = instances[number % instances.len()].client().expect("it is up");
            tasks.push(client.running_task().await);
        }
        let reader = |n: usize| Mutex::new(Reader { task: n % load.tasks, ..Reader::default() });
        let shared = Arc::new(Shared {
            instances,
            tasks,
            history: Mutex::default(),
            readers: (0..load.subscribers).map(reader).collect(),
            acknowledged: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            taken_over: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            finished_readers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            apart: load.apart,
            request_timeout: load.request_timeout,
            seed,
        });
        let readers =
            (0..load.subscribers).map(|n| tokio::spawn(follow(shared.clone(), n))).collect();
        let count = (load.tasks * load.producers) as u32;
        let pace = Duration::from_secs(1) * count / load.rate.max(1);
        let mut producers: Vec<_> = (0..count)
            .map(|n| tokio::spawn(produce(shared.clone(), n, n as usize % load.tasks, pace)))
            .collect();
        let ends = |task: &usize| (*task as u32 * 100) < (load.tasks as u32 * load.ending);
        producers.extend(
            (0..load.tasks).filter(ends).map(|task| tokio::spawn(end_early(shared.clone(), task))),
        );
        Self { shared, producers, readers }
    }

    /// Lets producers finish what they are at.
    pub(super) async fn stop_producers(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for producer in self.producers.drain(..) {
            producer.await.unwrap();
        }
    }

    /// Ends the subscribers that wait for ever.
    pub(super) fn stop_readers(&mut self) {
        for reader in self.readers.drain(..) {
            reader.abort();
        }
    }

    /// Returns what everyone saw.
    pub(super) fn history(&self) -> History {
        let mut history = self.shared.history.lock().unwrap().clone();
        history.readers =
            self.shared.readers.iter().map(|reader| reader.lock().unwrap().clone()).collect();
        history
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn dice(&self, of: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(of))
    }

    fn for_producers(&self, dice: &mut StdRng) -> &Arc<Instance> {
        let last = if self.apart { 1 } else { self.instances.len() };
        &self.instances[dice.random_range(0..last)]
    }

    fn for_subscribers(&self, dice: &mut StdRng) -> &Arc<Instance> {
        &self.instances[dice.random_range(usize::from(self.apart)..self.instances.len())]
    }

    /// Sends one attempt; returns its outcome and the body of the answer.
    async fn attempt(&self, request: RequestBuilder) -> (Outcome, String) {
        let response = match request.timeout(self.request_timeout).send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return (Outcome::Refused(0, "not connected".to_owned()), String::new());
            }
            Err(_) => return (Outcome::Unknown, String::new()),
        };
        let status = response.status().as_u16();
        let Ok(text) = response.text().await else {
            return (Outcome::Unknown, String::new());
        };
        if status < 300 {
            return (Outcome::Acknowledged, text);
        }
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let code = body["code"].as_str().unwrap_or_default().to_owned();
        let is_definite = status != 500 && code != "outcome_unknown" && !code.is_empty();
        if is_definite { (Outcome::Refused(status, code), text) } else { (Outcome::Unknown, text) }
    }

    /// Ends a task with this status, once somebody says how it is.
    pub(super) async fn end(&self, task: usize, status: &'static str, dice: &mut StdRng) {
        let deadline = Instant::now() + 2 * self.request_timeout;
        loop {
            let (outcome, _) = match self.for_producers(dice).client() {
                Some(client) => {
                    let path = format!("/tasks/{}/status", self.tasks[task]);
                    let body = json!({ "status": status });
                    self.attempt(client.json(Method::PATCH, &path, body)).await
                }
                None => (Outcome::Unknown, String::new()),
            };
            let is_clear = match &outcome {
                Outcome::Acknowledged => true,
                Outcome::Refused(status, _) => *status == 409,
                Outcome::Unknown => false,
            };
            if is_clear || Instant::now() > deadline {
                let ending = Ending { task, status, outcome };
                self.history.lock().unwrap().endings.push(ending);
                return;
            }
            pause(dice).await;
        }
    }
}

/// A moment before something is tried again.
async fn pause(dice: &mut StdRng) {
    sleep(Duration::from_millis(dice.random_range(10..60))).await;
}

/// Publishes to one task until told to stop or the task is closed.
async fn produce(shared: Arc<Shared>, producer: u32, task: usize, pace: Duration) {
    let mut dice = shared.dice(u64::from(producer));
    sleep(pace.mul_f64(dice.random())).await;
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Both producers of a task are of different kinds.
    let has_key = (producer as usize / shared.tasks.len()) % 2 == 1;
    let mut number = 0;
    while !shared.is_over() {
        ticks.tick().await;
        let count = dice.random_range(1..=3);
        let labels: Vec<Label> =
            (number..number + count).map(|number| Label { producer, number }).collect();
        number += count;
        let publication = publish(&shared, task, labels, has_key, &mut dice).await;
        let is_closed = matches!(&publication.outcome, Outcome::Refused(400, _));
        shared.history.lock().unwrap().publications.push(publication);
        if is_closed {
            return;
        }
    }
}

/// Publishes once, or with a key as often as it takes to get an answer.
async fn publish(
    shared: &Shared,
    task: usize,
    labels: Vec<Label>,
    has_key: bool,
    dice: &mut StdRng,
) -> Publication {
    let filling = "x".repeat(dice.random_range(0..200));
    let events: Vec<Value> = labels.iter().map(|label| event(*label, &filling)).collect();
    let path = format!("/tasks/{}/events", shared.tasks[task]);
    let key = format!("{}-{}", labels[0].producer, labels[0].number);
    let asked = Instant::now();
    let deadline = asked + 2 * shared.request_timeout;
    let mut is_unknown = false;
    loop {
        let asked_last = Instant::now();
        let (mut outcome, text) = match shared.for_producers(dice).client() {
            Some(client) => {
                let mut request = client.json(Method::POST, &path, json!(events));
                if has_key {
                    request = request.header("Idempotency-Key", &key);
                }
                shared.attempt(request).await
            }
            None => (Outcome::Refused(0, "no server".to_owned()), String::new()),
        };
        let answered = Instant::now();
        if !matches!(outcome, Outcome::Unknown | Outcome::Refused(0, _)) {
            shared.answers.fetch_add(1, Ordering::SeqCst);
        }
        is_unknown |= outcome == Outcome::Unknown;
        let is_clear = match &outcome {
            Outcome::Acknowledged | Outcome::Refused(400..=499, _) => true,
            Outcome::Refused(..) | Outcome::Unknown => false,
        };
        if has_key && !is_clear && answered < deadline {
            pause(dice).await;
            continue;
        }
        let mut places = Vec::new();
        if outcome == Outcome::Acknowledged {
            let answer: Vec<Value> = serde_json::from_str(&text).expect("an array of events");
            places = answer.iter().map(Place::of_event).collect();
            shared.acknowledged.fetch_add(labels.len() as u64, Ordering::SeqCst);
            shared.taken_over.fetch_add(u64::from(is_unknown), Ordering::SeqCst);
        } else if is_unknown && !is_clear {
            // Some attempt before may have been carried out.
            outcome = Outcome::Unknown;
        }
        return Publication { task, labels, places, asked, asked_last, answered, outcome };
    }
}

/// Ends a task in the middle of it, from two sides at once.
async fn end_early(shared: Arc<Shared>, task: usize) {
    let mut dice = shared.dice(1_000_000 + task as u64);
    let per_task = dice.random_range(10..60);
    let goal = per_task * shared.tasks.len() as u64;
    while !shared.is_over() && shared.acknowledged.load(Ordering::SeqCst) < goal {
        sleep(Duration::from_millis(20)).await;
    }
    if !shared.is_over() {
        end_from_two_sides(&shared, task).await;
    }
}

/// Lets two transitions race for the end of a task.
pub(super) async fn end_from_two_sides(shared: &Shared, task: usize) {
    let (mut one, mut other) =
        (shared.dice(2_000_000 + task as u64), shared.dice(3_000_000 + task as u64));
    tokio::join!(shared.end(task, "completed", &mut one), shared.end(task, "failed", &mut other));
}

/// Follows one task to its end, over as many connections as it takes.
async fn follow(shared: Arc<Shared>, number: usize) {
    let mut dice = shared.dice(4_000_000 + number as u64);
    let task = shared.readers[number].lock().unwrap().task;
    let path = format!("/tasks/{}/events", shared.tasks[task]);
    let reconnects = number.is_multiple_of(3);
    let mut last_id: Option<String> = None;
    loop {
        let Some(client) = shared.for_subscribers(&mut dice).client() else {
            pause(&mut dice).await;
            continue;
        };
        let mut request = client.request(Method::GET, &path);
        if let Some(last_id) = &last_id {
            request = request.header("Last-Event-ID", last_id);
        }
        let Ok(Ok(response)) = timeout(IDLE, request.send()).await else {
            pause(&mut dice).await;
            continue;
        };
        match response.status().as_u16() {
            200 => {
                let lifetime = if reconnects { dice.random_range(1..40) } else { usize::MAX };
                let mut stream = Stream::new(response);
                let is_over = read(&shared, number, &mut stream, lifetime, &mut last_id).await;
                if is_over {
                    break;
                }
            }
            // The last id was the end of the task.
            204 => break,
            503 | 429 => {}
            other => {
                let surprise = format!("status {other} after {last_id:?}");
                let mut reader = shared.readers[number].lock().unwrap();
                if reader.surprises.len() < SURPRISES {
                    reader.surprises.push(surprise);
                }
            }
        }
        pause(&mut dice).await;
    }
    shared.readers[number].lock().unwrap().is_done = true;
    shared.finished_readers.fetch_add(1, Ordering::SeqCst);
}

/// Reads one connection; true when the stream is over for good.
async fn read(
    shared: &Shared,
    number: usize,
    stream: &mut Stream,
    lifetime: usize,
    last_id: &mut Option<String>,
) -> bool {
    let connection = Connection { opened: Instant::now(), seen: Vec::new() };
    shared.readers[number].lock().unwrap().connections.push(connection);
    // Those who depend on wake-ups alone do not help themselves so soon.
    let idle = if shared.apart { 2 * IDLE } else { IDLE };
    for _ in 0..lifetime {
        let Ok(Some(frame)) = timeout(idle, stream.next_however_late()).await else {
            break;
        };
        if frame.is_done() {
            return true;
        }
        let seen = Seen { place: Place::of_frame(&frame.data()), at: Instant::now() };
        let mut reader = shared.readers[number].lock().unwrap();
        reader.connections.last_mut().expect("pushed above").seen.push(seen);
        drop(reader);
        *last_id = frame.id;
        shared.delivered.fetch_add(1, Ordering::SeqCst);
    }
    if stream.comments.iter().any(|comment| comment == "reset") {
        let surprise = "its cursor was unknown".to_owned();
        shared.readers[number].lock().unwrap().surprises.push(surprise);
    }
    false
}
