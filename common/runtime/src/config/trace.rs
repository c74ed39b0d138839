//! Settings of traces.

use http::Uri;

use super::read::{ConfigError, SettingsReader};

/// The export of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceConfig {
    /// The base of a collector's OTLP/HTTP API, without a slash at the end.
    pub endpoint: Uri,
    /// The part of the traces begun here that is recorded.
    pub ratio: f64,
}

pub(super) fn trace(read: &SettingsReader<'_>) -> Result<Option<TraceConfig>, ConfigError> {
    let endpoint = read.url("BROKER_OTLP_ENDPOINT")?;
    let ratio = read.ratio("BROKER_TRACE_RATIO")?;
    Ok(endpoint.map(|endpoint| TraceConfig { endpoint, ratio }))
}
