//! The steps of serving: places are dealt sandboxes, and a grant writes one.

use broker_domain::LeaseVerdict;
use broker_domain::waiting::{TenantPlaces, deal};

use super::steps::{finish, leave, of_verdict};
use super::world::{End, Hand, LeaseRow, Sandbox, World, limit, line, name, request_id, tenant};
use super::{Scenario, Variant};

impl Scenario {
    pub(super) fn deal(
        &self,
        world: &mut World,
        worker: usize,
        free: Vec<(u8, Sandbox)>,
        places: &[u8],
        reversed: bool,
    ) {
        let mut tenants: Vec<TenantPlaces> = Vec::new();
        // A dead letter's place is left, and passed over in this call.
        let is_dead = |request: u8| world.requests[usize::from(request)].end == Some(End::Dead);
        let is_marked = |request: u8| world.requests[usize::from(request)].marked;
        let dealt = |request: &u8| {
            !is_dead(*request) && !is_marked(*request) && !self.is_passed_over(world, *request)
        };
        for request in places.iter().copied().filter(dealt) {
            let of = tenant(self.tenant(request));
            let place = (request_id(request), line(self.tenant(request)));
            match tenants.iter_mut().find(|tenant| tenant.tenant == of) {
                Some(tenant) => tenant.places.push(place),
                None => {
                    let limits =
                        self.is_limited(request).then(|| (limit(), usize::from(world.permit.is_none())));
                    let (room, read_to, handed_over) = (limits.into_iter().collect(), Vec::new(), Vec::new());
                    let (weight, places) = (1, vec![place]);
                    tenants.push(TenantPlaces { tenant: of, weight, places, read_to, room, handed_over });
                }
            }
        }
        let chance = if reversed { [0.1, 0.9] } else { [0.9, 0.1] };
        let names: Vec<_> = free.iter().map(|(sandbox, _)| name(*sandbox).into()).collect();
        let mut keys = Vec::new();
        let mut grants = Vec::new();
        for dealt in deal(&names, &tenants, &chance[..tenants.len().min(2)]) {
            let request = places.iter().copied().find(|request| request_id(*request) == dealt.request_id);
            let Some(request) = request.filter(|request| !keys.contains(&self.key(*request))) else {
                continue;
            };
            keys.push(self.key(request));
            let (sandbox, listed) = free[dealt.sandbox];
            grants.push((request, sandbox, listed));
        }
        let is_left = |sandbox: u8| grants.iter().all(|(_, granted, _)| *granted != sandbox);
        let rest: Vec<_> = free.into_iter().filter(|(sandbox, _)| is_left(*sandbox)).collect();
        if grants.is_empty() {
            let rest: Vec<_> = rest.into_iter().filter(|(_, listed)| *listed == Sandbox::Arriving).collect();
            if !rest.is_empty() {
                world.hands[worker] = Hand::Admit { rest };
            }
        } else {
            world.hands[worker] = Hand::Dealt { grants, rest, seen: places.to_vec() };
        }
    }

    fn is_passed_over(&self, world: &World, request: u8) -> bool {
        self.variant == Variant::PassOver
            && matches!(self.verdict(world, request), LeaseVerdict::PastExpiry(_))
    }

    /// One grant; `seen` are the places that its deal knew.
    pub(super) fn grant(
        &self,
        world: &mut World,
        number: u8,
        sandbox: u8,
        listed: Sandbox,
        seen: &[u8],
    ) -> Granted {
        let request = &world.requests[usize::from(number)];
        match self.verdict(world, number) {
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => {}
            ended @ (LeaseVerdict::Mine(_)
            | LeaseVerdict::Existing(_)
            | LeaseVerdict::KeyReused
            | LeaseVerdict::Superseded) => {
                finish(world, number, of_verdict(&ended));
                leave(world, number);
                return Granted::NotWanted;
            }
        }
        if !request.is_queued() && self.variant != Variant::GrantWithoutRecord {
            leave(world, number);
            return Granted::NotWanted;
        }
        if world.sandboxes[usize::from(sandbox)] != listed {
            return Granted::Lost;
        }
        if self.lacks_permit(world, number) && self.variant != Variant::PermitByRead {
            return Granted::NotWanted;
        }
        let passed = seen
            .iter()
            .any(|other| self.goes_before(*other, number) && world.requests[usize::from(*other)].waits());
        if passed {
            world.fault = Some("a request was served before one that asked before it");
        }
        self.hand_out(world, number, sandbox);
        world.requests[usize::from(number)].place = false;
        Granted::Done
    }

    pub(super) fn hand_out(&self, world: &mut World, number: u8, sandbox: u8) {
        let key = self.key(number);
        if let Some(old) = world.leases[usize::from(key)].filter(|old| !old.ended) {
            world.sandboxes[usize::from(old.sandbox)] = Sandbox::Ended;
        }
        world.sandboxes[usize::from(sandbox)] = Sandbox::Allocated { key };
        if self.is_limited(number) {
            world.permit = Some(key);
        }
        world.leases[usize::from(key)] =
            Some(LeaseRow { request: number, sandbox, past: false, ended: false, fence: 0, ran_out: false });
        let request = &mut world.requests[usize::from(number)];
        if request.told_none {
            world.fault = Some("a request was cancelled and has a sandbox");
        }
        request.end = Some(End::Granted);
    }
}

/// What a grant came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    Done,
    /// The sandbox is not as it was listed.
    Lost,
    /// The place wants nothing any more.
    NotWanted,
}
