//! What is asked of the broker, and what becomes of it.

use super::{
    Fingerprint, LeaseKey, NamePrefix, Outcome, RequestId, SandboxId, Timestamp, TrackId, TrackName,
};

/// When a request was made and until when it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the API enqueued it. Kept through redelivery and replay: it is what fences a late duplicate.
    pub enqueued_at: Timestamp,
    /// Until then a caller waits for the reply; later outcomes are stored by whoever finds them.
    pub reply_by: Timestamp,
    /// After this a worker does not claim: the caller left.
    pub deadline: Timestamp,
}

/// A request for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateRequest {
    /// Its id.
    pub request_id: RequestId,
    /// Who asks, under which key.
    pub lease_key: LeaseKey,
    /// Whether the client chose the key; a defaulted one is never "reused".
    pub key_is_explicit: bool,
    /// What it asks for, as one digest.
    pub fingerprint: Fingerprint,
    /// The lab.
    pub track_name: Option<TrackName>,
    /// Only sandboxes whose name begins so.
    pub prefix: Option<NamePrefix>,
    /// How long the sandbox is wanted, 1 to 168.
    pub lab_duration_hours: u16,
    /// Whether nobody waits, and the outcome is stored in the same write as the claim.
    pub asynchronous: bool,
    /// When it was made and until when it matters.
    pub times: Times,
}

/// An owner's request to take his sandbox back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRequest {
    /// Its id.
    pub request_id: RequestId,
    /// Who says so.
    pub track: TrackId,
    /// Of which sandbox.
    pub sandbox_id: SandboxId,
    /// When it was made and until when it matters.
    pub times: Times,
}

/// Where a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// Accepted, not yet ended.
    Queued,
    /// Ended; never changes again.
    Ended(Outcome),
}

impl RequestState {
    /// The word for it in the API and the table: `queued`, `succeeded`, `failed`, `expired`, `cancelled`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Ended(outcome) => match outcome {
                Outcome::Created(_) | Outcome::Existing(_) | Outcome::Marked { .. } => "succeeded",
                Outcome::Ran(report) if report.aborted.is_none() => "succeeded",
                Outcome::Expired => "expired",
                Outcome::Cancelled => "cancelled",
                Outcome::NoSandboxes
                | Outcome::KeyReused
                | Outcome::Superseded
                | Outcome::NotOwner
                | Outcome::AllocationExpired
                | Outcome::SandboxNotFound
                | Outcome::Ran(_)
                | Outcome::DeadLettered { .. } => "failed",
            },
        }
    }
}

/// The record of a request whose caller does not wait (any more).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistedRequest {
    /// Its id.
    pub request_id: RequestId,
    /// Whose it is; nobody else may see it.
    pub track: TrackId,
    /// The lease it is about; none for a mark.
    pub lease_key: Option<LeaseKey>,
    /// The sandbox it is about; only for a mark.
    pub sandbox_id: Option<SandboxId>,
    /// Whether nobody ever waited (`respond-async`). Only its claim is conditional on this record, so only it can be
    /// cancelled.
    pub asynchronous: bool,
    /// What lies in the queue for it, to be sent again if the queue is lost. Stored only while it is queued.
    pub message: Option<String>,
    /// Where it stands.
    pub state: RequestState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is `expired` unless it ended before.
    pub deadline: Timestamp,
}
