//! The settings of the jobs: the provider, and how often what runs.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;
use secrecy::SecretString;

use super::read::{ConfigError, Reader};

/// The seconds that an interval may have.
pub(super) const EVERY: RangeInclusive<u64> = 1..=7 * 86_400;

/// The outside system that the sandboxes are in.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Where its API is, without a slash at the end.
    pub url: Uri,
    /// What it knows us by. Never shown.
    pub token: SecretString,
    /// Deletions a second, of all workers together.
    pub rate: u32,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// Who starts the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// The workers, by ticks in the table.
    Workers,
    /// Something outside, which sends a `ScheduledTrigger` for each.
    External,
}

/// How often each job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the jobs are those of SPEC.md")]
pub struct Intervals {
    pub sync: Duration,
    pub expire: Duration,
    pub cleanup: Duration,
    pub purge: Duration,
    pub census: Duration,
    pub sweep: Duration,
}

pub(super) fn provider(read: &Reader<'_>) -> Result<Option<ProviderConfig>, ConfigError> {
    let url = read.url("BROKER_PROVIDER_URL")?;
    let token = read.secret("BROKER_PROVIDER_TOKEN")?;
    let rate = read.number("BROKER_PROVIDER_RATE", 1..=100)?;
    let timeout = read.seconds("BROKER_PROVIDER_TIMEOUT_S", 1..=120)?;
    Ok(url.map(|url| ProviderConfig { url, token, rate, timeout }))
}
