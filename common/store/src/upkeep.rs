//! Records and outcomes of the maintenance operations on the table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use broker_domain::policy::{ByCause, ByStatus, ReservedCount};
use broker_domain::waiting::Granted;
use broker_domain::{DeadLetterCount, JobReport, Pause, Quarantine, ReservationId, Sandbox, Timestamp};

/// The full record of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// Its due time: the lease's expiry, the next attempt to delete, since when it is stale.
    pub due: Option<Timestamp>,
    /// Failed attempts to delete it.
    pub attempts: u64,
    /// The last error.
    pub deletion_error: Option<String>,
    /// When it became a tombstone.
    pub deleted_at: Option<Timestamp>,
    /// When it entered the pool.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When sync last wrote it.
    pub last_synced: Option<Timestamp>,
    /// Why it is in quarantine, or was before it was retired.
    pub quarantine: Option<Quarantine>,
    /// The reservation that it is put aside for, or was claimed from.
    pub reserved_for: Option<ReservationId>,
    /// The question to its gate, while it is arriving.
    pub gate: Option<GateQuestion>,
}

/// The question to a gate, whether a sandbox may be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateQuestion {
    /// The same whenever it is asked again.
    pub id: Uuid,
    /// How often it was asked; the one that is under way is counted.
    pub attempts: u32,
}

/// The tick of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// When the job is due.
    pub next_run_at: Timestamp,
    /// Until when a worker has taken it, to send the job's message.
    pub taken_until: Option<Timestamp>,
    /// Who paused it, if it is paused.
    pub paused: Option<Pause>,
    /// All external triggers sent up to then, by SQS's clock, have had their run.
    pub ran_for: Option<Timestamp>,
    /// What was wrong with its last run, if something was.
    pub trouble: Option<Trouble>,
}

/// When the last syncs began that compared a list of the provider, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComparedLists {
    /// The last one.
    pub last: Option<Timestamp>,
    /// The last one whose list did not contradict itself.
    pub last_that_counts_missing: Option<Timestamp>,
}

/// What was wrong with a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When it ended.
    pub at: Timestamp,
    /// Why it ended early, or left undone what it found.
    pub why: String,
}

impl Tick {
    /// Whether the external trigger sent at `fired_at` has had its run: by this message, by a copy, or by a later run. A run of
    /// the future a clock noted that was wrong.
    pub fn has_run_for(&self, fired_at: Timestamp, now: Timestamp) -> bool {
        self.ran_for.is_some_and(|ran_for| ran_for >= fired_at && !ran_for.is_beyond(now, Duration::ZERO))
    }

    /// Whether a worker may take it at `now`: the next run is `every` away at most, and a tick is taken for `taken_for`. What is
    /// further ahead a clock wrote that was wrong: it stops no run.
    pub fn is_free(&self, now: Timestamp, every: Duration, taken_for: Duration) -> bool {
        self.paused.is_none() && !self.next_run_at.is_to_come(now, every) && !self.is_taken(now, taken_for)
    }

    /// Whether a worker has it at `now`: it takes it for `taken_for`.
    pub fn is_taken(&self, now: Timestamp, taken_for: Duration) -> bool {
        self.taken_until.is_some_and(|until| until.is_to_come(now, taken_for))
    }
}

/// The pool status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolStatus {
    /// Workers take messages.
    Open,
    /// An operator paused the pool.
    Paused {
        /// When.
        since: Timestamp,
    },
    /// It was restored, or is being reconciled: what was handed out since is not known here.
    RestoredCopy {
        /// The table that it is bound to.
        of: Binding,
    },
    /// The table has another number of state shards than this process, or is being moved to one.
    OtherShards {
        /// The table's.
        shards: u64,
    },
}

/// As a log says it.
impl fmt::Display for PoolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Paused { since } => write!(f, "paused since {} (seconds since the epoch)", since.as_secs()),
            Self::RestoredCopy { of } => write!(f, "a restored copy of {}, or being reconciled", of.table),
            Self::OtherShards { shards } => write!(f, "the table has {shards} state shards"),
        }
    }
}

/// The table that a pool belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its name.
    pub table: String,
    /// AWS's id of this incarnation of the name, where it is known.
    pub table_id: Option<String>,
}

/// The number of sandboxes in each state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// By state, every state included.
    pub by_status: ByStatus,
    /// By flavour of the policy and by state; what has no flavour is there as `any`. Empty without a policy.
    pub by_flavour: BTreeMap<String, ByStatus>,
    /// What is in quarantine, by what put it there.
    pub by_cause: ByCause,
    /// What was put aside for each reservation, and what of it is claimed.
    pub by_reservation: BTreeMap<ReservationId, ReservedCount>,
    /// Open dead letters.
    pub letters: DeadLetterCount,
    /// When the counting began.
    pub as_of: Timestamp,
}

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// An API; its reply queue has its id.
    Api,
    /// A worker.
    Worker,
    /// A process of a newer program. What it leaves, its own program sweeps.
    Unknown,
}

impl Role {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// From the stored word.
    pub(crate) fn from_stored(text: &str) -> Self {
        text.parse().unwrap_or(Self::Unknown)
    }
}

/// A process with heartbeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id; of an API, also its reply queue's.
    pub id: Uuid,
    /// Its role.
    pub role: Role,
    /// Its last heartbeat.
    pub heartbeat: Timestamp,
    /// The age of what it received recently; an API has none.
    pub received: Received,
    /// How many requests a worker received in a second, on the average since its last heartbeat.
    pub requests_per_s: Option<u64>,
    /// Whether it takes messages now; an API and older workers do not say.
    pub receives: Option<bool>,
    /// When it last saw the queues empty.
    pub seen_empty: SeenEmpty,
    /// What a worker granted lately to those who wait, by flavour.
    pub granted: Granted,
    /// Why a worker does not call the provider, if its breaker is open.
    pub provider_away: Option<ProviderAway>,
    /// Hooks that a worker does not ask, because their breakers are open.
    pub hooks_away: Vec<HookAway>,
}

/// That a worker does not ask a hook: its breaker is not closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookAway {
    /// Which: `gate` or `before_delete`, as the policy calls it.
    pub hook: String,
    /// Since when.
    pub since: Timestamp,
    /// The last failure.
    pub why: String,
}

/// That a worker does not call the provider: its breaker is not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderAway {
    /// Since when.
    pub since: Timestamp,
    /// The last failure.
    pub why: String,
}

/// When a process last saw each queue without a message, if it did. What is in the queue now came later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenEmpty {
    /// The requests queue.
    pub requests: Option<Timestamp>,
    /// The maintenance queue.
    pub maintenance: Option<Timestamp>,
}

/// What a process says of itself with a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelfReport {
    /// What it received since the one before.
    pub received: Received,
    /// Whether it takes messages.
    pub receives: Option<bool>,
    /// When it last saw the queues empty.
    pub seen_empty: SeenEmpty,
    /// What it granted lately to those who wait, by flavour.
    pub granted: Granted,
    /// Why it does not call the provider, if its breaker is open.
    pub provider_away: Option<ProviderAway>,
    /// Hooks that it does not ask, because their breakers are open.
    pub hooks_away: Vec<HookAway>,
}

/// The age of the oldest message of each queue that a worker received since its last heartbeat, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Of the requests queue.
    pub requests: Option<Duration>,
    /// Of the maintenance queue.
    pub maintenance: Option<Duration>,
    /// How many requests there were.
    pub count: u64,
}

impl Received {
    /// How many requests there were in each second of `time`, if there were any.
    pub fn per_s(self, time: Duration) -> Option<u64> {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        (self.count > 0).then(|| self.count.saturating_mul(1_000) / ms)
    }

    /// The oldest of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests.max(other.requests),
            maintenance: self.maintenance.max(other.maintenance),
            count: self.count.saturating_add(other.count),
        }
    }
}

/// What a sweep found without a sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    /// When it looked; `None` if no sweep did yet.
    pub as_of: Option<Timestamp>,
    /// Each by the name of its reply queue, which a worker only has in name: its last heartbeat, if it has an instance.
    pub unseen: BTreeMap<String, Option<Timestamp>>,
}

impl Sightings {
    /// Whether `name` was there without a sign of life, and nothing has changed since.
    pub fn saw(&self, name: &str, heartbeat: Option<Timestamp>) -> bool {
        self.unseen.get(name) == Some(&heartbeat)
    }
}

/// A run of a job that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The job.
    pub job: String,
    /// Its report, once it ended.
    pub report: Option<JobReport>,
    /// When it was requested.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_reads_back_as_it_is_stored() {
        assert_eq!((Role::Api.as_str(), Role::Worker.as_str()), ("api", "worker"));
        assert_eq!((Role::from_stored("api"), Role::from_stored("worker")), (Role::Api, Role::Worker));
        assert_eq!(Role::from_stored("broker"), Role::Unknown);
    }
}
