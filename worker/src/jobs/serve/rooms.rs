//! Free sandboxes, and the free permits of each waiting tenant's limits.
//!
//! Invariant: permits are read after the sandboxes were listed, as the lines are. A tenant without a free permit is skipped: what it
//! may not take goes to others, or is offered. One of its requests may take a sandbox all the same: the first that waits for one, if
//! the lease of its own key is past its time and holds a permit of that limit. It hands it over to the lease that replaces it. The
//! condition of a grant decides which permit it takes.

use std::collections::BTreeMap;

use broker_domain::policy::{Policy, TenantLimit};
use broker_domain::waiting::{Line, Place};
use broker_domain::{
    Lease, LeaseVerdict, Limit, Permit, RequestId, SandboxName, Status, TenantName, judge, open_below,
};
use broker_store::{Candidate, StoreError, retry_on_conflict};

use super::parked::ParkedRequest;
use super::places::heads;
use crate::jobs::Jobs;

/// Free permits of a limit that one dealing may use, at most: more than sandboxes that are served together.
const KEPT: usize = super::TOGETHER as usize;
/// Places that are read of a line at a time, for its first one.
const FIRST: u16 = 4;

/// A sandbox that is free, as it was listed.
#[derive(Clone, Debug)]
pub(crate) struct Free {
    pub(crate) candidate: Candidate,
    pub(crate) listed: Status,
    /// The tenant that it is put aside for.
    pub(crate) only_for: Option<TenantName>,
}

impl Free {
    /// A sandbox that every tenant may have.
    pub(crate) const fn for_all(candidate: Candidate, listed: Status) -> Self {
        Self { candidate, listed, only_for: None }
    }

    /// Whether a place of `line` may have it.
    pub(crate) fn fits(&self, line: &Line) -> bool {
        line.fits(&self.candidate.name) && self.only_for.as_ref().is_none_or(|tenant| *tenant == line.tenant)
    }
}

/// The limits of tenants that wait, each with its free slots.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    of: BTreeMap<TenantName, Vec<(Limit, Vec<u32>)>>,
    /// The leases, past their time, that hand over their permits, by the requests that get them. Each with the line of that one.
    handed_over: BTreeMap<RequestId, (Line, Box<Lease>)>,
}

impl Rooms {
    /// The rooms of the tenants of `lines`, as far as `free` falls under their limits.
    pub(super) async fn of(
        jobs: &Jobs,
        policy: &Policy,
        lines: &[Line],
        free: &[Free],
        is_passed_over: impl Fn(&RequestId) -> bool,
    ) -> Result<Self, StoreError> {
        let mut rooms = Self::default();
        for line in lines {
            if rooms.of.contains_key(&line.tenant) {
                continue;
            }
            let mut of_tenant = Vec::new();
            for limited in policy.limits_of(&line.tenant) {
                if !free.iter().any(|free| limited.limit.covers(&free.candidate.name)) {
                    continue;
                }
                let slots = free_slots(jobs, &limited).await?;
                if slots.is_empty()
                    && limited.max > 0
                    && let Some((first, own)) =
                        handed_over(jobs, &limited, lines, free, &is_passed_over).await?
                {
                    rooms.handed_over.insert(first.place.request_id, (first.place.line, own));
                }
                of_tenant.push((limited.limit, slots));
            }
            rooms.of.insert(line.tenant.clone(), of_tenant);
        }
        Ok(rooms)
    }

    /// Whether a place of `line` may take a sandbox of this name.
    pub(super) fn has_room(&self, line: &Line, name: &SandboxName) -> bool {
        let mut of_tenant = self.of.get(&line.tenant).into_iter().flatten();
        let hands_over = |limit: &Limit| {
            let mut all = self.handed_over.values();
            all.any(|(of, own)| of == line && own.permit.as_ref().is_some_and(|own| own.limit == *limit))
        };
        !of_tenant.any(|(limit, slots)| slots.is_empty() && limit.covers(name) && !hands_over(limit))
    }

    /// How many permits of each of its limits are free.
    pub(super) fn room_of(&self, tenant: &TenantName) -> Vec<(Limit, usize)> {
        let of_tenant = self.of.get(tenant).into_iter().flatten();
        of_tenant.map(|(limit, slots)| (limit.clone(), slots.len())).collect()
    }

    /// The requests of a tenant that need no free permit, each with the limit of the one that they are handed over.
    pub(super) fn handed_over(&self, tenant: &TenantName) -> Vec<(RequestId, Limit)> {
        let of_tenant = self.handed_over.iter().filter(|(_, (line, _))| line.tenant == *tenant);
        of_tenant.filter_map(|(id, (_, own))| Some((*id, own.permit.as_ref()?.limit.clone()))).collect()
    }

    /// A permit for a sandbox of this name: `Ok(None)` where there is no limit, `Err` where none is free any more.
    pub(super) fn take(&mut self, place: &Place, name: &SandboxName) -> Result<Option<Permit>, NoPermit> {
        let mut of_tenant = self.of.get_mut(&place.line.tenant).into_iter().flatten();
        let Some((limit, slots)) = of_tenant.find(|(limit, _)| limit.covers(name)) else { return Ok(None) };
        if let Some(slot) = slots.pop() {
            return Ok(Some(Permit { limit: limit.clone(), slot }));
        }
        let own = self.handed_over.get(&place.request_id).and_then(|(_, own)| own.permit.clone());
        own.filter(|own| own.limit == *limit).map(Some).ok_or(NoPermit)
    }

    /// Puts back a permit that was taken and not used; one that is handed over is none.
    pub(super) fn put_back(&mut self, permit: &Permit) {
        let is_own = self.handed_over.values().any(|(_, own)| own.permit.as_ref() == Some(permit));
        let of_tenant = self.of.get_mut(&permit.limit.tenant).into_iter().flatten();
        for (_, slots) in of_tenant.filter(|(limit, _)| *limit == permit.limit && !is_own) {
            slots.push(permit.slot);
        }
    }

    /// The lease that hands over `permit` to a request.
    pub(super) fn own_lease(&self, request_id: RequestId, permit: Option<&Permit>) -> Option<&Lease> {
        let (_, own) = self.handed_over.get(&request_id)?;
        let own: &Lease = own;
        (permit.is_some() && own.permit.as_ref() == permit).then_some(own)
    }
}

/// The first of a tenant's requests that want a permit of a full limit for what is free, and the lease of its key, if that one is past
/// its time and holds a permit of the limit.
async fn handed_over(
    jobs: &Jobs,
    limited: &TenantLimit,
    lines: &[Line],
    free: &[Free],
    is_passed_over: impl Fn(&RequestId) -> bool,
) -> Result<Option<(ParkedRequest, Box<Lease>)>, StoreError> {
    let limit = &limited.limit;
    let under = |line: &Line| free.iter().any(|free| limit.covers(&free.candidate.name) && free.fits(line));
    let of_tenant = lines.iter().filter(|line| line.tenant == limit.tenant && under(line));
    let mut waiting = Vec::new();
    for line in of_tenant.collect::<Vec<_>>() {
        waiting.extend(heads(jobs, line, FIRST, &is_passed_over).await?.0);
    }
    waiting.sort_by_key(|waiter| waiter.place.request_id);
    for waiter in waiting {
        let lease = || jobs.store.leases.get(&waiter.ask.lease_key);
        let lease = match retry_on_conflict(&jobs.entropy, lease).await {
            // Its grant tells, once a permit is free.
            Err(StoreError::Malformed { .. }) => return Ok(None),
            read => read?,
        };
        match judge(lease.as_ref(), &waiter.ask, jobs.clock.now()) {
            LeaseVerdict::Free => return Ok(None),
            LeaseVerdict::PastExpiry(own) => {
                let hands_over = |own: &Permit| own.limit == *limit && own.slot < limited.max;
                return Ok(own.permit.as_ref().is_some_and(hands_over).then_some((waiter, own)));
            }
            // It wants no permit: it is answered with what its key has.
            LeaseVerdict::Mine(_)
            | LeaseVerdict::Existing(_)
            | LeaseVerdict::KeyReused
            | LeaseVerdict::Superseded => {}
        }
    }
    Ok(None)
}

/// No permit of a limit is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoPermit;

/// Some of the free slots of a limit, in random order.
async fn free_slots(jobs: &Jobs, limited: &TenantLimit) -> Result<Vec<u32>, StoreError> {
    if limited.max == 0 {
        return Ok(Vec::new());
    }
    let held = jobs.store.permits.slots(&limited.limit).await?;
    let open = 0..open_below(&held, limited.max);
    let mut free: Vec<u32> = open.filter(|slot| !held.contains(slot)).take(KEPT).collect();
    jobs.entropy.shuffle(&mut free);
    Ok(free)
}

#[cfg(test)]
mod tests {
    use broker_domain::{NamePrefix, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::samples::lease;

    fn limit() -> Limit {
        let tenant = TenantName::new("acme").unwrap();
        Limit { tenant, prefix: NamePrefix::new("lab-").unwrap() }
    }

    fn place(id: u128) -> Place {
        Place {
            line: Line { tenant: limit().tenant, prefix: None },
            request_id: RequestId::from_uuid(Uuid::from_u128(id)),
            deadline: Timestamp::from_secs(1),
            message: String::new(),
        }
    }

    /// These free slots of the limit.
    fn rooms(slots: Vec<u32>) -> Rooms {
        Rooms { of: [(limit().tenant, vec![(limit(), slots)])].into(), handed_over: BTreeMap::new() }
    }

    #[test]
    fn a_permit_is_taken_once_and_again_if_it_was_not_used() {
        let (mut rooms, name) = (rooms(vec![4]), SandboxName::new("lab-1").unwrap());
        let taken = rooms.take(&place(1), &name).unwrap().unwrap();
        assert!(rooms.take(&place(2), &name).is_err());
        assert!(!rooms.has_room(&place(2).line, &name));
        rooms.put_back(&taken);
        assert!(rooms.has_room(&place(2).line, &name));
        assert_eq!(rooms.take(&place(2), &name).unwrap(), Some(taken));
        assert_eq!(rooms.take(&place(3), &SandboxName::new("gpu-1").unwrap()).unwrap(), None);
    }

    #[test]
    fn a_permit_that_is_handed_over_is_one_requests_alone_and_never_free() {
        let (id, line) = (place(1).request_id, place(1).line);
        let own = Lease { permit: Some(Permit { limit: limit(), slot: 2 }), ..lease(1, None) };
        let mut rooms = rooms(Vec::new());
        rooms.handed_over.insert(id, (line.clone(), Box::new(own.clone())));
        let name = SandboxName::new("lab-1").unwrap();
        let other = Line { prefix: NamePrefix::new("lab-").ok(), ..line.clone() };
        assert!(rooms.has_room(&line, &name) && !rooms.has_room(&other, &name));
        assert!(rooms.take(&place(2), &name).is_err());
        let taken = rooms.take(&place(1), &name).unwrap();
        assert_eq!(taken, own.permit);
        assert_eq!(rooms.own_lease(id, taken.as_ref()), Some(&own));
        assert_eq!(rooms.own_lease(id, None), None, "what falls under no limit");
        rooms.put_back(&taken.unwrap());
        assert_eq!(rooms.room_of(&limit().tenant), [(limit(), 0)]);
    }
}
