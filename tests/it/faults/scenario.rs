//! A run: servers, their Postgres, the links, the load, and its end.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use reqwest::Method;

use super::checker::check;
use super::history::{Stored, Truth};
use super::instance::Instance;
use super::load::{Load, Running, end_from_two_sides};
use super::say;
use super::verdict::Verdict;
use crate::support::postgres::Database;
use crate::support::private_postgres::PrivatePostgres;
use crate::support::until;

/// In which subscribers have to arrive at the end of the log once nothing is
/// written any more, and to be told of the end of their task.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same for servers that are broken on purpose, which is soon plain.
const PATIENCE_WITH_BROKEN: Duration = Duration::from_secs(6);

thread_local! {
    /// Switches of the servers of every scenario this thread starts.
    static BROKEN_BY: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Breaks the servers of the scenarios that this thread starts from now on, if
/// they can be broken (see `src/failpoints.rs`).
#[cfg(feature = "failpoints")]
pub fn break_servers(switches: &'static str) {
    BROKEN_BY.set(Some(switches));
}

/// Tells whether the servers of this thread's scenarios are broken on purpose.
pub(super) fn is_broken() -> bool {
    BROKEN_BY.get().is_some()
}

fn patience() -> Duration {
    if is_broken() { PATIENCE_WITH_BROKEN } else { PATIENCE }
}

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Shape {
    instances: usize,
    has_private_postgres: bool,
    has_fronts: bool,
    environment: Vec<(String, String)>,
}

impl Shape {
    /// So many servers on a database of the shared Postgres.
    pub fn of(instances: usize) -> Self {
        let shape = Self {
            instances,
            has_private_postgres: false,
            has_fronts: false,
            environment: Vec::new(),
        };
        match BROKEN_BY.get() {
            Some(switches) => shape.environment("FAILPOINTS", switches),
            None => shape,
        }
    }

    /// With a Postgres of the run's own, which may be broken.
    pub fn private_postgres(mut self) -> Self {
        self.has_private_postgres = true;
        self
    }

    /// With a link between clients and each server.
    pub fn fronts(mut self) -> Self {
        self.has_fronts = true;
        self
    }

    /// With a variable in every server's environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A run that is under way.
pub struct Scenario {
    /// Its seed.
    pub seed: u64,
    /// For what the scenario itself does at random.
    pub dice: StdRng,
    instances: Vec<Arc<Instance>>,
    running: Option<Running>,
    /// Dropped with its sessions before the server it is on.
    database: Database,
    postgres: Option<PrivatePostgres>,
}

impl Scenario {
    /// Starts everything but the load.
    pub async fn start(seed: u64, shape: Shape) -> Self {
        let (database, postgres) = if shape.has_private_postgres {
            let postgres = PrivatePostgres::start().await;
            (postgres.database().await, Some(postgres))
        } else {
            (Database::migrated().await, None)
        };
        let starting = (0..shape.instances).map(|number| {
            let seed = seed.wrapping_mul(31).wrapping_add(2 * number as u64);
            Instance::start(&database, shape.environment.clone(), shape.has_fronts, seed)
        });
        let instances = join_all(starting).await;
        Self {
            seed,
            dice: StdRng::seed_from_u64(seed),
            instances: instances.into_iter().map(Arc::new).collect(),
            running: None,
            database,
            postgres,
        }
    }

    /// Puts the servers under load until [`Self::settle`].
    pub async fn load(&mut self, load: Load) {
        let running = Running::start(self.instances.clone(), &load, self.seed).await;
        assert!(self.running.replace(running).is_none(), "one load is enough");
    }

    /// Returns one of the servers.
    pub fn instance(&self, number: usize) -> &Instance {
        &self.instances[number]
    }

    /// Returns all servers.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().map(AsRef::as_ref)
    }

    /// Returns the database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Returns the Postgres of the run's own.
    pub fn postgres(&self) -> &PrivatePostgres {
        self.postgres.as_ref().expect("Shape::private_postgres")
    }

    /// Stops that Postgres as if it had crashed.
    pub async fn stop_postgres_at_once(&mut self) {
        self.postgres.as_mut().expect("Shape::private_postgres").stop_at_once().await;
    }

    /// Starts that Postgres again and waits until it takes connections.
    pub async fn start_postgres_again(&mut self) {
        let postgres = self.postgres.as_mut().expect("Shape::private_postgres");
        postgres.start_again().await;
        for instance in &self.instances {
            instance.wire.retarget(postgres.port());
        }
    }

    /// Restarts that Postgres as a standby that follows nobody.
    pub async fn demote_postgres(&mut self) {
        let postgres = self.postgres.as_mut().expect("Shape::private_postgres");
        postgres.demote().await;
        let port = postgres.port();
        self.lead_to(port);
    }

    /// Leads the servers' new sessions to another Postgres.
    pub fn lead_to(&self, port: u16) {
        for instance in &self.instances {
            instance.wire.retarget(port);
        }
    }

    /// Returns the ids of the tasks under load.
    pub fn tasks(&self) -> &[String] {
        &self.under_load().shared.tasks
    }

    fn under_load(&self) -> &Running {
        self.running.as_ref().expect("Scenario::load")
    }

    /// Waits until so many more events were acknowledged.
    pub async fn acknowledge(&self, more: u64) {
        self.count("events are acknowledged", &self.under_load().shared.acknowledged, more).await;
    }

    /// Waits until so many more frames arrived at subscribers.
    pub async fn deliver(&self, more: u64) {
        self.count("frames arrive", &self.under_load().shared.delivered, more).await;
    }

    /// Waits until so many more publications were answered, whatever with.
    pub async fn answer(&self, more: u64) {
        self.count("publications are answered", &self.under_load().shared.answers, more).await;
    }

    /// Waits until so many more publications were acknowledged after an attempt
    /// that was not answered.
    pub async fn take_over(&self, more: u64) {
        self.count("publications are taken over", &self.under_load().shared.taken_over, more).await;
    }

    async fn count(&self, what: &str, counter: &AtomicU64, more: u64) {
        let goal = counter.load(Ordering::SeqCst) + more;
        until(&format!("{more} more {what}"), || async {
            (counter.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
    }

    /// Ends the load and judges it.
    ///
    /// First producers finish and every subscriber has to arrive at the end of
    /// the log; what it has not seen by then is a hole, even if the end of the
    /// task brings it after all. Then tasks that have not ended do, and every
    /// subscriber has to be told.
    pub async fn settle(mut self) -> Verdict {
        let mut running = self.running.take().expect("Scenario::load");
        running.stop_producers().await;
        let stopped = Instant::now();
        let before = self.truth(&running, 0).await;
        let holes = self.arrive(&running, &before).await;
        let settled = stopped.elapsed();
        let lasts = |task: &usize| before[*task].iter().all(|stored| stored.end.is_none());
        let lasting: Vec<usize> = (0..before.len()).filter(lasts).collect();
        let ends = lasting.iter().map(|task| end_from_two_sides(&running.shared, *task));
        join_all(ends).await;
        let deadline = Instant::now() + patience();
        let all = running.shared.readers.len();
        let finished = || running.shared.finished_readers.load(Ordering::SeqCst);
        while finished() < all && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.stop_readers();
        let truth = self.truth(&running, 0).await;
        let history = running.history();
        let mut findings = check(&history, &truth);
        for other in 1..self.instances().filter(|instance| instance.client().is_some()).count() {
            let differing = self.truth(&running, other).await;
            findings.compare(&truth, &differing);
        }
        if holes > findings.counts.holes {
            findings.counts.holes = holes;
            findings.offences.push(format!("{holes} events were late by {settled:?}"));
        }
        let crashed = self.instances().filter(|instance| instance.has_crashed()).count();
        let verdict = Verdict {
            seed: self.seed,
            findings,
            history,
            truth,
            lasting,
            settled,
            crashed,
            instances: self.instances,
            database: self.database,
            _postgres: self.postgres,
        };
        say(&verdict.to_string());
        verdict
    }

    /// Waits until every subscriber saw the end of its log; returns how many
    /// events they miss when that takes too long.
    async fn arrive(&self, running: &Running, truth: &Truth) -> usize {
        let deadline = Instant::now() + patience();
        loop {
            let missing: usize = running
                .shared
                .readers
                .iter()
                .map(|reader| {
                    let reader = reader.lock().unwrap();
                    let seen = reader.newest().map_or(0, |newest| newest + 1);
                    (truth[reader.task].len() as u64).saturating_sub(seen) as usize
                })
                .sum();
            if missing == 0 || Instant::now() > deadline {
                return missing;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads every log back, by way of one of the servers that run.
    async fn truth(&self, running: &Running, by: usize) -> Truth {
        let mut clients = self.instances().filter_map(Instance::client);
        let client = clients.nth(by).expect("a server has to run when things settle");
        let mut truth = Truth::new();
        for id in &running.shared.tasks {
            let path = format!("/tasks/{id}/events/history");
            let history = until("a history is read", || async {
                let reply = client.try_send(client.request(Method::GET, &path)).await.ok()?;
                (reply.status == 200).then(|| reply.json())
            })
            .await;
            let events = history.as_array().expect("a history is an array");
            truth.push(events.iter().map(Stored::of_event).collect());
        }
        truth
    }
}
