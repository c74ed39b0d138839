//! Logging: JSON lines on standard error, one object a line, or text for people.

use std::io::IsTerminal as _;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// The error of logging that was started before.
#[derive(Debug, thiserror::Error)]
#[error("logging was started twice: {0}")]
pub struct TelemetryError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Starts logging for the whole process, filtered as `filter` says.
///
/// # Errors
///
/// When logging was started before.
pub fn start(filter: &Targets, format: LogFormat) -> Result<(), TelemetryError> {
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
    let logs = tracing_subscriber::registry().with(filter.clone()).with(lines);
    logs.try_init().map_err(|error| TelemetryError(error.into()))
}
