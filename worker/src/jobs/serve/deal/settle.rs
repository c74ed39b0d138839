//! Results of grants, and what follows for a place that was not granted: its request has ended, or its key has a lease.

use std::sync::Arc;

use broker_domain::{Lease, LeaseEnd, LeaseVerdict, Outcome, Reason, RequestState, judge, overdue_for_owner};
use broker_runtime::errors::chain;
use broker_store::{Claim, ClaimOutcome, StoreError};

use super::super::bury;
use super::super::parked::{ParkedRequest, end, leave, waited};
use super::Dealing;
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
    /// What becomes of a place that was not granted. `is_first`: none of the call goes before it.
    pub(super) async fn settle(
        &mut self,
        waiter: &Arc<ParkedRequest>,
        claim: &Claim<'_>,
        outcome: ClaimOutcome,
        is_first: bool,
    ) -> Result<Settled, StoreError> {
        match outcome {
            ClaimOutcome::Created(_) | ClaimOutcome::LostCandidate | ClaimOutcome::CandidateChanged(..) => {
                Ok(Settled::SandboxGone)
            }
            // The next call has another one, or its tenant is out.
            ClaimOutcome::PermitTaken => Ok(Settled::ReadAnew),
            ClaimOutcome::RequestEnded => self.ended(waiter).await,
            ClaimOutcome::LeaseStands(lease) => self.stands(waiter, claim, &lease, is_first).await,
        }
    }

    /// The place's request is not queued any more: the place is garbage.
    async fn ended(&mut self, waiter: &ParkedRequest) -> Result<Settled, StoreError> {
        let record = self.jobs.store.requests.get(waiter.place.request_id).await?;
        match record.map(|record| record.state) {
            // A replay may take this end back; its place went with it.
            Some(RequestState::Ended(Outcome::DeadLettered { .. }) | RequestState::Queued) => {
                self.aside.insert(waiter.place.request_id);
            }
            Some(RequestState::Ended(_)) | None => leave(self.jobs, waiter).await?,
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
            1 => end(self.jobs, waiter, outcome).await?,
            _ => self.tell(waiter, outcome),
        }
        Ok(Settled::PlaceLeft)
    }

    /// A head is never passed over: its old lease ends in the write that gives it the new one.
    async fn replace(
        &mut self,
        waiter: &ParkedRequest,
        claim: &Claim<'_>,
        old: &Lease,
    ) -> Result<Settled, StoreError> {
        let jobs = self.jobs;
        jobs.clock.reaches(old.ends_for_owner_at()).await;
        let now = jobs.clock.now();
        let end_of_old = LeaseEnd::by_request(old.term.end_reason(), now, waiter.ask.times.enqueued_at);
        match jobs.store.leases.replace(claim, old, overdue_for_owner(now), &end_of_old).await {
            Ok(ClaimOutcome::Created(grant)) => {
                self.granted += 1;
                waited(jobs, waiter, "granted");
                end(jobs, waiter, Outcome::Created(grant)).await?;
                Ok(Settled::Granted)
            }
            Ok(ClaimOutcome::LostCandidate | ClaimOutcome::CandidateChanged(..)) => Ok(Settled::SandboxGone),
            Ok(ClaimOutcome::RequestEnded) => self.ended(waiter).await,
            Ok(ClaimOutcome::LeaseStands(_) | ClaimOutcome::PermitTaken) => Ok(Settled::ReadAnew),
            Err(StoreError::Conflict) => {
                self.aside.insert(waiter.place.request_id);
                if let Err(error @ HandlerError::Inconsistent { .. }) =
                    must_agree(&jobs.store, &old.key).await
                {
                    bury::request(jobs, waiter, (Reason::InconsistentLease, chain(&error))).await?;
                }
                Ok(Settled::PlaceLeft)
            }
            Err(error) => Err(error),
        }
    }
}
