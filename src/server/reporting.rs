//! Reports to Sentry, where the program was built with them.

use std::time::Duration;

use crate::config::Config;
use crate::hooks::HookSet;

#[cfg(feature = "sentry")]
use std::sync::Arc;

#[cfg(feature = "sentry")]
use crate::config::SentrySettings;
#[cfg(feature = "sentry")]
use crate::sentry::{Sentry, SentryOptions};

/// How long sending what waits may take when the server stops.
pub(super) const REPORT_WITHIN: Duration = Duration::from_secs(1);

/// Reports what is configured to be reported.
#[derive(Debug, Default)]
pub(super) struct Reporting {
    #[cfg(feature = "sentry")]
    sentry: Option<Arc<Sentry>>,
}

#[cfg(feature = "sentry")]
impl Reporting {
    /// Begins to report, if a project is configured.
    pub(super) fn start(config: &Config) -> anyhow::Result<Self> {
        let Some(settings) = &config.sentry else { return Ok(Self::default()) };
        let sentry = Sentry::start(sentry_options(settings)).map_err(|error| {
            anyhow::Error::from(config.place_of("sentry.dsn").refuse(error.to_string()))
        })?;
        Ok(Self { sentry: Some(sentry) })
    }

    /// Returns whom the service tells.
    pub(super) fn hooks(&self) -> HookSet {
        self.sentry.iter().fold(HookSet::default(), |hooks, sentry| hooks.with(sentry.clone()))
    }

    /// Sends what waits.
    pub(super) async fn finish(self) {
        if let Some(sentry) = self.sentry {
            sentry.finish(REPORT_WITHIN).await;
        }
    }
}

#[cfg(not(feature = "sentry"))]
impl Reporting {
    /// Refuses a configured project: nothing would ever be reported to it.
    pub(super) fn start(config: &Config) -> anyhow::Result<Self> {
        if config.sentry.is_none() {
            return Ok(Self::default());
        }
        let reason = "this program was built without the feature `sentry`";
        Err(config.place_of("sentry.dsn").refuse(reason).into())
    }

    /// Returns whom the service tells: nobody.
    pub(super) fn hooks(&self) -> HookSet {
        HookSet::default()
    }

    /// Has nothing to send.
    pub(super) async fn finish(self) {}
}

#[cfg(feature = "sentry")]
#[expect(clippy::cast_possible_truncation, reason = "a share needs no more digits")]
fn sentry_options(settings: &SentrySettings) -> SentryOptions {
    let usual = SentryOptions::new(settings.dsn.expose());
    SentryOptions {
        environment: settings.environment.clone().unwrap_or(usual.environment),
        release: settings.release.clone().unwrap_or(usual.release),
        sample_rate: settings.sample_rate as f32,
        capture_task_failures: settings.capture_task_failures,
        capture_task_timeouts: settings.capture_task_timeouts,
        capture_unhandled_errors: settings.capture_unhandled_errors,
        capture_dropped_events: settings.capture_dropped_events,
        capture_storage_errors: settings.capture_storage_errors,
        capture_broadcast_errors: settings.capture_broadcast_errors,
        dsn: usual.dsn,
    }
}
