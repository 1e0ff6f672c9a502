//! One server of a run: it can be killed, halted and started again, and both
//! of its links can be hurt.

use std::process::ExitStatus;
use std::sync::Mutex;

use super::net::{Link, through};
use crate::support::Backend;
use crate::support::client::Client;
use crate::support::postgres::Database;
use crate::support::server::{Log, Server};

/// A server of a run.
pub struct Instance {
    environment: Vec<(String, String)>,
    backend: Backend,
    /// The link that leads from it to Postgres.
    pub wire: Link,
    /// The link that leads clients to it, when the run has one.
    pub front: Option<Link>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    server: Option<Server>,
    client: Option<Client>,
    is_paused: bool,
    /// Logs of those that ran before.
    logs: Vec<Log>,
}

impl Instance {
    /// Starts a server behind links of its own.
    pub(super) async fn start(
        database: &Database,
        mut environment: Vec<(String, String)>,
        has_front: bool,
        seed: u64,
    ) -> Self {
        let (_, target) = through(&database.url(), 0);
        let wire = Link::to(target, seed).await;
        let (url, _) = through(&database.url(), wire.port());
        environment.insert(0, ("TASKCAST_POSTGRES_URL".to_owned(), url));
        // A stream that is silent is soon known to be alive.
        environment.insert(0, ("TASKCAST_SSE__KEEP_ALIVE_MS".to_owned(), "1000".to_owned()));
        // Nobody listens there until the server has started.
        let front = if has_front { Some(Link::to(1, seed + 1).await) } else { None };
        let backend = Backend::Postgres(database.clone());
        let state = Mutex::default();
        let instance = Self { environment, backend, wire, front, state };
        instance.start_again().await;
        instance
    }

    /// Starts the server after it was killed, and waits until it is ready.
    pub async fn start_again(&self) {
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let server = Server::start(&self.backend, &environment).await;
        let client = match &self.front {
            Some(front) => {
                front.retarget(server.port());
                Client::new(&format!("http://127.0.0.1:{}", front.port()))
            }
            None => Client::clone(&server),
        };
        let mut state = self.state.lock().unwrap();
        state.logs.push(server.log().clone());
        (state.server, state.client) = (Some(server), Some(client));
    }

    /// Kills the server as a crash would and waits until it is gone.
    pub async fn kill(&self) {
        let server = {
            let mut state = self.state.lock().unwrap();
            state.client = None;
            state.server.take().expect("it runs")
        };
        server.kill();
        server.ended().await;
    }

    /// Ends the server as an operator does, out of the load balancer's rotation
    /// at once, and waits until it is gone.
    pub async fn end(&self) -> ExitStatus {
        let server = {
            let mut state = self.state.lock().unwrap();
            state.client = None;
            state.server.take().expect("it runs")
        };
        server.terminate();
        server.ended().await
    }

    /// Halts the server where it stands; no new request is sent to it.
    pub fn pause(&self) {
        self.state.lock().unwrap().is_paused = true;
        self.server().pause();
    }

    /// Lets the halted server go on as if no time had passed.
    pub fn unpause(&self) {
        self.server().unpause();
        self.state.lock().unwrap().is_paused = false;
    }

    /// Returns a client, unless a load balancer would know that it is down.
    pub fn client(&self) -> Option<Client> {
        let state = self.state.lock().unwrap();
        state.client.clone().filter(|_| !state.is_paused)
    }

    /// Returns the server that runs.
    pub fn server(&self) -> Server {
        self.state.lock().unwrap().server.clone().expect("it runs")
    }

    /// Tells whether a server that was started has ended by itself.
    pub(super) fn has_crashed(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.server.as_ref().is_some_and(|server| !server.is_alive())
    }

    /// Counts log lines with this message, of all servers that ran here.
    pub fn logged(&self, message: &str) -> usize {
        let logs = self.state.lock().unwrap().logs.clone();
        logs.iter().map(|log| log.count(message)).sum()
    }
}
