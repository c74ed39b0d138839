//! `Heartbeat`: how often the owner of a lease says that it lives, and [`Term`]: for how long a lease is wanted.
//!
//! A lease with a heartbeat lasts three of them, and has no grace: an owner that is silent for as long is gone.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EndReason, LabDuration};

/// How many heartbeats a lease outlasts.
const MISSED: u64 = 3;

/// The time from one heartbeat to the next: 30 to 3,600 whole seconds. In JSON it is that number, and no other number is read
/// as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u16")]
pub struct Heartbeat(u16);

/// Why a number is no [`Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("heartbeat_s must be a whole number from 30 to 3600")]
pub struct InvalidHeartbeat;

impl Heartbeat {
    /// The shortest.
    pub const SHORTEST: Self = Self(30);
    /// The longest: an hour.
    pub const LONGEST: Self = Self(3_600);

    /// So many seconds, or why not.
    pub const fn new(seconds: u64) -> Result<Self, InvalidHeartbeat> {
        if seconds >= Self::SHORTEST.0 as u64 && seconds <= Self::LONGEST.0 as u64 {
            Ok(Self(seconds as u16))
        } else {
            Err(InvalidHeartbeat)
        }
    }

    /// How many seconds.
    pub const fn seconds(self) -> u16 {
        self.0
    }

    /// The same as a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }

    /// How long a lease lasts after one.
    pub const fn lease(self) -> Duration {
        Duration::from_secs(self.0 as u64 * MISSED)
    }
}

impl TryFrom<u64> for Heartbeat {
    type Error = InvalidHeartbeat;

    fn try_from(seconds: u64) -> Result<Self, InvalidHeartbeat> {
        Self::new(seconds)
    }
}

impl From<Heartbeat> for u16 {
    fn from(heartbeat: Heartbeat) -> Self {
        heartbeat.seconds()
    }
}

/// For how long a lease is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// The hours that were asked for; with a heartbeat, the longest that it can be kept by it. A record of another tool may
    /// not say.
    pub hours: Option<LabDuration>,
    /// How often its owner says that it lives, if it does.
    pub heartbeat: Option<Heartbeat>,
}

impl Term {
    /// How long after its claim a lease ends.
    pub fn lease(self) -> Duration {
        let hours = self.hours.unwrap_or(LabDuration::LONGEST).as_duration();
        self.heartbeat.map_or(hours, |heartbeat| heartbeat.lease().min(hours))
    }

    /// How long after its end it is left to its owner, where others are left theirs for `grace`.
    pub const fn grace(self, grace: Duration) -> Duration {
        match self.heartbeat {
            Some(_) => Duration::ZERO,
            None => grace,
        }
    }

    /// How a lease ends whose time is over.
    pub const fn end_reason(self) -> EndReason {
        match self.heartbeat {
            Some(_) => EndReason::Abandoned,
            None => EndReason::Expired,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_half_a_minute_to_an_hour_is_a_heartbeat() {
        for seconds in [30, 60, 3_600] {
            let heartbeat = Heartbeat::new(seconds).unwrap();
            assert_eq!(heartbeat.as_duration(), Duration::from_secs(seconds));
            assert_eq!(heartbeat.lease(), Duration::from_secs(3 * seconds));
            assert_eq!(serde_json::to_string(&heartbeat).unwrap(), seconds.to_string());
            assert_eq!(serde_json::from_str::<Heartbeat>(&seconds.to_string()).unwrap(), heartbeat);
        }
        for wrong in ["0", "29", "3601", "65566", "-60", "60.5", "\"60\"", "null"] {
            assert!(serde_json::from_str::<Heartbeat>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_lease_with_a_heartbeat_lasts_three_and_has_no_grace() {
        let (hour, grace) = (LabDuration::new(1).unwrap(), Duration::from_secs(1_800));
        let plain = Term { hours: Some(hour), heartbeat: None };
        assert_eq!((plain.lease().as_secs(), plain.grace(grace)), (3_600, grace));
        assert_eq!(plain.end_reason(), EndReason::Expired);
        let beats = Term { heartbeat: Some(Heartbeat::SHORTEST), ..plain };
        assert_eq!((beats.lease().as_secs(), beats.grace(grace)), (90, Duration::ZERO));
        assert_eq!(beats.end_reason(), EndReason::Abandoned);
        let slow = Term { heartbeat: Some(Heartbeat::LONGEST), ..plain };
        assert_eq!(slow.lease().as_secs(), 3_600, "no longer than the hours");
    }
}
