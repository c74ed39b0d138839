//! Settings of the jobs: the provider, the scheduler and the intervals.

use std::time::Duration;

use http::Uri;
use secrecy::SecretString;

use super::read::{ConfigError, SettingsReader};

/// The provider: the outside system that the sandboxes are in.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// The base of its API, without a slash at the end.
    pub url: Uri,
    /// The broker's token there. Never shown.
    pub token: SecretString,
    /// Deletions a second, of all workers together.
    pub rate: u32,
    /// Timeout of one call.
    pub timeout: Duration,
}

/// What starts the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// The workers, by ticks in the table.
    Workers,
    /// An external scheduler, which sends a `ScheduledTrigger` for each.
    External,
}

/// The interval of each job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the jobs of broker_domain::Job")]
pub struct Intervals {
    pub sync: Duration,
    pub expire: Duration,
    pub cleanup: Duration,
    pub purge: Duration,
    pub census: Duration,
    pub sweep: Duration,
    pub refill: Duration,
    pub serve: Duration,
}

pub(super) fn provider(read: &SettingsReader<'_>) -> Result<Option<ProviderConfig>, ConfigError> {
    let url = read.url("BROKER_PROVIDER_URL")?;
    let token = read.secret("BROKER_PROVIDER_TOKEN")?;
    let rate = read.number("BROKER_PROVIDER_RATE")?;
    let timeout = read.seconds("BROKER_PROVIDER_TIMEOUT_S")?;
    Ok(url.map(|url| ProviderConfig { url, token, rate, timeout }))
}
