//! Logging: where lines go, in which format, and which of them.
//!
//! Lines go to standard error, so that what a command prints stays apart. On a
//! terminal they are text for a person, otherwise one JSON object each for a
//! collector. Other crates speak up from warnings on: what a driver says below
//! that repeats statements and connection details.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogLevel;

/// Starts logging for the whole process. A process that already logs, such as
/// an embedding program, keeps what it has.
pub fn init(level: LogLevel) {
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = if io::stderr().is_terminal() {
        layer.boxed()
    } else {
        layer.json().flatten_event(true).with_span_list(false).boxed()
    };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(level)));
    // The only failure is that a subscriber exists, which is fine.
    subscriber.try_init().ok();
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
    use tracing::Level;

    use super::*;

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
