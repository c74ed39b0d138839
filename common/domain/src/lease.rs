//! The lease: the record that ties one (track, idempotency key) to one live sandbox.
//!
//! Invariant: at most one live lease per key. [`judge`] is the one place that says what an allocate request may make
//! of the lease it finds; the store's condition on the lease lets a claim through exactly where the verdict is
//! [`LeaseVerdict::Free`]. Checked exhaustively in DESIGN.md, "What was model-checked".

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    AllocateRequest, AllocationId, ExternalId, Fingerprint, IdempotencyKey, RequestId, SandboxId,
    SandboxName, Timestamp, TrackId, TrackName,
};

/// How far before an end the fence stands: requests enqueued earlier than that may no longer claim.
///
/// The two seconds are how far a clock may be off by which a process still works ([`MAX_SKEW_MS`](crate::MAX_SKEW_MS));
/// two such clocks may be four apart. That is enough, because neither side of the margin carries a promise. Too narrow: a
/// request made within those two seconds after the end is [`Superseded`](LeaseVerdict::Superseded), so its caller gets a 503
/// with `Retry-After: 1`, and at the latest his third repeat claims. Too wide: a late copy of a request that was made up to
/// margin + 4 s before the end may claim for nobody, and its sandbox is lost until it expires. The second costs a sandbox, the
/// first a second, and clocks that are compared with AWS at every answer are within its one second of each other: so the
/// margin is one clock's bound, not two. That a key never holds two sandboxes does not depend on it.
const FENCE_MARGIN: Duration = Duration::from_secs(2);

/// Whose lease it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseKey {
    /// The owner.
    pub track: TrackId,
    /// The owner's key; the track id if he gave none.
    pub key: IdempotencyKey,
}

/// What an owner is told of his sandbox. Times have second precision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Ours.
    pub sandbox_id: SandboxId,
    /// The provider's name for it.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// The lab it was asked for.
    pub track_name: Option<TrackName>,
    /// When it was claimed.
    pub allocated_at: Timestamp,
    /// When the owner's time is over.
    pub expires_at: Timestamp,
}

/// A lease, live or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is.
    pub key: LeaseKey,
    /// The request that claimed.
    pub request_id: RequestId,
    /// The claim.
    pub allocation_id: AllocationId,
    /// What that request asked for.
    pub fingerprint: Fingerprint,
    /// What it was given.
    pub grant: Grant,
    /// Set once, when the lease ended.
    pub end: Option<LeaseEnd>,
}

/// How a lease ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseEnd {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// Requests of the key enqueued at or before this instant may never claim.
    pub fence: Timestamp,
}

/// Why a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The owner gave the sandbox back.
    Marked,
    /// Its time was over.
    Expired,
    /// The operator took it back.
    Released,
}

impl EndReason {
    /// As it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Marked => "marked",
            Self::Expired => "expired",
            Self::Released => "released",
        }
    }

    /// From what is stored.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Marked, Self::Expired, Self::Released].into_iter().find(|reason| reason.as_str() == text)
    }
}

impl LeaseEnd {
    /// The end that a request enqueued at `enqueued_at` brings about at `now`: a mark by its owner, or an allocate that
    /// found its own old lease past its time. Requests from clearly before it are fenced, it is not.
    pub fn by_request(reason: EndReason, now: Timestamp, enqueued_at: Timestamp) -> Self {
        Self { at: now.floor_to_second(), reason, fence: enqueued_at.minus(FENCE_MARGIN) }
    }

    /// The end that a job or an operator brings about at `now`.
    pub fn by_broker(reason: EndReason, now: Timestamp) -> Self {
        Self { at: now.floor_to_second(), reason, fence: now.minus(FENCE_MARGIN) }
    }
}

/// What an allocate request may make of the lease of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseVerdict {
    /// No lease, or one that ended before this request was made: it may claim.
    Free,
    /// This very request claimed already, and its delivery or call was repeated: its own success.
    Mine(Grant),
    /// The key holds a live sandbox.
    Existing(Grant),
    /// The key holds a sandbox whose time is over: end that lease, then try again.
    PastExpiry(Box<Lease>),
    /// The key holds a live sandbox for a different request.
    KeyReused,
    /// The key moved on after this request was made: nothing is presented as usable.
    Superseded,
}

/// What `ask` may make of `lease`, at `now`.
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
