//! Profiles of load, and their expected results.

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
    /// An ordinary morning.
    Load,
    /// More tracks than sandboxes.
    Stress,
    /// More and more users, then fewer.
    Staged,
    /// Everybody at once, out of a quiet time.
    Spike,
    /// Labs full of students.
    MultiStudent,
}

/// From 100 to 500 to 1,000 users, and home again.
const STAGED: &[Stage] = &[
    Stage { seconds: 10, users: 100 },
    Stage { seconds: 20, users: 100 },
    Stage { seconds: 20, users: 500 },
    Stage { seconds: 20, users: 500 },
    Stage { seconds: 20, users: 1_000 },
    Stage { seconds: 40, users: 1_000 },
    Stage { seconds: 20, users: 0 },
];
/// A thousand within a second, among twenty.
const SPIKE: &[Stage] = &[
    Stage { seconds: 1, users: 20 },
    Stage { seconds: 14, users: 20 },
    Stage { seconds: 1, users: 1_000 },
    Stage { seconds: 20, users: 1_000 },
    Stage { seconds: 4, users: 20 },
    Stage { seconds: 10, users: 20 },
];

/// A time in which the number of users changes evenly to that of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) seconds: u64,
    users: u64,
}

impl Stage {
    /// The users at its end, of a thousand as it is written, of `users` as it is played.
    pub(crate) const fn of(self, users: u64) -> u64 {
        (self.users * users).div_ceil(1_000)
    }
}

/// How long a run goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many labs for each user.
    Rounds(u64),
    /// A time, in k6's syntax.
    For(String),
    /// With more and with fewer users.
    Stages(&'static [Stage]),
}

impl Profile {
    /// The k6 script, as it is called.
    pub(crate) const fn script(self) -> &'static str {
        match self {
            Self::Smoke | Self::Load | Self::Staged | Self::Spike => "lab.js",
            Self::Stress => "stress.js",
            Self::MultiStudent => "multi-student.js",
        }
    }

    fn length(self) -> Length {
        match self {
            Self::Smoke => Length::Rounds(20),
            Self::Load => Length::For("60s".to_owned()),
            Self::Stress => Length::Rounds(10),
            Self::Staged => Length::Stages(STAGED),
            Self::Spike => Length::Stages(SPIKE),
            Self::MultiStudent => Length::Rounds(3),
        }
    }

    /// Users, sandboxes, seconds of thinking.
    const fn numbers(self) -> (u64, u64, f64) {
        match self {
            Self::Smoke => (10, 200, 0.0),
            Self::Load => (100, 10_000, 1.0),
            Self::Stress => (100, 100, 0.0),
            Self::Staged => (1_000, 25_000, 5.0),
            Self::Spike => (1_000, 10_000, 5.0),
            Self::MultiStudent => (50, 200, 0.0),
        }
    }
}

/// A profile with its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) profile: Profile,
    /// At a time, where they are most.
    pub(crate) users: u64,
    pub(crate) length: Length,
    pub(crate) pool: u64,
    pub(crate) think_time_s: f64,
}

impl Plan {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let profile = arguments.profile;
        let (users, pool, think_time_s) = profile.numbers();
        let rounds = arguments.rounds.map(Length::Rounds);
        let duration = arguments.duration.clone().map(Length::For);
        Self {
            profile,
            users: arguments.users.unwrap_or(users),
            length: duration.or(rounds).unwrap_or_else(|| profile.length()),
            pool: arguments.pool.unwrap_or(pool),
            think_time_s: arguments.think_time.unwrap_or(think_time_s),
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
            Profile::Smoke | Profile::Load | Profile::Staged | Profile::Spike => Promise {
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
        let Self { profile, users, length, pool, think_time_s } = self;
        let length = match length {
            Length::Rounds(rounds) => format!("{rounds} rounds each"),
            Length::For(time) => format!("for {time}"),
            Length::Stages(stages) => {
                let stage = |stage: &Stage| format!("{} after {} s", stage.of(*users), stage.seconds);
                stages.iter().map(stage).collect::<Vec<_>>().join(", ")
            }
        };
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
        Plan { profile, users: 1, length: Length::Rounds(1), pool, think_time_s: 0.0 }
    }

    #[test]
    fn stress_promises_as_many_winners_as_sandboxes_and_409_for_the_rest() {
        let promise = plan(Profile::Stress, 100).promise(1_000);
        assert_eq!(promise.answers, BTreeMap::from([(200, 100), (201, 100), (409, 900)]));
        assert_eq!(promise.stats, Stats { total: 100, allocated: 100, ..Stats::default() });
    }

    #[test]
    fn stages_are_played_with_as_many_users_as_there_are() {
        let users = |of: u64| STAGED.iter().map(|stage| stage.of(of)).collect::<Vec<_>>();
        assert_eq!(users(1_000), [100, 100, 500, 500, 1_000, 1_000, 0]);
        assert_eq!(users(10), [1, 1, 5, 5, 10, 10, 0]);
    }

    #[test]
    fn a_pool_that_is_large_enough_promises_no_409() {
        let promise = plan(Profile::MultiStudent, 200).promise(150);
        assert_eq!(promise.answers, BTreeMap::from([(200, 150), (201, 150)]));
        assert_eq!(promise.stats.available, 50);
    }
}
