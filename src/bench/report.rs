//! What a run came to: rates, latencies and faults, as JSON with stable names
//! and as a table for a person.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value};

/// Digits of a latency that are kept.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Longest latency told apart from longer ones: an hour, in microseconds.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// Collects latencies; its size does not depend on how many there are.
#[derive(Debug, Clone)]
pub struct Recorder(Histogram<u64>);

impl Default for Recorder {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_MICROS, SIGNIFICANT_DIGITS);
        Self(histogram.expect("the bounds are constants that are valid"))
    }
}

impl Recorder {
    /// Adds a latency in microseconds; one above an hour counts as an hour.
    pub fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros.max(1));
    }

    /// Adds all latencies of another recorder.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.0.add(&other.0);
    }

    /// Returns the percentiles of what was collected, if anything was.
    pub fn summary(&self) -> Option<Summary> {
        let at = |quantile| milliseconds(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| Summary {
            count: self.0.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: milliseconds(self.0.max()),
        })
    }
}

/// Percentiles of a latency, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many latencies they are of.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// What nine in ten stay within.
    pub p90: f64,
    /// What 99 in 100 stay within.
    pub p99: f64,
    /// What 999 in 1,000 stay within.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// A latency with its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// What took so long: `request`, `delivery`, `join`, `replay`, `open` or `cycle`.
    pub name: &'static str,
    /// How long it took.
    pub summary: Summary,
}

/// A promise the server broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// An event was left out, or was acknowledged and never delivered.
    Gap,
    /// An event came a second time.
    Duplicate,
    /// An event came after one it precedes, or ids do not rise.
    Reordering,
    /// A request was not answered in time, or its connection ended first.
    Unanswered,
    /// A request was answered with a status other than the one of success.
    Refused,
    /// What was delivered is not what was acknowledged.
    Mismatch,
    /// A stream ended although its task had not.
    Cut,
    /// An answer or a frame could not be read.
    Malformed,
}

impl FaultKind {
    /// Returns the name as it stands in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Duplicate => "duplicate",
            Self::Reordering => "reordering",
            Self::Unanswered => "unanswered",
            Self::Refused => "refused",
            Self::Mismatch => "mismatch",
            Self::Cut => "cut",
            Self::Malformed => "malformed",
        }
    }
}

/// All faults of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What went wrong.
    pub kind: FaultKind,
    /// How often.
    pub count: u64,
    /// The first few, described.
    pub examples: Vec<String>,
}

/// Resident memory of the server, in bytes, as its `GET /metrics` tells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerMemory {
    /// Before the run put any load on it.
    pub before_bytes: u64,
    /// At the end of what was measured.
    pub after_bytes: u64,
    /// The growth divided by the open streams; of scenario `idle` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_stream_bytes: Option<f64>,
}

impl ServerMemory {
    /// Makes it of two looks, if the server told both times.
    pub(super) fn between(before: Option<u64>, after: Option<u64>) -> Option<Self> {
        Some(Self { before_bytes: before?, after_bytes: after?, per_stream_bytes: None })
    }

    /// Divides the growth among streams.
    #[expect(clippy::cast_precision_loss, reason = "memory is far below the sizes that round")]
    pub(super) fn over(self, streams: usize) -> Self {
        let growth = self.after_bytes as f64 - self.before_bytes as f64;
        Self { per_stream_bytes: Some(growth / streams.max(1) as f64), ..self }
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the scenario, as on the command line.
    pub scenario: &'static str,
    /// Base of the server that was written to.
    pub url: String,
    /// Base of the server that was read from, when it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_url: Option<String>,
    /// The options the scenario ran with.
    pub parameters: Map<String, Value>,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// What the scenario is about, per second.
    pub rate: f64,
    /// What `rate` counts.
    pub rate_unit: &'static str,
    /// Events delivered to readers per second, in scenarios with live readers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_rate: Option<f64>,
    /// Percentiles by what took so long, in milliseconds.
    #[serde(rename = "latency", serialize_with = "by_name")]
    pub latencies: Vec<Latency>,
    /// Events the server acknowledged, warm-up and preparation included.
    pub acknowledged: u64,
    /// Events that were delivered and checked, over all readers.
    pub delivered: u64,
    /// Memory of the server, if it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_memory: Option<ServerMemory>,
    /// What went wrong, by kind. Empty when the server kept its promises.
    pub faults: Vec<Fault>,
}

fn by_name<S: serde::Serializer>(latencies: &[Latency], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(latencies.iter().map(|latency| (latency.name, latency.summary)))
}

impl Report {
    /// Returns what went wrong as one sentence, if anything did.
    pub fn complaint(&self) -> Option<String> {
        if self.faults.is_empty() {
            return None;
        }
        let kinds =
            self.faults.iter().map(|fault| format!("{} {}", fault.count, fault.kind.as_str()));
        let first = self.faults.iter().find_map(|fault| fault.examples.first());
        let first = first.map_or(String::new(), |text| format!("; the first: {text}"));
        Some(format!(
            "the server broke its promises: {}{first}",
            kinds.collect::<Vec<_>>().join(", ")
        ))
    }
}

impl fmt::Display for Report {
    /// Writes the table for a person, without a line end after it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<14} {}", self.scenario, self.url)?;
        if let Some(read_url) = &self.read_url {
            write!(f, ", read from {read_url}")?;
        }
        for (name, value) in &self.parameters {
            write!(
                f,
                "\n  {name:<24} {}",
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            )?;
        }
        write!(
            f,
            "\n{:<14} {:.1} {} over {:.2} s",
            "rate", self.rate, self.rate_unit, self.seconds
        )?;
        if let Some(rate) = self.delivery_rate {
            write!(f, "\n{:<14} {rate:.1} events/s", "deliveries")?;
        }
        write!(
            f,
            "\n{:<14} {} acknowledged, {} delivered and checked",
            "events", self.acknowledged, self.delivered
        )?;
        if !self.latencies.is_empty() {
            write!(
                f,
                "\n{:<14} {:>9} {:>9} {:>9} {:>9} {:>9}",
                "latency, ms", "p50", "p90", "p99", "p99.9", "max"
            )?;
        }
        for Latency { name, summary: Summary { p50, p90, p99, p999, max, .. } } in &self.latencies {
            write!(f, "\n  {name:<12} {p50:>9.2} {p90:>9.2} {p99:>9.2} {p999:>9.2} {max:>9.2}")?;
        }
        if let Some(memory) = &self.server_memory {
            let mebibytes = |bytes| kibibytes(bytes) / 1024.0;
            let (before, after) = (mebibytes(memory.before_bytes), mebibytes(memory.after_bytes));
            write!(f, "\n{:<14} {before:.1} MiB before, {after:.1} MiB after", "server memory")?;
            if let Some(bytes) = memory.per_stream_bytes {
                write!(f, ", {:.1} KiB a stream", bytes / 1024.0)?;
            }
        }
        if self.faults.is_empty() {
            return write!(f, "\n{:<14} none", "faults");
        }
        for fault in &self.faults {
            write!(f, "\n{:<14} {} {}", "fault", fault.count, fault.kind.as_str())?;
            for example in &fault.examples {
                write!(f, "\n  {example}")?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "half a millisecond in an age is no loss")]
pub(super) fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "memory is far below the sizes that round")]
fn kibibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_024.0
}

/// Returns how many there were per second; 0 when no time passed.
#[expect(clippy::cast_precision_loss, reason = "a count that rounds has sixteen digits")]
pub(super) fn per_second(count: u64, micros: u64) -> f64 {
    if micros == 0 { 0.0 } else { count as f64 * 1_000_000.0 / micros as f64 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Report {
        let mut recorder = Recorder::default();
        for micros in 1..=1_000 {
            recorder.record(micros * 1_000);
        }
        let summary = recorder.summary().unwrap();
        Report {
            scenario: "stream",
            url: "http://a".to_owned(),
            read_url: None,
            parameters: Map::from_iter([("tasks".to_owned(), json!(3))]),
            seconds: 2.0,
            rate: 10.5,
            rate_unit: "events/s",
            delivery_rate: Some(10.5),
            latencies: vec![Latency { name: "request", summary }],
            acknowledged: 21,
            delivered: 21,
            server_memory: None,
            faults: Vec::new(),
        }
    }

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let summary = report().latencies[0].summary;
        let close = |found: f64, expected: f64| (found - expected).abs() <= expected / 500.0;
        assert_eq!(summary.count, 1_000);
        assert!(close(summary.p50, 500.0) && close(summary.p90, 900.0), "{summary:?}");
        assert!(close(summary.p99, 990.0) && close(summary.p999, 999.0), "{summary:?}");
        assert!(close(summary.max, 1_000.0), "{summary:?}");
        assert_eq!(Recorder::default().summary(), None);
    }

    #[test]
    fn the_names_in_the_json_are_stable() {
        let json = serde_json::to_value(report()).unwrap();
        let names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "acknowledged",
                "delivered",
                "deliveryRate",
                "faults",
                "latency",
                "parameters",
                "rate",
                "rateUnit",
                "scenario",
                "seconds",
                "url",
            ]
        );
        assert_eq!(json["latency"]["request"]["count"], 1_000);
        assert!(json["latency"]["request"]["p999"].is_f64());
        let memory = ServerMemory { before_bytes: 1, after_bytes: 2, per_stream_bytes: None };
        assert_eq!(json!(memory), json!({"beforeBytes": 1, "afterBytes": 2}));
    }

    #[test]
    fn what_went_wrong_is_one_sentence_and_in_the_table() {
        let mut report = report();
        assert_eq!(report.complaint(), None);
        assert!(report.to_string().ends_with("none"));
        let examples = vec!["task t: index 3 did not arrive".to_owned()];
        report.faults.push(Fault { kind: FaultKind::Gap, count: 2, examples });
        let complaint = report.complaint().unwrap();
        assert!(complaint.contains("2 gap") && complaint.contains("index 3"), "{complaint}");
        assert!(report.to_string().contains("\nfault          2 gap\n  task t"), "{report}");
        assert_eq!(json!(report)["faults"][0]["kind"], "gap");
    }
}
