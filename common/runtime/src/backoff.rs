//! Backoff: pauses that double with each failed attempt, up to a longest one.

use std::time::Duration;

use crate::entropy::Entropy;

/// The pauses between attempts at one thing.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses while AWS does not answer.
    pub const OUTAGE: Self = Self::new(Duration::from_millis(100), Duration::from_secs(5));

    /// Pauses from `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The pause after the `attempt`th failed attempt (from 0), without jitter.
    pub fn pause(self, attempt: u32) -> Duration {
        self.first.saturating_mul(1 << attempt.min(31)).min(self.longest)
    }

    /// The same with jitter.
    pub fn jittered(self, attempt: u32, entropy: &Entropy) -> Duration {
        entropy.jitter(self.pause(attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = [0, 1, 2, 5, 6, 40, u32::MAX].map(|attempt| Backoff::OUTAGE.pause(attempt).as_millis());
        assert_eq!(pauses, [100, 200, 400, 3_200, 5_000, 5_000, 5_000]);
    }
}
