//! Allocate: claims a candidate for the caller's key, or answers from the key's lease.
//!
//! The protocol is ARCHITECTURE.md, "Claim", which was model-checked. One write call for a new allocation, one for a repeat,
//! no read before. "None" is answered only after a read of the key's own lease, and a claim that lost its races while
//! candidates remain goes on until its deadline.

use broker_domain::{
    AllocateRequest, Allocation, EndReason, Lease, LeaseEnd, LeaseVerdict, Outcome, RequestState, judge,
};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Claim, ClaimOutcome, EndOutcome, StoreError};

use super::{HandlerError, Handlers};

/// The result of one attempt.
enum Attempt {
    /// The request's outcome.
    Ended(Outcome),
    /// Another claim has the candidate, or an old lease was ended: go on at once.
    LostRace,
    /// Another transaction is writing the same items: go on after a moment.
    InTheWay,
}

impl Handlers {
    pub(super) async fn allocate(&self, request: &AllocateRequest) -> Result<Outcome, HandlerError> {
        let mut attempts = 0_u32;
        let outcome = loop {
            if self.clock.now() > request.times.deadline {
                break Outcome::Expired;
            }
            attempts += 1;
            match self.attempt(request).await? {
                Attempt::Ended(outcome) => break outcome,
                Attempt::LostRace => {}
                Attempt::InTheWay => self.back_off(attempts).await,
            }
        };
        metrics::histogram!("broker_claim_attempts").record(attempts);
        Ok(outcome)
    }

    async fn attempt(&self, request: &AllocateRequest) -> Result<Attempt, HandlerError> {
        let Some(handed) = self.candidates.next(request.prefix.as_ref()).await? else {
            let lease = match self.store.lease(&request.lease_key).await {
                Err(StoreError::Conflict) => return Ok(Attempt::InTheWay),
                read => read?,
            };
            let verdict = judge(lease.as_ref(), request, self.clock.now());
            return self.apply_verdict(request, verdict, Attempt::Ended(Outcome::NoSandboxes)).await;
        };
        // The wait for a candidate may have been long.
        let now = self.clock.now();
        if now > request.times.deadline {
            handed.put_back();
            return Ok(Attempt::Ended(Outcome::Expired));
        }
        let claim = Claim {
            request,
            candidate: handed.candidate(),
            allocation_id: self.entropy.allocation_id(),
            now,
        };
        crash_points::point(Point::BeforeClaim);
        match self.store.claim(&claim).await {
            Ok(ClaimOutcome::Created(grant)) => {
                crash_points::point(Point::Claimed);
                handed.claimed();
                Ok(Attempt::Ended(Outcome::Created(grant)))
            }
            Ok(ClaimOutcome::LeaseStands(lease)) => {
                handed.put_back();
                // The verdict is free only if the lease changed after the condition failed: try again.
                self.apply_verdict(request, judge(Some(&lease), request, now), Attempt::InTheWay).await
            }
            Ok(ClaimOutcome::RequestEnded) => {
                handed.put_back();
                Ok(Attempt::Ended(self.ended_before(request).await?))
            }
            Ok(ClaimOutcome::LostCandidate) => {
                handed.lost();
                metrics::counter!("broker_allocate_conflicts_total").increment(1);
                Ok(Attempt::LostRace)
            }
            Err(StoreError::Conflict) => {
                handed.put_back();
                Ok(Attempt::InTheWay)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The attempt's result for a verdict on the key's lease; `free` if nothing is in its way.
    async fn apply_verdict(
        &self,
        request: &AllocateRequest,
        verdict: LeaseVerdict,
        free: Attempt,
    ) -> Result<Attempt, HandlerError> {
        match verdict {
            LeaseVerdict::Free => Ok(free),
            LeaseVerdict::Mine(grant) => Ok(Attempt::Ended(Outcome::Created(grant))),
            LeaseVerdict::Existing(grant) => Ok(Attempt::Ended(Outcome::Existing(grant))),
            LeaseVerdict::KeyReused => Ok(Attempt::Ended(Outcome::KeyReused)),
            LeaseVerdict::Superseded => Ok(Attempt::Ended(Outcome::Superseded)),
            LeaseVerdict::PastExpiry(lease) => self.end_own_expired(request, &lease).await,
        }
    }

    /// Ends the key's lease whose time is over; if another request is faster, the next attempt finds it ended.
    async fn end_own_expired(
        &self,
        request: &AllocateRequest,
        lease: &Lease,
    ) -> Result<Attempt, HandlerError> {
        let end = LeaseEnd::by_request(EndReason::Expired, self.clock.now(), request.times.enqueued_at);
        match self.store.end(&lease.grant.sandbox_id, &allocation_of(lease), &end).await {
            Ok(EndOutcome::Ended) => Ok(Attempt::LostRace),
            Ok(EndOutcome::MovedOn) => {
                self.must_agree(&lease.key).await?;
                Ok(Attempt::InTheWay)
            }
            Err(StoreError::Conflict) => Ok(Attempt::InTheWay),
            Err(error) => Err(error.into()),
        }
    }

    /// The outcome of an asynchronous request that is not queued any more.
    async fn ended_before(&self, request: &AllocateRequest) -> Result<Outcome, HandlerError> {
        let record = self.store.request(request.request_id).await?;
        Ok(match record.map(|record| record.state) {
            Some(RequestState::Ended(outcome)) => outcome,
            // Its record is expired: no client can ask for it any more.
            Some(RequestState::Queued) | None => Outcome::Expired,
        })
    }
}

/// The allocation of a live lease.
fn allocation_of(lease: &Lease) -> Allocation {
    Allocation {
        id: lease.allocation_id,
        lease_key: lease.key.clone(),
        track_name: lease.grant.track_name.clone(),
        allocated_at: lease.grant.allocated_at,
        expires_at: lease.grant.expires_at,
    }
}
