//! Expire job: ends leases past their time.
//!
//! Expired is a live lease whose `expires_at`, that lease's own, lies more than the grace in the past. Sandbox and lease
//! change in one transaction, fenced by the allocation id and by the expiry itself: an owner's return at the same moment
//! wins or loses whole, and so does an operator who gives the lease longer.

use std::time::Duration;

use broker_domain::{Allocation, EndReason, Event, JobReport, LeaseEnd, Sandbox, Status, Timestamp};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Candidate, StoreError, Write};

use super::{JobError, Jobs, each};

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let until = jobs.clock.now().minus(jobs.settings.expiry_grace);
    each::due(jobs, Status::Allocated, until, report, expire).await
}

async fn expire(jobs: Jobs, candidate: Candidate) -> Result<Write, StoreError> {
    // The index proposes, the item decides.
    let Some(sandbox) = jobs.store.sandboxes.get(&candidate.sandbox_id).await? else {
        return Ok(Write::Rejected(()));
    };
    let now = jobs.clock.now();
    let Some(allocation) = expired(&sandbox, now, jobs.settings.expiry_grace) else {
        return Ok(Write::Rejected(()));
    };
    let (until, end) = (now.minus(jobs.settings.expiry_grace), LeaseEnd::by_broker(EndReason::Expired, now));
    crash_points::point(Point::BeforeEnd);
    Ok(match jobs.store.leases.expire(&sandbox.id, allocation, until, &end).await? {
        Write::Applied => {
            let key = &allocation.lease_key;
            tracing::info!(sandbox_id = %sandbox.id, track = %key.track, idempotency_key = %key.key, returned = true, "expired");
            Write::Applied
        }
        Write::Rejected(()) => Write::Rejected(()),
    })
}

/// The allocation of `sandbox`, if its time is over.
fn expired(sandbox: &Sandbox, now: Timestamp, grace: Duration) -> Option<&Allocation> {
    sandbox.status.next(Event::End).ok()?;
    sandbox.allocation.as_ref().filter(|allocation| allocation.expires_at.plus(grace) <= now)
}

#[cfg(test)]
mod tests {
    use broker_domain::{
        AllocationId, ExternalId, IdempotencyKey, LeaseKey, SandboxId, SandboxName, TrackId,
    };

    use super::*;

    fn sandbox(status: Status, expires_at: u64) -> Sandbox {
        Sandbox {
            id: SandboxId::new("s").unwrap(),
            name: SandboxName::new("s").unwrap(),
            external_id: ExternalId::new("s").unwrap(),
            status,
            version: 2,
            allocation: Some(Allocation {
                id: AllocationId::parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap(),
                lease_key: LeaseKey {
                    track: TrackId::new("t").unwrap(),
                    key: IdempotencyKey::new("t").unwrap(),
                },
                track_name: None,
                allocated_at: Timestamp::from_secs(1),
                expires_at: Timestamp::from_secs(expires_at),
            }),
            deletion_requested_at: None,
            end_reason: None,
        }
    }

    #[test]
    fn a_lease_expires_when_the_grace_after_its_own_end_is_over_and_only_while_it_is_live() {
        let grace = Duration::from_secs(1_800);
        let is_expired = |status, expires_at, now| {
            expired(&sandbox(status, expires_at), Timestamp::from_secs(now), grace).is_some()
        };
        assert!(is_expired(Status::Allocated, 1_000, 2_800));
        assert!(!is_expired(Status::Allocated, 1_000, 2_799));
        assert!(!is_expired(Status::PendingDeletion, 1_000, 9_000));
    }
}
