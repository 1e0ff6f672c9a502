//! What the server says about itself.

use std::fmt::Write as _;

use async_trait::async_trait;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::AppState;
use super::wire::json_response;

/// Whether something the server depends on works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyState {
    /// It works.
    Healthy,
    /// It does not, and the server gets by without it, only slower.
    Degraded,
    /// It does not, and the server cannot do its work.
    Unhealthy,
}

impl DependencyState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Something the server depends on, looked at just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency {
    /// Its name in reports: lower-case letters.
    pub name: &'static str,
    /// Whether it works.
    pub state: DependencyState,
}

/// A part that could be of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adapter {
    /// Its kind: `memory` or `postgres`.
    pub provider: &'static str,
    /// Whether it works.
    pub is_ok: bool,
}

/// How wakes from other instances arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerReport {
    /// Whether they are proven to; otherwise the server polls.
    pub listens: bool,
    /// How many times listening was lost and started anew.
    pub restarts: u64,
}

/// What the server found when it looked at itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadinessReport {
    /// Whether the server is shutting down.
    pub is_draining: bool,
    /// What was looked at; empty when the server depends on nothing.
    pub dependencies: Vec<Dependency>,
    /// Carries wake-ups between instances.
    pub broadcast: Adapter,
    /// Keeps the tasks.
    pub short_term_store: Adapter,
    /// How wakes arrive, where there can be other instances.
    pub listener: Option<ListenerReport>,
}

impl ReadinessReport {
    /// Tells whether the server should get traffic.
    pub fn is_ready(&self) -> bool {
        !self.is_draining
            && self.dependencies.iter().all(|found| found.state != DependencyState::Unhealthy)
    }
}

/// Looks at what the server depends on.
#[async_trait]
pub trait Readiness: Send + Sync {
    /// Looks at everything anew and answers within a few seconds.
    async fn check(&self) -> ReadinessReport;
}

/// Members that every answer about the server begins with.
const IDENTITY: &str = concat!(
    "\"name\":\"taskcast\",\"version\":\"",
    env!("CARGO_PKG_VERSION"),
    "\",\"apiVersion\":\"v1\""
);

/// Says what this is: `GET /`.
pub(super) async fn describe_server() -> Response {
    let links = concat!(
        "\"links\":{\"health\":\"/health\",\"healthReady\":\"/health/ready\",",
        "\"healthDetail\":\"/health/detail\",\"tasks\":\"/tasks\"}"
    );
    json_response(StatusCode::OK, format!("{{{IDENTITY},{links}}}"))
}

/// Says that the process is alive, without looking at anything: `GET /health`.
pub(super) async fn report_alive() -> Response {
    json_response(StatusCode::OK, format!("{{\"ok\":true,{IDENTITY}}}"))
}

/// Says whether the server should get traffic: `GET /health/ready`.
pub(super) async fn report_ready(State(app): State<AppState>) -> Response {
    let report = app.readiness.check().await;
    let is_ready = report.is_ready();
    let mut body = format!("{{\"ok\":{is_ready},");
    push_dependencies(&mut body, &report);
    body.push('}');
    if is_ready {
        return json_response(StatusCode::OK, body);
    }
    let mut response = json_response(StatusCode::SERVICE_UNAVAILABLE, body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Says what the server runs on: `GET /health/detail`.
pub(super) async fn report_detail(State(app): State<AppState>) -> Response {
    let report = app.readiness.check().await;
    let uptime = app.started.elapsed().as_secs();
    let mode = app.authenticator.mode().as_str();
    let mut body = format!(
        "{{\"ok\":{},{IDENTITY},\"uptime\":{uptime},\"auth\":{{\"mode\":\"{mode}\"}},",
        report.is_ready()
    );
    let adapters = [("broadcast", report.broadcast), ("shortTermStore", report.short_term_store)];
    for (position, (name, adapter)) in adapters.into_iter().enumerate() {
        body.push_str(if position == 0 { "\"adapters\":{" } else { "," });
        let (provider, status) = (adapter.provider, if adapter.is_ok { "ok" } else { "error" });
        // Writing to a String cannot fail.
        let _ = write!(body, "\"{name}\":{{\"provider\":\"{provider}\",\"status\":\"{status}\"}}");
    }
    body.push_str("},");
    if let Some(listener) = report.listener {
        let mode = if listener.listens { "listening" } else { "polling" };
        let restarts = listener.restarts;
        // Writing to a String cannot fail.
        let _ = write!(body, "\"listener\":{{\"mode\":\"{mode}\",\"restarts\":{restarts}}},");
    }
    push_dependencies(&mut body, &report);
    body.push('}');
    json_response(StatusCode::OK, body)
}

fn push_dependencies(body: &mut String, report: &ReadinessReport) {
    body.push_str("\"dependencies\":{");
    for (position, found) in report.dependencies.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        let (name, state) = (found.name, found.state.as_str());
        // Writing to a String cannot fail.
        let _ = write!(body, "{comma}\"{name}\":{{\"state\":\"{state}\"}}");
    }
    body.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_unless_it_drains_or_misses_what_it_needs() {
        let adapter = Adapter { provider: "postgres", is_ok: true };
        let report = |is_draining, state| ReadinessReport {
            is_draining,
            dependencies: vec![Dependency { name: "listener", state }],
            broadcast: adapter,
            short_term_store: adapter,
            listener: None,
        };
        assert!(report(false, DependencyState::Healthy).is_ready());
        assert!(report(false, DependencyState::Degraded).is_ready());
        assert!(!report(false, DependencyState::Unhealthy).is_ready());
        assert!(!report(true, DependencyState::Healthy).is_ready());
        let mut body = String::new();
        push_dependencies(&mut body, &report(false, DependencyState::Degraded));
        assert_eq!(body, r#""dependencies":{"listener":{"state":"degraded"}}"#);
    }
}
