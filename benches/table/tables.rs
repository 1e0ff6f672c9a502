//! The tables, for a terminal and for a page.

use std::fmt::Write as _;

use serde_json::Value;

use crate::lines::{Better, Target};
use crate::machine::Machine;
use crate::place::SETTINGS;

/// A value that was measured, and where it must arrive.
pub(crate) struct Row {
    target: &'static Target,
    value: f64,
    /// Smallest and greatest of the rounds.
    range: (f64, f64),
}

impl Row {
    /// Makes a row of the values of all rounds, if there are any.
    pub(crate) fn of(target: &'static Target, values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let range = (*values.first()?, *values.last()?);
        Some(Self { target, value: values[values.len() / 2], range })
    }

    fn verdict(&self) -> &'static str {
        match (self.target.holds(self.value), self.target.reaches_goal(self.value)) {
            (false, _) => "BELOW THE BAR",
            (true, Some(true)) => "goal",
            (true, _) if self.target.bar.is_none() => "–",
            (true, _) => "bar",
        }
    }

    /// Returns what the columns hold: what, value, range, bar, goal, verdict.
    fn cells(&self) -> [String; 6] {
        let Target { what, unit, better, bar, goal, .. } = self.target;
        let sign = match better {
            Better::Higher => "≥",
            Better::Lower => "≤",
        };
        let aim = |aim: &f64| format!("{sign} {} {unit}", number(*aim));
        let (least, most) = self.range;
        [
            (*what).to_owned(),
            format!("{} {unit}", number(self.value)),
            format!("{} – {}", number(least), number(most)),
            bar.as_ref().map_or_else(|| "–".to_owned(), aim),
            goal.as_ref().map_or_else(|| "–".to_owned(), aim),
            self.verdict().to_owned(),
        ]
    }
}

const HEADER: [&str; 6] = ["", "this build", "range", "bar", "goal", "reaches"];

/// What the database does by itself, as medians of the rounds.
pub(crate) struct Raw {
    server: String,
    figures: Vec<[String; 4]>,
}

const RAW_HEADER: [&str; 4] = ["", "rate", "p50", "p99"];

impl Raw {
    /// Takes the medians of several reports, if there are any.
    pub(crate) fn medians<'a>(reports: impl Iterator<Item = &'a Value>) -> Option<Self> {
        let reports: Vec<&Value> = reports.collect();
        let first = reports.first()?;
        let median = |at: usize, member: &str| {
            let values = reports.iter().filter_map(|report| report["figures"][at][member].as_f64());
            let mut values: Vec<f64> = values.collect();
            values.sort_unstable_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let figures = first["figures"].as_array()?.iter().enumerate().map(|(at, figure)| {
            let unit = figure["rateUnit"].as_str().unwrap_or_default();
            [
                figure["what"].as_str().unwrap_or_default().to_owned(),
                format!("{} {unit}", number(median(at, "rate"))),
                format!("{:.2} ms", median(at, "p50")),
                format!("{:.2} ms", median(at, "p99")),
            ]
        });
        let server = &first["server"];
        let server = format!(
            "Postgres {}, fsync {}, synchronous_commit {}",
            server["version"].as_str().unwrap_or_default(),
            if server["fsync"] == true { "on" } else { "off" },
            server["synchronousCommit"].as_str().unwrap_or_default(),
        );
        Some(Self { server, figures: figures.collect() })
    }
}

/// All there is to print.
pub(crate) struct Tables {
    pub(crate) rows: Vec<Row>,
    pub(crate) raw: Option<Raw>,
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
}

impl Tables {
    /// Tells whether every line reaches its bar.
    pub(crate) fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.target.holds(row.value))
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::from("\n");
        write_columns(&mut out, HEADER, self.rows.iter().map(Row::cells));
        if let Some(raw) = &self.raw {
            writeln!(out, "\nwhat the database does by itself\n").ok();
            write_columns(&mut out, RAW_HEADER, raw.figures.iter().cloned());
        }
        out.push('\n');
        for (name, fact) in self.facts() {
            writeln!(out, "{name:<10} {fact}").ok();
        }
        let below = self.rows.iter().filter(|row| !row.target.holds(row.value)).count();
        match below {
            0 => out.push_str("\nevery line reaches its bar"),
            _ => write!(out, "\n{below} below the bar").unwrap_or_default(),
        }
        out
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        write_markdown(&mut out, HEADER, self.rows.iter().map(Row::cells));
        if let Some(raw) = &self.raw {
            out.push_str("\nWhat the database does by itself in the same rounds:\n\n");
            write_markdown(&mut out, RAW_HEADER, raw.figures.iter().cloned());
        }
        out.push_str("\n| | |\n| --- | --- |\n");
        for (name, fact) in self.facts() {
            writeln!(out, "| {name} | {fact} |").ok();
        }
        out
    }

    fn facts(&self) -> Vec<(&str, String)> {
        let mut facts: Vec<_> =
            self.machine.facts().iter().map(|(name, fact)| (*name, fact.clone())).collect();
        if let Some(raw) = &self.raw {
            let settings = SETTINGS.map(|(name, value)| format!(", {name} {value}")).concat();
            facts.push(("database", format!("{}{settings}", raw.server)));
        }
        let rounds = if self.rounds == 1 {
            "one".to_owned()
        } else {
            format!("{}, the median of which is shown", self.rounds)
        };
        facts.push(("rounds", rounds));
        facts
    }
}

fn write_columns<const N: usize>(
    out: &mut String,
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // What a line is about and what it reaches are words.
            if column == 0 || (N == HEADER.len() && column + 1 == N) {
                write!(line, "{cell:<width$}  ").ok();
            } else {
                write!(line, "{cell:>width$}  ").ok();
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

fn write_markdown<const N: usize>(
    out: &mut String,
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    writeln!(out, "| {} |", header.join(" | ")).ok();
    writeln!(out, "|{}", " --- |".repeat(N)).ok();
    for row in rows {
        writeln!(out, "| {} |", row.join(" | ")).ok();
    }
}

/// Writes a value with as many digits as are worth reading.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        magnitude if magnitude < 10.0 => 2,
        magnitude if magnitude < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((&*text, None), |(w, f)| (w, Some(f)));
    let mut out = String::new();
    for (at, digit) in whole.char_indices() {
        let left = whole.len() - at;
        if at > 0 && left.is_multiple_of(3) && digit.is_ascii_digit() && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    // A round number needs no zeros behind the point.
    let fraction = fraction.filter(|fraction| fraction.bytes().any(|digit| digit != b'0'));
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}
