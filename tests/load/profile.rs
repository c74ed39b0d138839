//! The profiles: who asks for what, and what must come of it.

use std::collections::BTreeMap;
use std::fmt;

use broker_tests::cli::Stats;
use clap::ValueEnum;

use crate::Arguments;

/// Which users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Allocate, repeat, look, give back; short enough for every change.
    Smoke,
    /// More tracks than sandboxes.
    Stress,
    /// Labs full of students.
    MultiStudent,
}

impl Profile {
    /// The k6 script, as it is called.
    pub(crate) const fn script(self) -> &'static str {
        match self {
            Self::Smoke => "smoke.js",
            Self::Stress => "stress.js",
            Self::MultiStudent => "multi-student.js",
        }
    }
}

/// A profile with its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) profile: Profile,
    pub(crate) users: u64,
    /// How often each user starts a lab; a duration overrides it.
    pub(crate) rounds: u64,
    pub(crate) pool: u64,
    pub(crate) duration: Option<String>,
    pub(crate) think_time_s: f64,
}

impl Plan {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let (users, rounds, pool) = match arguments.profile {
            Profile::Smoke => (10, 20, 200),
            Profile::Stress => (100, 10, 100),
            Profile::MultiStudent => (50, 3, 200),
        };
        Self {
            profile: arguments.profile,
            users: arguments.users.unwrap_or(users),
            rounds: arguments.rounds.unwrap_or(rounds),
            pool: arguments.pool.unwrap_or(pool),
            duration: arguments.duration.clone(),
            think_time_s: arguments.think_time,
        }
    }

    /// What must come of a run in which `tracks` asked for a sandbox of their own.
    pub(crate) fn promise(&self, tracks: u64) -> Promise {
        let winners = tracks.min(self.pool);
        let answers = |rest: &[(u16, u64)]| {
            let all = [(201, winners), (409, tracks - winners)].into_iter().chain(rest.iter().copied());
            all.filter(|(_, count)| *count > 0).collect()
        };
        let stats = Stats { total: self.pool, available: self.pool - winners, ..Stats::default() };
        match self.profile {
            Profile::Smoke => Promise {
                answers: answers(&[(200, 3 * winners)]),
                winners,
                stats: Stats { pending_deletion: winners, ..stats },
            },
            Profile::Stress | Profile::MultiStudent => Promise {
                answers: answers(&[(200, winners)]),
                winners,
                stats: Stats { allocated: winners, ..stats },
            },
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { profile, users, rounds, pool, think_time_s, .. } = self;
        let length =
            self.duration.as_ref().map_or(format!("{rounds} rounds each"), |time| format!("for {time}"));
        write!(f, "{profile:?}: {users} users, {length}, {pool} sandboxes, think time {think_time_s} s")
    }
}

/// What must be exact after a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Answers by status; no others.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// How many tracks got a sandbox, each another one.
    pub(crate) winners: u64,
    /// The pool afterwards.
    pub(crate) stats: Stats,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(profile: Profile, pool: u64) -> Plan {
        Plan { profile, users: 1, rounds: 1, pool, duration: None, think_time_s: 0.0 }
    }

    #[test]
    fn stress_promises_as_many_winners_as_sandboxes_and_409_for_the_rest() {
        let promise = plan(Profile::Stress, 100).promise(1_000);
        assert_eq!(promise.answers, BTreeMap::from([(200, 100), (201, 100), (409, 900)]));
        assert_eq!(promise.stats, Stats { total: 100, allocated: 100, ..Stats::default() });
    }

    #[test]
    fn a_pool_that_is_large_enough_promises_no_409() {
        let promise = plan(Profile::MultiStudent, 200).promise(150);
        assert_eq!(promise.answers, BTreeMap::from([(200, 150), (201, 150)]));
        assert_eq!(promise.stats.available, 50);
    }
}
