//! Allocate: claim a candidate for the caller's key, or say what the key's lease says.
//!
//! The protocol is DESIGN.md, "Claim", model-checked there. One write call for a new allocation, one for a repeat, no
//! read before. "None" is only said after a look at the caller's own lease, and a claim that lost its races while
//! candidates remain goes on until its deadline.

use broker_common::domain::{
    AllocateRequest, Allocation, EndReason, Lease, LeaseEnd, LeaseVerdict, Outcome, RequestState, Timestamp,
    judge,
};
use broker_common::store::{Claim, ClaimOutcome, StoreError};

use super::{Handlers, Undecided};

impl Handlers {
    pub(super) async fn allocate(&self, ask: &AllocateRequest) -> Result<Outcome, Undecided> {
        let began = self.clock.instant();
        let mut attempts = 0_u32;
        let outcome = loop {
            let now = self.clock.now();
            if now > ask.times.deadline {
                break Outcome::Expired;
            }
            if self.clock.instant().duration_since(began) > self.turn {
                return Err(Undecided::TurnOver);
            }
            attempts += 1;
            if let Some(outcome) = self.attempt(ask, now).await? {
                break outcome;
            }
        };
        metrics::histogram!("broker_claim_attempts").record(attempts);
        Ok(outcome)
    }

    /// One attempt; `None` if somebody was in the way and another one may succeed.
    async fn attempt(&self, ask: &AllocateRequest, now: Timestamp) -> Result<Option<Outcome>, Undecided> {
        let Some(handed) = self.candidates.next(ask.prefix.as_ref()).await? else {
            let lease = match self.store.lease(&ask.lease_key).await {
                Err(StoreError::Conflict) => return Ok(None),
                read => read?,
            };
            return self.heed(ask, judge(lease.as_ref(), ask, now), Outcome::NoSandboxes).await;
        };
        let claim =
            Claim { ask, candidate: handed.candidate(), allocation_id: self.entropy.allocation_id(), now };
        match self.store.claim(&claim).await {
            Ok(ClaimOutcome::Created(grant)) => {
                handed.claimed();
                Ok(Some(Outcome::Created(grant)))
            }
            Ok(ClaimOutcome::LeaseStands(lease)) => {
                handed.put_back();
                let verdict = judge(Some(&lease), ask, now);
                // The condition let nothing through that the verdict calls free, unless it changed since: try again.
                if verdict == LeaseVerdict::Free {
                    Ok(None)
                } else {
                    self.heed(ask, verdict, Outcome::Superseded).await
                }
            }
            Ok(ClaimOutcome::RequestEnded) => {
                handed.put_back();
                Ok(Some(self.ended_before(ask).await?))
            }
            Ok(ClaimOutcome::LostCandidate) => {
                handed.lost();
                metrics::counter!("broker_allocate_conflicts_total").increment(1);
                Ok(None)
            }
            Err(StoreError::Conflict) => {
                handed.put_back();
                self.step_aside().await;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What a verdict on the key's lease makes of the request; `free` is what it ends with if nothing stands in its way.
    async fn heed(
        &self,
        ask: &AllocateRequest,
        verdict: LeaseVerdict,
        free: Outcome,
    ) -> Result<Option<Outcome>, Undecided> {
        match verdict {
            LeaseVerdict::Free => Ok(Some(free)),
            LeaseVerdict::Mine(grant) => Ok(Some(Outcome::Created(grant))),
            LeaseVerdict::Existing(grant) => Ok(Some(Outcome::Existing(grant))),
            LeaseVerdict::KeyReused => Ok(Some(Outcome::KeyReused)),
            LeaseVerdict::Superseded => Ok(Some(Outcome::Superseded)),
            LeaseVerdict::PastExpiry(lease) => self.end_own_expired(ask, &lease).await.map(|()| None),
        }
    }

    /// Ends the caller's lease whose time is over; whoever is faster, the next attempt finds it ended.
    async fn end_own_expired(&self, ask: &AllocateRequest, lease: &Lease) -> Result<(), Undecided> {
        let end = LeaseEnd::by_request(EndReason::Expired, self.clock.now(), ask.times.enqueued_at);
        match self.store.end(&lease.grant.sandbox_id, &allocation_of(lease), &end).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict) => {
                self.step_aside().await;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How an asynchronous request that is not queued any more ended.
    async fn ended_before(&self, ask: &AllocateRequest) -> Result<Outcome, Undecided> {
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
