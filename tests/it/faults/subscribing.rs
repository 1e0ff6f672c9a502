//! F16 and F17: everything at once, at the end of tasks and at the beginning
//! of streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::checker::{Counts, Findings, check};
use super::history::{
    Connection, Ending, History, Label, Outcome, Place, Publication, Reader, Seen, Stored, Truth,
    event,
};
use super::{Scenario, Shape, each_seed, say};
use crate::support::client::{Client, text_of};

/// Tasks that are subscribed to.
const TASKS: usize = 120;

/// Tasks that are under way at once.
const AT_ONCE: usize = 30;

/// Subscribers of each task.
const READERS: usize = 7;

/// Publications to each task.
const PUBLICATIONS: u32 = 5;

/// How long after it began the stream of a task that lives for a moment is
/// over, on a machine that is busy with other things.
const OVER_WITHIN: Duration = Duration::from_secs(30);

/// What one task saw of its life.
struct Life {
    publications: Vec<Publication>,
    ending: Ending,
    readers: Vec<Reader>,
    log: Vec<Stored>,
}

/// Tasks live for a moment; subscribers come at random instants of it and a
/// little after, to random instances. Returns what the checker found.
async fn subscribe_race(seed: u64) -> Findings {
    let scenario = Scenario::start(seed, Shape::of(3)).await;
    let clients: Vec<Client> =
        scenario.instances().map(|instance| Client::clone(&instance.server())).collect();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let is_broken = Arc::new(AtomicBool::new(false));
    let lives = (0..TASKS).map(|task| {
        let dice = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(task as u64));
        let (clients, places, is_broken) = (clients.clone(), places.clone(), is_broken.clone());
        tokio::spawn(async move {
            let _place = places.acquire().await.unwrap();
            // A stream that is not over in time says enough.
            if is_broken.load(Ordering::SeqCst) {
                return None;
            }
            let life = live(task, clients, dice).await;
            let is_over = life.readers.iter().all(|reader| reader.is_done);
            is_broken.fetch_or(!is_over, Ordering::SeqCst);
            Some(life)
        })
    });
    let (mut history, mut truth) = (History::default(), Truth::new());
    // Any of them may have been left out after a stream was not over in time.
    for mut life in join_all(lives).await.into_iter().filter_map(Result::unwrap) {
        let task = truth.len();
        life.publications.iter_mut().for_each(|publication| publication.task = task);
        life.readers.iter_mut().for_each(|reader| reader.task = task);
        life.ending.task = task;
        history.publications.extend(life.publications);
        history.endings.push(life.ending);
        history.readers.extend(life.readers);
        truth.push(life.log);
    }
    let findings = check(&history, &truth);
    say(&format!("seed {seed}: {} readers; {}", history.readers.len(), findings.counts));
    findings
}

async fn live(task: usize, clients: Vec<Client>, mut dice: StdRng) -> Life {
    let id = clients[task % clients.len()].running_task().await;
    let span = Duration::from_millis(dice.random_range(100..600));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (client, id) = (clients.choose(&mut dice).expect("some").clone(), id.clone());
            let moment = span.mul_f64(dice.random_range(0.0..1.2));
            tokio::spawn(async move {
                sleep(moment).await;
                follow(task, &client, &id).await
            })
        })
        .collect();
    let mut publications = Vec::new();
    for number in 0..PUBLICATIONS {
        sleep(span.mul_f64(dice.random_range(0.0..2.0) / f64::from(PUBLICATIONS))).await;
        let client = clients.choose(&mut dice).expect("some");
        let labels = vec![Label { producer: task as u32, number: number.into() }];
        let asked = Instant::now();
        let answer = client.publish(&id, event(labels[0], "")).await;
        publications.push(Publication {
            task,
            labels,
            places: vec![Place::of_event(&answer)],
            asked,
            asked_last: asked,
            answered: Instant::now(),
            outcome: Outcome::Acknowledged,
        });
    }
    let client = clients.choose(&mut dice).expect("some");
    client.enter(&id, "completed").await;
    let ending = Ending { task, status: "completed", outcome: Outcome::Acknowledged };
    let readers = join_all(readers).await.into_iter().map(Result::unwrap).collect();
    let log = client.history(&id, "").await.iter().map(Stored::of_event).collect();
    Life { publications, ending, readers, log }
}

/// Reads a stream to its end, which has to come in time.
async fn follow(task: usize, client: &Client, id: &str) -> Reader {
    let mut reader = Reader { task, ..Reader::default() };
    let mut seen = Vec::new();
    let mut opened = Instant::now();
    let read = async {
        let mut stream = client.stream(id, "").await;
        opened = Instant::now();
        while let Some(frame) = stream.next_however_late().await {
            if frame.is_done() {
                return true;
            }
            seen.push(Seen { place: Place::of_frame(&frame.data()), at: Instant::now() });
        }
        false
    };
    reader.is_done = timeout(OVER_WITHIN, read).await.unwrap_or(false);
    reader.connections.push(Connection { opened, seen });
    reader
}

/// F17: whenever a reader comes, it sees everything once and is told of the
/// end soon after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub async fn f17_a_reader_that_comes_at_any_instant_misses_nothing() {
    each_seed("F17", async |seed| {
        let findings = subscribe_race(seed).await;
        let Findings { counts, offences } = findings;
        assert_eq!(counts, Counts::default(), "seed {seed}: {counts}; {offences:#?}");
    })
    .await;
}

/// The statuses a running task can end in.
const ENDS: [&str; 4] = ["completed", "failed", "timeout", "cancelled"];

/// Transitions that want to be the last word on one task.
const CONTENDERS: usize = 64;

/// Publications amid them.
const LATE_PUBLICATIONS: usize = 16;

/// Tasks that are ended like that.
const CONTESTED: usize = 16;

/// F16: 64 transitions to an end, each with a result of its own, and some
/// publications, at once and on three instances. One transition wins; the
/// others are told the state it left; nothing stands behind it; and every
/// stream, anywhere, ends with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f16_of_many_last_words_one_is_the_last() {
    each_seed("F16", async |seed| {
        let scenario = Scenario::start(seed, Shape::of(3)).await;
        let clients: Vec<Client> =
            scenario.instances().map(|instance| Client::clone(&instance.server())).collect();
        let places = Arc::new(Semaphore::new(4));
        let contests = (0..CONTESTED).map(|number| {
            let dice = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number as u64));
            let (clients, places) = (clients.clone(), places.clone());
            tokio::spawn(async move {
                let _place = places.acquire().await.unwrap();
                contest(&clients, dice, seed).await;
            })
        });
        join_all(contests).await.into_iter().for_each(Result::unwrap);
    })
    .await;
}

async fn contest(clients: &[Client], mut dice: StdRng, seed: u64) {
    let id = clients[0].running_task().await;
    let streams = join_all(clients.iter().map(|client| client.stream(&id, ""))).await;
    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| tokio::spawn(async move { stream.rest().await }))
        .collect();
    let transitions: Vec<_> = (0..CONTENDERS)
        .map(|n| {
            let (client, to) = (clients.choose(&mut dice).expect("some"), ENDS[n % ENDS.len()]);
            let body = json!({"status": to, "result": {"contender": n}});
            let request = client.json(Method::PATCH, &format!("/tasks/{id}/status"), body);
            async move { (n, to, client.send(request).await) }
        })
        .collect();
    let publications: Vec<_> = (0..LATE_PUBLICATIONS)
        .map(|n| {
            let client = clients.choose(&mut dice).expect("some");
            let body = json!({"type": "late", "data": n});
            let request = client.json(Method::POST, &format!("/tasks/{id}/events"), body);
            async move { client.send(request).await }
        })
        .collect();
    let (transitions, publications) = tokio::join!(join_all(transitions), join_all(publications));

    let won: Vec<_> = transitions.iter().filter(|(.., reply)| reply.status == 200).collect();
    assert_eq!(won.len(), 1, "seed {seed}: winners {won:?}");
    let (winner, end, _) = won[0];
    for (_, to, reply) in transitions.iter().filter(|(n, ..)| n != winner) {
        let refusal = reply.refused(409, "invalid_transition");
        assert_eq!((&refusal["from"], &refusal["to"]), (&json!(end), &json!(to)), "seed {seed}");
    }
    let mut accepted = 0;
    for reply in publications {
        if reply.status == 201 {
            accepted += 1;
        } else {
            reply.refused(400, "task_closed");
        }
    }
    let outcome = json!({"status": end, "result": {"contender": winner}});
    let mut last_ids = Vec::new();
    for client in clients {
        let task = client.task(&id).await;
        assert_eq!((&task["status"], &task["result"]), (&json!(end), &outcome["result"]));
        let history = client.history(&id, "").await;
        assert_eq!(history.len(), accepted + 2, "seed {seed}: {history:?}");
        let last = history.last().expect("two at least");
        assert_eq!(last["data"], outcome, "seed {seed}");
        last_ids.push(text_of(&last["id"]));
    }
    for reader in readers {
        let frames = reader.await.unwrap();
        let [.., last, done] = frames.as_slice() else { panic!("seed {seed}: {frames:?}") };
        assert_eq!(last.get("data"), outcome, "seed {seed}");
        assert_eq!(done.data(), json!({"reason": end}), "seed {seed}");
        assert_eq!(done.id.as_ref(), last_ids.first(), "seed {seed}");
        let ends = frames.iter().filter(|frame| !frame.is_done() && frame.ends_task()).count();
        assert_eq!((ends, frames.len()), (1, accepted + 3), "seed {seed}");
    }
}
