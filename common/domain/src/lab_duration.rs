//! `LabDuration`: for how long a sandbox is lent, in whole hours from 1 to 168.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// For how long a sandbox is lent: 1 to 168 whole hours. In JSON it is the number of hours, and no other number is read as
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u16")]
pub struct LabDuration(u16);

/// Why a number is no [`LabDuration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number of hours from 1 to 168")]
pub struct InvalidLabDuration;

impl LabDuration {
    /// The shortest.
    pub const SHORTEST: Self = Self(1);
    /// The longest: a week.
    pub const LONGEST: Self = Self(168);

    /// So many hours, or why not.
    pub const fn new(hours: u64) -> Result<Self, InvalidLabDuration> {
        if hours >= Self::SHORTEST.0 as u64 && hours <= Self::LONGEST.0 as u64 {
            Ok(Self(hours as u16))
        } else {
            Err(InvalidLabDuration)
        }
    }

    /// The nearest to so many hours.
    pub const fn nearest(hours: u64) -> Self {
        match Self::new(hours) {
            Ok(duration) => duration,
            Err(InvalidLabDuration) if hours == 0 => Self::SHORTEST,
            Err(InvalidLabDuration) => Self::LONGEST,
        }
    }

    /// How many hours.
    pub const fn hours(self) -> u16 {
        self.0
    }

    /// The same as a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0 as u64 * 3_600)
    }
}

impl TryFrom<u64> for LabDuration {
    type Error = InvalidLabDuration;

    fn try_from(hours: u64) -> Result<Self, InvalidLabDuration> {
        Self::new(hours)
    }
}

impl FromStr for LabDuration {
    type Err = InvalidLabDuration;

    fn from_str(text: &str) -> Result<Self, InvalidLabDuration> {
        text.parse().map_err(|_| InvalidLabDuration).and_then(Self::new)
    }
}

impl From<LabDuration> for u16 {
    fn from(duration: LabDuration) -> Self {
        duration.hours()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_hour_to_a_week_is_a_duration() {
        for hours in [1, 4, 168] {
            let duration = LabDuration::new(hours).unwrap();
            assert_eq!(
                (u64::from(duration.hours()), duration.as_duration().as_secs()),
                (hours, hours * 3_600)
            );
            assert_eq!(serde_json::to_string(&duration).unwrap(), hours.to_string());
            assert_eq!(hours.to_string().parse(), Ok(duration));
            assert_eq!(serde_json::from_str::<LabDuration>(&hours.to_string()).unwrap(), duration);
        }
        for wrong in ["0", "169", "65535", "65536", "18446744073709551615", "-1", "4.5", "\"4\"", "null"] {
            assert!(serde_json::from_str::<LabDuration>(wrong).is_err(), "{wrong}");
        }
        let told = serde_json::from_str::<LabDuration>("65535").unwrap_err().to_string();
        assert!(told.contains("must be a whole number of hours from 1 to 168"), "{told}");
    }

    #[test]
    fn the_nearest_duration_to_any_number_is_one() {
        let nearest = [0, 1, 50, 168, 169, u64::MAX].map(|hours| LabDuration::nearest(hours).hours());
        assert_eq!(nearest, [1, 1, 50, 168, 168, 168]);
    }
}
