//! Pauses between attempts, and errors with their causes for the log.

use std::error::Error;
use std::time::Duration;

use broker_runtime::entropy::Entropy;

/// The first backoff after a failed attempt, doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest backoff.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// The backoff after the `attempt`th failed attempt (from 0).
pub(crate) fn backoff(attempt: u32, entropy: &Entropy) -> Duration {
    entropy.jitter(FIRST_BACKOFF.saturating_mul(1 << attempt.min(10)).min(LONGEST_BACKOFF))
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
