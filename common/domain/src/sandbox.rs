//! The sandbox, its states and their transitions.
//!
//! Invariant: a sandbox that was ever handed out is never `available` again; [`Status::next`] has no such transition. The
//! store's conditions bear the names of these transitions.

use serde::{Deserialize, Serialize};

use super::{
    AllocationId, EndReason, ExternalId, IdempotencyKey, LabDuration, LeaseKey, ReturnRequest, SandboxId,
    SandboxName, Timestamp, TrackName,
};

/// The state of a sandbox: ARCHITECTURE.md, "Sandbox states".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// In the pool, can be claimed.
    Available,
    /// Held by one owner: a live lease points to it.
    Allocated,
    /// Handed out before, waiting for its deletion at the provider.
    PendingDeletion,
    /// Was in the pool; the provider does not list it any more.
    Stale,
    /// Deletion at the provider failed too often.
    DeletionFailed,
    /// A tombstone: it was handed out, and is deleted at the provider.
    Deleted,
}

/// An event in the life of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A claim won.
    Claim,
    /// Its lease ended: returned, expired or released.
    End,
    /// Sync does not find it at the provider.
    Missing,
    /// Sync finds it at the provider again.
    Found,
    /// The provider deleted it, or does not know it.
    ProviderDeleted,
    /// Its last attempt at deletion failed.
    GiveUp,
    /// Deletion is tried again: a day later, or by the operator.
    Retry,
}

/// An event that is not possible in a state.
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

    /// The state after `event`, or an error if the event is not possible now.
    pub fn next(self, event: Event) -> Result<Self, InvalidTransition> {
        use Event::{Claim, End, Found, GiveUp, Missing, ProviderDeleted, Retry};
        use Status::{Allocated, Available, Deleted, DeletionFailed, PendingDeletion, Stale};
        match (self, event) {
            (Available, Claim) => Ok(Allocated),
            (Available, Missing) => Ok(Stale),
            (Available | Stale, Found) => Ok(Available),
            (Stale, Missing) => Ok(Stale),
            (Allocated, End) => Ok(PendingDeletion),
            // Sync only reports an allocated sandbox that vanished: its owner keeps it.
            (Allocated, Found | Missing) => Ok(Allocated),
            (PendingDeletion, Found | Missing) => Ok(PendingDeletion),
            (PendingDeletion, ProviderDeleted) => Ok(Deleted),
            (PendingDeletion, GiveUp) => Ok(DeletionFailed),
            (DeletionFailed, Retry) => Ok(PendingDeletion),
            (DeletionFailed, ProviderDeleted) => Ok(Deleted),
            (DeletionFailed, Found | Missing) => Ok(DeletionFailed),
            // The provider still lists it after its deletion: delete it again, never offer it.
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

    /// From the stored text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The owner of a sandbox, and the owner's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The allocation id of the claim.
    pub id: AllocationId,
    /// The lease that points here.
    pub lease_key: LeaseKey,
    /// The lab.
    pub track_name: Option<TrackName>,
    /// When it was claimed.
    pub allocated_at: Timestamp,
    /// When the owner's time ends.
    pub expires_at: Timestamp,
}

/// A sandbox as it is in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The broker's id.
    pub id: SandboxId,
    /// The provider's name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// Its state.
    pub status: Status,
    /// Raised by every change.
    pub version: u64,
    /// Present from the first claim on, for good: it marks a used sandbox.
    pub allocation: Option<Allocation>,
    /// When its deletion was requested.
    pub deletion_requested_at: Option<Timestamp>,
    /// The reason why its lease ended.
    pub end_reason: Option<EndReason>,
}

impl Sandbox {
    /// The key of the lease that points here, if it was ever claimed.
    pub fn owner(&self) -> Option<(&super::TrackId, &IdempotencyKey)> {
        self.allocation.as_ref().map(|allocation| (&allocation.lease_key.track, &allocation.lease_key.key))
    }

    /// The allocation of a live lease, which an operator may end or extend.
    pub fn live_allocation(&self) -> Option<&Allocation> {
        self.allocation.as_ref().filter(|_| self.status == Status::Allocated)
    }
}

impl Allocation {
    /// When its lease ends if an operator adds `by` at `now`; `None` if that is too far from `now` for any lease.
    pub fn extended(&self, by: LabDuration, now: Timestamp) -> Option<Timestamp> {
        let expires_at = self.expires_at.max(now).floor_to_second().plus(by.as_duration());
        (expires_at <= now.plus(LabDuration::LONGEST.as_duration())).then_some(expires_at)
    }
}

/// What an owner's return may do with the sandbox it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReturnVerdict {
    /// The lease is live: end it.
    End(Box<Allocation>),
    /// The same owner returned it before, at that time.
    AlreadyReturned(Timestamp),
    /// Expiry ended the owner's lease.
    Expired,
    /// The sandbox is not this owner's.
    NotOwner,
    /// The return was made before this allocation began: it meant an earlier one.
    Superseded,
}

/// The verdict on `sandbox` for the return `request`.
pub fn judge_return(sandbox: &Sandbox, request: &ReturnRequest) -> ReturnVerdict {
    let Some(allocation) = sandbox.allocation.as_ref().filter(|a| a.lease_key.track == request.track) else {
        return ReturnVerdict::NotOwner;
    };
    match sandbox.status {
        Status::Allocated if request.claimed_by().as_secs() < allocation.allocated_at.as_secs() => {
            ReturnVerdict::Superseded
        }
        Status::Allocated => ReturnVerdict::End(Box::new(allocation.clone())),
        Status::PendingDeletion | Status::DeletionFailed | Status::Deleted => match sandbox.end_reason {
            Some(EndReason::Expired) => ReturnVerdict::Expired,
            Some(EndReason::Returned | EndReason::Released) | None => {
                ReturnVerdict::AlreadyReturned(sandbox.deletion_requested_at.unwrap_or(allocation.expires_at))
            }
        },
        Status::Available | Status::Stale => ReturnVerdict::NotOwner,
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

    #[test]
    fn a_lease_is_extended_from_its_end_or_from_now_and_not_beyond_the_longest() {
        let allocation = allocation(1);
        let (end, two) = (allocation.expires_at.floor_to_second(), LabDuration::try_from(2_u64).unwrap());
        assert_eq!(allocation.extended(two, Timestamp::from_secs(0)), Some(end.plus(two.as_duration())));
        let late = end.plus(two.as_duration());
        assert_eq!(allocation.extended(two, late), Some(late.plus(two.as_duration())));
        let longest = LabDuration::LONGEST;
        assert_eq!(allocation.extended(longest, end), Some(end.plus(longest.as_duration())));
        assert_eq!(allocation.extended(longest, end.minus(two.as_duration())), None);
    }

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

    fn return_of(track: u8, enqueued_at: u64) -> ReturnRequest {
        ReturnRequest {
            request_id: request_id(1),
            track: key(track).track,
            sandbox_id: sandbox_id(1),
            times: times(Timestamp::from_secs(enqueued_at)),
        }
    }

    #[test]
    fn only_the_owner_may_give_back_and_only_what_he_meant() {
        let held = sandbox(1, Status::Allocated, Some(allocation(1)));
        assert_eq!(judge_return(&held, &return_of(1, 100)), ReturnVerdict::End(Box::new(allocation(1))));
        assert_eq!(judge_return(&held, &return_of(2, 100)), ReturnVerdict::NotOwner);
        // It was handed out at second 100, by a clock that may be two seconds ahead.
        assert_eq!(judge_return(&held, &return_of(1, 98)), ReturnVerdict::End(Box::new(allocation(1))));
        assert_eq!(judge_return(&held, &return_of(1, 97)), ReturnVerdict::Superseded);
        for status in [Status::Available, Status::Stale] {
            let offered = sandbox(1, status, Some(allocation(1)));
            assert_eq!(judge_return(&offered, &return_of(1, 100)), ReturnVerdict::NotOwner, "{status}");
            assert_eq!(judge_return(&sandbox(1, status, None), &return_of(1, 100)), ReturnVerdict::NotOwner);
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
            for reason in [Some(EndReason::Returned), Some(EndReason::Released), None] {
                let told = judge_return(&given_back(reason, at), &return_of(1, 160));
                assert_eq!(
                    told,
                    ReturnVerdict::AlreadyReturned(Timestamp::from_secs(150)),
                    "{status} {reason:?}"
                );
            }
            let unknown = judge_return(&given_back(None, None), &return_of(1, 160));
            assert_eq!(unknown, ReturnVerdict::AlreadyReturned(Timestamp::from_secs(200)));
            let expired = given_back(Some(EndReason::Expired), at);
            assert_eq!(judge_return(&expired, &return_of(1, 160)), ReturnVerdict::Expired, "{status}");
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
