//! The sandbox and its states.
//!
//! Invariant: a sandbox that was ever handed out is never `available` again; [`Status::next`] has no such transition.
//! The store's conditions bear the names of these transitions.

use serde::{Deserialize, Serialize};

use super::{
    AllocationId, EndReason, ExternalId, IdempotencyKey, LeaseKey, MarkRequest, SandboxId, SandboxName,
    Timestamp, TrackName,
};

/// Where a sandbox stands. See the picture in SPEC.md, "Sandbox states".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// In the pool, to be claimed.
    Available,
    /// In the hands of one owner: a live lease points to it.
    Allocated,
    /// Handed out before, waits for its deletion at the provider.
    PendingDeletion,
    /// Was in the pool; the provider does not list it any more.
    Stale,
    /// Deleting it at the provider failed too often.
    DeletionFailed,
    /// A tombstone: it was handed out and is gone at the provider.
    Deleted,
}

/// What can happen to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A claim won.
    Claim,
    /// Its lease ended: marked, expired or released.
    End,
    /// Sync does not find it at the provider.
    Missing,
    /// Sync finds it at the provider again.
    Found,
    /// The provider deleted it, or knows it no more.
    ProviderDeleted,
    /// Deleting it failed for the last time.
    GiveUp,
    /// A day later, or by the operator.
    Retry,
}

/// An event that must not happen in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is not possible while {status}")]
pub struct InvalidTransition {
    /// The state.
    pub status: Status,
    /// The event.
    pub event: Event,
}

impl Status {
    /// Every state, in the order in which people read them.
    pub const ALL: [Self; 6] = [
        Self::Available,
        Self::Allocated,
        Self::PendingDeletion,
        Self::Stale,
        Self::DeletionFailed,
        Self::Deleted,
    ];

    /// The state after `event`, or that it must not happen now.
    pub fn next(self, event: Event) -> Result<Self, InvalidTransition> {
        use Event::{Claim, End, Found, GiveUp, Missing, ProviderDeleted, Retry};
        use Status::{Allocated, Available, Deleted, DeletionFailed, PendingDeletion, Stale};
        match (self, event) {
            (Available, Claim) => Ok(Allocated),
            (Available, Missing) => Ok(Stale),
            (Available | Stale, Found) => Ok(Available),
            (Stale, Missing) => Ok(Stale),
            (Allocated, End) => Ok(PendingDeletion),
            // Sync only reports an allocated sandbox that vanished: its owner keeps what he was given.
            (Allocated, Found | Missing) => Ok(Allocated),
            (PendingDeletion, Found | Missing) => Ok(PendingDeletion),
            (PendingDeletion, ProviderDeleted) => Ok(Deleted),
            (PendingDeletion, GiveUp) => Ok(DeletionFailed),
            (DeletionFailed, Retry) => Ok(PendingDeletion),
            (DeletionFailed, ProviderDeleted) => Ok(Deleted),
            (DeletionFailed, Found | Missing) => Ok(DeletionFailed),
            // The provider still lists what we deleted: delete it again, never offer it.
            (Deleted, Found) => Ok(PendingDeletion),
            (Deleted, Missing | ProviderDeleted) => Ok(Deleted),
            (Available, End | ProviderDeleted | GiveUp | Retry)
            | (Stale, Claim | End | ProviderDeleted | GiveUp | Retry)
            | (Allocated, Claim | ProviderDeleted | GiveUp | Retry)
            | (PendingDeletion, Claim | End | Retry)
            | (DeletionFailed, Claim | End | GiveUp)
            | (Deleted, Claim | End | GiveUp | Retry) => Err(InvalidTransition { status: self, event }),
        }
    }

    /// As it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Allocated => "allocated",
            Self::PendingDeletion => "pending_deletion",
            Self::Stale => "stale",
            Self::DeletionFailed => "deletion_failed",
            Self::Deleted => "deleted",
        }
    }

    /// From what is stored.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who was given a sandbox, when and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The claim.
    pub id: AllocationId,
    /// The lease that points here.
    pub lease_key: LeaseKey,
    /// The lab.
    pub track_name: Option<TrackName>,
    /// When it was claimed.
    pub allocated_at: Timestamp,
    /// When the owner's time is over.
    pub expires_at: Timestamp,
}

/// A sandbox as the table holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Ours.
    pub id: SandboxId,
    /// The provider's name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// Where it stands.
    pub status: Status,
    /// Goes up with every change.
    pub version: u64,
    /// Present from the first claim on, for good: it is what tells a used sandbox.
    pub allocation: Option<Allocation>,
    /// When its deletion was asked for.
    pub deletion_requested_at: Option<Timestamp>,
    /// Why its lease ended.
    pub end_reason: Option<EndReason>,
}

impl Sandbox {
    /// The key of the lease that points here, if it was ever claimed.
    pub fn owner(&self) -> Option<(&super::TrackId, &IdempotencyKey)> {
        self.allocation.as_ref().map(|allocation| (&allocation.lease_key.track, &allocation.lease_key.key))
    }
}

/// What an owner's mark may make of the sandbox it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkVerdict {
    /// The lease is live: end it.
    End(Box<Allocation>),
    /// The same owner gave it back before, at that time.
    AlreadyMarked(Timestamp),
    /// Expiry took it back.
    Expired,
    /// Somebody else's, or nobody's.
    NotOwner,
    /// The mark was made before this allocation began: it meant an earlier one.
    Superseded,
}

/// What `mark` may make of `sandbox`.
pub fn judge_mark(sandbox: &Sandbox, mark: &MarkRequest) -> MarkVerdict {
    let Some(allocation) = sandbox.allocation.as_ref().filter(|a| a.lease_key.track == mark.track) else {
        return MarkVerdict::NotOwner;
    };
    match sandbox.status {
        Status::Allocated if mark.claimed_by().as_secs() < allocation.allocated_at.as_secs() => {
            MarkVerdict::Superseded
        }
        Status::Allocated => MarkVerdict::End(Box::new(allocation.clone())),
        Status::PendingDeletion | Status::DeletionFailed | Status::Deleted => match sandbox.end_reason {
            Some(EndReason::Expired) => MarkVerdict::Expired,
            Some(EndReason::Marked | EndReason::Released) | None => {
                MarkVerdict::AlreadyMarked(sandbox.deletion_requested_at.unwrap_or(allocation.expires_at))
            }
        },
        Status::Available | Status::Stale => MarkVerdict::NotOwner,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{allocation, key, request_id, sandbox, sandbox_id, times};
    use super::*;

    const EVENTS: [Event; 7] = [
        Event::Claim,
        Event::End,
        Event::Missing,
        Event::Found,
        Event::ProviderDeleted,
        Event::GiveUp,
        Event::Retry,
    ];

    proptest! {
        #[test]
        fn what_was_ever_claimed_is_never_available_again(events in prop::collection::vec(prop::sample::select(&EVENTS[..]), 0..60)) {
            let mut status = Status::Available;
            let mut used = false;
            for event in events {
                if let Ok(next) = status.next(event) {
                    used |= event == Event::Claim;
                    status = next;
                }
                prop_assert!(!(used && matches!(status, Status::Available | Status::Stale)));
            }
        }
    }

    #[test]
    fn every_transition_is_one_of_the_picture() {
        use Status::{Allocated, Available, Deleted, DeletionFailed, PendingDeletion, Stale};
        // Claim, End, Missing, Found, ProviderDeleted, GiveUp, Retry.
        let picture = [
            (Available, [Some(Allocated), None, Some(Stale), Some(Available), None, None, None]),
            (Allocated, [None, Some(PendingDeletion), Some(Allocated), Some(Allocated), None, None, None]),
            (
                PendingDeletion,
                [
                    None,
                    None,
                    Some(PendingDeletion),
                    Some(PendingDeletion),
                    Some(Deleted),
                    Some(DeletionFailed),
                    None,
                ],
            ),
            (Stale, [None, None, Some(Stale), Some(Available), None, None, None]),
            (
                DeletionFailed,
                [
                    None,
                    None,
                    Some(DeletionFailed),
                    Some(DeletionFailed),
                    Some(Deleted),
                    None,
                    Some(PendingDeletion),
                ],
            ),
            (Deleted, [None, None, Some(Deleted), Some(PendingDeletion), Some(Deleted), None, None]),
        ];
        for (status, row) in picture {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                let expected = expected.ok_or(InvalidTransition { status, event });
                assert_eq!(status.next(event), expected, "{status} {event:?}");
            }
        }
    }

    fn mark(track: u8, enqueued_at: u64) -> MarkRequest {
        MarkRequest {
            request_id: request_id(1),
            track: key(track).track,
            sandbox_id: sandbox_id(1),
            times: times(Timestamp::from_secs(enqueued_at)),
        }
    }

    #[test]
    fn only_the_owner_may_give_back_and_only_what_he_meant() {
        let held = sandbox(1, Status::Allocated, Some(allocation(1)));
        assert_eq!(judge_mark(&held, &mark(1, 100)), MarkVerdict::End(Box::new(allocation(1))));
        assert_eq!(judge_mark(&held, &mark(2, 100)), MarkVerdict::NotOwner);
        // It was handed out at second 100, by a clock that may be two seconds ahead.
        assert_eq!(judge_mark(&held, &mark(1, 98)), MarkVerdict::End(Box::new(allocation(1))));
        assert_eq!(judge_mark(&held, &mark(1, 97)), MarkVerdict::Superseded);
        for status in [Status::Available, Status::Stale] {
            let offered = sandbox(1, status, Some(allocation(1)));
            assert_eq!(judge_mark(&offered, &mark(1, 100)), MarkVerdict::NotOwner, "{status}");
            assert_eq!(judge_mark(&sandbox(1, status, None), &mark(1, 100)), MarkVerdict::NotOwner);
        }
    }

    #[test]
    fn a_repeated_mark_is_told_when_the_first_was_and_expiry_is_told_as_such() {
        for status in [Status::PendingDeletion, Status::DeletionFailed, Status::Deleted] {
            let given_back = |end_reason, deletion_requested_at| Sandbox {
                end_reason,
                deletion_requested_at,
                ..sandbox(1, status, Some(allocation(1)))
            };
            let at = Some(Timestamp::from_secs(150));
            for reason in [Some(EndReason::Marked), Some(EndReason::Released), None] {
                let told = judge_mark(&given_back(reason, at), &mark(1, 160));
                assert_eq!(
                    told,
                    MarkVerdict::AlreadyMarked(Timestamp::from_secs(150)),
                    "{status} {reason:?}"
                );
            }
            let unknown = judge_mark(&given_back(None, None), &mark(1, 160));
            assert_eq!(unknown, MarkVerdict::AlreadyMarked(Timestamp::from_secs(200)));
            let expired = given_back(Some(EndReason::Expired), at);
            assert_eq!(judge_mark(&expired, &mark(1, 160)), MarkVerdict::Expired, "{status}");
        }
    }

    #[test]
    fn an_owner_is_whoever_had_it_last() {
        assert_eq!(sandbox(1, Status::Available, None).owner(), None);
        let (of, key) = (sandbox(1, Status::Deleted, Some(allocation(1))), key(1));
        assert_eq!(of.owner(), Some((&key.track, &key.key)));
    }

    #[test]
    fn only_an_available_sandbox_can_be_claimed() {
        for status in Status::ALL {
            assert_eq!(status.next(Event::Claim).is_ok(), status == Status::Available, "{status}");
        }
    }

    #[test]
    fn every_state_reads_back_as_it_is_stored() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("Available"), None);
        assert_eq!(Status::DeletionFailed.to_string(), "deletion_failed");
    }
}
