//! A run in which answers are lost and everything is sent again.

use std::sync::Arc;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::proxy::ReplyThief;
use crate::support::{Backend, on_every_store};

on_every_store![a_run_sent_three_times_with_lost_answers_equals_the_clean_run];

/// Tasks of the run.
const TASKS: usize = 6;

/// Publications of each.
const PUBLICATIONS: usize = 20;

/// A request of the run.
#[derive(Debug, Clone)]
struct Step {
    method: Method,
    route: &'static str,
    key: String,
    body: Value,
}

/// What is done to one task after its creation.
fn steps(task: usize) -> Vec<Step> {
    let step = |method, route, key: String, body| Step { method, route, key, body };
    let status =
        |name: &str| step(Method::PATCH, "status", format!("to-{name}"), json!({"status": name}));
    let mut steps = vec![status("running")];
    for n in 0..PUBLICATIONS {
        let body = match n % 3 {
            0 => json!({"type": "plain", "data": {"task": task, "n": n}}),
            1 => json!([
                {"type": "llm.delta", "data": {"text": format!("{n} ")}, "seriesId": "s", "seriesMode": "accumulate"},
                {"type": "plain", "data": n},
            ]),
            _ => json!({"type": "progress", "data": n, "seriesId": "p", "seriesMode": "keep-all"}),
        };
        steps.push(step(Method::POST, "events", format!("event-{n}"), body));
    }
    steps.push(status("completed"));
    steps
}

async fn send(client: &Client, step: &Step, path: &str) -> Option<(u16, String)> {
    let request = client.json(step.method.clone(), path, &step.body);
    let reply = client.try_send(request.header("Idempotency-Key", &step.key)).await.ok()?;
    Some((reply.status, reply.text))
}

/// Sends the creation until it is answered: the id is in the answer.
async fn create(client: &Client, task: usize) -> String {
    let (method, body) = (Method::POST, json!({"type": "run", "params": {"task": task}}));
    let step = Step { method, route: "", key: format!("create-{task}"), body };
    let mut ids = Vec::new();
    while ids.len() < 3 {
        let Some((status, text)) = send(client, &step, "/tasks").await else { continue };
        assert_eq!(status, 201, "{text}");
        let created: Value = serde_json::from_str(&text).unwrap();
        ids.push(created["id"].as_str().unwrap().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one creation makes one task");
    ids.remove(0)
}

/// Plays one task: the first copy of each request in order, and two more of
/// each at any time after it.
async fn play(clients: [Client; 2], thief: ReplyThief, task: usize, seed: u64) -> String {
    let mut dice = StdRng::seed_from_u64(seed);
    let id = create(&clients[0], task).await;
    let mut copies: Vec<(Arc<Step>, usize)> = Vec::new();
    let mut repeats = Vec::new();
    let (mut sent, steps) = (Vec::new(), steps(task));
    let last = steps.len();
    for (position, step) in steps.into_iter().enumerate() {
        let step = Arc::new(step);
        if dice.random_bool(0.4) {
            thief.steal_one();
        }
        let path = format!("/tasks/{id}/{}", step.route);
        sent.push((step.key.clone(), send(&clients[position % 2], &step, &path).await));
        copies.extend([(); 2].map(|()| (step.clone(), dice.random_range(position..=last))));
        let (now, later) = copies.into_iter().partition(|(_, due)| *due <= position);
        copies = later;
        for (step, _) in Vec::from_iter::<Vec<(Arc<Step>, usize)>>(now) {
            if dice.random_bool(0.3) {
                thief.steal_one();
            }
            let (client, path) =
                (clients[dice.random_range(0..2)].clone(), format!("/tasks/{id}/{}", step.route));
            repeats.push(tokio::spawn(async move {
                (step.key.clone(), send(&client, &step, &path).await)
            }));
        }
    }
    for (step, _) in copies {
        let path = format!("/tasks/{id}/{}", step.route);
        sent.push((step.key.clone(), send(&clients[1], &step, &path).await));
    }
    sent.extend(join_all(repeats).await.into_iter().map(Result::unwrap));
    // Whichever copies were answered, they were answered alike.
    for (key, answer) in &sent {
        let Some((status, text)) = answer else { continue };
        assert!(*status < 300, "{key}: {text}");
        for (_, other) in sent.iter().filter(|(other, _)| other == key) {
            let Some((_, other)) = other else { continue };
            assert_eq!(other, text, "{key}");
        }
    }
    id
}

/// What a log says, apart from what differs between any two runs.
async fn told(client: &Client, id: &str) -> Vec<Value> {
    let events = client.history(id, "").await;
    let strip = |mut event: Value| {
        for name in ["id", "taskId", "timestamp"] {
            event.as_object_mut().unwrap().remove(name);
        }
        event
    };
    events.into_iter().map(strip).collect()
}

/// Plays one task without any trouble.
async fn play_clean(client: &Client, task: usize) -> String {
    let body = json!({"type": "run", "params": {"task": task}});
    let id = client.create(body).await["id"].as_str().unwrap().to_owned();
    for step in steps(task) {
        let path = format!("/tasks/{id}/{}", step.route);
        let reply = client.send(client.json(step.method.clone(), &path, &step.body)).await;
        assert!(reply.status < 300, "{}", reply.text);
    }
    id
}

async fn a_run_sent_three_times_with_lost_answers_equals_the_clean_run(backend: Backend) {
    let seed: u64 = rand::random();
    let (first, second) = backend.start_two().await;
    let thieves = [
        ReplyThief::start(first.port(), "HTTP/1.1").await,
        ReplyThief::start(second.port(), "HTTP/1.1").await,
    ];
    let clients = [&thieves[0], &thieves[1]]
        .map(|thief| Client::new(&format!("http://127.0.0.1:{}", thief.port())));
    let runs = (0..TASKS).map(|task| {
        let thief = thieves[task % 2].clone();
        tokio::spawn(play(clients.clone(), thief, task, seed.wrapping_add(task as u64)))
    });
    let ids: Vec<String> = join_all(runs).await.into_iter().map(Result::unwrap).collect();
    let stolen: u64 = thieves.iter().map(ReplyThief::stolen).sum();
    assert!(stolen > TASKS as u64, "only {stolen} answers were lost with seed {seed}");
    for (task, id) in ids.iter().enumerate() {
        let clean = play_clean(&first, task).await;
        assert_eq!(
            told(&second, id).await,
            told(&first, &clean).await,
            "task {task} of seed {seed}"
        );
    }
    let listed = first.get("/tasks?limit=500").await.expect(200).json();
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 2 * TASKS);
}
