//! `taskcast config`: looks at the configuration without starting anything.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CommonArguments, ListenArguments, print, read};
use crate::config::{Config, Environment, Purpose, Storage, reference, update_reference};
use crate::server;

/// Options of `taskcast config`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell whether `serve` would accept the configuration; exit status 1 if not.
    Check(Sources),
    /// Print every value with its origin, secrets masked.
    Show {
        #[command(flatten)]
        sources: Sources,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what every key means, as Markdown.
    Reference {
        /// Rewrite the reference within this page instead.
        #[arg(long, value_name = "FILE")]
        update: Option<PathBuf>,
    },
}

/// What a configuration is made from, as for `serve`.
#[derive(Debug, Args)]
struct Sources {
    #[command(flatten)]
    listen: ListenArguments,
    #[command(flatten)]
    common: CommonArguments,
}

impl Sources {
    fn load(self, environment: Environment) -> anyhow::Result<Config> {
        read(Purpose::Serve, self.common, Some(self.listen), environment)
    }
}

/// Runs the command that was asked for.
pub(super) fn run(arguments: Arguments, environment: Environment) -> anyhow::Result<()> {
    match arguments.command {
        Command::Check(sources) => check(&sources.load(environment)?),
        Command::Show { sources, json } => {
            let config = sources.load(environment)?;
            Ok(print(&if json { as_json(&config) } else { as_text(&config) })?)
        }
        Command::Reference { update: Some(page) } => update(&page),
        Command::Reference { update: None } => Ok(print(reference()?.trim_end())?),
    }
}

fn check(config: &Config) -> anyhow::Result<()> {
    // A key shows whether it is one only to those who use it.
    server::authenticator(config)?;
    for warning in &config.warnings {
        print(&format!("warning: {warning}"))?;
    }
    print("the configuration is fine")?;
    Ok(())
}

/// Writes one line for each value.
fn as_text(config: &Config) -> String {
    let mut lines: Vec<String> =
        config.warnings.iter().map(|warning| format!("# warning: {warning}")).collect();
    lines.push(format!("# storage: {} ({})", storage(config), config.sources.storage));
    for setting in &config.settings {
        for (key, value) in setting.leaves() {
            let value = match value {
                Value::Null => "not set".to_owned(),
                value => value.to_string(),
            };
            lines.push(format!("{key} = {value} ({})", setting.source));
        }
    }
    lines.join("\n")
}

fn as_json(config: &Config) -> String {
    let origin = |value: Value, source: String| json!({"value": value, "source": source});
    let settings = config.settings.iter().map(|setting| {
        (setting.key.to_owned(), origin(setting.value.clone(), setting.source.to_string()))
    });
    let whole = json!({
        "storage": origin(storage(config).into(), config.sources.storage.to_string()),
        "settings": settings.collect::<serde_json::Map<String, Value>>(),
        "warnings": config.warnings,
    });
    format!("{whole:#}")
}

fn storage(config: &Config) -> &'static str {
    match config.storage {
        Storage::Memory => "memory",
        Storage::Postgres { .. } => "postgres",
    }
}

fn update(page: &Path) -> anyhow::Result<()> {
    let name = page.display();
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {name}"))?;
    let Some(updated) = update_reference(&text)? else {
        bail!("{name} has no place for the reference");
    };
    fs::write(page, updated).with_context(|| format!("cannot write {name}"))
}
