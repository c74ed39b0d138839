//! Reservations: sandboxes that are put aside for one tenant, from a time until a time, or for good.
//!
//! Invariants: a reservation puts each sandbox aside once, so `held` only grows, up to `count`, while it is open, also while
//! claims are made; but a floor puts aside again what its tenant has given back. A reservation that is closed
//! never opens again: whatever is still put aside for it goes back, through `arriving`. Tenant and prefix never change.

mod capacity;
mod outlook;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{NamePrefix, ReservationId, SandboxName, TenantName, Timestamp};

pub use capacity::{Peak, peak};
pub use outlook::{Supply, at_risk};

/// How long before its beginning a reservation puts aside unless it says otherwise.
pub const LEAD: Duration = Duration::from_secs(30 * 60);
/// The longest that it may begin before.
pub const LONGEST_LEAD: Duration = Duration::from_secs(24 * 3_600);
/// The longest that one may last, and the furthest that it may begin.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3_600);
/// The most sandboxes of one reservation.
pub const MOST_SANDBOXES: u32 = 100_000;
/// The most reservations that are open at a time: each look reads them all.
pub const MOST_OPEN: usize = 500;
/// An alert says so long before the beginning that it will not be there in time.
pub const TOLD_BEFORE: Duration = Duration::from_secs(30 * 60);

/// What is reserved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationTerms {
    /// For whom.
    pub tenant: TenantName,
    /// Sandboxes whose names begin so.
    pub prefix: NamePrefix,
    /// How many.
    pub count: u32,
    /// When they are needed; none: from now on.
    pub from: Option<Timestamp>,
    /// Until when; none: without end.
    pub until: Option<Timestamp>,
    /// How long before `from` they are put aside.
    pub lead: Duration,
    /// What is not used so long after `from` goes back; none: it stays until the end.
    pub no_show: Option<Duration>,
}

/// Why a reservation was closed.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::EnumString,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ReservationEnd {
    /// Its time is over.
    Over,
    /// What was not claimed within the no-show time was given back.
    NoShow,
    /// An operator deleted it.
    Deleted,
    /// A reason of a newer program.
    #[serde(other)]
    Unknown,
}

impl ReservationEnd {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// From the stored word.
    pub fn from_stored(text: &str) -> Self {
        text.parse().unwrap_or(Self::Unknown)
    }
}

/// The end of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Closed {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: ReservationEnd,
    /// Whether everything that was put aside has gone back.
    pub cleared: bool,
}

/// A reservation as it is in the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reservation {
    /// Its id.
    pub id: ReservationId,
    /// Raised by every change.
    pub version: u64,
    /// What is reserved.
    pub terms: ReservationTerms,
    /// How many were put aside, whether or not they are claimed since.
    pub held: u32,
    /// When that last changed.
    pub held_at: Timestamp,
    /// When it was made.
    pub made_at: Timestamp,
    /// Who made it.
    pub made_by: String,
    /// Its end.
    pub closed: Option<Closed>,
}

/// Why terms are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTerms(pub String);

impl ReservationTerms {
    /// Whether they can be reserved at `now`.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn check(&self, now: Timestamp) -> Result<(), InvalidTerms> {
        let wrong = |text: String| Err(InvalidTerms(text));
        if !(1..=MOST_SANDBOXES).contains(&self.count) {
            return wrong(format!("count must be a number from 1 to {MOST_SANDBOXES}"));
        }
        if self.lead > LONGEST_LEAD {
            return wrong(format!("lead is at most {} hours", LONGEST_LEAD.as_secs() / 3_600));
        }
        let furthest = now.plus(LONGEST);
        if self.from.is_some_and(|from| from > furthest)
            || self.until.is_some_and(|until| until > furthest.plus(LONGEST))
        {
            return wrong("from is at most 366 days ahead, and until as long after it".to_owned());
        }
        if self.until.is_some_and(|until| until <= now) {
            return wrong("until is over already".to_owned());
        }
        if let (Some(from), Some(until)) = (self.from, self.until)
            && until <= from
        {
            return wrong("until must be later than from".to_owned());
        }
        let Some(no_show) = self.no_show else { return Ok(()) };
        let Some(from) = self.from else {
            return wrong("no_show counts from `from`, which is not given".to_owned());
        };
        if no_show.is_zero() || no_show > LONGEST {
            return wrong("no_show must be a time of a second to 366 days".to_owned());
        }
        if from.plus(no_show) <= now {
            return wrong("from and no_show are over already".to_owned());
        }
        Ok(())
    }

    /// From when on sandboxes are put aside; none: at once.
    pub fn begins_at(&self) -> Option<Timestamp> {
        self.from.map(|from| from.minus(self.lead))
    }

    /// Whether it is kept up for good: what its tenant gave back is put aside again.
    pub const fn is_floor(&self) -> bool {
        self.from.is_none() && self.until.is_none()
    }

    /// Whether sandboxes are put aside at `now`, as long as it is open.
    pub fn has_begun(&self, now: Timestamp) -> bool {
        self.begins_at().is_none_or(|begins| begins <= now)
    }

    /// Whether a sandbox of this name is of use to it.
    pub fn fits(&self, name: &SandboxName) -> bool {
        name.as_str().starts_with(self.prefix.as_str())
    }

    /// Whether some of its sandboxes may have names that begin with `scope`.
    fn is_within(&self, scope: &NamePrefix) -> bool {
        let (one, two) = (self.prefix.as_str(), scope.as_str());
        one.starts_with(two) || two.starts_with(one)
    }

    /// Whether it puts aside at `at`.
    fn covers(&self, at: Timestamp) -> bool {
        self.has_begun(at) && self.until.is_none_or(|until| at < until)
    }
}

impl Reservation {
    /// Whether it may put sandboxes aside, now or later.
    pub const fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// Why it is to be closed at `now`, if it is.
    pub fn end_due(&self, now: Timestamp) -> Option<ReservationEnd> {
        let terms = &self.terms;
        if !self.is_open() {
            None
        } else if terms.until.is_some_and(|until| until <= now) {
            Some(ReservationEnd::Over)
        } else if let (Some(from), Some(no_show)) = (terms.from, terms.no_show)
            && from.plus(no_show) <= now
        {
            Some(ReservationEnd::NoShow)
        } else {
            None
        }
    }

    /// How many are still to be put aside, now or later.
    pub fn missing(&self, now: Timestamp) -> u32 {
        if !self.is_open() || self.end_due(now).is_some() {
            return 0;
        }
        self.terms.count.saturating_sub(self.held)
    }

    /// How many are to be put aside now.
    pub fn short(&self, now: Timestamp) -> u32 {
        if self.terms.has_begun(now) { self.missing(now) } else { 0 }
    }

    /// How many more were put aside than it may have now: its count was lowered, or it was moved to later.
    pub fn surplus(&self, now: Timestamp) -> u32 {
        let may = if self.terms.has_begun(now) { self.terms.count } else { 0 };
        if self.is_open() { self.held.saturating_sub(may) } else { 0 }
    }

    /// From when on new sandboxes are asked for, if what is missing takes so long.
    pub fn asks_from(&self, ready_after: Duration) -> Option<Timestamp> {
        self.terms.begins_at().map(|begins| begins.minus(ready_after))
    }

    /// How many a flavour of `prefix` must have beside those that are kept available, at `now`, if a new sandbox is ready after
    /// `ready_after` and `per_minute` are asked for in a minute.
    pub fn wanted_now(
        &self,
        prefix: &NamePrefix,
        ready_after: Duration,
        per_minute: u32,
        now: Timestamp,
    ) -> u32 {
        if !self.terms.prefix.as_str().starts_with(prefix.as_str()) {
            return 0;
        }
        let missing = self.missing(now);
        let asking = Duration::from_secs(60) * missing / per_minute.max(1);
        let asked = self.asks_from(ready_after + asking).is_none_or(|from| from <= now);
        if asked { missing } else { 0 }
    }

    /// What the name of a sandbox must begin with that is put aside here and is of use to a request for `wanted`; `None` if there
    /// is no such one.
    pub fn of_use_to(&self, wanted: Option<&NamePrefix>) -> Option<NamePrefix> {
        let own = &self.terms.prefix;
        match wanted {
            Some(wanted) if wanted.as_str().starts_with(own.as_str()) => Some(wanted.clone()),
            Some(wanted) if !own.as_str().starts_with(wanted.as_str()) => None,
            Some(_) | None => Some(own.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
