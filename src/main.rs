//! The `taskcast` program: reads its arguments, runs one command, and turns an
//! error into a sentence and an exit status.

use std::process::ExitCode;

use clap::Parser as _;
use taskcast::cli::{self, Cli};
use taskcast::config::Environment;
use taskcast::telemetry;

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(feature = "failpoints")]
    let _switches = taskcast::failpoints::Switches::from_environment();
    let outcome = cli::run(cli, Environment::from_process());
    telemetry::finish(outcome.as_ref().err().map(|error| format!("taskcast: {error:#}")));
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
