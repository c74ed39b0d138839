//! Limits of tenants: the candidate, and the permit, that a request may claim.
//!
//! Every claim gets its candidate here. For a tenant without a limit it is only the candidate. Under a limit
//! it comes with a permit, and a request never overtakes a place of its tenant that was durable before the request was made:
//! otherwise requests that wait for a permit could starve. A request whose prefix falls under several limits tries the other
//! flavours, and sandboxes under no limit, before it is answered which limit is reached: of each first what is reserved for its
//! tenant, then what is offered to all. What a read found empty a moment ago is not read again for that. What is reserved goes past
//! no place of its tenant either, under a limit or under none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker_domain::policy::{Policy, TenantLimit};
use broker_domain::waiting::{Line, Place};
use broker_domain::{
    AllocateRequest, NamePrefix, Quota, ReservationId, SandboxName, Status, TenantName, Timestamp,
};
use broker_messages::RequestMessage;
use broker_store::reservations::ReservationsUnknown;
use broker_store::{Candidate, CandidateFilter, Pages, StoreError};

use super::key_turns::KeyTurn;
use super::permits::Slot;
use super::slots::HeldPermit;
use super::{HandlerError, Handlers};
use crate::candidates::HeldCandidate;

/// Places of a line that are read at a time, to see whether a request waits.
const HEADS: u16 = 10;
/// How long the last look at a tenant's lines serves requests that were made before it began. It bounds what clocks that differ
/// can hide.
const LOOK_SERVES_FOR: Duration = Duration::from_millis(250);
/// Looks at the lines of one tenant at a time. Who comes while one is under way asked after it began: that one tells it nothing.
pub(super) const LOOKS_AT_A_TIME: usize = 3;
/// How long a claim waits for a read of the reservations before it is tried again.
const RESERVATIONS_COME_WITHIN: Duration = Duration::from_secs(3);
/// How long a process that just started waits for its policy before it tries the request again.
const POLICY_COMES_WITHIN: Duration = Duration::from_secs(1);

/// What a claim takes: a candidate, and a permit if the sandbox falls under a limit.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) candidate: HeldCandidate,
    pub(super) permit: Option<HeldPermit>,
}

impl Taken {
    /// The claim has both.
    pub(super) fn claimed(self) {
        self.candidate.claimed();
        self.permit.into_iter().for_each(HeldPermit::taken);
    }

    /// The sandbox is another claim's.
    pub(super) fn lost(self) {
        self.candidate.lost();
        self.permit.into_iter().for_each(HeldPermit::put_back);
    }

    /// The permit is another claim's.
    pub(super) fn permit_taken(self) {
        self.candidate.put_back();
        self.permit.into_iter().for_each(HeldPermit::lost);
    }

    /// Neither was needed.
    pub(super) fn put_back(self) {
        self.candidate.put_back();
        self.permit.into_iter().for_each(HeldPermit::put_back);
    }
}

/// What a request found to claim.
#[derive(Debug)]
pub(super) enum Claimable {
    /// This.
    Free(Taken),
    /// Nothing that fits.
    Nothing,
    /// Its tenant may have no more, or others of it wait before it.
    Refused(LimitRefusal),
}

/// Why a limited request may not have a candidate.
#[derive(Debug)]
pub(super) struct LimitRefusal {
    /// What it may not have.
    pub(super) candidate: HeldCandidate,
    /// The limit that is in its way.
    pub(super) limited: TenantLimit,
    /// Its use.
    pub(super) quota: Quota,
    /// Whether a place of its tenant fits the candidate: then it goes to that one, whosever the permit is.
    pub(super) goes_past: bool,
}

/// The lines of a tenant in which a request waits, as a read showed them.
#[derive(Debug)]
pub(super) enum LinesLearnt {
    /// These.
    Waited(Arc<[Line]>),
    /// The table did not answer.
    Failed,
}

/// When a look for what falls under no limit of a tenant found nothing, by the prefix that it asked for.
pub(super) type NothingBeyond = Mutex<HashMap<(TenantName, Option<NamePrefix>), Instant>>;

/// The last look at the lines of each tenant that is limited or has something reserved.
#[derive(Debug, Default)]
pub(super) struct LastLooks(Mutex<HashMap<TenantName, LastLook>>);

#[derive(Debug)]
struct LastLook {
    began_at: Timestamp,
    began: Instant,
    waited: Arc<[Line]>,
}

impl LastLooks {
    /// What the last look saw, if it serves a request that was made at `asked`.
    fn of(&self, tenant: &TenantName, asked: Timestamp, now: Instant) -> Option<Arc<[Line]>> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look = looks.get(tenant)?;
        let serves = asked < look.began_at && now.duration_since(look.began) <= LOOK_SERVES_FOR;
        serves.then(|| Arc::clone(&look.waited))
    }

    fn keep(&self, tenant: &TenantName, look: LastLook) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Looks overlap: an older one may end later.
        if looks.get(tenant).is_none_or(|last| last.began < look.began) {
            looks.insert(tenant.clone(), look);
        }
    }
}

impl Handlers {
    /// The policy. Without one it is not known who is limited, so nothing is claimed.
    pub(super) async fn policy(&self) -> Result<Arc<Policy>, HandlerError> {
        let known = tokio::time::timeout(POLICY_COMES_WITHIN, self.policy.known()).await;
        let unknown = |source| StoreError::Unavailable { operation: "policy", source };
        match known {
            Ok(known) => known.map_err(|error| unknown(error.into()).into()),
            Err(elapsed) => Err(unknown(elapsed.into()).into()),
        }
    }

    /// What `request` may claim now.
    pub(super) async fn find(
        &self,
        request: &AllocateRequest,
        policy: &Policy,
    ) -> Result<Claimable, HandlerError> {
        let Some(candidate) = self.candidate(request, policy).await? else {
            return Ok(Claimable::Nothing);
        };
        let refused = match self.permitted(request, policy, candidate).await? {
            Claimable::Refused(refused) => refused,
            found @ (Claimable::Free(_) | Claimable::Nothing) => return Ok(found),
        };
        if refused.limited.limit.covers_all_of(request.prefix.as_ref()) {
            return Ok(Claimable::Refused(refused));
        }
        let wanted = request.prefix.as_ref().map_or("", |prefix| prefix.as_str());
        let others = policy.flavours().values().map(|flavour| &flavour.prefix);
        for prefix in others.filter(|prefix| prefix.as_str().starts_with(wanted)) {
            if *prefix == refused.limited.limit.prefix {
                continue;
            }
            for of in self.of_tenant_and_all(&refused.limited.limit.tenant, Some(prefix)).await? {
                let candidate = self.candidates.next_if_any(&of).await?;
                let Some(candidate) = self.unless_waited_for(request, policy, candidate).await? else {
                    continue;
                };
                match self.permitted(request, policy, candidate).await? {
                    Claimable::Free(taken) => {
                        refused.candidate.put_back();
                        return Ok(Claimable::Free(taken));
                    }
                    Claimable::Refused(other) => other.candidate.put_back(),
                    Claimable::Nothing => {}
                }
            }
        }
        if let Some(candidate) = self.beyond_limits(request, policy, &refused.limited.limit.tenant).await? {
            refused.candidate.put_back();
            return Ok(Claimable::Free(Taken { candidate, permit: None }));
        }
        Ok(Claimable::Refused(refused))
    }

    /// A candidate that falls under no limit of `tenant`. That there is none serves its other requests for a moment.
    async fn beyond_limits(
        &self,
        request: &AllocateRequest,
        policy: &Policy,
        tenant: &TenantName,
    ) -> Result<Option<HeldCandidate>, HandlerError> {
        let now = self.clock.instant();
        let is_recent = |at: &Instant| now.duration_since(*at) < LOOK_SERVES_FOR;
        {
            let mut found_none = self.nothing_beyond.lock().unwrap_or_else(PoisonError::into_inner);
            found_none.retain(|_, at| is_recent(at));
            if found_none.contains_key(&(tenant.clone(), request.prefix.clone())) {
                return Ok(None);
            }
        }
        let is_free = |name: &SandboxName| policy.limit_of(tenant, name).is_none();
        let is_limited = |of: &CandidateFilter| {
            policy.limits_of(tenant).any(|limited| limited.limit.covers_all_of(of.prefix.as_ref()))
        };
        let mut wanted = self.of_tenant_and_all(tenant, request.prefix.as_ref()).await?;
        wanted.retain(|of| !is_limited(of));
        for of in wanted {
            let candidate = self.candidates.next_that(&of, is_free).await?;
            if let Some(candidate) = self.unless_waited_for(request, policy, candidate).await? {
                return Ok(Some(candidate));
            }
        }
        let mut found_none = self.nothing_beyond.lock().unwrap_or_else(PoisonError::into_inner);
        found_none.insert((tenant.clone(), request.prefix.clone()), now);
        Ok(None)
    }

    /// What is put aside for `tenant` with this prefix, then what is offered to all.
    async fn of_tenant_and_all(
        &self,
        tenant: &TenantName,
        prefix: Option<&NamePrefix>,
    ) -> Result<Vec<CandidateFilter>, HandlerError> {
        let mut wanted = known(self.reservations.of_use_to(tenant, prefix)).await?;
        wanted.push(CandidateFilter::available(prefix));
        Ok(wanted)
    }

    /// A candidate: one that is put aside for the request's tenant, if there is one, else one that is offered to all. That there is
    /// none is only said after a look at both.
    async fn candidate(
        &self,
        request: &AllocateRequest,
        policy: &Policy,
    ) -> Result<Option<HeldCandidate>, HandlerError> {
        let prefix = request.prefix.as_ref();
        if let Some(tenant) = &request.tenant {
            for of in known(self.reservations.of_use_to(tenant, prefix)).await? {
                let candidate = self.candidates.next_if_any(&of).await?;
                if let Some(candidate) = self.unless_waited_for(request, policy, candidate).await? {
                    return Ok(Some(candidate));
                }
            }
        }
        if let Some(candidate) = self.candidates.next(&CandidateFilter::available(prefix)).await? {
            return Ok(Some(candidate));
        }
        if let Some(tenant) = &request.tenant {
            for of in known(self.reservations.read_now(tenant, prefix)).await? {
                let candidate = self.candidates.next(&of).await?;
                if let Some(candidate) = self.unless_waited_for(request, policy, candidate).await? {
                    return Ok(Some(candidate));
                }
            }
        }
        Ok(None)
    }

    /// `candidate`, but not one that is put aside for the tenant and fits a place of it: what arrives is put aside before it is
    /// dealt. One that falls under a limit is judged with its permit.
    async fn unless_waited_for(
        &self,
        request: &AllocateRequest,
        policy: &Policy,
        candidate: Option<HeldCandidate>,
    ) -> Result<Option<HeldCandidate>, HandlerError> {
        let Some(candidate) = candidate else { return Ok(None) };
        let Some(tenant) = &request.tenant else { return Ok(Some(candidate)) };
        let name = &candidate.candidate().name;
        if candidate.listed() != Status::Reserved || policy.limit_of(tenant, name).is_some() {
            return Ok(Some(candidate));
        }
        let waited = self.waited(tenant, request.times.enqueued_at).await?;
        if waited.iter().any(|line| line.fits(name)) {
            candidate.put_back();
            return Ok(None);
        }
        Ok(Some(candidate))
    }

    /// Keeps a sandbox that is not as it was listed for the next claim, if it is of use to `request` as it is now: the index may
    /// list it so only seconds later.
    pub(super) async fn keep_changed(
        &self,
        request: &AllocateRequest,
        changed: Candidate,
        reservation: Option<ReservationId>,
    ) -> Result<(), HandlerError> {
        let prefix = request.prefix.as_ref();
        let of = match (reservation, &request.tenant) {
            (None, _) => Some(CandidateFilter::available(prefix)),
            (Some(id), Some(tenant)) => known(self.reservations.if_of_use_to(id, tenant, prefix)).await?,
            (Some(_), None) => None,
        };
        if let Some(of) = of.filter(|of| of.fits(&changed.name)) {
            self.candidates.learn(&of, changed).await?;
        }
        Ok(())
    }

    /// `candidate`, with a permit if it falls under a limit of the tenant.
    async fn permitted(
        &self,
        request: &AllocateRequest,
        policy: &Policy,
        candidate: HeldCandidate,
    ) -> Result<Claimable, HandlerError> {
        let name = &candidate.candidate().name;
        let limited = request.tenant.as_ref().and_then(|tenant| policy.limit_of(tenant, name));
        let Some(limited) = limited else {
            return Ok(Claimable::Free(Taken { candidate, permit: None }));
        };
        let waited = self.waited(&limited.limit.tenant, request.times.enqueued_at).await?;
        let goes_past = waited.iter().any(|line| line.fits(name));
        let quota = match self.permits.next(&limited).await? {
            Slot::Free(permit) if !goes_past => {
                return Ok(Claimable::Free(Taken { candidate, permit: Some(permit) }));
            }
            Slot::Free(permit) => {
                permit.put_back();
                self.permits.quota(&limited).await?
            }
            Slot::Full(quota) => quota,
        };
        Ok(Claimable::Refused(LimitRefusal { candidate, limited, quota, goes_past }))
    }

    /// The lines of `tenant` in which a request waits, by a read that began after `asked`. Concurrent callers share one read.
    async fn waited(&self, tenant: &TenantName, asked: Timestamp) -> Result<Arc<[Line]>, HandlerError> {
        if let Some(waited) = self.last_looks.of(tenant, asked, self.clock.instant()) {
            return Ok(waited);
        }
        let turn = match self.lines.place(tenant).turn().await {
            KeyTurn::Mine(turn) => turn,
            KeyTurn::Learnt(learnt) => match &*learnt {
                LinesLearnt::Waited(waited) => return Ok(Arc::clone(waited)),
                LinesLearnt::Failed => return Err(Self::failed_for_all()),
            },
        };
        // The look for which this one waited may do.
        let (began_at, began) = (self.clock.now(), self.clock.instant());
        if let Some(waited) = self.last_looks.of(tenant, asked, began) {
            return Ok(waited);
        }
        match self.look_at_lines(tenant).await {
            Ok(waited) => {
                turn.learnt(LinesLearnt::Waited(Arc::clone(&waited)));
                self.last_looks.keep(tenant, LastLook { began_at, began, waited: Arc::clone(&waited) });
                Ok(waited)
            }
            Err(error) => {
                turn.learnt(LinesLearnt::Failed);
                Err(error.into())
            }
        }
    }

    /// The lines of `tenant` in which a request waits. One whose message is a newer version's does not: it is passed over.
    async fn look_at_lines(&self, tenant: &TenantName) -> Result<Arc<[Line]>, StoreError> {
        let now = self.clock.now();
        let mut waited = Vec::new();
        for listed in self.store.waiting.lines_of(tenant, now).await? {
            let mut pages = Pages::new(|after| self.store.waiting.places(&listed.line, after, HEADS));
            while let Some(places) = pages.next().await? {
                let waits =
                    |place: &Place| place.deadline >= now && RequestMessage::decode(&place.message).is_ok();
                if places.places.iter().any(waits) {
                    waited.push(listed.line);
                    break;
                }
            }
        }
        Ok(waited.into())
    }
}

/// What is put aside, once it is known.
async fn known<T>(reading: impl Future<Output = Result<T, ReservationsUnknown>>) -> Result<T, HandlerError> {
    let unknown = |source| StoreError::Unavailable { operation: "reservations", source };
    match tokio::time::timeout(RESERVATIONS_COME_WITHIN, reading).await {
        Ok(known) => known.map_err(|error| unknown(error.into()).into()),
        Err(elapsed) => Err(unknown(elapsed.into()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_serves_requests_that_were_made_before_it_for_a_moment() {
        let (looks, tenant) = (LastLooks::default(), TenantName::new("acme").expect("a tenant"));
        let (began_at, began) = (Timestamp::from_ms(5_000), broker_runtime::clock::Clock::system().instant());
        let serves = |asked, now| looks.of(&tenant, Timestamp::from_ms(asked), now).is_some();
        assert!(!serves(4_999, began), "no look was made");
        looks.keep(&tenant, LastLook { began_at, began, waited: Arc::default() });
        assert!(serves(4_999, began + LOOK_SERVES_FOR));
        assert!(!serves(5_000, began), "a place may have been durable before it was made");
        assert!(!serves(4_999, began + LOOK_SERVES_FOR + Duration::from_millis(1)));
        let other = TenantName::new("umbrella").expect("a tenant");
        assert!(looks.of(&other, Timestamp::from_ms(0), began).is_none());
    }
}
