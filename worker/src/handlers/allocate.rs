//! Allocate: claims a candidate for the caller's key, or answers from the key's lease.
//!
//! The protocol is ARCHITECTURE.md, "Claim", which was model-checked. One write call for a new allocation, one for a repeat,
//! no read before. "None" is answered only after a read of the key's own lease, and a claim that lost its races while
//! candidates remain goes on until its deadline.
//!
//! Requests of one key take turns ([`KeyTurns`](super::key_turns)): one attempt at a time, whose look at the lease all judge
//! that waited for it. So a key that is repeated a hundred times a second costs one claim at a time.

use std::time::Duration;

use broker_domain::{
    AllocateRequest, Grant, Lease, LeaseEnd, LeaseVerdict, NamePrefix, Outcome, PersistedRequest,
    RequestState, Status, Timestamp, judge, overdue_for_owner,
};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Claim, ClaimOutcome, StoreError};

use super::key_turns::{self, KeyTurn};
use super::{HandlerError, Handlers};

/// A request that waits for its turn looks at its deadline so long after it.
const AFTER_THE_DEADLINE: Duration = Duration::from_millis(1);

/// What one attempt came to.
enum AttemptEnd {
    /// The request's outcome.
    Ended(Outcome),
    /// It stands in a line already: another delivery of it was parked.
    Parked,
    /// Another request has the candidate: go on at once.
    LostRace,
    /// Another transaction is writing the same items: go on after a moment.
    InTheWay,
}

/// What an attempt learnt of its key's lease.
#[derive(Debug)]
pub(super) enum LeaseLearnt {
    /// It stands so.
    Stands(Box<Lease>),
    /// It stands so, if there is one, and no sandbox fits this prefix.
    NothingFits(Option<NamePrefix>, Option<Box<Lease>>),
    /// The table did not answer.
    Failed,
}

impl Handlers {
    pub(super) async fn allocate(
        &self,
        request: &AllocateRequest,
        text: &str,
    ) -> Result<Option<Outcome>, HandlerError> {
        let mut place = self.leases.place(&request.lease_key);
        let mut attempts = 0_u32;
        let outcome = loop {
            let now = self.clock.now();
            if now > request.times.deadline {
                break Outcome::Expired;
            }
            let left = request.times.deadline.since(now).saturating_add(AFTER_THE_DEADLINE);
            let Ok(turn) = tokio::time::timeout(left, place.turn()).await else { continue };
            let turn = match turn {
                KeyTurn::Mine(turn) => turn,
                KeyTurn::Learnt(learnt) => match self.judge_learnt(request, &learnt)? {
                    Some(outcome) => break outcome,
                    None => continue,
                },
            };
            attempts += 1;
            let attempt = self.attempt(request, &turn).await;
            if matches!(&attempt, Err(HandlerError::Store(error)) if error.is_retryable()) {
                turn.learnt(LeaseLearnt::Failed);
            }
            match attempt? {
                AttemptEnd::Ended(outcome) => break outcome,
                AttemptEnd::Parked => return Ok(None),
                AttemptEnd::LostRace => {}
                // Its turn goes on: another request of the key would be in the way as well.
                AttemptEnd::InTheWay => self.back_off(attempts).await,
            }
        };
        metrics::histogram!("broker_claim_attempts").record(attempts);
        if outcome == Outcome::NoSandboxes && request.may_wait {
            return self.park(request, text).await;
        }
        Ok(Some(outcome))
    }

    /// What another request's attempt means for this one; `None` if it has to request by itself.
    fn judge_learnt(
        &self,
        request: &AllocateRequest,
        learnt: &LeaseLearnt,
    ) -> Result<Option<Outcome>, HandlerError> {
        let (lease, nothing_fits) = match learnt {
            LeaseLearnt::Stands(lease) => (Some(&**lease), false),
            LeaseLearnt::NothingFits(prefix, lease) => (lease.as_deref(), *prefix == request.prefix),
            LeaseLearnt::Failed => return Err(Self::failed_for_all()),
        };
        Ok(match judge(lease, request, self.clock.now()) {
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => nothing_fits.then_some(Outcome::NoSandboxes),
            LeaseVerdict::Mine(grant) => Some(Outcome::Created(grant)),
            LeaseVerdict::Existing(grant) => Some(Outcome::Existing(grant)),
            LeaseVerdict::KeyReused => Some(Outcome::KeyReused),
            LeaseVerdict::Superseded => Some(Outcome::Superseded),
        })
    }

    async fn attempt(
        &self,
        request: &AllocateRequest,
        turn: &key_turns::Attempt<LeaseLearnt>,
    ) -> Result<AttemptEnd, HandlerError> {
        let Some(handed) = self.candidates.next(request.prefix.as_ref()).await? else {
            return self.without_candidate(request, turn).await;
        };
        // The wait for a candidate may have been long.
        let now = self.clock.now();
        if now > request.times.deadline {
            handed.put_back();
            return Ok(AttemptEnd::Ended(Outcome::Expired));
        }
        let claim = Claim {
            request,
            candidate: handed.candidate(),
            allocation_id: self.entropy.allocation_id(),
            now,
            listed: Status::Available,
            from_line: false,
        };
        crash_points::point(Point::BeforeClaim);
        let mut claimed = self.store.leases.claim(&claim).await;
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
                turn.learnt(LeaseLearnt::Stands(Box::new(lease_of(&claim, grant.clone()))));
                handed.claimed();
                Ok(AttemptEnd::Ended(Outcome::Created(grant)))
            }
            Ok(ClaimOutcome::LeaseStands(lease)) => {
                handed.put_back();
                turn.learnt(LeaseLearnt::Stands(lease.clone()));
                self.stands(request, &lease, now).await
            }
            Ok(ClaimOutcome::RequestEnded) => {
                handed.put_back();
                Ok(self.ended_before(request).await?.map_or(AttemptEnd::Parked, AttemptEnd::Ended))
            }
            Ok(ClaimOutcome::LostCandidate) => {
                handed.lost();
                metrics::counter!("broker_allocate_conflicts_total").increment(1);
                Ok(AttemptEnd::LostRace)
            }
            Err(StoreError::Conflict) => {
                handed.put_back();
                if let Some(old) = replaced {
                    self.must_agree(&old.key).await?;
                }
                Ok(AttemptEnd::InTheWay)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the key's lease says when there is nothing to claim. One that is past its time stays: its owner would stand
    /// with neither.
    async fn without_candidate(
        &self,
        request: &AllocateRequest,
        turn: &key_turns::Attempt<LeaseLearnt>,
    ) -> Result<AttemptEnd, HandlerError> {
        let lease = match self.store.leases.get(&request.lease_key).await {
            Err(StoreError::Conflict) => return Ok(AttemptEnd::InTheWay),
            read => read?,
        };
        let verdict = judge(lease.as_ref(), request, self.clock.now());
        turn.learnt(LeaseLearnt::NothingFits(request.prefix.clone(), lease.map(Box::new)));
        Ok(AttemptEnd::Ended(match verdict {
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
    ) -> Result<AttemptEnd, HandlerError> {
        Ok(match judge(Some(lease), request, now) {
            // The condition let nothing through that the verdict calls free, unless it changed since: try again.
            LeaseVerdict::Free => AttemptEnd::InTheWay,
            LeaseVerdict::Mine(grant) => AttemptEnd::Ended(Outcome::Created(grant)),
            LeaseVerdict::Existing(grant) => AttemptEnd::Ended(Outcome::Existing(grant)),
            LeaseVerdict::KeyReused => AttemptEnd::Ended(Outcome::KeyReused),
            LeaseVerdict::Superseded => AttemptEnd::Ended(Outcome::Superseded),
            // By a clock that is ahead it may not be over yet.
            LeaseVerdict::PastExpiry(lease) => {
                self.clock.reaches(lease.ends_for_owner_at()).await;
                AttemptEnd::LostRace
            }
        })
    }

    /// Claims in the place of the caller's own lease, whose time is over. If another request is faster, the next attempt finds what
    /// became of it.
    async fn replace(&self, claim: &Claim<'_>, old: &Lease) -> Result<ClaimOutcome, StoreError> {
        let end = LeaseEnd::by_request(old.term.end_reason(), claim.now, claim.request.times.enqueued_at);
        crash_points::point(Point::BeforeEnd);
        self.store.leases.replace(claim, old, overdue_for_owner(claim.now), &end).await
    }

    /// The outcome of a recorded request that is not queued any more; `None` if it stands in a line.
    pub(super) async fn ended_before(
        &self,
        request: &AllocateRequest,
    ) -> Result<Option<Outcome>, HandlerError> {
        let record = self.store.requests.get(request.request_id).await?;
        Ok(match record {
            Some(PersistedRequest { state: RequestState::Ended(outcome), .. }) => Some(outcome),
            Some(PersistedRequest { state: RequestState::Queued, parked: Some(_), .. }) => None,
            // Its record is expired: no client can ask for it any more.
            Some(PersistedRequest { state: RequestState::Queued, parked: None, .. }) | None => {
                Some(Outcome::Expired)
            }
        })
    }
}

/// The lease that `claim` made, of which this was granted.
fn lease_of(claim: &Claim<'_>, grant: Grant) -> Lease {
    Lease {
        key: claim.request.lease_key.clone(),
        request_id: claim.request.request_id,
        allocation_id: claim.allocation_id,
        fingerprint: claim.request.fingerprint.clone(),
        grant,
        term: claim.request.term(),
        tenant: claim.request.tenant.clone(),
        end: None,
    }
}
