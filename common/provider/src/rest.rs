//! The pause of all calls to the provider that a `Retry-After` asks for.
//!
//! Clones share it. Each process has its own, as with the breaker, so each process makes one call that is refused. The
//! rate slots in the table are held for all processes (`jobs::deletion` of the worker); a call that has a slot already waits here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pause for a 429 without `Retry-After`.
pub(super) const PAUSE: Duration = Duration::from_secs(5);

/// The rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Rest(Arc<Mutex<Option<Instant>>>);

impl Rest {
    /// Nothing is asked before `until`.
    pub(super) fn begin(&self, until: Instant) {
        let mut rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *rests = Some(rests.map_or(until, |other| other.max(until)));
    }

    /// How much of it is left; `None` if nothing is.
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
