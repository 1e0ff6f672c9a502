//! The table of `docs/performance.md`, measured.
//!
//! `scripts/bench.sh` runs this, with a Postgres and servers of its own on this
//! machine. Each line is a scenario of `taskcast bench` on a fresh server and a
//! fresh database; every round begins with what the database does by itself, and
//! ratios are of figures of one round. What is printed and held against the bar
//! is the median of the rounds. It fails when a line is below its bar, or when a
//! scenario found that the server broke a promise.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this is for")]

mod lines;
mod machine;
mod place;
mod tables;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::Value;

use crate::lines::{LINES, Line, RATIOS, Target};
use crate::machine::Machine;
use crate::place::Place;
use crate::tables::{Raw, Row, Tables};

/// Rounds of a run that is not quick.
const ROUNDS: usize = 3;

/// What to run.
#[derive(Debug, Parser)]
struct Options {
    /// Measure everything once instead of three times.
    #[arg(long)]
    quick: bool,
    /// Print the tables in Markdown, as they stand in docs/performance.md.
    #[arg(long)]
    markdown: bool,
    /// Measure only these lines, with commas; ratios need theirs and `postgres`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// Passed by cargo to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name)
    }

    fn check(&self) -> anyhow::Result<()> {
        let known: Vec<&str> =
            LINES.iter().map(|line| line.name).chain([lines::POSTGRES]).collect();
        for name in &self.only {
            ensure!(known.contains(&&**name), "no line {name}; there are {}", known.join(", "));
        }
        Ok(())
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    options.check()?;
    let place = Place::prepare().await?;
    // The database server is stopped and removed however the run ends.
    let outcome = tokio::select! {
        outcome = measure(&options, &place) => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("the interrupt signal cannot be awaited")
                .and_then(|()| Err(anyhow::anyhow!("interrupted")))
        }
    };
    place.remove().await?;
    let tables = outcome?;
    println!("{}", if options.markdown { tables.markdown() } else { tables.text() });
    Ok(if tables.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What one round found.
#[derive(Default)]
struct Round {
    /// Values of lines, by line and place of the target.
    values: Vec<(&'static str, usize, f64)>,
    /// What the database did by itself, if it was asked.
    postgres: Option<Value>,
}

async fn measure(options: &Options, place: &Place) -> anyhow::Result<Tables> {
    let count = if options.quick { 1 } else { ROUNDS };
    let mut rounds = Vec::new();
    for number in 1..=count {
        eprintln!("round {number} of {count}");
        rounds.push(round(options, place).await?);
    }
    let mut rows = Vec::new();
    for line in LINES {
        for (position, target) in line.targets.iter().enumerate() {
            rows.extend(Row::of(
                target,
                rounds
                    .iter()
                    .filter_map(|round| {
                        round
                            .values
                            .iter()
                            .find(|(name, at, _)| *name == line.name && *at == position)
                    })
                    .map(|(_, _, value)| *value),
            ));
        }
    }
    for ratio in RATIOS {
        rows.extend(Row::of(&ratio.target, rounds.iter().filter_map(|round| round.ratio(ratio))));
    }
    let raw = Raw::medians(rounds.iter().filter_map(|round| round.postgres.as_ref()));
    Ok(Tables { rows, raw, machine: Machine::look(), rounds: count })
}

async fn round(options: &Options, place: &Place) -> anyhow::Result<Round> {
    let mut round = Round::default();
    if options.wants(lines::POSTGRES) {
        eprintln!("  {}", lines::POSTGRES);
        round.postgres = Some(place.measure_postgres().await?);
    }
    for line in LINES.iter().filter(|line| options.wants(line.name)) {
        let found = line.run(place).await.with_context(|| format!("line {}", line.name))?;
        for (position, (value, target)) in found.into_iter().zip(line.targets).enumerate() {
            eprintln!("  {:<12} {} {}", line.name, tables::number(value), target.unit);
            round.values.push((line.name, position, value));
        }
    }
    Ok(round)
}

impl Round {
    /// Returns how a line compares with a raw figure, if both were measured.
    fn ratio(&self, ratio: &lines::Ratio) -> Option<f64> {
        let (_, _, ours) =
            self.values.iter().find(|(name, at, _)| *name == ratio.of && *at == 0)?;
        let figures = self.postgres.as_ref()?["figures"].as_array()?;
        let figure = figures.iter().find(|figure| figure["name"] == ratio.to)?;
        Some(ours / figure["rate"].as_f64()?)
    }
}

impl Line {
    /// Runs the line once; returns a value for each target.
    async fn run(&self, place: &Place) -> anyhow::Result<Vec<f64>> {
        let report = place.run(self).await?;
        self.targets.iter().map(|target| target.read(&report)).collect()
    }
}

impl Target {
    fn read(&self, report: &Value) -> anyhow::Result<f64> {
        let at = |pointer: &str| {
            let value = report.pointer(pointer).and_then(Value::as_f64);
            value.with_context(|| format!("the report has no {pointer}"))
        };
        let base = self.base.map_or(Ok(0.0), at)?;
        Ok((at(self.pointer)? - base) * self.scale)
    }
}
