//! Two instances behind a real nginx, with the configuration of the project.
//!
//! `TASKCAST_TEST_RESTARTS`, `TASKCAST_TEST_READERS` and
//! `TASKCAST_TEST_PRODUCERS` make the rolling restart longer and larger.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::faults::{ALL, Scenario, Shape, Toxic};
use crate::support::client::Client;
use crate::support::postgres::Database;
use crate::support::server::PROGRAM;
use crate::support::{environment_variable, until};

/// Where the configuration of the project stands.
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/nginx.conf");

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn number(variable: &str, default: usize) -> usize {
    environment_variable(variable).map_or(default, |text| text.parse().unwrap())
}

/// A process that is killed with the test.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn ended(&mut self) {
        let child = std::sync::Mutex::new(&mut self.0);
        until("the process ends", || async { child.lock().unwrap().try_wait().unwrap() }).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts an instance on a port of its own and waits until it is ready.
async fn start_instance(database: &Database, port: u16) -> Process {
    let child = Command::new(PROGRAM)
        .args(["serve", "--host", "127.0.0.1", "--port", &port.to_string()])
        .env_clear()
        .envs(database.server_environment().await)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    until("the instance is ready", || async {
        let reply = client.try_send(client.request(Method::GET, "/health/ready")).await;
        reply.is_ok_and(|reply| reply.status == 200).then_some(())
    })
    .await;
    Process(child)
}

/// Turns the configuration of the project into one for the ports of a test.
fn configuration(directory: &str, port: u16, instances: [u16; 2]) -> String {
    let mut text = std::fs::read_to_string(CONFIGURATION).unwrap();
    for (address, port) in ["10.0.0.11:3721", "10.0.0.12:3721"].into_iter().zip(instances) {
        assert!(text.contains(address));
        text = text.replace(address, &format!("127.0.0.1:{port}"));
    }
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("ssl_certificate"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let text = text
        .replace("listen 443 ssl http2;", &format!("listen 127.0.0.1:{port};"))
        .replace("listen 80;", &format!("listen 127.0.0.1:{};", free_port()));
    format!(
        "daemon off;\npid {directory}/pid;\nerror_log {directory}/error.log warn;\n\
         worker_processes 1;\nevents {{ worker_connections 4096; }}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {directory}/body;\nproxy_temp_path {directory}/proxy;\n\
         fastcgi_temp_path {directory}/fastcgi;\nuwsgi_temp_path {directory}/uwsgi;\n\
         scgi_temp_path {directory}/scgi;\n{text}\n}}\n"
    )
}

struct Nginx {
    _process: Process,
    directory: tempfile::TempDir,
    client: Client,
}

async fn start_nginx(instances: [u16; 2]) -> Nginx {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    let port = free_port();
    let file = directory.path().join("nginx.conf");
    let mut text = configuration(&path, port, instances);
    if rustix::process::geteuid().is_root() {
        text = format!("user root;\n{text}");
    }
    std::fs::write(&file, text).unwrap();
    let child = Command::new("nginx")
        .arg("-c")
        .arg(&file)
        .arg("-e")
        .arg(directory.path().join("error.log"))
        .stdin(Stdio::null())
        .spawn()
        .expect("nginx is installed; if not: apt-get install nginx-light");
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    until("nginx listens", || async {
        client.try_send(client.request(Method::GET, "/health")).await.ok()
    })
    .await;
    Nginx { _process: Process(child), directory, client }
}

/// What everybody saw.
#[derive(Default)]
struct Seen {
    bad_gateways: AtomicU64,
    published: AtomicU64,
    stop: AtomicBool,
}

/// Publishes pieces of text until told to stop; returns them joined.
async fn produce(client: Client, task: String, seen: Arc<Seen>) -> String {
    let mut text = String::new();
    for piece in 0_u64.. {
        if seen.stop.load(Ordering::Acquire) {
            break;
        }
        let piece = format!("{piece} ");
        let event = json!({
            "type": "llm.delta",
            "data": {"text": piece},
            "seriesId": "answer",
            "seriesMode": "accumulate",
        });
        let key = format!("{task}-{piece}").replace(' ', "");
        write(&client, Method::POST, &format!("/tasks/{task}/events"), &event, &key, &seen).await;
        text.push_str(&piece);
        seen.published.fetch_add(1, Ordering::AcqRel);
        sleep(Duration::from_millis(20)).await;
    }
    let path = format!("/tasks/{task}/status");
    write(&client, Method::PATCH, &path, &json!({"status": "completed"}), "end", &seen).await;
    text
}

/// Sends a write until it is accepted, as a producer with a key does.
async fn write(
    client: &Client,
    method: Method,
    path: &str,
    body: &Value,
    key: &str,
    seen: &Arc<Seen>,
) {
    until(&format!("{method} {path} is accepted"), || async {
        let request = client.json(method.clone(), path, body).header("Idempotency-Key", key);
        let status = client.try_send(request).await.map_or(0, |reply| reply.status);
        seen.bad_gateways.fetch_add(u64::from(status == 502), Ordering::AcqRel);
        (status / 100 == 2).then_some(())
    })
    .await;
}

/// Follows a task as an `EventSource` does; returns its text, or what killed it.
async fn follow(client: Client, task: String) -> Result<String, String> {
    let (mut text, mut last_event_id) = (String::new(), None);
    let mut retry = Duration::from_secs(1);
    let deadline = Instant::now() + Duration::from_mins(10);
    while Instant::now() < deadline {
        let mut request = client.request(Method::GET, &format!("/tasks/{task}/events"));
        request = request.header("Accept", "text/event-stream");
        if let Some(id) = &last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        match request.send().await {
            // Whatever is no stream ends an EventSource for good.
            Ok(response) if response.status() == 200 => {
                let mut stream = crate::support::sse::Stream::new(response);
                while let Some(frame) = stream.next().await {
                    last_event_id = stream.last_event_id.clone();
                    if frame.event == "taskcast.done" {
                        return Ok(text);
                    }
                    let data = frame.data();
                    let Some(piece) = data["data"]["text"].as_str() else { continue };
                    if data["seriesSnapshot"] == true {
                        piece.clone_into(&mut text);
                    } else {
                        text.push_str(piece);
                    }
                }
                if let Some(told) = &stream.retry {
                    retry = Duration::from_millis(told.parse().unwrap());
                }
            }
            Ok(response) => return Err(format!("an answer of {}", response.status())),
            // nginx itself is there, so a connection that fails is tried again.
            Err(_) => {}
        }
        sleep(retry).await;
    }
    Err("it did not come to the end".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_behind_nginx_costs_no_answer_and_no_reader() {
    let database = Database::migrated().await;
    let ports = [free_port(), free_port()];
    let mut instances =
        [start_instance(&database, ports[0]).await, start_instance(&database, ports[1]).await];
    let nginx = start_nginx(ports).await;
    let seen = Arc::new(Seen::default());
    let producers = number("TASKCAST_TEST_PRODUCERS", 5);
    let readers = number("TASKCAST_TEST_READERS", 20);
    let tasks: Vec<String> = (0..producers).map(|task| format!("task-{task}")).collect();
    for task in &tasks {
        let key = format!("create-{task}");
        let body = json!({"id": task});
        write(&nginx.client, Method::POST, "/tasks", &body, &key, &seen).await;
        let path = format!("/tasks/{task}/status");
        let running = json!({"status": "running"});
        write(&nginx.client, Method::PATCH, &path, &running, "run", &seen).await;
    }
    let producing: Vec<_> = tasks
        .iter()
        .map(|task| tokio::spawn(produce(nginx.client.clone(), task.clone(), seen.clone())))
        .collect();
    let reading: Vec<_> = (0..readers)
        .map(|reader| {
            let task = tasks[reader % tasks.len()].clone();
            (task.clone(), tokio::spawn(follow(nginx.client.clone(), task)))
        })
        .collect();
    for _ in 0..number("TASKCAST_TEST_RESTARTS", 1) {
        for (instance, port) in instances.iter_mut().zip(ports) {
            instance.signal(Signal::TERM);
            instance.ended().await;
            *instance = start_instance(&database, port).await;
            let before = seen.published.load(Ordering::Acquire);
            until("publishing goes on", || async {
                (seen.published.load(Ordering::Acquire) > before + 20).then_some(())
            })
            .await;
        }
    }
    seen.stop.store(true, Ordering::Release);
    let mut texts = std::collections::HashMap::new();
    for (task, producer) in tasks.iter().zip(producing) {
        texts.insert(task.clone(), producer.await.unwrap());
    }
    let mut dead = Vec::new();
    for (task, reader) in reading {
        match reader.await.unwrap() {
            Ok(text) => assert_eq!(text, texts[&task], "{task}"),
            Err(why) => dead.push(why),
        }
    }
    let log = std::fs::read_to_string(nginx.directory.path().join("error.log")).unwrap_or_default();
    assert!(dead.is_empty(), "{dead:?}\n{log}");
    assert_eq!(seen.bad_gateways.load(Ordering::Acquire), 0, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_behind_nginx_is_told_in_json_and_over_when_the_database_is_back() {
    let origins = r#"["https://app.example.com"]"#;
    let shape = Shape::of(2).environment("TASKCAST_CORS__ORIGINS", origins);
    let scenario = Scenario::start(1, shape).await;
    let ports = [0, 1].map(|number| scenario.instance(number).server().port());
    let nginx = start_nginx(ports).await;
    let client = &nginx.client;
    client.post("/tasks", json!({"id": "a"})).await.expect(201);
    for instance in scenario.instances() {
        instance.wire.set(ALL, Toxic::Refuse);
    }
    for _ in 0..5 {
        let request = client.request(Method::GET, "/tasks/a");
        let reply = client.send(request.header("Origin", "https://app.example.com")).await;
        reply.refused(503, "store_unavailable");
        assert!(!reply.header("retry-after").is_empty());
        assert_eq!(reply.header("access-control-allow-origin"), "https://app.example.com");
    }
    for instance in scenario.instances() {
        instance.wire.heal();
        let server = instance.server();
        until("the instance is ready", || async {
            (server.get("/health/ready").await.status == 200).then_some(())
        })
        .await;
    }
    for _ in 0..10 {
        client.get("/tasks/a").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_is_refused_before_nginx_writes_it_to_disk() {
    let database = Database::migrated().await;
    let ports = [free_port(), free_port()];
    let _instances =
        [start_instance(&database, ports[0]).await, start_instance(&database, ports[1]).await];
    let nginx = start_nginx(ports).await;
    let request = nginx.client.json(Method::POST, "/tasks", " ".repeat(8 << 20));
    if let Ok(reply) = nginx.client.try_send(request).await {
        reply.refused(413, "payload_too_large");
    }
    let spooled = std::fs::read_dir(nginx.directory.path().join("body")).unwrap().count();
    assert_eq!(spooled, 0);
    let log = std::fs::read_to_string(nginx.directory.path().join("error.log")).unwrap_or_default();
    assert!(!log.contains("buffered to a temporary file"), "{log}");
}
