//! Requests, by the template of their route.
//!
//! Routes are few but not known beforehand, because an embedding program may
//! mount them under a prefix. So each has cells of its own, found by one look
//! at a map.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::cells::{Histogram, SECONDS};

/// Methods that are told apart; a client can send any.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];

/// Classes of statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The requests of one method to one route.
#[derive(Debug)]
struct Cells {
    by_class: [AtomicU64; CLASSES.len()],
    times: Histogram,
}

impl Cells {
    fn new() -> Self {
        Self { by_class: Default::default(), times: Histogram::new(SECONDS) }
    }
}

type Route = [Cells; METHODS.len()];

#[derive(Debug, Clone, Default)]
struct Routes(Arc<RwLock<BTreeMap<Box<str>, Arc<Route>>>>);

impl Routes {
    fn find(&self, route: &str) -> Arc<Route> {
        if let Some(found) = self.0.read().get(route) {
            return found.clone();
        }
        let mut routes = self.0.write();
        let new = || Arc::new(std::array::from_fn(|_| Cells::new()));
        routes.entry(route.into()).or_insert_with(new).clone()
    }

    /// Calls `write` for each method of each route that was asked for.
    fn each(&self, mut write: impl FnMut(&str, &str, &Cells) -> fmt::Result) -> fmt::Result {
        for (route, cells) in self.0.read().iter() {
            for (method, cells) in METHODS.iter().zip(cells.iter()) {
                if cells.by_class.iter().any(|count| count.load(Ordering::Relaxed) > 0) {
                    write(method, route, cells)?;
                }
            }
        }
        Ok(())
    }
}

/// How many requests were answered.
#[derive(Debug)]
struct Requests(Routes);

impl EncodeMetric for Requests {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.each(|method, route, cells| {
            for (class, count) in CLASSES.iter().zip(&cells.by_class) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = [("method", method), ("route", route), ("status", class)];
                    let mut encoder = encoder.encode_family(&labels)?;
                    encoder.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
            Ok(())
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// How long they took.
#[derive(Debug)]
struct Times(Routes);

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.each(|method, route, cells| {
            let labels = [("method", method), ("route", route)];
            cells.times.encode(encoder.encode_family(&labels)?)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[derive(Debug)]
pub(super) struct HttpMetrics(Routes);

impl HttpMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let routes = Routes::default();
        registry.register("http_requests", "Requests answered", Requests(routes.clone()));
        registry.register_with_unit(
            "http_request",
            "From a request's head to its answer's head",
            Unit::Seconds,
            Times(routes.clone()),
        );
        Self(routes)
    }

    pub(super) fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let known = METHODS.iter().position(|known| *known == method);
        let class = usize::from(status / 100).saturating_sub(1).min(CLASSES.len() - 1);
        let cells = &self.0.find(route)[known.unwrap_or(METHODS.len() - 1)];
        cells.times.observe_time(took);
        cells.by_class[class].fetch_add(1, Ordering::Relaxed);
    }
}
