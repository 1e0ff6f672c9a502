//! Logging: where lines go, in which format, and which of them.
//!
//! Lines go to standard error, so that what a command prints stays apart. On a
//! terminal they are text for a person, otherwise one JSON object each for a
//! collector. Other crates speak up from warnings on: what a driver says below
//! that repeats statements and connection details.
//!
//! Logging never blocks: lines go through a bounded queue to a thread that
//! writes them. When nobody reads standard error, the queue fills up and lines
//! are dropped and counted, while the service goes on.

use std::io::{self, IsTerminal as _, Write};
use std::panic::PanicHookInfo;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogLevel;

/// Lines that may wait to be written.
const QUEUE_LINES: usize = 4_096;

/// How long the end of the process waits for lines to be written.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// Counts the lines that found the queue full.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Keeps the thread that writes.
static THREAD: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Starts logging for the whole process. A process that already logs, such as
/// an embedding program, keeps what it has.
pub fn init(level: LogLevel) {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE_LINES)
        .thread_name("log")
        .finish(Recovering { writer: io::stderr(), told: 0 });
    let dropped = writer.error_counter();
    // The only failure is that a subscriber exists, which is fine.
    if subscriber(level, io::stderr().is_terminal(), writer).try_init().is_ok() {
        DROPPED.set(dropped).ok();
        *THREAD.lock() = Some(guard);
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// Returns how many lines were dropped because nobody read standard error.
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Ends logging: waits for the lines that were logged and for `sentence`, which
/// is printed as it is, but not for a reader of standard error that reads
/// nothing.
pub fn finish(sentence: Option<String>) {
    let guard = THREAD.lock().take();
    let (done, finished) = mpsc::sync_channel::<()>(1);
    thread::spawn(move || {
        drop(guard);
        if let Some(sentence) = sentence {
            // With nobody to read it, the exit status still tells.
            writeln!(io::stderr(), "{sentence}").ok();
        }
        drop(done);
    });
    finished.recv_timeout(FINISH_WITHIN).ok();
}

/// Logs a panic. Printing it, as the standard hook does, could block.
fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(
        location = place,
        thread = thread.name().unwrap_or_default(),
        %backtrace,
        "panicked: {}",
        info.payload_as_str().unwrap_or("with something that is no text"),
    );
}

/// Writes lines and says, once it has caught up, how many were dropped.
struct Recovering<W> {
    writer: W,
    /// Dropped lines that were told of.
    told: u64,
}

impl<W: Write> Write for Recovering<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.writer.write(text)
    }

    /// Called by the thread that writes when the queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        let dropped = dropped_lines();
        if dropped > self.told {
            let lines = dropped - self.told;
            self.told = dropped;
            tracing::warn!(
                log.dropped = lines,
                "{lines} log lines were dropped, because standard error was not read fast enough",
            );
        }
        Ok(())
    }
}

fn subscriber<W>(level: LogLevel, is_terminal: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = if is_terminal {
        layer.boxed()
    } else {
        layer.json().flatten_event(true).with_span_list(false).boxed()
    };
    // Not a filter of the layer: such a one drops the line after each question
    // whether a line would be logged, and the driver asks at every statement.
    tracing_subscriber::registry().with(filter(level)).with(layer)
}

/// Lets our lines through from the level on, and everybody else's from
/// warnings on at most, `trace` apart.
fn filter(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let others = match level {
        LogLevel::Trace => ours,
        _ => ours.min(LevelFilter::WARN),
    };
    Targets::new().with_default(others).with_target(env!("CARGO_CRATE_NAME"), ours)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::Level;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_line_is_lost_because_another_was_not_wanted() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(LogLevel::Info, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                assert!(!tracing::enabled!(target: "sqlx::query", Level::DEBUG));
                tracing::info!("a line");
            }
        });
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn the_level_is_for_our_lines_and_other_crates_only_warn() {
        let filter = filter(LogLevel::Debug);
        assert!(filter.would_enable("taskcast::http", &Level::DEBUG));
        assert!(!filter.would_enable("sqlx::query", &Level::INFO));
        assert!(filter.would_enable("sqlx::query", &Level::WARN));
    }

    #[test]
    fn a_quiet_level_is_quiet_for_everyone() {
        let filter = filter(LogLevel::Error);
        assert!(!filter.would_enable("taskcast::http", &Level::WARN));
        assert!(!filter.would_enable("sqlx::query", &Level::WARN));
    }
}
