//! `sentry`: what is reported, and to which project.

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// Reports to a Sentry project.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "one switch for each kind of report")]
pub struct SentrySettings {
    /// The project, as the URL Sentry gives out for it.
    pub dsn: Secret,
    /// Name of the environment in reports.
    pub environment: Option<String>,
    /// Name of the release in reports.
    pub release: Option<String>,
    /// Share of the reports that are sent, from 0 to 1.
    pub sample_rate: f64,
    /// Whether failed tasks are reported.
    pub capture_task_failures: bool,
    /// Whether tasks that timed out are reported.
    pub capture_task_timeouts: bool,
    /// Whether errors nobody handled are reported.
    pub capture_unhandled_errors: bool,
    /// Whether events that were dropped are reported.
    pub capture_dropped_events: bool,
    /// Whether failures of the store are reported.
    pub capture_storage_errors: bool,
    /// Whether failures of the bus are reported.
    pub capture_broadcast_errors: bool,
}

/// `sentry` as written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "one switch for each kind of report")]
pub(super) struct SentrySection {
    dsn: Option<String>,
    environment: Option<String>,
    release: Option<String>,
    sample_rate: f64,
    capture_task_failures: bool,
    capture_task_timeouts: bool,
    capture_unhandled_errors: bool,
    capture_dropped_events: bool,
    capture_storage_errors: bool,
    capture_broadcast_errors: bool,
}

impl Default for SentrySection {
    fn default() -> Self {
        Self {
            dsn: None,
            environment: None,
            release: None,
            sample_rate: 1.0,
            capture_task_failures: true,
            capture_task_timeouts: true,
            capture_unhandled_errors: true,
            capture_dropped_events: true,
            capture_storage_errors: true,
            capture_broadcast_errors: true,
        }
    }
}

impl SentrySection {
    /// Returns what is meant; without a project there is nothing to set.
    pub(super) fn settings(self) -> Option<SentrySettings> {
        Some(SentrySettings {
            dsn: Secret::new(self.dsn?),
            environment: self.environment,
            release: self.release,
            sample_rate: self.sample_rate,
            capture_task_failures: self.capture_task_failures,
            capture_task_timeouts: self.capture_task_timeouts,
            capture_unhandled_errors: self.capture_unhandled_errors,
            capture_dropped_events: self.capture_dropped_events,
            capture_storage_errors: self.capture_storage_errors,
            capture_broadcast_errors: self.capture_broadcast_errors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Setup;

    const DSN: &str = "https://canary@o1.ingest.sentry.io/42";

    #[test]
    fn the_variable_of_the_original_switches_reports_on() {
        assert_eq!(Setup::new().load().sentry, None);
        let setup = Setup::new()
            .yaml("sentry: { captureTaskTimeouts: false, sampleRate: 0.5, environment: staging }")
            .env(&[("SENTRY_DSN", DSN)]);
        let sentry = setup.load().sentry.unwrap();
        assert_eq!(sentry.dsn.expose(), DSN);
        assert!(sentry.capture_task_failures && !sentry.capture_task_timeouts);
        assert_eq!(sentry.environment.as_deref(), Some("staging"));
        assert!((sentry.sample_rate - 0.5).abs() < f64::EPSILON);
        assert!(!format!("{sentry:?}").contains("canary"));
    }

    #[test]
    fn a_bad_dsn_is_refused_without_showing_it() {
        for (name, value) in [("SENTRY_DSN", "canary"), ("TASKCAST_SENTRY__DSN", "https://canary")]
        {
            let error =
                Setup::new().env(&[(name, value)]).refused(&[name, "`sentry.dsn`", "a DSN"]);
            assert!(!error.contains("canary"), "{error}");
        }
        Setup::new().yaml("sentry: { sampleRate: 1.5 }").refused(&["a number from 0 to 1"]);
    }
}
