//! Allocate: claim a candidate for the caller's key, or say what the key's lease says.
//!
//! The protocol is DESIGN.md, "Claim", model-checked there. One write call for a new allocation, one for a repeat, no
//! read before. "None" is only said after a look at the caller's own lease, and a claim that lost its races while
//! candidates remain goes on until its deadline.

use broker_domain::{
    AllocateRequest, Allocation, EndReason, Lease, LeaseEnd, LeaseVerdict, Outcome, RequestState, judge,
};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Claim, ClaimOutcome, EndOutcome, StoreError};

use super::{HandlerError, Handlers};

/// What one attempt came to.
enum Attempt {
    /// The request's end.
    Ended(Outcome),
    /// Somebody else has the candidate, or an old lease is ended: go on at once.
    LostRace,
    /// Somebody is writing the same items: go on after a moment.
    InTheWay,
}

impl Handlers {
    pub(super) async fn allocate(&self, ask: &AllocateRequest) -> Result<Outcome, HandlerError> {
        let mut attempts = 0_u32;
        let outcome = loop {
            if self.clock.now() > ask.times.deadline {
                break Outcome::Expired;
            }
            attempts += 1;
            match self.attempt(ask).await? {
                Attempt::Ended(outcome) => break outcome,
                Attempt::LostRace => {}
                Attempt::InTheWay => self.back_off(attempts).await,
            }
        };
        metrics::histogram!("broker_claim_attempts").record(attempts);
        Ok(outcome)
    }

    async fn attempt(&self, ask: &AllocateRequest) -> Result<Attempt, HandlerError> {
        let Some(handed) = self.candidates.next(ask.prefix.as_ref()).await? else {
            let lease = match self.store.lease(&ask.lease_key).await {
                Err(StoreError::Conflict) => return Ok(Attempt::InTheWay),
                read => read?,
            };
            let verdict = judge(lease.as_ref(), ask, self.clock.now());
            return self.apply_verdict(ask, verdict, Attempt::Ended(Outcome::NoSandboxes)).await;
        };
        // The wait for a candidate may have been long.
        let now = self.clock.now();
        if now > ask.times.deadline {
            handed.put_back();
            return Ok(Attempt::Ended(Outcome::Expired));
        }
        let claim =
            Claim { ask, candidate: handed.candidate(), allocation_id: self.entropy.allocation_id(), now };
        crash_points::point(Point::BeforeClaim);
        match self.store.claim(&claim).await {
            Ok(ClaimOutcome::Created(grant)) => {
                crash_points::point(Point::Claimed);
                handed.claimed();
                Ok(Attempt::Ended(Outcome::Created(grant)))
            }
            Ok(ClaimOutcome::LeaseStands(lease)) => {
                handed.put_back();
                // The condition let nothing through that the verdict calls free, unless it changed since: try again.
                self.apply_verdict(ask, judge(Some(&lease), ask, now), Attempt::InTheWay).await
            }
            Ok(ClaimOutcome::RequestEnded) => {
                handed.put_back();
                Ok(Attempt::Ended(self.ended_before(ask).await?))
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

    /// What a verdict on the key's lease makes of the attempt; `free` is what it is if nothing stands in its way.
    async fn apply_verdict(
        &self,
        ask: &AllocateRequest,
        verdict: LeaseVerdict,
        free: Attempt,
    ) -> Result<Attempt, HandlerError> {
        match verdict {
            LeaseVerdict::Free => Ok(free),
            LeaseVerdict::Mine(grant) => Ok(Attempt::Ended(Outcome::Created(grant))),
            LeaseVerdict::Existing(grant) => Ok(Attempt::Ended(Outcome::Existing(grant))),
            LeaseVerdict::KeyReused => Ok(Attempt::Ended(Outcome::KeyReused)),
            LeaseVerdict::Superseded => Ok(Attempt::Ended(Outcome::Superseded)),
            LeaseVerdict::PastExpiry(lease) => self.end_own_expired(ask, &lease).await,
        }
    }

    /// Ends the caller's lease whose time is over; whoever is faster, the next attempt finds it ended.
    async fn end_own_expired(&self, ask: &AllocateRequest, lease: &Lease) -> Result<Attempt, HandlerError> {
        let end = LeaseEnd::by_request(EndReason::Expired, self.clock.now(), ask.times.enqueued_at);
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

    /// How an asynchronous request that is not queued any more ended.
    async fn ended_before(&self, ask: &AllocateRequest) -> Result<Outcome, HandlerError> {
        let record = self.store.request(ask.request_id).await?;
        Ok(match record.map(|record| record.state) {
            Some(RequestState::Ended(outcome)) => outcome,
            // Its record is gone: nobody can ask for it any more.
            Some(RequestState::Queued) | None => Outcome::Expired,
        })
    }
}

/// The allocation that a live lease stands for.
fn allocation_of(lease: &Lease) -> Allocation {
    Allocation {
        id: lease.allocation_id,
        lease_key: lease.key.clone(),
        track_name: lease.grant.track_name.clone(),
        allocated_at: lease.grant.allocated_at,
        expires_at: lease.grant.expires_at,
    }
}
