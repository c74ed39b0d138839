//! Questions of the jobs to the table, and its answers.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use broker_domain::{DeadLetterCount, JobReport, Sandbox, Status, Timestamp};

/// What became of a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It was written.
    Done,
    /// The item is not as it was read: somebody else was faster.
    MovedOn,
}

/// Everything the table knows of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub sandbox: Sandbox,
    /// When a job asks for it next: its lease's expiry, the next attempt to delete; since when it is stale.
    pub due: Option<Timestamp>,
    /// How often its deletion failed.
    pub attempts: u64,
    /// Why it failed last.
    pub deletion_error: Option<String>,
    /// When it became a tombstone.
    pub deleted_at: Option<Timestamp>,
    /// When it entered the pool.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// When sync wrote it last.
    pub last_synced: Option<Timestamp>,
}

/// Whether an insert found its place free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is in the pool.
    New,
    /// This stands there.
    Stands(Box<Record>),
}

/// The tick of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// When the job is due.
    pub next_run_at: Timestamp,
    /// Until when a worker is about to send it.
    pub taken_until: Option<Timestamp>,
    /// Since when it is paused, if it is.
    pub paused_at: Option<Timestamp>,
    /// Whatever a scheduler outside sent up to then, by SQS's clock, has had its run.
    pub ran_for: Option<Timestamp>,
}

impl Tick {
    /// Whether the run that a scheduler outside asked for at `fired_at` was made: by that message, by another copy of it,
    /// or by a later run.
    pub fn has_run_for(&self, fired_at: Timestamp) -> bool {
        self.ran_for.is_some_and(|ran_for| ran_for >= fired_at)
    }

    /// Whether a worker may take it at `now`.
    pub fn is_free(&self, now: Timestamp) -> bool {
        self.paused_at.is_none()
            && self.next_run_at <= now
            && self.taken_until.is_none_or(|until| until <= now)
    }
}

/// Whether the pool may be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolStatus {
    /// It may.
    Open,
    /// An operator keeps the workers from it.
    Paused {
        /// Since then.
        since: Timestamp,
    },
    /// It was restored from another table: what was handed out since is not known here.
    RestoredCopy {
        /// That table's name.
        of: String,
    },
}

/// How many sandboxes there are in each state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// By state, all of them.
    pub by_status: BTreeMap<Status, u64>,
    /// Dead letters that want something of the operator.
    pub letters: DeadLetterCount,
    /// When the counting began.
    pub as_of: Timestamp,
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has a reply queue of its id.
    Api,
    /// It has none.
    Worker,
}

impl Role {
    /// As it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
        }
    }

    /// From what is stored.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Api, Self::Worker].into_iter().find(|role| role.as_str() == text)
    }
}

/// A process that said it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id; of an API, also its reply queue's.
    pub id: Uuid,
    /// What it is.
    pub role: Role,
    /// When it said so last.
    pub heartbeat: Timestamp,
    /// What it received of late; an API has none.
    pub received: Received,
}

/// The age of the oldest message of each queue that a worker received since its heartbeat before, if one came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Of the requests queue.
    pub requests: Option<Duration>,
    /// Of the maintenance queue.
    pub maintenance: Option<Duration>,
}

/// A run of a job that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which job.
    pub job: String,
    /// What it did, once it ended.
    pub report: Option<JobReport>,
    /// When it was asked for.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_reads_back_as_it_is_stored() {
        assert_eq!((Role::Api.as_str(), Role::Worker.as_str()), ("api", "worker"));
        assert_eq!((Role::parse("api"), Role::parse("worker")), (Some(Role::Api), Some(Role::Worker)));
        assert_eq!(Role::parse("broker"), None);
    }

    #[test]
    fn a_census_shows_every_state_and_their_sum() {
        let census = Census {
            by_status: [(Status::Available, 3), (Status::Stale, 2)].into(),
            letters: DeadLetterCount::default(),
            as_of: Timestamp::from_secs(1),
        };
        let shown = census.shown();
        assert_eq!(shown.len(), Status::ALL.len() + 1);
        assert_eq!((shown["available"], shown["stale"], shown["deleted"], shown["total"]), (3, 2, 0, 5));
    }
}
