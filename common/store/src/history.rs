//! History of an hour: what the processes counted, a minute at a time.
//!
//! One item a minute, written by the census (how full, how long the queues) and added to by each API once (how calls were
//! answered). It is for people who look; nothing is decided by it.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_domain::{Status, Timestamp};

/// The length of a step.
pub const STEP: Duration = Duration::from_secs(60);
/// How long ago the oldest shown step began.
pub const SHOWN: Duration = Duration::from_secs(60 * 60);

/// Upper bounds of the classes of latency, in milliseconds; slower answers are in one class more.
pub const LATENCY_MS: [u64; 12] = [10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 10_240, 20_480];
/// The number of classes of latency.
pub const CLASSES: usize = LATENCY_MS.len() + 1;

/// A minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minute {
    /// When it began.
    pub at: Timestamp,
    /// What the census counted in it; none if no census ended in it.
    pub counted: Option<MinuteGauges>,
    /// How the APIs answered allocate calls in it.
    pub served: Served,
}

/// What a census counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinuteGauges {
    /// Sandboxes by state.
    pub by_status: BTreeMap<Status, u64>,
    /// Open dead letters.
    pub letters: u64,
    /// Requests that wait in the queue.
    pub visible: u64,
    /// Requests that workers have in hand.
    pub in_flight: u64,
    /// The age of the oldest request that a worker received of late, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// Running workers.
    pub workers: u64,
}

/// Allocate calls that were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// With a new allocation.
    pub created: u64,
    /// With the one that the key had already.
    pub existing: u64,
    /// That no sandbox is free.
    pub refused: u64,
    /// With anything else.
    pub failed: u64,
    /// Those with a sandbox, by class of latency.
    pub latency: [u64; CLASSES],
}

impl Served {
    /// Every call.
    pub const fn calls(&self) -> u64 {
        self.created + self.existing + self.refused + self.failed
    }

    /// The class of a latency.
    pub fn class(latency: Duration) -> usize {
        LATENCY_MS.partition_point(|bound| u128::from(*bound) < latency.as_millis())
    }

    /// The latency, in milliseconds, that `percent` of the calls with a sandbox did not pass: the bound of its class; without
    /// such calls none. The last class has no bound: twice the one before is said.
    pub fn percentile_ms(&self, percent: u64) -> Option<u64> {
        let all: u64 = self.latency.iter().sum();
        let wanted = (all * percent).div_ceil(100).max(1);
        let mut reached = 0;
        let class = self.latency.iter().position(|count| {
            reached += count;
            reached >= wanted
        });
        let last = LATENCY_MS[LATENCY_MS.len() - 1] * 2;
        class.filter(|_| all > 0).map(|class| LATENCY_MS.get(class).copied().unwrap_or(last))
    }
}

/// The beginning of the minute of `at`.
pub fn minute_of(at: Timestamp) -> Timestamp {
    Timestamp::from_secs(at.as_secs() / STEP.as_secs() * STEP.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_bound_of_its_class() {
        let mut served = Served::default();
        assert_eq!(served.percentile_ms(99), None);
        for (ms, times) in [(5, 98), (100, 1), (60_000, 1)] {
            served.latency[Served::class(Duration::from_millis(ms))] += times;
        }
        assert_eq!([50, 98, 99, 100].map(|p| served.percentile_ms(p)), [10, 10, 160, 40_960].map(Some));
        assert_eq!(
            (Served::class(Duration::from_millis(10)), Served::class(Duration::from_millis(11))),
            (0, 1)
        );
    }

    #[test]
    fn a_minute_begins_where_it_begins() {
        assert_eq!(minute_of(Timestamp::from_ms(119_999)), Timestamp::from_secs(60));
    }
}
