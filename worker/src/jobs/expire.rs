//! Expire job: ends leases past their time.
//!
//! Expired is a live lease whose `expires_at`, that lease's own, lies more than the grace in the past; abandoned is one with a
//! heartbeat whose `expires_at` has passed, by as much as a clock may be off. Sandbox and lease change in one transaction, fenced by the allocation id and by the
//! expiry itself: an owner's return at the same moment wins or loses whole, and so does who gives the lease longer, its owner
//! or an operator. The index does not know of heartbeats, so what is in its grace is looked at too, and not counted. A sandbox
//! that is held without its live lease cannot be ended: it is counted as failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_domain::{Allocation, Event, JobReport, LeaseEnd, MAX_SKEW_MS, Sandbox, Status, Term, Timestamp};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Candidate, StoreError, Write};

use super::{JobError, Jobs, each};
use crate::finality::{HandlerError, must_be_held};

/// What was looked at and not ended.
#[derive(Debug, Default)]
struct NotEnded {
    in_grace: AtomicU64,
    inconsistent: AtomicU64,
}

pub(super) async fn run(jobs: &Jobs, report: &mut JobReport) -> Result<(), JobError> {
    let not_ended = Arc::new(NotEnded::default());
    let counted = Arc::clone(&not_ended);
    let act = move |jobs, candidate| expire(jobs, candidate, Arc::clone(&counted));
    let ran = each::due(jobs, Status::Allocated, jobs.clock.now(), report, act).await;
    let in_grace = not_ended.in_grace.load(Ordering::Relaxed);
    let inconsistent = not_ended.inconsistent.load(Ordering::Relaxed);
    report.found = report.found.saturating_sub(in_grace);
    report.skipped = report.skipped.saturating_sub(in_grace + inconsistent);
    report.failed += inconsistent;
    ran
}

async fn expire(jobs: Jobs, candidate: Candidate, not_ended: Arc<NotEnded>) -> Result<Write, StoreError> {
    // The index proposes, the item decides.
    let Some(sandbox) = jobs.store.sandboxes.get(&candidate.sandbox_id).await? else {
        return Ok(Write::Rejected(()));
    };
    let (now, grace) = (jobs.clock.now(), grace(sandbox.term, jobs.settings.expiry_grace));
    let Some(allocation) = expired(&sandbox, now, grace) else {
        if sandbox.live_allocation().is_some_and(|allocation| allocation.expires_at <= now) {
            not_ended.in_grace.fetch_add(1, Ordering::Relaxed);
        }
        return Ok(Write::Rejected(()));
    };
    let until = now.minus(grace);
    let end = LeaseEnd::by_broker(sandbox.term.end_reason(), now, allocation.expires_at);
    crash_points::point(Point::BeforeEnd);
    Ok(match jobs.store.leases.expire(&sandbox.id, allocation, until, &end).await? {
        Write::Applied => {
            if allocation.permit.is_some() {
                jobs.freed.notify_one();
            }
            let (key, reason) = (&allocation.lease_key, end.reason.as_str());
            tracing::info!(sandbox_id = %sandbox.id, track = %key.track, idempotency_key = %key.key, reason, returned = true, "expired");
            Write::Applied
        }
        Write::Rejected(()) => {
            match must_be_held(&jobs.store, &sandbox.id, allocation).await {
                Ok(()) => {}
                Err(HandlerError::Store(error)) => return Err(error),
                Err(
                    why @ (HandlerError::Inconsistent { .. }
                    | HandlerError::Newer { .. }
                    | HandlerError::Reply(_)),
                ) => {
                    tracing::error!("not expired, an operator has to repair it: {why}");
                    not_ended.inconsistent.fetch_add(1, Ordering::Relaxed);
                }
            }
            Write::Rejected(())
        }
    })
}

/// How long after its end a lease is left to its owner, where `setting` is said: no clock that is ahead ends one that its owner
/// still has.
fn grace(term: Term, setting: Duration) -> Duration {
    term.grace(setting).max(Duration::from_millis(MAX_SKEW_MS.unsigned_abs()))
}

/// The allocation of `sandbox`, if its time is over.
fn expired(sandbox: &Sandbox, now: Timestamp, grace: Duration) -> Option<&Allocation> {
    sandbox.status.next(Event::End).ok()?;
    sandbox.allocation.as_ref().filter(|allocation| allocation.expires_at.plus(grace) <= now)
}

#[cfg(test)]
mod tests {
    use broker_domain::{
        AllocationId, ExternalId, Heartbeat, IdempotencyKey, LeaseKey, SandboxId, SandboxName, TrackId,
    };

    use super::*;

    fn sandbox(status: Status, expires_at: u64) -> Sandbox {
        Sandbox {
            id: SandboxId::new("s").unwrap(),
            name: SandboxName::new("s").unwrap(),
            external_id: ExternalId::new("s").unwrap(),
            attributes: broker_domain::ProviderAttributes::default(),
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
                permit: None,
            }),
            term: Term::default(),
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

    #[test]
    fn a_lease_is_never_ended_within_the_two_seconds_that_a_clock_may_be_ahead() {
        let beats = Term { heartbeat: Some(Heartbeat::new(30).unwrap()), ..Term::default() };
        let (half_an_hour, none) = (Duration::from_secs(1_800), Duration::ZERO);
        for (term, setting, waits) in [
            (beats, half_an_hour, 2),
            (beats, none, 2),
            (Term::default(), none, 2),
            (Term::default(), half_an_hour, 1_800),
        ] {
            let grace = grace(term, setting);
            let is_expired =
                |now| expired(&sandbox(Status::Allocated, 1_000), Timestamp::from_secs(now), grace).is_some();
            assert!(!is_expired(1_000 + waits - 1) && is_expired(1_000 + waits), "{term:?} {setting:?}");
        }
    }
}
