//! Logging: JSON lines on standard error, one object a line, or text for people.

use std::io::IsTerminal as _;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one; see tracing-subscriber's `Targets`.
    #[error("BROKER_LOG is not a log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A subscriber was installed before.
    #[error("logging was started twice: {0}")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging for the whole process, filtered as `filter` says: levels by target, `info`, `broker_worker=debug,warn`.
///
/// # Errors
///
/// When `filter` is not a list of levels and targets, or logging was started before.
pub fn start(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter: Targets = filter.parse()?;
    // A file or a pipe gets no colours.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Text => lines.with_target(false).boxed(),
    };
    let logs = tracing_subscriber::registry().with(filter).with(lines);
    logs.try_init().map_err(|error| TelemetryError::Twice(error.into()))
}
