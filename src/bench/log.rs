//! Reading logs back, once they are written.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use super::Run;
use super::checker::{Completeness, Ledger, Sequence};
use super::events::Frame;
use super::readers::kind_of;
use super::report::FaultKind;
use super::stream::EventStream;
use super::tasks::Tasks;

/// Logs that are read back at the same time.
const READERS: usize = 8;

/// A log that was read to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// How long that took, in microseconds.
    pub(super) micros: u64,
    /// How many events of ours it held.
    pub(super) events: u64,
}

/// Reads a log from the start until it has shown what was acknowledged, and
/// compares.
pub(super) async fn read_log(
    run: &Run,
    path: &str,
    who: String,
    ledger: &Ledger,
    completeness: Completeness,
) -> Option<Reading> {
    let asked = run.clock.micros();
    let patience = run.target.timeout;
    let mut stream = match EventStream::open(&run.read, path, patience).await {
        Ok(stream) => stream,
        Err(error) => {
            run.faults.add(kind_of(&error), || format!("{who}: {error}"));
            return None;
        }
    };
    let mut sequence = Sequence::new(who.clone(), 0, completeness);
    while sequence.next() < ledger.next() {
        let read = stream.read(|frames| {
            for frame in frames {
                match frame {
                    Ok(Frame::Event(event)) => sequence.see(&event, &run.faults),
                    Ok(Frame::Silence | Frame::Done(_)) => {}
                    Err(error) => {
                        run.faults.add(FaultKind::Malformed, || format!("{who}: {error}"));
                    }
                }
            }
        });
        let read = timeout_at(Instant::now() + patience, read).await;
        match read {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                run.faults.add(FaultKind::Cut, || format!("{who}: the stream ended"));
                break;
            }
            Ok(Err(error)) => {
                run.faults.add(FaultKind::Cut, || format!("{who}: {error}"));
                break;
            }
            Err(_) => break,
        }
    }
    let micros = run.clock.micros() - asked;
    sequence.conclude(ledger, &run.faults);
    Some(Reading { micros, events: sequence.events() })
}

/// Reads the logs of all tasks, event by event, and compares them with what
/// was acknowledged. Returns how many events were read.
pub(super) async fn read_back(
    run: &Arc<Run>,
    tasks: &Arc<Tasks>,
    completeness: Completeness,
) -> u64 {
    run.progress.begin("reading back", tasks.count());
    stream::iter(tasks.ids().iter().enumerate())
        .map(|(task, id)| async move {
            // With a cursor, a series arrives event by event.
            let path = format!("/tasks/{id}/events?since.index=-1");
            let who = format!("task {id}, read back");
            let reading = read_log(run, &path, who, tasks.ledger(task), completeness).await;
            run.progress.advance(1);
            reading.map_or(0, |reading| reading.events)
        })
        .buffer_unordered(READERS)
        .fold(0, |sum, events| async move { sum + events })
        .await
}
