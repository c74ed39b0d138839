//! The steps of the small world: each reads, or writes, at one instant.

use broker_domain::{EndReason, LeaseEnd, LeaseVerdict, Timestamp, judge};

use super::serve::Granted;
use super::world::{Action, End, Hand, NOW, Sandbox, World, ask, asked_after, expires_at, lease};
use super::{Scenario, Variant};

impl Scenario {
    pub(super) fn key(&self, request: u8) -> u8 {
        self.requests[usize::from(request)].0
    }

    pub(super) fn tenant(&self, request: u8) -> u8 {
        self.requests[usize::from(request)].1
    }

    pub(super) fn has_two_tenants(&self) -> bool {
        self.requests.iter().any(|(_, tenant)| *tenant != self.requests[0].1)
    }

    /// Whether a limit of one holds for it.
    pub(super) fn is_limited(&self, request: u8) -> bool {
        self.limited && self.tenant(request) == 0
    }

    /// Whether the permit that it needs is another's now.
    pub(super) fn lacks_permit(&self, world: &World, request: u8) -> bool {
        self.is_limited(request) && world.permit.is_some()
    }

    fn may_wait(&self, request: u8) -> bool {
        usize::from(request) < self.newcomers_from
    }

    /// What an idle worker may begin.
    pub(super) fn offer_work(&self, world: &World, worker: usize, actions: &mut Vec<Action>) {
        for (number, request) in world.requests.iter().enumerate() {
            if request.message && request.is_queued() {
                // The index may show nothing of what is there.
                actions.push(Action::Receive(worker, number, None));
                let seen = (0..world.sandboxes.len()).filter(|s| world.sandboxes[*s] == Sandbox::Available);
                actions.extend(seen.map(|sandbox| Action::Receive(worker, number, Some(sandbox))));
            }
            if request.waits() && world.deaths < self.deaths {
                actions.push(Action::Die(worker, number));
            }
        }
        if world.sandboxes.iter().any(|sandbox| sandbox.is_free()) || self.variant == Variant::LineFirst {
            actions.push(Action::List(worker, false));
        }
        if world.sandboxes.contains(&Sandbox::Available) && world.sandboxes.contains(&Sandbox::Arriving) {
            actions.push(Action::List(worker, true));
        }
    }

    pub(super) fn step(&self, world: &mut World, action: Action) {
        match action {
            Action::Ask(number) => {
                let request = &mut world.requests[number];
                (request.sent, request.message) = (true, true);
            }
            Action::Arrive(number) => {
                let offered = self.variant == Variant::OfferDirectly;
                world.sandboxes[number] = if offered { Sandbox::Available } else { Sandbox::Arriving };
                let waiting = world.requests.iter().enumerate().filter(|(_, request)| request.waits());
                world.before[number] = waiting.fold(0, |mask, (number, _)| mask | 1 << number);
            }
            Action::Receive(worker, number, seen) => {
                self.receive(world, worker, small(number), seen.map(small))
            }
            Action::List(worker, lags) => {
                world.hands[worker] = if self.variant == Variant::LineFirst {
                    Hand::LinesFirst { places: places(world) }
                } else {
                    Hand::Listed { free: free(world, lags) }
                };
            }
            Action::Go(worker, reversed) => self.go(world, worker, reversed),
            Action::Crash(worker) => world.hands[worker] = Hand::Idle,
            Action::Cancel(number) => {
                world.ends += 1;
                let request = &mut world.requests[number];
                (request.end, request.told_none) = (Some(End::Cancelled), true);
            }
            Action::Deadline(number) => {
                world.ends += 1;
                self.ask_after_the_deadline(world, small(number), true);
            }
            Action::Return(number) => {
                let sent = world.requests.iter().filter(|request| request.sent).count();
                self.end(world, number, EndReason::Returned, asked_after(small(sent)));
            }
            Action::Expire(number) => {
                self.end(world, number, EndReason::Expired, Timestamp::from_secs(NOW));
            }
            Action::Die(worker, number) => {
                world.deaths += 1;
                let request = &mut world.requests[number];
                request.end = Some(End::Dead);
                if self.variant == Variant::DeleteDeadPlace {
                    world.hands[worker] = Hand::Leave { request: small(number) };
                } else {
                    request.place = false;
                }
            }
            Action::Replay(number) => {
                let request = &mut world.requests[number];
                (request.end, request.parked, request.message) = (None, false, true);
                world.before.iter_mut().for_each(|before| *before &= !(1 << number));
            }
        }
    }

    /// What the key's lease lets `request` do.
    pub(super) fn verdict(&self, world: &World, request: u8) -> LeaseVerdict {
        let key = self.key(request);
        let row = world.leases[usize::from(key)].as_ref().map(|row| lease(key, row));
        judge(row.as_ref(), &ask(request, key, self.tenant(request)), Timestamp::from_secs(NOW))
    }

    fn receive(&self, world: &mut World, worker: usize, request: u8, seen: Option<u8>) {
        let waited = if self.is_limited(request) { self.waited(world, request) } else { 0 };
        let goes_past = waited != 0 && self.variant != Variant::PastOwnLine;
        let lacks_permit = self.lacks_permit(world, request);
        if let Some(sandbox) = seen.filter(|_| !goes_past && !lacks_permit) {
            world.hands[worker] = Hand::Claim { request, sandbox, waited };
            return;
        }
        match self.verdict(world, request) {
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_)
                if self.variant == Variant::QuotaMark && self.may_wait(request) && lacks_permit =>
            {
                world.hands[worker] = Hand::ParkMarked { request };
            }
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) if self.may_wait(request) => {
                if self.variant == Variant::DeleteMessageFirst {
                    world.requests[usize::from(request)].message = false;
                    world.hands[worker] = Hand::Deleted { request };
                } else {
                    world.hands[worker] = Hand::Park { request };
                }
            }
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => finish(world, request, End::None),
            ended @ (LeaseVerdict::Mine(_)
            | LeaseVerdict::Existing(_)
            | LeaseVerdict::KeyReused
            | LeaseVerdict::Superseded) => finish(world, request, of_verdict(&ended)),
        }
    }

    /// The places of its tenant that are durable, a bit for each.
    fn waited(&self, world: &World, request: u8) -> u8 {
        let own = places(world).into_iter().filter(|place| self.tenant(*place) == self.tenant(request));
        own.fold(0, |mask, place| mask | 1 << place)
    }

    /// The owner of a request asks after its deadline; before it, only its key's lease ends it.
    pub(super) fn ask_after_the_deadline(&self, world: &mut World, request: u8, is_over: bool) {
        match self.verdict(world, request) {
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) if is_over => {
                finish(world, request, End::Expired);
                world.requests[usize::from(request)].told_none = true;
            }
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => {}
            ended @ (LeaseVerdict::Mine(_)
            | LeaseVerdict::Existing(_)
            | LeaseVerdict::KeyReused
            | LeaseVerdict::Superseded) => finish(world, request, of_verdict(&ended)),
        }
    }

    fn go(&self, world: &mut World, worker: usize, reversed: bool) {
        let hand = std::mem::replace(&mut world.hands[worker], Hand::Idle);
        match hand {
            Hand::Idle => {}
            Hand::Claim { request, sandbox, waited } => self.claim(world, request, sandbox, waited),
            Hand::ParkMarked { request } => {
                self.park(world, worker, request);
                world.requests[usize::from(request)].marked = true;
            }
            Hand::Park { request } | Hand::Deleted { request } => self.park(world, worker, request),
            Hand::ParkPlace { request } => world.requests[usize::from(request)].place = true,
            Hand::OwnLook { request } => {
                let seen = free(world, false).first().copied();
                if let Some((sandbox, listed)) = seen {
                    let _own = self.grant(world, request, sandbox, listed, &places(world));
                }
            }
            Hand::Listed { free } => {
                let places = places(world);
                self.deal(world, worker, free, &places, reversed);
            }
            Hand::LinesFirst { places } => {
                let free = free(world, false);
                self.deal(world, worker, free, &places, reversed);
            }
            Hand::Dealt { mut grants, mut rest, seen } => {
                let (request, sandbox, listed) = grants.remove(0);
                match self.grant(world, request, sandbox, listed, &seen) {
                    Granted::Done if grants.is_empty() => next(world, worker, rest),
                    Granted::Done => world.hands[worker] = Hand::Dealt { grants, rest, seen },
                    // A call is all or none: what is left is dealt anew.
                    failed @ (Granted::Lost | Granted::NotWanted) => {
                        rest.extend(grants.into_iter().map(|(_, sandbox, listed)| (sandbox, listed)));
                        if failed == Granted::NotWanted {
                            rest.push((sandbox, listed));
                        }
                        rest.sort_unstable();
                        next(world, worker, rest);
                    }
                }
            }
            Hand::Admit { mut rest } => {
                let (sandbox, listed) = rest.remove(0);
                let stands = &mut world.sandboxes[usize::from(sandbox)];
                if *stands == listed && listed == Sandbox::Arriving {
                    *stands = Sandbox::Available;
                }
                if !rest.is_empty() {
                    world.hands[worker] = Hand::Admit { rest };
                }
            }
            Hand::Leave { request } => world.requests[usize::from(request)].place = false,
        }
    }

    fn park(&self, world: &mut World, worker: usize, number: u8) {
        let request = &mut world.requests[usize::from(number)];
        if !request.is_queued() {
            return;
        }
        request.parked = true;
        if self.variant == Variant::ParkApart {
            world.hands[worker] = Hand::ParkPlace { request: number };
            return;
        }
        request.place = true;
        if self.variant == Variant::OwnGrant {
            world.hands[worker] = Hand::OwnLook { request: number };
        }
    }

    /// A claim of a message.
    fn claim(&self, world: &mut World, number: u8, sandbox: u8, waited: u8) {
        let request = &world.requests[usize::from(number)];
        if !request.is_queued() || (request.parked && self.variant != Variant::ParkedClaims) {
            return;
        }
        let stands = world.sandboxes[usize::from(sandbox)];
        if self.lacks_permit(world, number) && self.variant != Variant::PermitByRead {
            return;
        }
        match self.verdict(world, number) {
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) if stands == Sandbox::Available => {
                let (own, before) = (self.key(number), world.before[usize::from(sandbox)]);
                let others = (0..small(world.requests.len())).filter(|other| self.key(*other) != own);
                let waits = |other: &u8| world.requests[usize::from(*other)].waits();
                let passed = others.filter(waits).collect::<Vec<_>>();
                // Past a place whose tenant had no permit it was offered rightly.
                let could = |other: &&u8| !self.is_limited(**other);
                if passed.iter().filter(could).any(|other| before & (1 << other) != 0) {
                    world.fault = Some("a newcomer took what arrived after a place was durable");
                }
                if passed.iter().any(|other| waited & (1 << other) != 0) {
                    world.fault = Some("a newcomer went past a place of its own line");
                }
                let is_parked = world.requests[usize::from(number)].parked;
                if is_parked && passed.iter().any(|other| self.goes_before(*other, number)) {
                    world.fault = Some("a request was served before one that asked before it");
                }
                self.hand_out(world, number, sandbox);
            }
            LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => {}
            ended @ (LeaseVerdict::Mine(_)
            | LeaseVerdict::Existing(_)
            | LeaseVerdict::KeyReused
            | LeaseVerdict::Superseded) => finish(world, number, of_verdict(&ended)),
        }
    }

    /// The end of a lease by its owner's return or by the job, asked for at `asked_at`.
    fn end(&self, world: &mut World, number: usize, reason: EndReason, asked_at: Timestamp) {
        let Sandbox::Allocated { key } = world.sandboxes[number] else { return };
        let Some(lease) = &world.leases[usize::from(key)] else { return };
        let fences_all =
            if reason == EndReason::Returned { Variant::FenceByReturn } else { Variant::FenceByJob };
        let until = if self.variant == fences_all { asked_at } else { expires_at(lease) };
        let end = LeaseEnd::by_request(reason, Timestamp::from_secs(NOW), asked_at, until);
        let asked = (0..small(world.requests.len())).map(|request| ask(request, key, 0).times.enqueued_at);
        let fenced = asked.filter(|asked_at| *asked_at <= end.fence).count();
        end_lease(world, number, small(fenced));
    }

    /// Whether the order of one line puts `first` before `second`.
    pub(super) fn goes_before(&self, first: u8, second: u8) -> bool {
        first < second && self.tenant(first) == self.tenant(second) && self.key(first) != self.key(second)
    }
}

fn next(world: &mut World, worker: usize, rest: Vec<(u8, Sandbox)>) {
    if !rest.is_empty() {
        world.hands[worker] = Hand::Listed { free: rest };
    }
}

pub(super) fn of_verdict(verdict: &LeaseVerdict) -> End {
    match verdict {
        LeaseVerdict::Mine(_) => End::Granted,
        LeaseVerdict::Existing(_) => End::Existing,
        LeaseVerdict::Free
        | LeaseVerdict::PastExpiry(_)
        | LeaseVerdict::KeyReused
        | LeaseVerdict::Superseded => End::None,
    }
}

/// Stores how a request ended, unless it ended before.
pub(super) fn finish(world: &mut World, request: u8, end: End) {
    let request = &mut world.requests[usize::from(request)];
    if request.is_queued() {
        request.end = Some(end);
    }
}

/// Deletes a place whose request has ended for good.
pub(super) fn leave(world: &mut World, request: u8) {
    let request = &mut world.requests[usize::from(request)];
    if request.end.is_some() && request.end != Some(End::Dead) {
        request.place = false;
    }
}

fn end_lease(world: &mut World, number: usize, fence: u8) {
    let Sandbox::Allocated { key } = world.sandboxes[number] else { return };
    world.sandboxes[number] = Sandbox::Ended;
    if world.permit == Some(key) {
        world.permit = None;
        world.requests.iter_mut().for_each(|request| request.marked = false);
    }
    if let Some(lease) = &mut world.leases[usize::from(key)] {
        (lease.ended, lease.fence, lease.ran_out) = (true, fence, lease.past);
    }
}

/// The places that are durable.
fn places(world: &World) -> Vec<u8> {
    let there = world.requests.iter().enumerate().filter(|(_, request)| request.place);
    there.map(|(number, _)| small(number)).collect()
}

/// The sandboxes that are free; of those that are offered the index may show nothing.
fn free(world: &World, lags: bool) -> Vec<(u8, Sandbox)> {
    let shown = world.sandboxes.iter().enumerate();
    let shown = shown.filter(|(_, sandbox)| sandbox.is_free() && !(lags && **sandbox == Sandbox::Available));
    shown.map(|(number, sandbox)| (small(number), *sandbox)).collect()
}

fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
