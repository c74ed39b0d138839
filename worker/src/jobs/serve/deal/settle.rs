//! Results of grants, and what follows for a place that was not granted: its request has ended, or its key has a lease.

use std::sync::Arc;

use broker_domain::{Grant, Lease, LeaseEnd, LeaseVerdict, Outcome, Reason, judge, overdue_for_owner};
use broker_runtime::crash_points::{self, Point};
use broker_runtime::errors::chain;
use broker_store::{Claim, ClaimOutcome, StoreError};

use super::super::bury;
use super::super::parked::{ParkedRequest, end, leave, waited};
use super::super::places::outcome_by;
use super::{Dealing, Waiters};
use crate::finality::{HandlerError, must_agree};

/// What a grant came to.
pub(super) enum Settled {
    /// The sandbox is the place's, which waits no more.
    Granted,
    /// The sandbox is another claim's; the place waits.
    SandboxGone,
    /// The sandbox is free still; the place waits no more, or is passed over.
    PlaceLeft,
    /// The sandbox is free still, and the place waits.
    SandboxFree,
    /// The same, and what is known of the place is to be read anew.
    ReadAnew,
}

impl Dealing<'_> {
    /// What becomes of a place after its grant; without an outcome a neighbour was in its way. `is_first`: none of the call goes
    /// before it.
    pub(super) async fn settle(
        &mut self,
        waiter: &Arc<ParkedRequest>,
        claim: &Claim<'_>,
        outcome: Option<ClaimOutcome>,
        is_first: bool,
    ) -> Result<Settled, StoreError> {
        match outcome {
            None => Ok(Settled::SandboxFree),
            Some(ClaimOutcome::Created(grant)) => Ok(self.created(waiter, claim, grant)),
            Some(ClaimOutcome::LostCandidate | ClaimOutcome::CandidateChanged(..)) => {
                Ok(Settled::SandboxGone)
            }
            // The next call has another one, or its tenant is out.
            Some(ClaimOutcome::PermitTaken) => Ok(Settled::ReadAnew),
            Some(ClaimOutcome::RequestEnded) => self.ended(waiter).await,
            Some(ClaimOutcome::LeaseStands(lease)) => self.stands(waiter, claim, &lease, is_first).await,
        }
    }

    /// The sandbox is the place's.
    fn created(&mut self, waiter: &Arc<ParkedRequest>, claim: &Claim<'_>, grant: Grant) -> Settled {
        crash_points::point(Point::Granted);
        self.granted += 1;
        self.leases.insert(waiter.ask.lease_key.clone(), claim.lease());
        let policy = self.jobs.policy.now().unwrap_or_default();
        self.jobs.own_grants.count(&policy, &grant.name, self.jobs.clock.now());
        waited(self.jobs, waiter, "granted");
        self.tell(waiter, Outcome::Created(grant));
        Settled::Granted
    }

    /// Tells those of `waiters` whose keys were granted a sandbox in the last call: they need none of what is free, which may
    /// be nothing. A walk tells those that were not read.
    pub(super) fn tell_repeats(&mut self, waiters: &mut Waiters) {
        let (leases, now) = (std::mem::take(&mut self.leases), self.jobs.clock.now());
        waiters.heads.retain(|_, waiter| {
            let lease = leases.get(&waiter.ask.lease_key);
            let outcome = lease.and_then(|lease| outcome_by(Some(lease), &waiter.ask, now));
            let Some(outcome) = outcome else { return true };
            waited(self.jobs, waiter, outcome.as_str());
            self.tell(waiter, outcome);
            false
        });
    }

    /// The place's request is not queued any more: the place is garbage.
    async fn ended(&mut self, waiter: &ParkedRequest) -> Result<Settled, StoreError> {
        let id = waiter.place.request_id;
        if bury::has_ended(self.jobs, id).await? {
            leave(self.jobs, waiter).await?;
        } else {
            self.aside.insert(id);
        }
        Ok(Settled::PlaceLeft)
    }

    /// The key of the place has a lease.
    async fn stands(
        &mut self,
        waiter: &Arc<ParkedRequest>,
        claim: &Claim<'_>,
        lease: &Lease,
        is_first: bool,
    ) -> Result<Settled, StoreError> {
        let outcome = match judge(Some(lease), &waiter.ask, claim.now) {
            // It changed since: again.
            LeaseVerdict::Free => return Ok(Settled::ReadAnew),
            LeaseVerdict::Mine(grant) => Outcome::Created(grant),
            LeaseVerdict::Existing(grant) => Outcome::Existing(grant),
            LeaseVerdict::KeyReused => Outcome::KeyReused,
            LeaseVerdict::Superseded => Outcome::Superseded,
            // It goes past none that the call was to grant before it: alone, or first, in a later one.
            LeaseVerdict::PastExpiry(_) if !is_first => return Ok(Settled::ReadAnew),
            LeaseVerdict::PastExpiry(old) => return self.replace(waiter, claim, &old).await,
        };
        waited(self.jobs, waiter, outcome.as_str());
        match self.tried.len() {
            // A grant that goes alone and can never succeed shows here: its place becomes a dead letter.
            1 => {
                end(self.jobs, waiter, outcome).await?;
            }
            _ => self.tell(waiter, outcome),
        }
        Ok(Settled::PlaceLeft)
    }

    /// A head is never passed over: its old lease ends in the write that gives it the new one.
    async fn replace(
        &mut self,
        waiter: &Arc<ParkedRequest>,
        claim: &Claim<'_>,
        old: &Lease,
    ) -> Result<Settled, StoreError> {
        let jobs = self.jobs;
        jobs.clock.reaches(old.ends_for_owner_at()).await;
        let now = jobs.clock.now();
        let (asked, expires_at) = (waiter.ask.times.enqueued_at, old.grant.expires_at);
        let end_of_old = LeaseEnd::by_request(old.term.end_reason(), now, asked, expires_at);
        match jobs.store.leases.replace(claim, old, overdue_for_owner(now), &end_of_old).await {
            Ok(ClaimOutcome::Created(grant)) => Ok(self.created(waiter, claim, grant)),
            Ok(ClaimOutcome::LostCandidate | ClaimOutcome::CandidateChanged(..)) => Ok(Settled::SandboxGone),
            Ok(ClaimOutcome::RequestEnded) => self.ended(waiter).await,
            // The permit of that lease is another one's.
            Ok(ClaimOutcome::PermitTaken) if claim.permit == old.permit.as_ref() => {
                self.not_replaced(waiter, old).await
            }
            Ok(ClaimOutcome::LeaseStands(_) | ClaimOutcome::PermitTaken) => Ok(Settled::ReadAnew),
            Err(StoreError::Conflict) => self.not_replaced(waiter, old).await,
            Err(error) => Err(error),
        }
    }

    /// Another transaction was in the way of the replacement, which goes again; or the old lease does not agree with its sandbox or its
    /// permit, which no attempt helps: only then is the place passed over.
    async fn not_replaced(&mut self, waiter: &ParkedRequest, old: &Lease) -> Result<Settled, StoreError> {
        let why = match must_agree(&self.jobs.store, &old.key).await {
            Ok(()) => return Err(StoreError::Conflict),
            Err(HandlerError::Store(error)) => return Err(error),
            Err(
                why @ (HandlerError::Inconsistent { .. }
                | HandlerError::Newer { .. }
                | HandlerError::Reply(_)),
            ) => why,
        };
        self.aside.insert(waiter.place.request_id);
        if matches!(why, HandlerError::Inconsistent { .. }) {
            bury::request(self.jobs, waiter, (Reason::InconsistentLease, chain(&why))).await?;
        }
        Ok(Settled::PlaceLeft)
    }
}
