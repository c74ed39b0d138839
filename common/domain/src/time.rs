//! Timestamps as the domain sees them: passed in, never read from a clock here.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The largest difference between two clocks, in milliseconds, that the protocol's margins cover; a process that is
/// further off stops receiving.
pub const MAX_SKEW_MS: i64 = 2_000;
/// What the clocks of two processes that work may differ by.
pub const CLOCKS_DIFFER: Duration = Duration::from_millis(2 * MAX_SKEW_MS.unsigned_abs());

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// From whole seconds since the epoch, as the table and the HTTP API carry them.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000
    }

    /// The same instant without its milliseconds, so that it survives a round trip through seconds.
    pub const fn floor_to_second(self) -> Self {
        Self::from_secs(self.as_secs())
    }

    /// The day in UTC, as `2026-11-22`; `9999-12-30` for later ones.
    pub fn date(self) -> String {
        self.calendar().to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
    }

    /// The second in UTC, as `2026-11-22T08:00:00Z` (RFC 3339).
    pub fn date_and_time(self) -> String {
        self.floor_to_second().calendar().to_string()
    }

    /// From a time with a zone: `2026-12-07T09:00+01:00`, or `2026-12-07T09:00[Europe/Berlin]` (RFC 9557); whole seconds.
    pub fn parse_zoned(text: &str) -> Option<Self> {
        let at = if text.contains('[') {
            text.parse::<jiff::Zoned>().ok()?.timestamp()
        } else {
            text.parse::<jiff::Timestamp>().ok()?
        };
        u64::try_from(at.as_second()).ok().map(Self::from_secs)
    }

    fn calendar(self) -> jiff::Timestamp {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
    }

    /// This instant plus `duration`, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This instant minus `duration`, not below the epoch.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Whether a stored time is further ahead of `now` than `most`, the longest that is ever written: a clock that was wrong
    /// wrote it, and it counts as not there.
    pub fn is_beyond(self, now: Self, most: Duration) -> bool {
        self > now.plus(most.saturating_add(CLOCKS_DIFFER))
    }

    /// Whether a stored time is still to come: later than `now`, and not [beyond](Self::is_beyond) `most`.
    pub fn is_to_come(self, now: Self, most: Duration) -> bool {
        now < self && !self.is_beyond(now, most)
    }

    /// The time from `earlier` to this instant; zero if this instant is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(timestamp.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.as_secs(), self.0 % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stored_time_is_to_come_as_far_ahead_as_it_may_be_written_and_by_clocks_that_differ() {
        let (now, minute) = (Timestamp::from_secs(1_000), Duration::from_secs(60));
        let to_come = |s: u64| Timestamp::from_secs(s).is_to_come(now, minute);
        assert_eq!([1_000, 1_001, 1_064, 1_065].map(to_come), [false, true, true, false]);
        assert!(!Timestamp::from_secs(999).is_beyond(now, minute));
        assert!(!Timestamp::from_secs(u64::MAX).is_beyond(now, Duration::MAX), "nothing is beyond for ever");
    }

    #[test]
    fn a_time_has_a_zone() {
        let nine = Some(Timestamp::from_secs(1_796_630_400));
        for text in [
            "2026-12-07T08:00Z",
            "2026-12-07T08:00:00.9Z",
            "2026-12-07T09:00+01:00",
            "2026-12-07T09:00:00+01:00",
            "2026-12-07 09:00+01",
            "2026-12-07T09:00[Europe/Berlin]",
            "2026-12-07T09:00+01:00[Europe/Berlin]",
        ] {
            assert_eq!(Timestamp::parse_zoned(text), nine, "{text}");
        }
        for wrong in [
            "",
            "2026-12-07T09:00",
            "2026-12-07",
            "09:00+01:00",
            "2026-12-07T09:00[Mars/Olympus]",
            "1969-12-31T00:00Z",
        ] {
            assert_eq!(Timestamp::parse_zoned(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_is_shown_in_seconds_and_cut_to_them() {
        let at = Timestamp::from_ms(12_034);
        assert_eq!((at.to_string().as_str(), at.as_secs(), at.as_ms()), ("12.034", 12, 12_034));
        assert_eq!(at.floor_to_second(), Timestamp::from_secs(12));
        assert_eq!(SystemTime::from(at), UNIX_EPOCH + Duration::from_millis(12_034));
    }

    #[test]
    fn a_day_is_named_as_calendars_name_it() {
        let date = |secs| Timestamp::from_secs(secs).date();
        assert_eq!([date(0), date(86_399), date(86_400)], ["1970-01-01", "1970-01-01", "1970-01-02"]);
        assert_eq!(Timestamp::from_ms(1_795_378_100_999).date_and_time(), "2026-11-22T20:08:20Z");
        assert_eq!([date(951_782_400), date(951_868_800)], ["2000-02-29", "2000-03-01"]);
        assert_eq!([date(1_767_225_599), date(1_795_378_100)], ["2025-12-31", "2026-11-22"]);
        assert_eq!(
            [Timestamp::from_ms(u64::MAX).date(), date(253_402_128_000)],
            ["9999-12-30", "9999-12-30"]
        );
    }

    proptest! {
        #[test]
        fn what_is_added_is_what_lies_between(ms in 0..u64::MAX / 2, more in 0..u64::MAX / 4) {
            let (at, more) = (Timestamp::from_ms(ms), Duration::from_millis(more));
            prop_assert_eq!(at.plus(more).since(at), more);
            prop_assert_eq!(at.plus(more).minus(more), at);
            prop_assert!(more.is_zero() || at.since(at.plus(more)).is_zero(), "never negative");
        }

        #[test]
        fn no_time_overflows(ms in any::<u64>(), secs in any::<u64>()) {
            let (at, long) = (Timestamp::from_ms(ms), Duration::from_secs(secs));
            prop_assert!(at.plus(long) >= at && at.minus(long) <= at);
            prop_assert!(Timestamp::from_secs(secs).as_secs() <= secs);
        }
    }
}
