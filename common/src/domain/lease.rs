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
/// The two seconds are how far a clock may be off by which a process still works ([`MAX_SKEW_MS`](crate::clock::MAX_SKEW_MS));
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
        None if ask.key_is_explicit && lease.fingerprint != ask.fingerprint => LeaseVerdict::KeyReused,
        None => LeaseVerdict::Existing(lease.grant.clone()),
        Some(end) if mine || ask.times.enqueued_at <= end.fence => LeaseVerdict::Superseded,
        Some(_) => LeaseVerdict::Free,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::MAX_SKEW_MS;
    use crate::domain::Times;
    use crate::entropy::Entropy;

    fn key() -> LeaseKey {
        LeaseKey { track: TrackId::new("t").unwrap(), key: IdempotencyKey::new("t").unwrap() }
    }

    /// A lease that a mark enqueued at `marked` ended.
    fn marked(entropy: &Entropy, marked: Timestamp) -> Lease {
        Lease {
            key: key(),
            request_id: entropy.request_id(marked),
            allocation_id: entropy.allocation_id(),
            fingerprint: Fingerprint::of([]),
            grant: Grant {
                sandbox_id: SandboxId::new("s").unwrap(),
                name: SandboxName::new("s").unwrap(),
                external_id: ExternalId::new("s").unwrap(),
                track_name: None,
                allocated_at: Timestamp::from_secs(1),
                expires_at: Timestamp::from_secs(1_000_000),
            },
            end: Some(LeaseEnd::by_request(EndReason::Marked, marked, marked)),
        }
    }

    fn ask(entropy: &Entropy, enqueued_at: Timestamp) -> AllocateRequest {
        let deadline = enqueued_at.plus(Duration::from_secs(60));
        AllocateRequest {
            request_id: entropy.request_id(enqueued_at),
            lease_key: key(),
            key_is_explicit: false,
            fingerprint: Fingerprint::of([]),
            track_name: None,
            prefix: None,
            lab_duration_hours: 1,
            asynchronous: false,
            times: Times { enqueued_at, reply_by: deadline, deadline },
        }
    }

    /// How far off a trusted clock is: the extremes are what the margin is about.
    fn any_skew() -> impl Strategy<Value = i64> {
        prop_oneof![Just(-MAX_SKEW_MS), Just(MAX_SKEW_MS), -MAX_SKEW_MS..=MAX_SKEW_MS]
    }

    proptest! {
        #[test]
        fn two_trusted_clocks_cost_a_repeat_at_most_and_an_old_copy_never_claims(
            skew_of_mark in any_skew(),
            skew_of_ask in any_skew(),
            later_ms in -8_000_i64..8_000,
        ) {
            let (entropy, margin) = (Entropy::seeded(1), 2_000);
            let at = |ms: i64| Timestamp::from_secs(100).plus(Duration::from_millis(ms.unsigned_abs()));
            // The mark at 30 s of true time, the allocate so much later (or earlier), each by its own clock.
            let lease = marked(&entropy, at(30_000 + skew_of_mark));
            let ask = ask(&entropy, at(30_000 + later_ms + skew_of_ask));
            let verdict = judge(Some(&lease), &ask, at(60_000));
            if later_ms > 2 * MAX_SKEW_MS - margin {
                prop_assert_eq!(verdict, LeaseVerdict::Free);
            } else if later_ms < -(2 * MAX_SKEW_MS + margin) {
                prop_assert_eq!(verdict, LeaseVerdict::Superseded);
            } else {
                prop_assert!(matches!(verdict, LeaseVerdict::Free | LeaseVerdict::Superseded));
            }
        }
    }
}
