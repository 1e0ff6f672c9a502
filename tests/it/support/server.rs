//! The real program, started for one test and killed with it.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::client::Client;
use super::{Backend, until};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_taskcast");

/// A running server.
#[derive(Clone)]
pub struct Server(Arc<Running>);

struct Running {
    client: Client,
    child: Mutex<Child>,
    log: Log,
    _directory: tempfile::TempDir,
    /// Dropped after the child was killed.
    _backend: Backend,
}

impl Server {
    /// Starts a server on a free port of loopback and waits until it is ready.
    pub async fn start(backend: &Backend, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .args(["serve", "--host", "127.0.0.1", "--port", "0"])
            .env_clear()
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Backend::Postgres(database) = backend {
            command.envs(database.server_environment().await);
        }
        command.envs(environment.iter().copied());
        let mut child = command.spawn().expect("the program should start");
        let log = Log::default();
        log.collect(child.stderr.take().unwrap());
        log.collect(child.stdout.take().unwrap());
        let child = Mutex::new(child);
        let address = until("the server says where it listens", || async {
            if let Some(status) = child.lock().unwrap().try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", log.text());
            }
            log.find(|line| line["address"].as_str().map(str::to_owned))
        })
        .await;
        let client = Client::new(&format!("http://{address}"));
        until("the server is ready", || async {
            (client.get("/health/ready").await.status == 200).then_some(())
        })
        .await;
        Self(Arc::new(Running {
            client,
            child,
            log,
            _directory: directory,
            _backend: backend.clone(),
        }))
    }

    /// Returns what the server has logged.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// Asks the server to end, as an operator does.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills the server as a crash would.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Halts the server where it stands, connections and all.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a halted server go on as if no time had passed.
    pub fn unpause(&self) {
        self.signal(Signal::CONT);
    }

    /// Tells whether the process is there.
    pub fn is_alive(&self) -> bool {
        matches!(self.0.child.lock().unwrap().try_wait(), Ok(None))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0.child.lock().unwrap()), signal).unwrap();
    }

    /// Waits for the server to end.
    pub async fn ended(&self) -> ExitStatus {
        until("the server ends", || async { self.0.child.lock().unwrap().try_wait().unwrap() })
            .await
    }
}

impl std::ops::Deref for Server {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0.client
    }
}

impl Drop for Running {
    #[expect(clippy::print_stderr, reason = "the test runner shows it beside the failure")]
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Both fail only when it has ended by itself.
        child.kill().ok();
        child.wait().ok();
        if std::thread::panicking() {
            eprintln!("log of the server:\n{}", self.log.text());
        }
    }
}

/// The lines a server wrote.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn collect(&self, from: impl Read + Send + 'static) {
        let lines = self.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
    }

    /// Returns everything as one text.
    pub fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    /// Returns the lines that are JSON, the fields of an event at the top.
    pub fn entries(&self) -> Vec<Value> {
        let lines = self.0.lock().unwrap();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed
            .map(|mut line| {
                // Fields may be flattened into the line or kept apart.
                if let Some(Value::Object(fields)) = line.get_mut("fields").map(Value::take) {
                    line.as_object_mut().unwrap().extend(fields);
                }
                line
            })
            .collect()
    }

    /// Returns what `pick` makes of the first line it accepts.
    pub fn find<T>(&self, pick: impl FnMut(&Value) -> Option<T>) -> Option<T> {
        self.entries().iter().find_map(pick)
    }

    /// Counts lines with this message.
    pub fn count(&self, message: &str) -> usize {
        self.entries().iter().filter(|line| line["message"] == message).count()
    }
}
