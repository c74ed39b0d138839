//! Allocate: claims a candidate for the caller's key, or answers from the key's lease.
//!
//! The protocol is ARCHITECTURE.md, "Claim", which was model-checked. One write call for a new allocation, no read before; where
//! many of the last were repeats, the lease is read first ([`Habit`](super::habit)), and a repeat costs that read. "None" is answered only after a read of the key's own lease, and a claim that lost its races while
//! candidates remain goes on until its deadline.
//!
//! Requests of one key take turns ([`KeyTurns`](super::key_turns)): one attempt at a time, whose look at the lease all judge
//! that waited for it. So a key that is repeated a hundred times a second costs one claim at a time.

use std::time::Duration;

use broker_domain::{
    AllocateRequest, Lease, LeaseEnd, LeaseVerdict, NamePrefix, Outcome, PersistedRequest, RequestState,
    TenantName, Timestamp, judge, overdue_for_owner,
};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Claim, ClaimOutcome, StoreError};

use super::key_turns::{self, KeyTurn};
use super::limits::{Claimable, LimitRefusal, Taken};
use super::slots::HeldPermit;
use super::{HandlerError, Handlers};
use crate::finality::must_agree;

/// A request that waits for its turn looks at its deadline so long after it.
const AFTER_THE_DEADLINE: Duration = Duration::from_millis(1);

/// What one attempt came to.
enum AttemptEnd {
    /// The request's outcome.
    Ended(Outcome),
    /// It waits elsewhere: another delivery of it was parked, or a replay opened it again and sends a message of its own.
    Elsewhere,
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
    /// It stands so, if there is one, and there is nothing to claim for these: they are told this.
    Nothing(AskedFor, Option<Box<Lease>>, Outcome),
    /// The table did not answer.
    Failed,
}

/// What decides which sandboxes a request may claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AskedFor {
    tenant: Option<TenantName>,
    prefix: Option<NamePrefix>,
}

impl AskedFor {
    fn by(request: &AllocateRequest) -> Self {
        Self { tenant: request.tenant.clone(), prefix: request.prefix.clone() }
    }
}

impl LeaseLearnt {
    /// What another request's attempt means for `request`; `None` if it has to ask by itself.
    fn judge(&self, request: &AllocateRequest, now: Timestamp) -> Result<Option<Outcome>, HandlerError> {
        let (lease, none) = match self {
            Self::Stands(lease) => (Some(&**lease), None),
            Self::Nothing(asked_for, lease, none) => {
                (lease.as_deref(), Some(none).filter(|_| *asked_for == AskedFor::by(request)))
            }
            Self::Failed => return Err(Handlers::failed_for_all()),
        };
        Ok(match judge(lease, request, now) {
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => none.cloned(),
            LeaseVerdict::Mine(grant) => Some(Outcome::Created(grant)),
            LeaseVerdict::Existing(grant) => Some(Outcome::Existing(grant)),
            LeaseVerdict::KeyReused => Some(Outcome::KeyReused),
            LeaseVerdict::Superseded => Some(Outcome::Superseded),
        })
    }
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
                KeyTurn::Learnt(learnt) => match learnt.judge(request, self.clock.now())? {
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
                AttemptEnd::Elsewhere => return Ok(None),
                AttemptEnd::LostRace => {}
                // Its turn goes on: another request of the key would be in the way as well.
                AttemptEnd::InTheWay => self.back_off(attempts).await,
            }
        };
        metrics::histogram!("broker_claim_attempts").record(attempts);
        let may_come = matches!(outcome, Outcome::NoSandboxes | Outcome::QuotaExceeded(_));
        if may_come && request.may_wait {
            return self.park(request, text, outcome).await;
        }
        Ok(Some(outcome))
    }

    async fn attempt(
        &self,
        request: &AllocateRequest,
        turn: &key_turns::Attempt<LeaseLearnt>,
    ) -> Result<AttemptEnd, HandlerError> {
        if !self.new_keys.is_likely()
            && let Some(end) = self.lease_first(request, turn).await?
        {
            return Ok(end);
        }
        let policy = self.policy().await?;
        match self.find(request, &policy).await? {
            Claimable::Free(taken) => self.claim(request, turn, taken, None).await,
            Claimable::Nothing => {
                let lease = match self.store.leases.get(&request.lease_key).await {
                    Err(StoreError::Conflict) => return Ok(AttemptEnd::InTheWay),
                    read => read?,
                };
                Ok(self.without(request, turn, lease, Outcome::NoSandboxes))
            }
            Claimable::Refused(refusal) => self.refused(request, turn, refusal).await,
        }
    }

    /// What the key's lease says before anything is claimed; `None` if it says nothing.
    async fn lease_first(
        &self,
        request: &AllocateRequest,
        turn: &key_turns::Attempt<LeaseLearnt>,
    ) -> Result<Option<AttemptEnd>, HandlerError> {
        let lease = match self.store.leases.get(&request.lease_key).await {
            Err(StoreError::Conflict) => return Ok(Some(AttemptEnd::InTheWay)),
            read => read?,
        };
        let now = self.clock.now();
        let verdict = judge(lease.as_ref(), request, now);
        if !matches!(verdict, LeaseVerdict::Free) {
            // A claim in the place of an own lease past its time fails first as well.
            self.new_keys.learn(false);
        }
        match (verdict, lease) {
            (LeaseVerdict::Free | LeaseVerdict::PastExpiry(_), _) | (_, None) => Ok(None),
            (_, Some(lease)) => {
                turn.learnt(LeaseLearnt::Stands(Box::new(lease.clone())));
                self.stands(request, &lease, now).await.map(Some)
            }
        }
    }

    /// Claims what was `taken`; in the place of `own`, its key's lease that is past its time, with the permit of that one.
    async fn claim(
        &self,
        request: &AllocateRequest,
        turn: &key_turns::Attempt<LeaseLearnt>,
        taken: Taken,
        own: Option<Box<Lease>>,
    ) -> Result<AttemptEnd, HandlerError> {
        // The wait for a candidate may have been long.
        let now = self.clock.now();
        if now > request.times.deadline {
            taken.put_back();
            return Ok(AttemptEnd::Ended(Outcome::Expired));
        }
        let own_permit = own.as_ref().and_then(|own| own.permit.as_ref());
        let claim = Claim {
            request,
            candidate: taken.candidate.candidate(),
            allocation_id: self.entropy.allocation_id(),
            now,
            listed: taken.candidate.listed(),
            from_line: false,
            permit: taken.permit.as_ref().map(HeldPermit::permit).or(own_permit),
        };
        crash_points::point(Point::BeforeClaim);
        let (mut claimed, mut replaced) = match &own {
            None => (self.store.leases.claim(&claim).await, None),
            Some(old) => (self.replace(&claim, old).await, Some(old.key.clone())),
        };
        if let Ok(ClaimOutcome::LeaseStands(lease)) = &claimed
            && let LeaseVerdict::PastExpiry(old) = judge(Some(lease), request, now)
            && old.ends_for_owner_at() <= now
        {
            claimed = self.replace(&claim, &old).await;
            replaced = Some(old.key);
        }
        match claimed {
            Ok(ClaimOutcome::Created(grant)) => {
                crash_points::point(Point::Claimed);
                self.new_keys.learn(true);
                turn.learnt(LeaseLearnt::Stands(Box::new(claim.lease())));
                taken.claimed();
                Ok(AttemptEnd::Ended(Outcome::Created(grant)))
            }
            Ok(ClaimOutcome::LeaseStands(lease)) => {
                taken.put_back();
                self.new_keys.learn(false);
                turn.learnt(LeaseLearnt::Stands(lease.clone()));
                self.stands(request, &lease, now).await
            }
            Ok(ClaimOutcome::RequestEnded) => {
                taken.put_back();
                Ok(self.ended_before(request).await?.map_or(AttemptEnd::Elsewhere, AttemptEnd::Ended))
            }
            Ok(ClaimOutcome::LostCandidate) => {
                taken.lost();
                metrics::counter!("broker_allocate_conflicts_total").increment(1);
                Ok(AttemptEnd::LostRace)
            }
            Ok(ClaimOutcome::CandidateChanged(changed, reservation)) => {
                taken.lost();
                metrics::counter!("broker_allocate_conflicts_total").increment(1);
                self.keep_changed(request, *changed, reservation).await?;
                Ok(AttemptEnd::LostRace)
            }
            Ok(ClaimOutcome::PermitTaken) => {
                taken.permit_taken();
                metrics::counter!("broker_permit_conflicts_total").increment(1);
                Ok(AttemptEnd::LostRace)
            }
            Err(StoreError::Conflict) => {
                taken.put_back();
                if let Some(key) = replaced {
                    must_agree(&self.store, &key).await?;
                }
                Ok(AttemptEnd::InTheWay)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A limit is in the way. An own lease that is past its time gives its permit to the next one, in one write, but not past
    /// others of its tenant that wait.
    async fn refused(
        &self,
        request: &AllocateRequest,
        turn: &key_turns::Attempt<LeaseLearnt>,
        refusal: LimitRefusal,
    ) -> Result<AttemptEnd, HandlerError> {
        let LimitRefusal { candidate, limited, quota, goes_past } = refusal;
        let taken = Taken { candidate, permit: None };
        let lease = match self.store.leases.get(&request.lease_key).await {
            Err(StoreError::Conflict) => {
                taken.put_back();
                return Ok(AttemptEnd::InTheWay);
            }
            read => read?,
        };
        if !goes_past
            && let LeaseVerdict::PastExpiry(own) = judge(lease.as_ref(), request, self.clock.now())
            && own.permit.as_ref().is_some_and(|own| own.limit == limited.limit && own.slot < limited.max)
        {
            self.clock.reaches(own.ends_for_owner_at()).await;
            return self.claim(request, turn, taken, Some(own)).await;
        }
        taken.put_back();
        Ok(self.without(request, turn, lease, Outcome::QuotaExceeded(quota)))
    }

    /// What the key's lease says when there is nothing to claim; `none` if it says nothing. One that is past its time stays: its
    /// owner would stand with neither.
    fn without(
        &self,
        request: &AllocateRequest,
        turn: &key_turns::Attempt<LeaseLearnt>,
        lease: Option<Lease>,
        none: Outcome,
    ) -> AttemptEnd {
        let verdict = judge(lease.as_ref(), request, self.clock.now());
        turn.learnt(LeaseLearnt::Nothing(AskedFor::by(request), lease.map(Box::new), none.clone()));
        AttemptEnd::Ended(match verdict {
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => none,
            LeaseVerdict::Mine(grant) => Outcome::Created(grant),
            LeaseVerdict::Existing(grant) => Outcome::Existing(grant),
            LeaseVerdict::KeyReused => Outcome::KeyReused,
            LeaseVerdict::Superseded => Outcome::Superseded,
        })
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
        let (asked, expires_at) = (claim.request.times.enqueued_at, old.grant.expires_at);
        let end = LeaseEnd::by_request(old.term.end_reason(), claim.now, asked, expires_at);
        crash_points::point(Point::BeforeEnd);
        self.store.leases.replace(claim, old, overdue_for_owner(claim.now), &end).await
    }

    /// The outcome of a recorded request that its condition found not queued; `None` if it waits elsewhere, in a line or for the
    /// message of a replay that opened it again since.
    pub(super) async fn ended_before(
        &self,
        request: &AllocateRequest,
    ) -> Result<Option<Outcome>, HandlerError> {
        let record = self.store.requests.get(request.request_id).await?;
        Ok(match record {
            Some(PersistedRequest { state: RequestState::Ended(outcome), .. }) => Some(outcome),
            Some(PersistedRequest { state: RequestState::Queued, .. }) => None,
            // Its record is expired: no client can ask for it any more.
            None => Some(Outcome::Expired),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{ask, lease};

    #[test]
    fn that_there_is_nothing_is_learnt_by_requests_of_the_same_tenant_and_prefix_only() {
        let now = Timestamp::from_secs(100);
        let of = |tenant: &str, prefix: Option<&str>| AllocateRequest {
            tenant: TenantName::new(tenant).ok(),
            prefix: prefix.map(|prefix| NamePrefix::new(prefix).unwrap()),
            ..ask(9, now)
        };
        let first = of("acme", Some("lab-"));
        let none = || LeaseLearnt::Nothing(AskedFor::by(&first), None, Outcome::NoSandboxes);
        let learns = |learnt: LeaseLearnt, request| learnt.judge(&request, now).unwrap();
        assert_eq!(learns(none(), first.clone()), Some(Outcome::NoSandboxes));
        for other in [of("umbrella", Some("lab-")), of("acme", None), of("acme", Some("gpu-"))] {
            assert_eq!(learns(none(), other), None, "it asks by itself");
        }
        let stands = LeaseLearnt::Stands(Box::new(lease(1, None)));
        let told = learns(stands, of("umbrella", None));
        assert_eq!(told, Some(Outcome::Existing(lease(1, None).grant)), "a lease is its key's");
    }
}
