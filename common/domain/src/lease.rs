//! The lease: the record that ties one (track, idempotency key) to one live sandbox.
//!
//! Invariant: at most one live lease per key. [`judge`] alone decides what an allocate request may do with the lease of
//! its key; the store's condition on the lease lets a claim through exactly where the verdict is [`LeaseVerdict::Free`].
//! Checked exhaustively: ARCHITECTURE.md, "What was model-checked".

use std::time::Duration;

use super::{
    AllocateRequest, Allocation, AllocationId, EndReason, Fingerprint, Grant, LeaseKey, MAX_SKEW_MS, Permit,
    RequestId, TenantName, Term, Timestamp,
};

/// The margin between an end and its fence: requests enqueued earlier than that may not claim any more.
///
/// The two seconds are the bound of a trusted clock's error ([`MAX_SKEW_MS`](crate::MAX_SKEW_MS)); two such clocks may be
/// four apart. One bound is enough, because neither side of the margin carries a promise. Too narrow: a request made
/// within those two seconds after the end is [`Superseded`](LeaseVerdict::Superseded); its caller gets a 503 with
/// `Retry-After: 1`, and its third repeat claims at the latest. Too wide: a late copy of a request that was made up to
/// margin + 4 s before the end may claim although no caller waits, and its sandbox is lost until it expires. The second
/// costs a sandbox, the first a second, and clocks that are compared with AWS at every response are within its one second
/// of each other. That a key never holds two sandboxes does not depend on the margin.
const FENCE_MARGIN: Duration = Duration::from_secs(2);

/// How long after its end a lease may be ended by its owner's next allocate: as far as a clock may be off, so that no worker
/// whose clock is ahead ends one that its owner still has.
const OWN_EXPIRY_MARGIN: Duration = Duration::from_millis(MAX_SKEW_MS.unsigned_abs());

/// A lease, live or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The owner and the owner's key.
    pub key: LeaseKey,
    /// The request that claimed.
    pub request_id: RequestId,
    /// The allocation id of the claim.
    pub allocation_id: AllocationId,
    /// The fingerprint of that request.
    pub fingerprint: Fingerprint,
    /// The sandbox.
    pub grant: Grant,
    /// For how long it is wanted, as far as the lease says.
    pub term: Term,
    /// Whose token it was asked for with; a lease of an older program does not say.
    pub tenant: Option<TenantName>,
    /// The permit that it holds while it is live, if its tenant was limited when it was claimed.
    pub permit: Option<Permit>,
    /// Set once, when the lease ends.
    pub end: Option<LeaseEnd>,
}

impl Lease {
    /// The allocation that it stands for.
    pub fn allocation(&self) -> Allocation {
        Allocation {
            id: self.allocation_id,
            lease_key: self.key.clone(),
            track_name: self.grant.track_name.clone(),
            allocated_at: self.grant.allocated_at,
            expires_at: self.grant.expires_at,
            permit: self.permit.clone(),
        }
    }

    /// From when on an allocate of its owner may end it.
    pub fn ends_for_owner_at(&self) -> Timestamp {
        self.grant.expires_at.plus(OWN_EXPIRY_MARGIN)
    }
}

/// The latest expiry of a lease that an allocate of its owner may end at `now`.
pub fn overdue_for_owner(now: Timestamp) -> Timestamp {
    now.minus(OWN_EXPIRY_MARGIN)
}

/// How a lease ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseEnd {
    /// When.
    pub at: Timestamp,
    /// The reason.
    pub reason: EndReason,
    /// The fence: requests of the key enqueued at or before this instant may never claim.
    pub fence: Timestamp,
}

impl LeaseEnd {
    /// The end of a lease that runs until `expires_at`, caused by a request that was enqueued at `enqueued_at`: a return or a report
    /// by the owner, or an allocate that found its key's lease past its time. Requests from clearly before it are fenced; the
    /// request itself is not. Nor are those made after `expires_at`: they may take its place since then, and some wait for a
    /// sandbox to do so.
    pub fn by_request(
        reason: EndReason,
        now: Timestamp,
        enqueued_at: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        Self { at: now.floor_to_second(), reason, fence: enqueued_at.min(expires_at).minus(FENCE_MARGIN) }
    }

    /// The same, caused by a job or an operator at `now`.
    pub fn by_broker(reason: EndReason, now: Timestamp, expires_at: Timestamp) -> Self {
        Self::by_request(reason, now, now, expires_at)
    }
}

/// What an allocate request may do with the lease of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseVerdict {
    /// No lease, or one that ended before this request was made: claim.
    Free,
    /// This request has claimed already, and its message or call was repeated: its own success.
    Mine(Grant),
    /// The key holds a live sandbox: return that one.
    Existing(Grant),
    /// The key holds a sandbox whose time is over: another one may take its place, and ends it in the same write.
    PastExpiry(Box<Lease>),
    /// The key holds a live sandbox for a different request.
    KeyReused,
    /// The key's lease ended after this request was made: the request is outdated.
    Superseded,
}

/// The verdict on `lease` for the request `ask`, at `now`.
pub fn judge(lease: Option<&Lease>, ask: &AllocateRequest, now: Timestamp) -> LeaseVerdict {
    let Some(lease) = lease else { return LeaseVerdict::Free };
    let mine = lease.request_id == ask.request_id;
    match &lease.end {
        None if mine => LeaseVerdict::Mine(lease.grant.clone()),
        None if now >= lease.grant.expires_at => LeaseVerdict::PastExpiry(Box::new(lease.clone())),
        None if ask.key_is_explicit && lease.fingerprint.contradicts(&ask.fingerprint) => {
            LeaseVerdict::KeyReused
        }
        None => LeaseVerdict::Existing(lease.grant.clone()),
        Some(end) if mine || ask.times.enqueued_at <= end.fence => LeaseVerdict::Superseded,
        Some(_) => LeaseVerdict::Free,
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "lease_skew_tests.rs"]
mod skew_tests;
