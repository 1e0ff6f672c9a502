//! Counters, gauges and histograms that are found once and then only counted.
//!
//! Every series of a family is made when the family is registered, so that
//! counting is an atomic addition: nothing is hashed, nothing is locked.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::Label;

type OneLabel = [(&'static str, &'static str); 1];
type TwoLabels = [(&'static str, &'static str); 2];

pub(super) fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// A counter for each value of a label.
#[derive(Debug)]
pub(super) struct Counters<L>(Box<[Counter]>, PhantomData<L>);

impl<L: Label> Counters<L> {
    pub(super) fn new(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Family::<OneLabel, Counter>::default();
        let of = |label: &L| family.get_or_create_owned(&[(L::NAME, label.value())]);
        let counters = L::ALL.iter().map(of).collect();
        registry.register(name, help, family);
        Self(counters, PhantomData)
    }

    pub(super) fn of(&self, label: L) -> &Counter {
        &self.0[label.position()]
    }
}

/// A counter for each pair of values of two labels.
#[derive(Debug)]
pub(super) struct CounterTable<A, B>(Box<[Counter]>, PhantomData<(A, B)>);

impl<A: Label, B: Label> CounterTable<A, B> {
    pub(super) fn new(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Family::<TwoLabels, Counter>::default();
        let of = |a: &A, b: &B| {
            family.get_or_create_owned(&[(A::NAME, a.value()), (B::NAME, b.value())])
        };
        let counters = A::ALL.iter().flat_map(|a| B::ALL.iter().map(move |b| (a, b)));
        let counters = counters.map(|(a, b)| of(a, b)).collect();
        registry.register(name, help, family);
        Self(counters, PhantomData)
    }

    pub(super) fn of(&self, a: A, b: B) -> &Counter {
        &self.0[a.position() * B::ALL.len() + b.position()]
    }
}

/// A gauge for each value of a label.
#[derive(Debug)]
pub(super) struct Gauges<L>(Box<[Gauge]>, PhantomData<L>);

impl<L: Label> Gauges<L> {
    pub(super) fn new(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Family::<OneLabel, Gauge>::default();
        let of = |label: &L| family.get_or_create_owned(&[(L::NAME, label.value())]);
        let gauges = L::ALL.iter().map(of).collect();
        registry.register(name, help, family);
        Self(gauges, PhantomData)
    }

    pub(super) fn of(&self, label: L) -> &Gauge {
        &self.0[label.position()]
    }
}

/// Upper bounds of buckets, in the unit that is counted, and how many of it
/// make one of the unit that is exposed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    bounds: &'static [u64],
    per_unit: f64,
}

/// Times, counted in microseconds and exposed in seconds: from far below a
/// flush to far past any patience.
pub(super) const SECONDS: Scale = Scale {
    bounds: &[
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000, 10_000_000,
    ],
    per_unit: 1e6,
};

/// Sizes of batches.
pub(super) const SIZES: Scale =
    Scale { bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024], per_unit: 1.0 };

/// A histogram whose observations are three atomic additions.
///
/// The library's own takes a lock, which every reader of every stream would
/// share.
#[derive(Clone)]
pub(super) struct Histogram(Arc<Buckets>);

struct Buckets {
    scale: Scale,
    /// One more than there are bounds: the last has none.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").finish_non_exhaustive()
    }
}

impl Histogram {
    pub(super) fn new(scale: Scale) -> Self {
        let counts = (0..=scale.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets { scale, counts, sum: AtomicU64::new(0) }))
    }

    pub(super) fn observe(&self, value: u64) {
        let bucket = self.0.scale.bounds.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(super) fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 2));
    }
}

impl EncodeMetric for Histogram {
    #[expect(clippy::cast_precision_loss, reason = "a sum past 2^53 is exact enough")]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Buckets { scale, counts, sum } = &*self.0;
        let bounds = scale.bounds.iter().map(|bound| *bound as f64 / scale.per_unit);
        let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        // What is counted twice as buckets and total must agree within a scrape.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = sum.load(Ordering::Relaxed) as f64 / scale.per_unit;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// A histogram for each value of a label.
#[derive(Debug, Clone)]
pub(super) struct Histograms<L>(Arc<[Histogram]>, PhantomData<L>);

impl<L: Label + fmt::Debug> Histograms<L> {
    pub(super) fn new(registry: &mut Registry, name: &str, help: &str, scale: Scale) -> Self {
        let histograms = Self::unregistered(scale);
        registry.register(name, help, histograms.clone());
        histograms
    }

    /// Registers a histogram of times; its name ends in `_seconds`.
    pub(super) fn of_times(registry: &mut Registry, name: &str, help: &str) -> Self {
        let histograms = Self::unregistered(SECONDS);
        registry.register_with_unit(name, help, Unit::Seconds, histograms.clone());
        histograms
    }

    fn unregistered(scale: Scale) -> Self {
        Self(L::ALL.iter().map(|_| Histogram::new(scale)).collect(), PhantomData)
    }

    pub(super) fn of(&self, label: L) -> &Histogram {
        &self.0[label.position()]
    }
}

impl<L: Label> EncodeMetric for Histograms<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (label, histogram) in L::ALL.iter().zip(self.0.iter()) {
            histogram.encode(encoder.encode_family(&[(L::NAME, label.value())])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;
    use crate::metrics::StreamKind;

    #[test]
    fn a_histogram_counts_each_value_in_the_first_bucket_that_holds_it() {
        let mut registry = Registry::default();
        let sizes = Histograms::<StreamKind>::new(&mut registry, "size", "Sizes", SIZES);
        for value in [0, 1, 2, 3, 4, 5_000] {
            sizes.of(StreamKind::Task).observe(value);
        }
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        for line in [
            "size_sum{stream=\"task\"} 5010.0",
            "size_count{stream=\"task\"} 6",
            "size_bucket{le=\"1.0\",stream=\"task\"} 2",
            "size_bucket{le=\"4.0\",stream=\"task\"} 5",
            "size_bucket{le=\"1024.0\",stream=\"task\"} 5",
            "size_bucket{le=\"+Inf\",stream=\"task\"} 6",
            "size_count{stream=\"all\"} 0",
        ] {
            assert!(out.contains(line), "{line} in {out}");
        }
    }

    #[test]
    fn times_are_exposed_in_seconds() {
        let mut registry = Registry::default();
        let times = Histograms::<StreamKind>::of_times(&mut registry, "lag", "Lag");
        times.of(StreamKind::All).observe_time(Duration::from_millis(2));
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        assert!(out.contains("lag_seconds_bucket{le=\"0.0025\",stream=\"all\"} 1"), "{out}");
        assert!(out.contains("lag_seconds_bucket{le=\"0.001\",stream=\"all\"} 0"), "{out}");
    }
}
