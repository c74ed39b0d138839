//! A point in time as the domain sees it. It is handed in, never read here.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

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

    /// The same instant with its milliseconds cut off, so that it survives a round trip through seconds.
    pub const fn floor_to_second(self) -> Self {
        Self::from_secs(self.as_secs())
    }

    /// The day in UTC, as `2026-11-22` (the civil calendar from days since the epoch: Hinnant, "chrono-compatible
    /// low-level date algorithms").
    pub fn date(self) -> String {
        let days = self.as_secs() / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// This instant plus `duration`, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This instant minus `duration`, not below the epoch.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this instant is; zero if it is not after it.
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
        assert_eq!([date(951_782_400), date(951_868_800)], ["2000-02-29", "2000-03-01"]);
        assert_eq!([date(1_767_225_599), date(1_795_378_100)], ["2025-12-31", "2026-11-22"]);
    }

    proptest! {
        #[test]
        fn a_day_is_named_as_the_sdk_names_it(secs in 0..253_402_300_800_u64) {
            let told = aws_smithy_types::DateTime::from_secs(i64::try_from(secs).unwrap());
            let told = told.fmt(aws_smithy_types::date_time::Format::DateTime).unwrap();
            prop_assert_eq!(Timestamp::from_secs(secs).date(), told.split('T').next().unwrap());
        }

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
