//! Clients that do one thing again and again, and how fast they are at it.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::MeasureError;
use crate::bench::{Recorder, Summary};

/// Somebody with a connection who does one thing.
pub(super) trait Client: Send + 'static {
    /// Does it once; returns what it counts for.
    fn step(&mut self) -> impl Future<Output = Result<u32, MeasureError>> + Send;
}

/// How fast it went.
pub(super) struct Measured {
    pub(super) rate: f64,
    pub(super) steps: Summary,
}

/// What one client did while it was measured.
#[derive(Default)]
struct Log {
    count: f64,
    steps: Recorder,
}

/// Lets clients work side by side for `time`, after a fifth of it in which
/// plans are made and caches fill.
pub(super) async fn drive<C: Client>(
    clients: Vec<C>,
    time: Duration,
) -> Result<Measured, MeasureError> {
    let from = Instant::now() + time / 5;
    let until = from + time;
    let mut running = JoinSet::new();
    for client in clients {
        running.spawn(repeat(client, from, until));
    }
    let mut whole = Log::default();
    while let Some(ended) = running.join_next().await {
        let log = ended.map_err(|_| MeasureError::Died)??;
        whole.count += log.count;
        whole.steps.merge(&log.steps);
    }
    let steps = whole.steps.summary().ok_or(MeasureError::TooSlow(time))?;
    Ok(Measured { rate: whole.count / time.as_secs_f64(), steps })
}

async fn repeat<C: Client>(
    mut client: C,
    from: Instant,
    until: Instant,
) -> Result<Log, MeasureError> {
    let mut log = Log::default();
    let mut began = Instant::now();
    while began < until {
        let count = client.step().await?;
        let ended = Instant::now();
        if (from..until).contains(&ended) {
            log.count += f64::from(count);
            log.steps.record((ended - began).as_micros() as u64);
        }
        began = ended;
    }
    Ok(log)
}
