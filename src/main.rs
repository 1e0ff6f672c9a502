//! The `taskcast` program: reads its arguments, runs one command, and turns an
//! error into a sentence and an exit status.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use taskcast::cli::{self, Cli};
use taskcast::config::Environment;

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(feature = "failpoints")]
    let _switches = taskcast::failpoints::Switches::from_environment();
    match cli::run(cli, Environment::from_process()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With nobody to read it, the exit status still tells.
            writeln!(io::stderr(), "taskcast: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}
