//! Parameters, outcomes and errors of the table's operations.

use std::collections::BTreeSet;

use broker_domain::waiting::Line;
use broker_domain::{
    AccountRecord, AllocateRequest, AllocationId, ExternalId, Grant, Lease, NamePrefix, Permit, PermitRecord,
    ProviderAttributes, QuarantineCause, RequestId, ReservationId, Sandbox, SandboxId, SandboxName, Status,
    Timestamp,
};

/// Why a call to the table failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another transaction holds an item; nothing was changed. Try again after a jittered moment.
    #[error("another transaction is in progress on the same items")]
    Conflict,
    /// The table did not answer in time; it is unknown whether a write took effect.
    #[error("the table did not answer: {operation}")]
    Unavailable {
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The table does not exist.
    #[error("there is no table {table}: run `broker init`")]
    NoTable {
        /// Its name.
        table: String,
    },
    /// AWS does not accept this process just now: expired credentials, missing rights, a key of KMS that is off. It passes
    /// once it is mended; nothing was changed.
    #[error("AWS does not accept {operation} of this process: {code}")]
    Denied {
        /// Which call.
        operation: &'static str,
        /// AWS's code.
        code: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The table does not take this write. It is final only if the table takes others at the same time
    /// ([`Store::takes_writes`](crate::Store::takes_writes)).
    #[error("the table refuses {operation}")]
    Refused {
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An item that this program did not write so.
    #[error("item {item} has no valid {attribute}")]
    Malformed {
        /// Its partition key.
        item: String,
        /// The wrong attribute.
        attribute: &'static str,
    },
}

impl StoreError {
    /// The word in traces.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Unavailable { .. } => "unavailable",
            Self::NoTable { .. } => "no_table",
            Self::Denied { .. } => "denied",
            Self::Refused { .. } => "refused",
            Self::Malformed { .. } => "malformed",
        }
    }

    /// Whether a later attempt can help.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict | Self::Unavailable { .. } | Self::NoTable { .. } | Self::Denied { .. } => true,
            Self::Refused { .. } | Self::Malformed { .. } => false,
        }
    }
}

/// A sandbox as the index lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The broker's id.
    pub sandbox_id: SandboxId,
    /// The provider's name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// The provider's attributes, if they were read.
    pub attributes: Option<ProviderAttributes>,
    /// The version at which it may be claimed or changed.
    pub version: u64,
}

/// Which sandboxes are listed as candidates: those that are offered to all, or those that are put aside for a reservation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CandidateFilter {
    /// The reservation that they are put aside for.
    pub reservation: Option<ReservationId>,
    /// What their names begin with.
    pub prefix: Option<NamePrefix>,
}

impl CandidateFilter {
    /// What is offered to all.
    pub fn available(prefix: Option<&NamePrefix>) -> Self {
        Self { reservation: None, prefix: prefix.cloned() }
    }

    /// What is put aside for `reservation`.
    pub const fn reserved(reservation: ReservationId, prefix: Option<NamePrefix>) -> Self {
        Self { reservation: Some(reservation), prefix }
    }

    /// Whether a sandbox of this name is meant.
    pub fn fits(&self, name: &SandboxName) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| name.as_str().starts_with(prefix.as_str()))
    }

    /// Their state.
    pub const fn status(&self) -> Status {
        if self.reservation.is_some() { Status::Reserved } else { Status::Available }
    }
}

/// One attempt to claim one candidate for a request.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// The request.
    pub request: &'a AllocateRequest,
    /// The candidate.
    pub candidate: &'a Candidate,
    /// The id of the new allocation.
    pub allocation_id: AllocationId,
    /// The time of the claim.
    pub now: Timestamp,
    /// The state in which the candidate was listed.
    pub listed: Status,
    /// Whether the request stands in a line and it is its turn.
    pub from_line: bool,
    /// The permit that it takes, if the sandbox falls under a limit of its tenant.
    pub permit: Option<&'a Permit>,
}

impl Claim<'_> {
    /// The lease that it makes.
    pub fn lease(&self) -> Lease {
        let (request, candidate) = (self.request, self.candidate);
        Lease {
            key: request.lease_key.clone(),
            request_id: request.request_id,
            allocation_id: self.allocation_id,
            fingerprint: request.fingerprint.clone(),
            grant: Grant {
                sandbox_id: candidate.sandbox_id.clone(),
                name: candidate.name.clone(),
                external_id: candidate.external_id.clone(),
                track_name: request.track_name.clone(),
                allocated_at: self.now.floor_to_second(),
                expires_at: self.expires_at(),
                attributes: candidate.attributes.clone().unwrap_or_default(),
            },
            term: request.term(),
            tenant: request.tenant.clone(),
            permit: self.permit.cloned(),
            end: None,
        }
    }

    /// The expiry of the lease.
    pub(crate) fn expires_at(&self) -> Timestamp {
        self.now.floor_to_second().plus(self.request.term().lease())
    }
}

/// The outcome of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The sandbox and the lease are the request's, and its record (if asynchronous) says so.
    Created(broker_domain::Grant),
    /// The lease's condition failed; this is the existing lease, for [`broker_domain::judge`].
    LeaseStands(Box<Lease>),
    /// The asynchronous request is not queued any more: cancelled, expired or done.
    RequestEnded,
    /// Another claim has the sandbox, or it may not be claimed any more.
    LostCandidate,
    /// The sandbox is not as it was listed, but may be claimed as it is now: it is offered to all, or put aside for this
    /// reservation.
    CandidateChanged(Box<Candidate>, Option<ReservationId>),
    /// Another claim has the permit.
    PermitTaken,
}

/// A sandbox to put into the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSandbox {
    /// The broker's id.
    pub id: SandboxId,
    /// The provider's name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// The provider's attributes, if they are kept and could be read; else those that are stored stay.
    pub attributes: Option<ProviderAttributes>,
}

impl NewSandbox {
    /// The version at which it enters the pool: the moment, so that what was removed and listed again repeats none.
    pub const fn first_version(now: Timestamp) -> u64 {
        now.as_ms()
    }

    /// The version at which it enters in the place of a tombstone: what was read of the old one is void.
    pub fn version_over(tombstone: u64, now: Timestamp) -> u64 {
        Self::first_version(now).max(tombstone + 1)
    }

    /// The same once it has arrived at `version`.
    pub fn arrived(self, version: u64) -> Candidate {
        Candidate {
            sandbox_id: self.id,
            name: self.name,
            external_id: self.external_id,
            attributes: self.attributes,
            version,
        }
    }
}

/// What a scan reads.
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    /// Sandboxes.
    pub sandboxes: Vec<Sandbox>,
    /// Leases, live and ended.
    pub leases: Vec<Lease>,
    /// The permits that are held.
    pub permits: Vec<PermitRecord>,
    /// The records of accounts.
    pub accounts: Vec<AccountRecord>,
    /// Sandboxes whose index keys are not those of their state.
    pub misplaced: Vec<String>,
    /// What put each sandbox into quarantine that is there.
    pub quarantined: Vec<QuarantineCause>,
    /// Arriving sandboxes, and since when each may be admitted.
    pub arriving: Vec<(SandboxId, Timestamp)>,
    /// Sandboxes that are put aside, each with its reservation and version.
    pub reserved: Vec<(ReservationId, SandboxId, u64)>,
    /// Sandboxes that `broker pool seed` made.
    pub seeds: BTreeSet<SandboxId>,
    /// Requests that are queued and parked, each with its line.
    pub parked: Vec<(Line, RequestId)>,
    /// The errors of items that cannot be read.
    pub unreadable: Vec<String>,
    /// The ids of sandboxes among them that `sandboxes` has not.
    pub left_out: Vec<String>,
    /// The errors of tickets of refill that cannot be read: they name no sandbox and no owner.
    pub unreadable_tickets: Vec<String>,
}

#[cfg(test)]
#[path = "outcomes_tests.rs"]
mod tests;
