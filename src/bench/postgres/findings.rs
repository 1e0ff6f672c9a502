//! What was found, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// A server whose figures these are.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Its version, as it says.
    pub version: String,
    /// Whether it makes sure that what it wrote is on the disk.
    pub fsync: bool,
    /// What a commit waits for.
    pub synchronous_commit: String,
}

/// How fast the server does one thing.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// Names it for programs.
    pub name: String,
    /// Names it for people.
    pub what: String,
    /// Connections that did it at once.
    pub clients: u32,
    /// How many of `rate_unit` it does.
    pub rate: f64,
    /// What `rate` counts: `events/s`, or `transactions/s` where no event is kept.
    pub rate_unit: &'static str,
    /// What half of the statements stay within, in milliseconds.
    pub p50: f64,
    /// What 99 in 100 statements stay within, in milliseconds.
    pub p99: f64,
}

/// A figure of the service to compare with.
#[derive(Debug, Clone, PartialEq)]
pub struct Ours {
    /// What it is a figure of.
    pub name: String,
    /// Events per second.
    pub rate: f64,
}

/// All that was found.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The server.
    pub server: Server,
    /// How long each figure was measured.
    pub seconds: f64,
    /// The figures, in the order they were measured in.
    pub figures: Vec<Figure>,
}

/// Width of the column that says what a figure is of.
const WHAT: usize = 50;

impl Findings {
    /// Writes the figures, and the ratios of ours to them, as one object.
    pub fn to_json(&self, ours: &[Ours]) -> Value {
        json!({
            "scenario": "postgres",
            "server": self.server,
            "seconds": self.seconds,
            "figures": self.figures,
            "ratios": ours.iter().map(|ours| self.ratios(ours)).collect::<Vec<_>>(),
        })
    }

    fn ratios(&self, ours: &Ours) -> Value {
        let to: Map<String, Value> = self
            .figures
            .iter()
            .map(|figure| (figure.name.clone(), json!(ours.rate / figure.rate)))
            .collect();
        json!({ "name": ours.name, "rate": ours.rate, "to": to })
    }
}

impl Server {
    /// Says in a line what a reader of the figures should know.
    pub fn summary(&self) -> String {
        let fsync = if self.fsync { "on" } else { "off" };
        let warning = match (self.fsync, self.synchronous_commit.as_str()) {
            (true, "off") | (false, _) => ": nothing here is durable, and faster for it",
            (true, _) => "",
        };
        format!(
            "Postgres {}, fsync {fsync}, synchronous_commit {}{warning}",
            self.version, self.synchronous_commit
        )
    }
}

impl Figure {
    /// Returns the line above all rows.
    pub fn header(ours: &[Ours]) -> String {
        let mut line = format!("{:<WHAT$} {:>10} {:>9} {:>9}", "", "per second", "p50", "p99");
        for ours in ours {
            write!(line, "  {}", ours.title()).ok();
        }
        line
    }

    /// Returns the figure as a row, with the ratio of each of ours to it.
    pub fn row(&self, ours: &[Ours]) -> String {
        let mut line = format!(
            "{:<WHAT$} {:>10} {:>6.2} ms {:>6.2} ms",
            self.what,
            grouped(self.rate),
            self.p50,
            self.p99
        );
        for ours in ours {
            let width = ours.title().chars().count();
            write!(line, "  {:>width$.2}", ours.rate / self.rate).ok();
        }
        line
    }
}

impl Ours {
    fn title(&self) -> String {
        format!("{} {}", self.name, grouped(self.rate))
    }
}

/// Writes a rate with a comma between thousands.
fn grouped(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(rate: f64) -> Figure {
        Figure {
            name: "insert-16".into(),
            what: "one event per transaction, 16 clients".into(),
            clients: 16,
            rate,
            rate_unit: "events/s",
            p50: 1.25,
            p99: 12.5,
        }
    }

    #[test]
    fn rates_are_grouped_by_thousands() {
        for (rate, text) in [(0.4, "0"), (999.6, "1,000"), (12_345.0, "12,345"), (1e6, "1,000,000")]
        {
            assert_eq!(grouped(rate), text);
        }
    }

    #[test]
    fn every_row_is_as_wide_as_the_header_and_holds_our_ratios() {
        let ours = [
            Ours { name: "publish".into(), rate: 15_000.0 },
            Ours { name: "b".into(), rate: 5_000.0 },
        ];
        let (header, row) = (Figure::header(&ours), figure(10_000.0).row(&ours));
        assert_eq!(header.chars().count(), row.chars().count(), "{header}\n{row}");
        assert!(row.ends_with("1.50     0.50"), "{row}");
    }

    #[test]
    fn the_object_has_a_ratio_to_every_figure() {
        let server =
            Server { version: "17.1".into(), fsync: true, synchronous_commit: "on".into() };
        let findings = Findings { server, seconds: 1.0, figures: vec![figure(10_000.0)] };
        let object = findings.to_json(&[Ours { name: "publish".into(), rate: 15_000.0 }]);
        assert_eq!(object["ratios"][0]["to"]["insert-16"], 1.5);
        assert_eq!(object["figures"][0]["p99"], 12.5);
        assert_eq!(object["server"]["synchronousCommit"], "on");
    }
}
