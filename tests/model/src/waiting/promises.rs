//! Invariants of waiting, checked in every state.

use broker_domain::LeaseVerdict;

use super::Scenario;
use super::world::{Action, Hand, Sandbox, World};

impl Scenario {
    /// The promise that `world` breaks.
    pub(super) fn broken_promise(&self, world: &World) -> Option<String> {
        if let Some(fault) = world.fault {
            return Some(fault.to_owned());
        }
        for (number, sandbox) in world.sandboxes.iter().enumerate() {
            let held = world.leases.iter().enumerate().any(|(key, lease)| {
                let of_key =
                    |lease: &super::world::LeaseRow| !lease.ended && usize::from(lease.sandbox) == number;
                lease.as_ref().is_some_and(of_key)
                    && *sandbox == Sandbox::Allocated { key: u8::try_from(key).unwrap_or(u8::MAX) }
            });
            if matches!(sandbox, Sandbox::Allocated { .. }) != held {
                return Some(format!("sandbox {number} and the leases do not agree"));
            }
        }
        if let Some(broken) = self.broken_limit(world) {
            return Some(broken);
        }
        for (number, request) in world.requests.iter().enumerate().filter(|(_, request)| request.is_queued())
        {
            let under_way = world.hands.iter().any(|hand| is_about(hand, number));
            if request.parked && !request.place && !under_way {
                return Some(format!("request {number} is parked and queued without a place"));
            }
            let request_number = u8::try_from(number).unwrap_or(u8::MAX);
            let of_key = world.leases[usize::from(self.key(request_number))].as_ref();
            let outlived = of_key.is_some_and(|lease| lease.ran_out);
            if outlived && matches!(self.verdict(world, request_number), LeaseVerdict::Superseded) {
                return Some(format!(
                    "request {number} is outdated by the end of a lease that had run out before"
                ));
            }
            if !request.message && !request.place && !under_way {
                return Some(format!("request {number} is lost: it has neither a message nor a place"));
            }
        }
        // A worker may stop in any state, so this covers the others.
        if world.hands.iter().any(|hand| *hand != Hand::Idle) {
            return None;
        }
        let settled = self.settled(world);
        let waits = settled.requests.iter().enumerate().position(|(number, request)| {
            request.is_queued() && !self.lacks_permit(&settled, u8::try_from(number).unwrap_or(u8::MAX))
        })?;
        let is_free = settled.sandboxes.iter().any(|sandbox| sandbox.is_free());
        is_free.then(|| format!("request {waits} waits in vain: a sandbox is free after a sweep"))
    }

    /// What is wrong with the permit and the leases that should hold it.
    fn broken_limit(&self, world: &World) -> Option<String> {
        if !self.limited {
            return None;
        }
        let live =
            world.leases.iter().enumerate().filter(|(_, lease)| {
                lease.is_some_and(|lease| !lease.ended && self.is_limited(lease.request))
            });
        let live: Vec<_> = live.map(|(key, _)| u8::try_from(key).unwrap_or(u8::MAX)).collect();
        if live.len() > 1 {
            return Some(format!("{} leases are live, more leases than the limit", live.len()));
        }
        let agree = world.permit == live.first().copied();
        (!agree).then(|| format!("the permit is of {:?}, the lease of {live:?}", world.permit))
    }

    /// The world after every message was delivered, every owner asked, and sweeps went on to their ends.
    fn settled(&self, world: &World) -> World {
        let mut world = world.clone();
        for _ in 0..3 {
            for number in 0..world.requests.len() {
                if world.requests[number].is_queued() && world.requests[number].message {
                    let seen = world.sandboxes.iter().position(|sandbox| *sandbox == Sandbox::Available);
                    let seen = seen.filter(|_| !world.requests[number].parked);
                    self.step(&mut world, Action::Receive(0, number, seen));
                    self.finish_hand(&mut world);
                }
                if world.requests[number].is_queued() {
                    self.ask_after_the_deadline(&mut world, u8::try_from(number).unwrap_or(u8::MAX), false);
                }
            }
            self.step(&mut world, Action::List(0, false));
            self.finish_hand(&mut world);
        }
        world
    }

    fn finish_hand(&self, world: &mut World) {
        while world.hands[0] != Hand::Idle {
            self.step(world, Action::Go(0, false));
        }
    }
}

/// Whether a worker is about to write what the request lacks.
fn is_about(hand: &Hand, number: usize) -> bool {
    match hand {
        Hand::ParkPlace { request } | Hand::Deleted { request } => usize::from(*request) == number,
        Hand::Idle
        | Hand::Claim { .. }
        | Hand::Park { .. }
        | Hand::ParkMarked { .. }
        | Hand::OwnLook { .. }
        | Hand::Listed { .. }
        | Hand::LinesFirst { .. }
        | Hand::Dealt { .. }
        | Hand::Admit { .. }
        | Hand::Leave { .. } => false,
    }
}
