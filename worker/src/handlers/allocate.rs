//! Allocate: claims a candidate for the caller's key, or answers from the key's lease.
//!
//! The protocol is ARCHITECTURE.md, "Claim", which was model-checked. One write call for a new allocation, one for a repeat,
//! no read before. "None" is answered only after a read of the key's own lease, and a claim that lost its races while
//! candidates remain goes on until its deadline.

use broker_domain::{
    AllocateRequest, EndReason, Lease, LeaseEnd, LeaseVerdict, Outcome, RequestState, Timestamp, judge,
    overdue_for_owner,
};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Claim, ClaimOutcome, StoreError};

use super::{HandlerError, Handlers};

/// The result of one attempt.
enum Attempt {
    /// The request's outcome.
    Ended(Outcome),
    /// Somebody else has the candidate: go on at once.
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
            return self.without_candidate(request).await;
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
        let mut claimed = self.store.claim(&claim).await;
        let mut replaced = None;
        if let Ok(ClaimOutcome::LeaseStands(lease)) = &claimed
            && let LeaseVerdict::PastExpiry(old) = judge(Some(lease), request, now)
            && old.ends_for_owner_at() <= now
        {
            claimed = self.replace(&claim, &old).await;
            replaced = Some(old);
        }
        match claimed {
            Ok(ClaimOutcome::Created(grant)) => {
                crash_points::point(Point::Claimed);
                handed.claimed();
                Ok(Attempt::Ended(Outcome::Created(grant)))
            }
            Ok(ClaimOutcome::LeaseStands(lease)) => {
                handed.put_back();
                self.stands(request, &lease, now).await
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
                if let Some(old) = replaced {
                    self.must_agree(&old.key).await?;
                }
                Ok(Attempt::InTheWay)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the key's lease says when there is nothing to claim. One that is past its time stays: its owner would stand
    /// with neither.
    async fn without_candidate(&self, request: &AllocateRequest) -> Result<Attempt, HandlerError> {
        let lease = match self.store.lease(&request.lease_key).await {
            Err(StoreError::Conflict) => return Ok(Attempt::InTheWay),
            read => read?,
        };
        Ok(Attempt::Ended(match judge(lease.as_ref(), request, self.clock.now()) {
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => Outcome::NoSandboxes,
            LeaseVerdict::Mine(grant) => Outcome::Created(grant),
            LeaseVerdict::Existing(grant) => Outcome::Existing(grant),
            LeaseVerdict::KeyReused => Outcome::KeyReused,
            LeaseVerdict::Superseded => Outcome::Superseded,
        }))
    }

    /// What a lease that stood in the claim's way makes of the attempt.
    async fn stands(
        &self,
        request: &AllocateRequest,
        lease: &Lease,
        now: Timestamp,
    ) -> Result<Attempt, HandlerError> {
        Ok(match judge(Some(lease), request, now) {
            // The condition let nothing through that the verdict calls free, unless it changed since: try again.
            LeaseVerdict::Free => Attempt::InTheWay,
            LeaseVerdict::Mine(grant) => Attempt::Ended(Outcome::Created(grant)),
            LeaseVerdict::Existing(grant) => Attempt::Ended(Outcome::Existing(grant)),
            LeaseVerdict::KeyReused => Attempt::Ended(Outcome::KeyReused),
            LeaseVerdict::Superseded => Attempt::Ended(Outcome::Superseded),
            // By a clock that is ahead it may not be over yet.
            LeaseVerdict::PastExpiry(lease) => {
                self.clock.reaches(lease.ends_for_owner_at()).await;
                Attempt::LostRace
            }
        })
    }

    /// Claims in the place of the caller's own lease, whose time is over. Whoever is faster, the next attempt finds what
    /// became of it.
    async fn replace(&self, claim: &Claim<'_>, old: &Lease) -> Result<ClaimOutcome, StoreError> {
        let end = LeaseEnd::by_request(EndReason::Expired, claim.now, claim.request.times.enqueued_at);
        crash_points::point(Point::BeforeEnd);
        self.store.replace(claim, old, overdue_for_owner(claim.now), &end).await
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
