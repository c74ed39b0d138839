//! The maintenance jobs, their tasks and their reports. A job gets no list of work: it finds its own.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::Status;

/// A job that runs on a schedule.
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
    strum::Display,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Compares the pool with the provider's list.
    Sync,
    /// Ends leases past their time.
    Expire,
    /// Plans deletions at the provider.
    Cleanup,
    /// Removes sandboxes that have been stale for long.
    PurgeStale,
    /// Counts the pool.
    Census,
    /// Removes what dead processes left behind.
    Sweep,
    /// Asks for new sandboxes.
    Refill,
    /// Offers what arrived.
    Serve,
}

impl Job {
    /// Every job, in the order in which people read them.
    pub const ALL: [Self; 8] = [
        Self::Sync,
        Self::Expire,
        Self::Cleanup,
        Self::PurgeStale,
        Self::Census,
        Self::Sweep,
        Self::Refill,
        Self::Serve,
    ];

    /// Whether a message starts it, by schedule: what is arriving is served by each worker itself.
    pub const fn is_sent(self) -> bool {
        match self {
            Self::Sync
            | Self::Expire
            | Self::Cleanup
            | Self::PurgeStale
            | Self::Census
            | Self::Sweep
            | Self::Refill => true,
            Self::Serve => false,
        }
    }

    /// As it is stored, shown and parsed.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses the name of a job; a hyphen counts as an underscore.
    pub fn parse(text: &str) -> Option<Self> {
        text.replace('-', "_").parse().ok()
    }
}

/// A job with its options: the body of a request to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case", deny_unknown_fields)]
pub enum Task {
    /// [`Job::Sync`].
    Sync {
        /// Make missing sandboxes stale, however many there are.
        #[serde(default)]
        accept_stale: bool,
    },
    /// [`Job::Expire`].
    Expire,
    /// [`Job::Cleanup`].
    Cleanup,
    /// [`Job::PurgeStale`].
    PurgeStale {
        /// How long a sandbox must have been stale, at most [`LONGEST_STALE_GRACE_HOURS`].
        #[serde(deserialize_with = "stale_grace")]
        grace_period_hours: u32,
    },
    /// [`Job::Census`].
    Census,
    /// [`Job::Sweep`].
    Sweep,
    /// [`Job::Refill`].
    Refill,
    /// [`Job::Serve`].
    Serve,
    /// For operators only: removes records of one state from the table.
    BulkDelete {
        /// `stale` or `deletion_failed`.
        status: Removable,
    },
}

/// A state whose records an operator may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removable {
    /// Removed, as the purge does after a day.
    Stale,
    /// Deletion was given up: the record becomes a tombstone.
    DeletionFailed,
}

impl Removable {
    /// The status of those records.
    pub const fn status(self) -> Status {
        match self {
            Self::Stale => Status::Stale,
            Self::DeletionFailed => Status::DeletionFailed,
        }
    }

    /// Parses an operator's word.
    pub fn parse(text: &str) -> Option<Self> {
        match Status::parse(text)? {
            Status::Stale => Some(Self::Stale),
            Status::DeletionFailed => Some(Self::DeletionFailed),
            Status::Arriving
            | Status::Available
            | Status::Reserved
            | Status::Allocated
            | Status::Quarantined
            | Status::PendingDeletion
            | Status::Deleted
            | Status::Unknown => None,
        }
    }
}

/// The longest that a sandbox may have to have been stale to be purged: a year.
pub const LONGEST_STALE_GRACE_HOURS: u32 = 24 * 366;

fn stale_grace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let hours = u32::deserialize(deserializer)?;
    let fits = hours <= LONGEST_STALE_GRACE_HOURS;
    fits.then_some(hours)
        .ok_or_else(|| D::Error::custom(format!("grace_period_hours is at most {LONGEST_STALE_GRACE_HOURS}")))
}

/// How long a sandbox must have been stale to be purged.
pub const STALE_GRACE_HOURS: u32 = 24;

impl From<Job> for Task {
    fn from(job: Job) -> Self {
        match job {
            Job::Sync => Self::Sync { accept_stale: false },
            Job::Expire => Self::Expire,
            Job::Cleanup => Self::Cleanup,
            Job::PurgeStale => Self::PurgeStale { grace_period_hours: STALE_GRACE_HOURS },
            Job::Census => Self::Census,
            Job::Sweep => Self::Sweep,
            Job::Refill => Self::Refill,
            Job::Serve => Self::Serve,
        }
    }
}

impl Task {
    /// The job that it is a run of; none of what only operators ask for.
    pub fn job(&self) -> Option<Job> {
        Job::ALL.into_iter().find(|job| job.as_str() == self.as_str())
    }

    /// The word in logs and reports.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Sync { .. } => Job::Sync.as_str(),
            Self::Expire => Job::Expire.as_str(),
            Self::Cleanup => Job::Cleanup.as_str(),
            Self::PurgeStale { .. } => Job::PurgeStale.as_str(),
            Self::Census => Job::Census.as_str(),
            Self::Sweep => Job::Sweep.as_str(),
            Self::Refill => Job::Refill.as_str(),
            Self::Serve => Job::Serve.as_str(),
            Self::BulkDelete { .. } => "bulk_delete",
        }
    }
}

/// The task with its options, for the audit.
impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = self.as_str();
        match self {
            Self::Sync { accept_stale: true } => write!(f, "{word} accept_stale"),
            Self::PurgeStale { grace_period_hours } => write!(f, "{word} after {grace_period_hours} h"),
            Self::BulkDelete { status } => write!(f, "{word} {}", status.status()),
            Self::Sync { accept_stale: false }
            | Self::Expire
            | Self::Cleanup
            | Self::Census
            | Self::Sweep
            | Self::Refill
            | Self::Serve => f.write_str(word),
        }
    }
}

/// In the report of a sync: sandboxes that are missing in a list that was not believed.
pub const MISSING_NOT_BELIEVED: &str = "missing_not_believed";

/// This many sandboxes may always be missing in a list that is believed.
pub const FEW_MISSING: u64 = 5;

/// How many of so many available sandboxes may be missing in a list that is believed.
pub fn most_missing(available: u64) -> u64 {
    FEW_MISSING.max(available / 5)
}

/// The report of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// The job.
    pub job: String,
    /// The number of items to work on.
    pub found: u64,
    /// The number of items changed.
    pub changed: u64,
    /// The number of items skipped: another worker was faster, or the item had changed.
    pub skipped: u64,
    /// The number of items that failed; the next run tries them again.
    pub failed: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// What it changed, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, u64>,
    /// The reason why it ended early, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<String>,
    /// Why it left work to a later run, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postponed: Option<String>,
}

impl JobReport {
    /// What is wrong with this run, in words; `None` if it did what it is for.
    pub fn trouble(&self) -> Option<String> {
        let missing = self.details.get(MISSING_NOT_BELIEVED);
        let not_believed = missing.map(|missing| {
            format!(
                "{missing} sandboxes that the provider's list does not have were left: it contradicts itself"
            )
        });
        self.aborted.clone().or(not_believed)
    }

    /// An empty report.
    pub fn new(task: &Task) -> Self {
        Self { job: task.as_str().to_owned(), ..Self::default() }
    }

    /// Adds `count` to the changes of this kind.
    pub fn detail(&mut self, kind: &str, count: u64) {
        if count > 0 {
            *self.details.entry(kind.to_owned()).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_reads_back_as_it_is_stored() {
        for job in Job::ALL {
            assert_eq!(Job::parse(job.as_str()), Some(job));
            assert_eq!(Task::from(job).as_str(), job.as_str());
        }
        assert_eq!(Job::parse("purge-stale"), Some(Job::PurgeStale));
        assert_eq!(Job::parse("make_coffee"), None);
        assert_eq!(Job::PurgeStale.to_string(), "purge_stale");
        let bulk = Task::BulkDelete { status: Removable::Stale };
        assert_eq!(bulk.as_str(), "bulk_delete");
    }

    #[test]
    fn only_what_nobody_can_have_may_be_removed() {
        for status in Status::ALL {
            let removable = match status {
                Status::Stale => Some(Removable::Stale),
                Status::DeletionFailed => Some(Removable::DeletionFailed),
                Status::Arriving
                | Status::Available
                | Status::Reserved
                | Status::Allocated
                | Status::Quarantined
                | Status::PendingDeletion
                | Status::Deleted
                | Status::Unknown => None,
            };
            assert_eq!(Removable::parse(status.as_str()), removable, "{status}");
        }
        assert_eq!(Removable::parse("everything"), None);
    }

    #[test]
    fn a_report_counts_by_kind_and_leaves_out_what_did_not_happen() {
        let mut report = JobReport::new(&Task::Census);
        report.detail("inserted", 2);
        report.detail("inserted", 1);
        report.detail("stale", 0);
        assert_eq!(
            (report.job.as_str(), &report.details),
            ("census", &BTreeMap::from([("inserted".to_owned(), 3)]))
        );
    }

    #[test]
    fn a_task_is_told_with_what_was_chosen() {
        let told = |task: Task| task.to_string();
        assert_eq!(told(Task::Sync { accept_stale: true }), "sync accept_stale");
        assert_eq!(told(Task::Sync { accept_stale: false }), "sync");
        assert_eq!(told(Task::PurgeStale { grace_period_hours: 7 }), "purge_stale after 7 h");
        assert_eq!(
            told(Task::BulkDelete { status: Removable::DeletionFailed }),
            "bulk_delete deletion_failed"
        );
        assert_eq!(told(Task::Census), "census");
    }
}
