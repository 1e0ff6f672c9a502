//! The tasks of a run.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::checker::Ledger;
use super::connection::Connection;
use super::report::FaultKind;
use super::{BenchError, Run};

/// Connections that make and delete tasks at the same time.
const CONNECTIONS: usize = 16;

/// Index after the change to `running`, which begins each log.
pub(super) const FIRST_INDEX: u64 = 1;

/// Digits in the number of a task.
const DIGITS: usize = 9;

/// Moves a task to `running`.
pub(super) const RUNNING: &str = r#"{"status":"running"}"#;

/// Returns the body that makes a task.
pub(super) fn creation(id: &str) -> String {
    format!(r#"{{"id":"{id}","type":"bench","tags":["bench"]}}"#)
}

/// Running tasks, each with what was acknowledged of it.
#[derive(Debug)]
pub(super) struct Tasks {
    ids: Vec<String>,
    ledgers: Vec<Ledger>,
}

impl Tasks {
    /// Returns the id of a run's task; all are of one length.
    pub(super) fn id(run: &Run, number: usize) -> String {
        format!("{}-{number:0DIGITS$}", run.name)
    }

    /// Makes tasks and moves them to `running`.
    pub(super) async fn create(run: &Arc<Run>, count: usize) -> Result<Arc<Self>, BenchError> {
        run.progress.begin("creating tasks", count);
        let ids: Vec<String> = (0..count).map(|number| Self::id(run, number)).collect();
        let shares = ids.chunks(count.div_ceil(CONNECTIONS).max(1));
        stream::iter(shares.map(|ids| Self::create_some(run, ids)))
            .buffer_unordered(CONNECTIONS)
            .try_collect::<()>()
            .await?;
        let ledgers = ids.iter().map(|_| Ledger::after(FIRST_INDEX)).collect();
        Ok(Arc::new(Self { ids, ledgers }))
    }

    async fn create_some(run: &Run, ids: &[String]) -> Result<(), BenchError> {
        let mut sender = Sender::open(run).await?;
        for id in ids {
            sender.send("POST", "/tasks", Some(&creation(id)), 201).await?;
            sender.send("PATCH", &format!("/tasks/{id}/status"), Some(RUNNING), 200).await?;
            run.progress.advance(1);
        }
        Ok(())
    }

    /// Deletes tasks when the run is to leave none; what goes wrong is a fault.
    pub(super) async fn leave(run: &Run, ids: &[String]) {
        if !run.target.delete {
            return;
        }
        run.progress.begin("deleting tasks", ids.len());
        let shares = ids.chunks(ids.len().div_ceil(CONNECTIONS).max(1));
        let deleted = stream::iter(shares.map(|ids| Self::delete_some(run, ids)))
            .buffer_unordered(CONNECTIONS)
            .try_collect::<()>()
            .await;
        if let Err(error) = deleted {
            let kind = match error {
                BenchError::Refused { .. } => FaultKind::Refused,
                _ => FaultKind::Unanswered,
            };
            run.faults.add(kind, || error.to_string());
        }
    }

    async fn delete_some(run: &Run, ids: &[String]) -> Result<(), BenchError> {
        let mut sender = Sender::open(run).await?;
        for id in ids {
            sender.send("DELETE", &format!("/tasks/{id}"), None, 204).await?;
            run.progress.advance(1);
        }
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn ids(&self) -> &[String] {
        &self.ids
    }

    pub(super) fn ledger(&self, task: usize) -> &Ledger {
        &self.ledgers[task]
    }

    /// Returns how many events were acknowledged, over all tasks.
    pub(super) fn acknowledged(&self) -> u64 {
        self.ledgers.iter().map(Ledger::events).sum()
    }

    /// Adds what is wrong with the acknowledgements alone.
    pub(super) fn check(&self, run: &Run) {
        for (id, ledger) in self.ids.iter().zip(&self.ledgers) {
            ledger.check(FIRST_INDEX, &format!("task {id}"), &run.faults);
        }
    }
}

/// Sends requests of which each must succeed.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    run: &'a Run,
    connection: Connection,
}

impl<'a> Sender<'a> {
    pub(super) async fn open(run: &'a Run) -> Result<Self, BenchError> {
        let opened = Connection::open(&run.write, run.target.timeout).await;
        let unreachable =
            |source| BenchError::Unreachable { url: run.target.url.to_string(), source };
        Ok(Self { run, connection: opened.map_err(unreachable)? })
    }

    /// Sends a request and returns the body of its answer.
    pub(super) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&str>,
        expected: u16,
    ) -> Result<&[u8], BenchError> {
        let request = self.run.write.request(method, path, body);
        let name = || format!("{method} {path}");
        let reply = self.connection.exchange(&request).await;
        let reply = reply.map_err(|error| BenchError::unanswered(&name(), &error))?;
        if reply.status == expected {
            Ok(reply.body)
        } else {
            let (status, body) = (reply.status, reply.excerpt());
            Err(BenchError::Refused { request: name(), status, body })
        }
    }
}
