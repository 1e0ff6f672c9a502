//! `taskcast bench postgres`: what the database can do by itself, and how a
//! server's figures compare.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;

use super::{CommonArguments, listen, load, print};
use crate::bench::postgres::{self, Figure, Options, Ours};
use crate::config::{Environment, Purpose};

/// Unit of the figures that can be compared.
const UNIT: &str = "events/s";

/// Options of `taskcast bench postgres`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Seconds to measure each figure, after a fifth more to warm up.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = parse_seconds)]
    duration: f64,
    /// Numbers of clients for one event per transaction, with commas.
    #[arg(long, value_name = "NUMBERS", default_value = "16,50", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: Vec<u32>,
    /// Numbers of events per appending statement, with commas.
    #[arg(long, value_name = "NUMBERS", default_value = "50,500,2000", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: Vec<u32>,
    /// Tasks that batches are spread over.
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    tasks: u32,
    /// Length of an event's payload in bytes, by default that of the other
    /// scenarios.
    #[arg(long, value_name = "BYTES", default_value_t = 70)]
    payload_bytes: usize,
    /// A figure to compare with, in events per second, as publish=15000; may be
    /// given more than once.
    #[arg(long, value_name = "NAME=RATE", value_parser = parse_ours)]
    ratio: Vec<Ours>,
    /// What another scenario printed with --json, to compare with; may be given
    /// more than once.
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Measures, and prints figure by figure or everything as one object.
pub(super) async fn run(arguments: Arguments, environment: Environment) -> anyhow::Result<()> {
    let mut ours = arguments.ratio;
    for file in &arguments.against {
        ours.extend(read_reports(file)?);
    }
    let config = load(Purpose::Migrate, arguments.common, None, environment)?;
    let Some(url) = config.storage.direct_url() else {
        bail!("there is no database to measure; set TASKCAST_POSTGRES_URL or pass --postgres-url");
    };
    let options = Options {
        url: url.expose().to_owned(),
        time: Duration::from_secs_f64(arguments.duration),
        clients: arguments.clients,
        batches: arguments.batch,
        tasks: arguments.tasks,
        payload_bytes: arguments.payload_bytes,
    };
    let is_table = !arguments.json;
    if is_table {
        print(&Figure::header(&ours))?;
    }
    let mut printed = Ok(());
    let stop = listen::stop_on_signal()?;
    let findings = postgres::run(&options, stop.cancelled(), |figure| {
        if is_table && printed.is_ok() {
            printed = print(&figure.row(&ours));
        }
    })
    .await
    .with_context(|| format!("cannot measure {url}"))?;
    printed?;
    if is_table {
        print(&format!("\n{}", findings.server.summary()))?;
    } else {
        print(&findings.to_json(&ours).to_string())?;
    }
    Ok(())
}

/// What is used of a report.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    scenario: String,
    rate: f64,
    rate_unit: String,
}

/// Reads what one or several runs printed.
fn read_reports(file: &Path) -> anyhow::Result<Vec<Ours>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut ours = Vec::new();
    for report in serde_json::Deserializer::from_str(&text).into_iter() {
        let Report { scenario, rate, rate_unit } =
            report.with_context(|| format!("{} is not what a scenario printed", file.display()))?;
        if rate_unit != UNIT {
            bail!("{scenario} in {} counts {rate_unit}, not {UNIT}", file.display());
        }
        ours.push(Ours { name: scenario, rate });
    }
    Ok(ours)
}

fn parse_ours(text: &str) -> Result<Ours, String> {
    let (name, rate) = text.split_once('=').ok_or("expected NAME=RATE, as in publish=15000")?;
    match rate.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 && !name.is_empty() => {
            Ok(Ours { name: name.to_owned(), rate })
        }
        _ => Err("expected NAME=RATE, as in publish=15000".to_owned()),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds from 0.1 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_to_compare_with_is_a_name_and_a_rate() {
        let ours = Ours { name: "publish".into(), rate: 15_000.5 };
        assert_eq!(parse_ours("publish=15000.5"), Ok(ours));
        for bad in ["publish", "=1", "publish=", "publish=fast", "publish=-1", "publish=NaN"] {
            assert!(parse_ours(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_figure_is_measured_for_a_tenth_of_a_second_to_an_hour() {
        assert_eq!(parse_seconds("0.1"), Ok(0.1));
        for bad in ["0", "0.05", "-1", "3601", "NaN", "inf", "long"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
