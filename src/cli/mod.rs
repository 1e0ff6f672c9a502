//! The command line: which commands there are, and what they share.
//!
//! A command returns an error that reads as one sentence; `main` prints it.
//! Exit status 0 is success, 1 failure, 2 wrong usage. Lines for a person go to
//! standard output, logs to standard error.

mod bench;
mod bench_postgres;
mod config;
mod dev;
mod listen;
mod migrate;
mod runtime;
mod serve;
mod token;

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, Environment, Flags, LoadOptions, LogLevel, Purpose};
use crate::telemetry;

/// Task tracking with resumable event streams, on Postgres.
///
/// Without a command it serves, so `taskcast -p 8080` is `taskcast serve -p 8080`.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve tasks and streams over HTTP; the default.
    #[command(visible_alias = "start")]
    Serve(serve::Arguments),
    /// Create or update the schema `taskcast` of a Postgres database.
    Migrate(migrate::Arguments),
    /// Serve on this machine for trying things out: finds or makes a Postgres,
    /// migrates it, and prints requests to try.
    Dev(dev::Arguments),
    /// Check, show or explain the configuration, without starting anything.
    Config(config::Arguments),
    /// Make and check tokens for mode `jwt`.
    Token(token::Arguments),
    /// Measure a running server, and check that it loses nothing meanwhile; or
    /// a database by itself.
    Bench(bench::Arguments),
}

/// Options of every command.
#[derive(Args, Default)]
struct CommonArguments {
    /// Configuration file (.yaml, .yml, .json or .toml). Without it, the
    /// first taskcast.config.* of the working directory is read.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Least important log lines to write.
    #[arg(long, value_name = "LEVEL", value_enum)]
    log_level: Option<LogLevel>,
    /// Postgres database, as postgres://user:password@host:port/database.
    /// Other users of the machine can see it; `TASKCAST_POSTGRES_URL` is hidden.
    #[arg(long, value_name = "URL")]
    postgres_url: Option<String>,
}

impl From<Option<PathBuf>> for CommonArguments {
    /// Makes those of a command that needs no more than the file.
    fn from(config: Option<PathBuf>) -> Self {
        Self { config, ..Self::default() }
    }
}

impl std::fmt::Debug for CommonArguments {
    /// Leaves the URL out, which carries a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommonArguments")
            .field("config", &self.config)
            .field("log_level", &self.log_level)
            .finish_non_exhaustive()
    }
}

/// Options of the commands that listen.
#[derive(Debug, Args)]
struct ListenArguments {
    /// TCP port; 0 lets the system choose [default: 3721].
    #[arg(short, long)]
    port: Option<u16>,
    /// Address or name to listen on.
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
}

impl ValueEnum for LogLevel {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Debug, Self::Info, Self::Warn, Self::Error]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

/// Runs the command that was asked for, until it is done or told to stop.
///
/// # Errors
///
/// Returns an error that reads as one sentence.
pub fn run(cli: Cli, environment: Environment) -> anyhow::Result<()> {
    match cli.command {
        Some(Command::Migrate(arguments)) => runtime::run(migrate::run(arguments, environment)),
        Some(Command::Dev(arguments)) => dev::run(arguments, environment),
        Some(Command::Config(arguments)) => config::run(arguments, environment),
        Some(Command::Token(arguments)) => token::run(arguments, environment),
        Some(Command::Bench(arguments)) => runtime::run(bench::run(arguments, environment)),
        Some(Command::Serve(arguments)) => serve::run(arguments, environment),
        None => serve::run(cli.serve, environment),
    }
}

/// Loads the configuration, starts logging as it says, and logs its warnings.
fn load(
    purpose: Purpose,
    common: CommonArguments,
    listen: Option<ListenArguments>,
    environment: Environment,
) -> anyhow::Result<Config> {
    let config = read(purpose, common, listen, environment)?;
    telemetry::init(config.log_level);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

/// Loads the configuration and does nothing else.
fn read(
    purpose: Purpose,
    common: CommonArguments,
    listen: Option<ListenArguments>,
    environment: Environment,
) -> anyhow::Result<Config> {
    let (port, host) = listen.map_or((None, None), |listen| (listen.port, listen.host));
    Ok(Config::load(&LoadOptions {
        purpose,
        flags: Flags { port, host, log_level: common.log_level, postgres_url: common.postgres_url },
        file: common.config,
        environment,
        directory: std::env::current_dir().context("cannot find the working directory")?,
    })?)
}

/// Prints lines for a person.
fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let printed = output
        .write_all(text.as_bytes())
        .and_then(|()| output.write_all(b"\n"))
        .and_then(|()| output.flush());
    match printed {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn clap_finds_no_fault_in_the_command_line() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_without_a_command_belong_to_serve() {
        let cli = parse("taskcast -p 8080 -c file.yaml").unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.listen.port, Some(8080));
        assert_eq!(cli.serve.common.config, Some("file.yaml".into()));
        let named = parse("taskcast serve -p 8080").unwrap();
        assert!(matches!(named.command, Some(Command::Serve(_))));
        let alias = parse("taskcast start -p 8080").unwrap();
        assert!(matches!(alias.command, Some(Command::Serve(_))));
    }

    #[test]
    fn wrong_usage_has_exit_status_two() {
        for line in [
            "taskcast --prot 1",
            "taskcast serv",
            "taskcast -p many",
            "taskcast -p 1 serve",
            "taskcast --log-level loud",
            "taskcast migrate --dry-run --check",
            "taskcast config",
            "taskcast config show --josn",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_and_version_have_exit_status_zero() {
        for line in ["taskcast --help", "taskcast --version", "taskcast migrate --help"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line}");
        }
    }

    #[test]
    fn printing_the_arguments_shows_no_password() {
        let cli = parse("taskcast --postgres-url postgres://u:canary@h/x").unwrap();
        assert!(!format!("{cli:?}").contains("canary"));
    }
}
