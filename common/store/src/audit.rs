//! Audit records: each operation of an operator, with the operator's name and reason.
//!
//! Invariant: the line is written before the operation, so no operation is without one; a line alone may be of an operation
//! that failed or came too late. The result is in the item, the run or the log; in the line only if nothing else keeps it.

use serde::Serialize;
use uuid::Uuid;

use broker_domain::Timestamp;

/// An operation of an operator.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr, strum::EnumString, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Run a job now; the target is the job.
    RunJob,
    /// Pause a job; its schedule does not start it.
    PauseJob,
    /// Resume a paused job.
    ResumeJob,
    /// End a lease; the target is the sandbox.
    Release,
    /// Extend a lease by some hours.
    Extend,
    /// Make a deletion due now.
    RetryDelete,
    /// Replay dead letters; the target is the selection.
    Replay,
    /// Discard dead letters; the target is the selection.
    Discard,
    /// Pause the pool; the target is the table, as of all that follow.
    PausePool,
    /// Resume the pool.
    ResumePool,
    /// Take over the table of another tool.
    Adopt,
    /// Reconcile a restored table; the count is of the lines.
    Reconcile,
    /// Give the index another number of shards, which is the count.
    Reshard,
    /// Replace the policy; the target is the digest of the new one.
    ApplyPolicy,
    /// Ask for no more sandboxes of a flavour; the target is the flavour.
    PauseRefill,
    /// Ask again.
    ResumeRefill,
    /// Take a sandbox out of the pool; the target is the sandbox, as of the two that follow.
    Quarantine,
    /// Let a sandbox in quarantine go.
    LiftQuarantine,
    /// Have a sandbox in quarantine deleted.
    Retire,
    /// Cancel requests that wait; the target is the selection.
    CancelWaiting,
    /// Reserve sandboxes for a tenant; the target is the reservation, as of the two that follow. The count is of the sandboxes.
    Reserve,
    /// Change a reservation.
    ChangeReservation,
    /// End a reservation.
    DeleteReservation,
    /// An operation of a newer program.
    Unknown,
}

impl Act {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// From the stored word.
    pub(crate) fn from_stored(text: &str) -> Self {
        text.parse().unwrap_or(Self::Unknown)
    }
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditLine {
    /// The time, in milliseconds since the epoch.
    #[serde(rename = "at_ms")]
    pub at: Timestamp,
    /// Distinguishes two operations of one millisecond.
    pub id: Uuid,
    /// The operator: the name of the token; for the command what `--by` says, or `cli`: its caller AWS knows.
    pub who: String,
    /// The operation.
    pub act: Act,
    /// The target: a job, a sandbox.
    pub target: String,
    /// The reason, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// A count or an amount, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The result, as JSON, of a long operation; none while it runs, and never if its process died.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}
