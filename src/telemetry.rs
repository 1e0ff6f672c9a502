//! Logging: where lines go, in which format, and which of them.
//!
//! Lines go to standard error, so that what a command prints stays apart. On a
//! terminal they are text for a person, otherwise one JSON object each for a
//! collector. Other crates speak up from warnings on: what a driver says below
//! that repeats statements and connection details.

use std::io::{self, IsTerminal as _};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogLevel;

/// Starts logging for the whole process. A process that already logs, such as
/// an embedding program, keeps what it has.
pub fn init(level: LogLevel) {
    // The only failure is that a subscriber exists, which is fine.
    subscriber(level, io::stderr().is_terminal(), io::stderr).try_init().ok();
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
