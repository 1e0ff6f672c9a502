//! `join`: how long readers take who come late to a text of many pieces.
//!
//! Each must get the whole text in one snapshot, and it must be the right one.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::events::{Frame, Place, acknowledged};
use super::super::memory::resident_bytes;
use super::super::readers::kind_of;
use super::super::report::{
    FaultKind, Latency, Recorder, Report, ServerMemory, milliseconds, per_second,
};
use super::super::stream::EventStream;
use super::super::tasks::{Sender, Tasks};
use super::super::{BenchError, Run};
use super::replay::PREPARING;

/// Options of `join`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinOptions {
    /// Readers that come at the same moment.
    pub subscribers: usize,
    /// Pieces of the text.
    pub events: usize,
    /// How often they come, one time after the other.
    pub rounds: usize,
}

/// What a reader is to find.
#[derive(Debug)]
struct Expected {
    path: String,
    text: String,
    /// Index of the newest piece.
    last: Place,
}

#[derive(Deserialize)]
struct Snapshot {
    data: Text,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

impl JoinOptions {
    pub(super) async fn run(self, run: &Arc<Run>) -> Result<Report, BenchError> {
        let Self { subscribers, events, rounds } = self;
        let tasks = Tasks::create(run, 1).await?;
        let expected = Arc::new(write_text(run, &tasks.ids()[0], events).await?);
        let before = resident_bytes(&run.read, run.target.timeout).await;
        run.progress.begin("joining", rounds);
        let (mut joins, mut micros, mut joined) = (Recorder::default(), 0, 0);
        for _ in 0..rounds {
            let began = run.clock.micros();
            let mut readers = JoinSet::new();
            for _ in 0..subscribers {
                readers.spawn(join(run.clone(), expected.clone()));
            }
            while let Some(reader) = readers.join_next().await {
                if let Ok(Some(micros)) = reader {
                    joins.record(micros);
                    joined += 1;
                }
            }
            micros += run.clock.micros() - began;
            run.progress.advance(1);
        }
        let after = resident_bytes(&run.read, run.target.timeout).await;
        Tasks::leave(run, tasks.ids()).await;
        let joins = joins.summary().map(|summary| Latency { name: "join", summary });
        let parameters = json!({"subscribers": subscribers, "events": events, "rounds": rounds});
        Ok(Report {
            seconds: milliseconds(micros) / 1_000.0,
            rate: per_second(joined, micros),
            rate_unit: "joins/s",
            latencies: joins.into_iter().collect(),
            acknowledged: events as u64,
            delivered: joined,
            server_memory: ServerMemory::between(before, after),
            ..run.report("join", parameters)
        })
    }
}

/// Publishes a text piece by piece; no two pieces are alike.
async fn write_text(run: &Run, id: &str, pieces: usize) -> Result<Expected, BenchError> {
    run.progress.begin("writing the text", pieces);
    let path = format!("/tasks/{id}/events");
    let pieces: Vec<String> = (0..pieces).map(|piece| format!("{piece:06} ")).collect();
    let mut sender = Sender::open(run).await?;
    let (mut places, mut last) = (Vec::new(), None);
    for some in pieces.chunks(PREPARING) {
        let events = some.iter().map(|text| {
            format!(
                r#"{{"type":"bench.delta","data":{{"text":"{text}"}},"seriesId":"s","seriesMode":"accumulate"}}"#
            )
        });
        let body = format!("[{}]", events.collect::<Vec<_>>().join(","));
        let answer = sender.send("POST", &path, Some(&body), 201).await?;
        if let Err(error) = acknowledged(answer, some.len(), &mut places) {
            run.faults.add(FaultKind::Malformed, || format!("publishing to task {id}: {error}"));
        }
        last = places.last().copied();
        run.progress.advance(some.len() as u64);
    }
    let last = last.unwrap_or(Place { index: 0, id: [0; 26] });
    Ok(Expected { path, text: pieces.concat(), last })
}

/// Opens the stream and waits for the snapshot; returns how long that took, if
/// it was the right one.
async fn join(run: Arc<Run>, expected: Arc<Expected>) -> Option<u64> {
    let (asked, patience) = (run.clock.micros(), run.target.timeout);
    let path = &expected.path;
    let mut stream = match EventStream::open(&run.read, path, patience).await {
        Ok(stream) => stream,
        Err(error) => {
            run.faults.add(kind_of(&error), || format!("{path}: {error}"));
            return None;
        }
    };
    let mut found = None;
    let reading = async {
        while found.is_none() {
            let read = stream.read(|frames| {
                for frame in frames {
                    if let Ok(Frame::Event(event)) = frame
                        && event.is_snapshot
                        && found.is_none()
                    {
                        found = Some((run.clock.micros(), event.place, event.envelope.to_vec()));
                    }
                }
            });
            if !matches!(read.await, Ok(true)) {
                break;
            }
        }
    };
    // Whether it came too late or not at all, it was not found.
    let _ = timeout(patience, reading).await;
    let Some((arrived, place, envelope)) = found else {
        run.faults.add(FaultKind::Gap, || format!("{path}: no snapshot came"));
        return None;
    };
    let snapshot = serde_json::from_slice::<Snapshot>(&envelope);
    let is_right = snapshot.is_ok_and(|snapshot| snapshot.data.text == expected.text);
    if !is_right || place != expected.last {
        run.faults.add(FaultKind::Mismatch, || format!("{path}: the snapshot is another text"));
        return None;
    }
    Some(arrived - asked)
}
