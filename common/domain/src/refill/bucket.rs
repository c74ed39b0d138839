//! Token bucket of a flavour: as many tickets as its rate allows, at most one second's worth at once.
//!
//! It is one number, the time until which tokens are spent (the virtual scheduling of GCRA, ITU-T I.371), so it is stored and
//! compared like any other and needs no clock of its own. Microseconds, since a rate may be 1,000 a second.

use super::super::{CLOCKS_DIFFER, Timestamp};

const MINUTE_US: u64 = 60_000_000;

/// The bucket: the time, in microseconds since the epoch, until which tokens are spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(u64);

impl Bucket {
    /// From its stored number.
    pub const fn from_us(us: u64) -> Self {
        Self(us)
    }

    /// Its number, for storage.
    pub const fn as_us(self) -> u64 {
        self.0
    }

    /// Takes at most `wanted` tokens; how many there were.
    #[must_use]
    pub fn take(self, rate_per_minute: u32, wanted: u32, now: Timestamp) -> (u32, Self) {
        let every = MINUTE_US / u64::from(rate_per_minute.max(1));
        let burst = u64::from((rate_per_minute / 60).max(1)) * every;
        let clocks_differ = u64::try_from(CLOCKS_DIFFER.as_micros()).unwrap_or(u64::MAX);
        let now = now.as_ms().saturating_mul(1_000);
        // More than a burst is never spent: a clock that was wrong wrote it.
        let is_wrong = self.0 > now.saturating_add(burst).saturating_add(clocks_differ);
        let spent = if is_wrong { now } else { self.0.max(now) };
        let free = now.saturating_add(burst).saturating_sub(spent) / every.max(1);
        let taken = u32::try_from(free).unwrap_or(u32::MAX).min(wanted);
        (taken, Self(spent + u64::from(taken) * every))
    }
}
