//! The sandbox, and what an owner's return may do with it.

use super::{
    Allocation, EndReason, ExternalId, IdempotencyKey, ProviderAttributes, ReturnRequest, SandboxId,
    SandboxName, Status, Term, Timestamp,
};

/// A sandbox as it is in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The broker's id.
    pub id: SandboxId,
    /// The provider's name.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// The provider's attributes.
    pub attributes: ProviderAttributes,
    /// Its state.
    pub status: Status,
    /// Raised by every change.
    pub version: u64,
    /// Present from the first claim on, for good: it marks a used sandbox.
    pub allocation: Option<Allocation>,
    /// For how long its owner wants it, or wanted it.
    pub term: Term,
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
    /// Its state, or the reason of its end, is a newer program's: only that one can tell.
    Newer,
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
        Status::Quarantined | Status::PendingDeletion | Status::DeletionFailed | Status::Deleted => {
            match sandbox.end_reason {
                Some(EndReason::Expired | EndReason::Abandoned) => ReturnVerdict::Expired,
                Some(EndReason::Returned | EndReason::Released | EndReason::Reported) | None => {
                    ReturnVerdict::AlreadyReturned(
                        sandbox.deletion_requested_at.unwrap_or(allocation.expires_at),
                    )
                }
                Some(EndReason::Unknown) => ReturnVerdict::Newer,
            }
        }
        Status::Arriving | Status::Available | Status::Reserved | Status::Stale => ReturnVerdict::NotOwner,
        Status::Unknown => ReturnVerdict::Newer,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{allocation, key, request_id, sandbox, sandbox_id, times};
    use super::*;
    use crate::{Event, InvalidTransition, LabDuration};

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
        fn what_was_ever_claimed_is_never_available_again(events in prop::collection::vec(prop::sample::select(&Event::ALL[..]), 0..60)) {
            let mut status = Status::Arriving;
            let mut used = false;
            // The condition of a release is that it was never used.
            for event in events {
                if used && event == Event::Release {
                    continue;
                }
                if let Ok(next) = status.next(event) {
                    used |= event == Event::Claim;
                    status = next;
                }
                prop_assert!(!(used && status.is_unused()));
            }
        }
    }

    #[test]
    fn every_transition_is_one_of_the_picture() {
        use Event::{
            Admit, Claim, End, Found, GiveBack, GiveUp, Missing, ProviderDeleted, Quarantine, Release,
            Remade, Reserve, Retire, Retry,
        };
        use Status::{
            Allocated, Arriving, Available, Deleted, DeletionFailed, PendingDeletion, Quarantined, Reserved,
            Stale,
        };
        let picture = [
            (Arriving, Admit, Available),
            (Arriving, Found, Arriving),
            (Arriving, Remade, Arriving),
            (Arriving, Missing, Stale),
            (Arriving, Quarantine, Quarantined),
            (Arriving, Reserve, Reserved),
            (Available, Claim, Allocated),
            (Available, Reserve, Reserved),
            (Reserved, GiveBack, Arriving),
            (Reserved, Claim, Allocated),
            (Reserved, Found, Reserved),
            (Reserved, Remade, Arriving),
            (Reserved, Missing, Stale),
            (Reserved, Quarantine, Quarantined),
            (Available, Found, Available),
            (Available, Remade, Arriving),
            (Available, Missing, Stale),
            (Available, Quarantine, Quarantined),
            (Allocated, End, PendingDeletion),
            (Allocated, Found, Allocated),
            (Allocated, Missing, Allocated),
            (Allocated, Quarantine, Quarantined),
            (PendingDeletion, Found, PendingDeletion),
            (PendingDeletion, Missing, PendingDeletion),
            (PendingDeletion, ProviderDeleted, Deleted),
            (PendingDeletion, GiveUp, DeletionFailed),
            (PendingDeletion, Quarantine, Quarantined),
            (Stale, Found, Arriving),
            (Stale, Remade, Arriving),
            (Stale, Missing, Stale),
            (Quarantined, Found, Quarantined),
            (Quarantined, Remade, Quarantined),
            (Quarantined, Missing, Quarantined),
            (Quarantined, Quarantine, Quarantined),
            (Quarantined, Release, Arriving),
            (Quarantined, Retire, PendingDeletion),
            (DeletionFailed, Found, DeletionFailed),
            (DeletionFailed, Missing, DeletionFailed),
            (DeletionFailed, Retry, PendingDeletion),
            (DeletionFailed, ProviderDeleted, Deleted),
            (Deleted, Found, PendingDeletion),
            (Deleted, Missing, Deleted),
            (Deleted, ProviderDeleted, Deleted),
        ];
        for status in Status::ALL {
            for event in Event::ALL {
                let drawn = picture.iter().find(|(from, by, _)| (*from, *by) == (status, event));
                let expected = drawn.map(|(.., to)| *to).ok_or(InvalidTransition { status, event });
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
        for status in [Status::Arriving, Status::Available, Status::Reserved, Status::Stale] {
            let offered = sandbox(1, status, Some(allocation(1)));
            assert_eq!(judge_return(&offered, &return_of(1, 100)), ReturnVerdict::NotOwner, "{status}");
            assert_eq!(judge_return(&sandbox(1, status, None), &return_of(1, 100)), ReturnVerdict::NotOwner);
        }
    }

    #[test]
    fn a_repeated_mark_is_told_when_the_first_was_and_expiry_is_told_as_such() {
        for status in [Status::Quarantined, Status::PendingDeletion, Status::DeletionFailed, Status::Deleted]
        {
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
            for reason in [EndReason::Expired, EndReason::Abandoned] {
                let taken = given_back(Some(reason), at);
                assert_eq!(judge_return(&taken, &return_of(1, 160)), ReturnVerdict::Expired, "{status}");
            }
        }
    }

    #[test]
    fn an_owner_is_whoever_had_it_last() {
        assert_eq!(sandbox(1, Status::Available, None).owner(), None);
        let (of, key) = (sandbox(1, Status::Deleted, Some(allocation(1))), key(1));
        assert_eq!(of.owner(), Some((&key.track, &key.key)));
    }

    #[test]
    fn only_what_is_available_or_put_aside_can_be_claimed() {
        for status in Status::ALL {
            let may = matches!(status, Status::Available | Status::Reserved);
            assert_eq!(status.next(Event::Claim).is_ok(), may, "{status}");
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
