//! Requests to the broker, their times, and the records of asynchronous ones.

use super::waiting::Line;
use super::{
    Fingerprint, Heartbeat, IdempotencyKey, LabDuration, LeaseKey, NamePrefix, Outcome, RequestId, SandboxId,
    TenantName, Term, Timestamp, TrackId, TrackName,
};

/// The times of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the API enqueued it. Kept through redelivery and replay: it fences a late duplicate.
    pub enqueued_at: Timestamp,
    /// Until when a caller waits for the reply; a later outcome is stored by the worker.
    pub reply_by: Timestamp,
    /// The deadline: a worker does not claim after it, because the caller has left.
    pub deadline: Timestamp,
}

/// A request for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateRequest {
    /// Its id.
    pub request_id: RequestId,
    /// The track and the key.
    pub lease_key: LeaseKey,
    /// Whether the client chose the key; a defaulted one is never "reused".
    pub key_is_explicit: bool,
    /// The digest of its parameters.
    pub fingerprint: Fingerprint,
    /// The lab.
    pub track_name: Option<TrackName>,
    /// Accepts only sandboxes whose name begins with this.
    pub prefix: Option<NamePrefix>,
    /// How long the sandbox is wanted; with a heartbeat, the longest that it is kept by it.
    pub lab_duration: LabDuration,
    /// How often its owner will say that it lives, if it does.
    pub heartbeat: Option<Heartbeat>,
    /// Whether it waits in a line when nothing is there for it, until its deadline.
    pub may_wait: bool,
    /// Whether its tenant had a limit when it was made: only a worker that knows permits may claim for it.
    pub limited: bool,
    /// Whose token it came with; a message of an older program does not say.
    pub tenant: Option<TenantName>,
    /// Whether no call waits for the reply, and the outcome is stored in the same write as the claim.
    pub asynchronous: bool,
    /// Its times.
    pub times: Times,
}

impl AllocateRequest {
    /// Whether it is recorded before it is sent, and claimed only while its record is queued: so it can be cancelled.
    pub const fn is_recorded(&self) -> bool {
        self.asynchronous || self.may_wait
    }

    /// For how long the lease is wanted.
    pub const fn term(&self) -> Term {
        Term { hours: Some(self.lab_duration), heartbeat: self.heartbeat }
    }
}

/// An owner's request to return a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnRequest {
    /// Its id.
    pub request_id: RequestId,
    /// The track that returns it.
    pub track: TrackId,
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// Its times.
    pub times: Times,
}

impl ReturnRequest {
    /// The last second in which the allocation that it ends may have been made. Both are whole seconds of corrected clocks;
    /// the two seconds are the difference that may remain.
    pub const fn claimed_by(&self) -> Timestamp {
        Timestamp::from_secs(self.times.enqueued_at.as_secs() + 2)
    }

    /// The lease that it ends, if the owner allocated without a key.
    pub fn default_lease_key(&self) -> LeaseKey {
        LeaseKey { track: self.track.clone(), key: IdempotencyKey::from(&self.track) }
    }
}

/// The state of a recorded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// Accepted, not ended.
    Queued,
    /// Ended; never changes again.
    Ended(Outcome),
}

impl RequestState {
    /// The word in the API and the table: `queued`, `succeeded`, `failed`, `expired`, `cancelled`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Ended(outcome) => match outcome {
                Outcome::Created(_) | Outcome::Existing(_) | Outcome::Marked { .. } => "succeeded",
                Outcome::Ran(report) if report.aborted.is_none() => "succeeded",
                Outcome::Expired => "expired",
                Outcome::Cancelled => "cancelled",
                Outcome::NoSandboxes
                | Outcome::QuotaExceeded(_)
                | Outcome::KeyReused
                | Outcome::Superseded
                | Outcome::NotOwner
                | Outcome::AllocationExpired
                | Outcome::SandboxNotFound
                | Outcome::Ran(_)
                | Outcome::DeadLettered { .. } => "failed",
                Outcome::Unknown(_) => "unknown",
            },
        }
    }
}

/// What a recorded request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An allocation: the lease of this key.
    Allocate(LeaseKey),
    /// A return: this sandbox.
    Return(SandboxId),
}

/// The record of a request whose caller does not wait (any more).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistedRequest {
    /// Its id.
    pub request_id: RequestId,
    /// The track that made it; only that track may see it.
    pub track: TrackId,
    /// What it is about.
    pub subject: Subject,
    /// Whether no call ever waited (`respond-async`). Only its claim is conditional on this record, so only it can be
    /// cancelled.
    pub asynchronous: bool,
    /// The queued message, to be sent again if the queue is lost. Stored only while the request is queued.
    pub message: Option<String>,
    /// Its state.
    pub state: RequestState,
    /// The line in which it is parked, if it is: a fact, and no state.
    pub parked: Option<Line>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it becomes `expired` unless it ended before.
    pub deadline: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::super::samples::{lease, sandbox_id};
    use super::super::{FlavourName, Job, JobReport, Quota, Status, Task};
    use super::*;

    #[test]
    fn every_outcome_has_its_word_and_every_request_where_it_stands() {
        let grant = lease(1, None).grant;
        let report = JobReport::new(&Task::from(Job::Sync));
        let aborted = JobReport { aborted: Some("why".to_owned()), ..report.clone() };
        let quota = Quota { flavour: FlavourName::new("small").unwrap(), held: 2, max: 2 };
        let marked = |status| Outcome::Marked {
            sandbox_id: sandbox_id(1),
            deletion_requested_at: Timestamp::from_secs(1),
            status,
        };
        let all = [
            (Outcome::Created(grant.clone()), "created", "succeeded"),
            (Outcome::Existing(grant), "existing", "succeeded"),
            (marked(Status::PendingDeletion), "marked", "succeeded"),
            (marked(Status::Quarantined), "marked", "succeeded"),
            (Outcome::Ran(report), "ran", "succeeded"),
            (Outcome::Ran(aborted), "ran", "failed"),
            (Outcome::NoSandboxes, "no_sandboxes", "failed"),
            (Outcome::QuotaExceeded(quota), "quota_exceeded", "failed"),
            (Outcome::KeyReused, "key_reused", "failed"),
            (Outcome::Superseded, "superseded", "failed"),
            (Outcome::NotOwner, "not_owner", "failed"),
            (Outcome::AllocationExpired, "allocation_expired", "failed"),
            (Outcome::SandboxNotFound, "sandbox_not_found", "failed"),
            (Outcome::DeadLettered { reason: "poison".to_owned() }, "dead_lettered", "failed"),
            (Outcome::Expired, "expired", "expired"),
            (Outcome::Cancelled, "cancelled", "cancelled"),
        ];
        for (outcome, word, state) in all {
            assert_eq!(outcome.as_str(), word);
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome);
            assert_eq!(RequestState::Ended(outcome).as_str(), state, "{word}");
        }
        assert_eq!(RequestState::Queued.as_str(), "queued");
    }
}
