//! Pause after a 429: no call until its `Retry-After` has passed.
//!
//! Clones share it. Each process has its own, as with the breaker: each makes one call and then pauses. The slots in the
//! table are paused for all workers (`jobs::deletion` of the worker); this pause catches calls that had a slot by then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pause.
#[derive(Clone, Debug, Default)]
pub(super) struct Rest(Arc<Mutex<Option<Instant>>>);

impl Rest {
    /// No calls before `until`.
    pub(super) fn begin(&self, until: Instant) {
        let mut rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *rests = Some(rests.map_or(until, |other| other.max(until)));
    }

    /// The rest of the pause; `None` if it is over.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(until?.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_runtime::clock::Clock;

    #[test]
    fn it_lasts_as_long_as_the_longest_that_was_asked_for() {
        let (rest, now) = (Rest::default(), Clock::system().instant());
        let second = Duration::from_secs(1);
        assert_eq!(rest.left(now), None);
        rest.begin(now + 2 * second);
        rest.begin(now + second);
        assert_eq!(rest.left(now + second), Some(second));
        assert_eq!(rest.left(now + 2 * second), None);
    }
}
