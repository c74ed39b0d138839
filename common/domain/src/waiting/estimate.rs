//! Estimate: in how many seconds a place may be served, by how many places of its flavour were lately.
//!
//! Each worker counts what it grants ([`RecentGrants`]) and says with its heartbeats what it granted of each flavour in the
//! last ten minutes ([`Granted`]). An API divides how many are served before a place, and it, by the rate of all of them. About right: a line
//! that was empty for a while, a tenant that joins, and what is cancelled all change it. Where nothing was granted lately, nothing
//! is known.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Line, Marks};
use crate::{RequestId, TenantName, Timestamp};

/// How many minutes are lately.
const MINUTES: u64 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// What was granted of each flavour lately, by its name.
pub type Granted = BTreeMap<String, GrantCount>;

/// How many places of a flavour were granted, and since when that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantCount {
    /// How many.
    pub count: u64,
    /// When the minute of the first of them began.
    pub since: Timestamp,
}

/// What one process granted in the last minutes.
#[derive(Clone, Debug, Default)]
pub struct RecentGrants {
    /// The minutes since the epoch in which something was granted, the oldest first.
    minutes: VecDeque<(u64, BTreeMap<String, u64>)>,
}

impl RecentGrants {
    /// Counts a grant of `flavour`.
    pub fn add(&mut self, flavour: &str, now: Timestamp) {
        let minute = minute_of(now);
        // A clock that was set back counts on in the last minute.
        if self.minutes.back().is_none_or(|(last, _)| *last < minute) {
            self.minutes.push_back((minute, BTreeMap::new()));
        }
        if let Some((_, counts)) = self.minutes.back_mut() {
            *counts.entry(flavour.to_owned()).or_default() += 1;
        }
        self.forget(now);
    }

    /// What was granted lately.
    pub fn lately(&mut self, now: Timestamp) -> Granted {
        self.forget(now);
        let mut granted = Granted::new();
        for (minute, counts) in &self.minutes {
            let since = Timestamp::from_secs(minute * MINUTE.as_secs());
            for (flavour, count) in counts {
                granted.entry(flavour.clone()).or_insert(GrantCount { count: 0, since }).count += count;
            }
        }
        granted
    }

    fn forget(&mut self, now: Timestamp) {
        let oldest = minute_of(now).saturating_sub(MINUTES);
        while self.minutes.front().is_some_and(|(minute, _)| *minute < oldest) {
            self.minutes.pop_front();
        }
    }
}

fn minute_of(at: Timestamp) -> u64 {
    at.as_secs() / MINUTE.as_secs()
}

/// How fast places of a flavour are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantRate {
    /// So many were granted,
    pub granted: u64,
    /// within this time.
    pub within: Duration,
}

impl GrantRate {
    /// The rate at `now` of `flavour`, or of all flavours, by what processes `said` lately; `None` if nothing is known.
    pub fn of<'s>(
        said: impl IntoIterator<Item = &'s Granted>,
        flavour: Option<&str>,
        now: Timestamp,
    ) -> Option<Self> {
        let counts = said.into_iter().flatten().filter(|(name, _)| flavour.is_none_or(|of| of == *name));
        let all = counts.map(|(_, count)| *count).reduce(|all, one| GrantCount {
            count: all.count + one.count,
            since: all.since.min(one.since),
        })?;
        (all.count > 0).then(|| Self { granted: all.count, within: now.since(all.since).max(MINUTE) })
    }

    /// In how many seconds so many more are granted, rounded up.
    pub fn seconds_for(self, grants: u64) -> u64 {
        self.within.as_secs().saturating_mul(grants).div_ceil(self.granted.max(1))
    }
}

/// A line as its last walk found it.
#[derive(Clone, Copy, Debug)]
pub struct WalkedLine<'l> {
    /// The line.
    pub line: &'l Line,
    /// What the walk found.
    pub marks: &'l Marks,
    /// When that was.
    pub as_of: Timestamp,
    /// The share of its tenant beside others; at least 1.
    pub weight: u32,
}

/// How many grants it takes until the place of `id` in `own` is served, with its own: those of its tenant that asked
/// before, and of each other tenant as many as its share is meanwhile. `lines` are all that are listed; those count that a sandbox can
/// fit beside it.
pub fn grants_until_served(id: RequestId, own: &Line, lines: &[WalkedLine<'_>]) -> u64 {
    let prefix = |line: &Line| line.prefix.as_ref().map_or("", |prefix| prefix.as_str()).to_owned();
    let wanted = prefix(own);
    let beside = |line: &Line| {
        let other = prefix(line);
        other.starts_with(&wanted) || wanted.starts_with(&other)
    };
    let (mut ahead, mut weight) = (0, 1);
    let mut others: BTreeMap<&TenantName, (u64, u64)> = BTreeMap::new();
    for walked in lines.iter().filter(|walked| beside(walked.line)) {
        let share = u64::from(walked.weight.max(1));
        if walked.line.tenant != own.tenant {
            let (length, of) = others.entry(&walked.line.tenant).or_default();
            (*length, *of) = (*length + walked.marks.length, share);
            continue;
        }
        weight = share;
        if walked.marks.length > 0 {
            ahead += walked.marks.standing(id, walked.as_of).ahead;
        }
    }
    let turns = ahead / weight + 1;
    ahead + 1 + others.values().map(|(length, share)| (turns * share).min(*length)).sum::<u64>()
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
