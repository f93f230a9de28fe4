//! Logs: set up once, by the shell. They go to standard error, so that a command's result on standard output stays clean. What is
//! logged holds the profile's number at most, never an address, a name or a payload.

use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, LogSettings};

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
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
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
