//! What a running process tells about itself: logs for people ([`start`]), figures for a monitoring system ([`metrics`]), and whether each of its
//! parts is well ([`vitals`]).
//!
//! Logs are set up once, by the shell. They go to standard error, so that a command's result on standard output stays clean. None of
//! the three holds an address, a name of a person or a payload; the profile's number at most.

pub mod metrics;
pub mod vitals;

use tracing_subscriber::EnvFilter;

pub use self::metrics::Metrics;
pub use self::vitals::Vitals;

use crate::settings::{LogFormat, LogSettings};

/// What the parts of a daemon report to.
#[derive(Debug, Default)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub vitals: Vitals,
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("`{level}` is no level for logs: {reason}")]
    Level { level: String, reason: String },
    #[error("logs are set up already: {0}")]
    Twice(String),
}

/// Starts logging as the settings say; once in a process.
pub fn start(settings: &LogSettings) -> Result<(), TelemetryError> {
    let filter =
        EnvFilter::try_new(&settings.level).map_err(|e| TelemetryError::Level { level: settings.level.clone(), reason: e.to_string() })?;
    // whoever read the log may have gone: no reason to panic in the middle of a request
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let started = match settings.format {
        LogFormat::Text => logs.compact().with_target(false).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| TelemetryError::Twice(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_named() {
        let settings = LogSettings { format: LogFormat::Text, level: "info,rekindle=lowd".into() };
        let error = start(&settings).expect_err("no level").to_string();
        assert!(error.contains("`info,rekindle=lowd`"), "{error}");
    }
}
