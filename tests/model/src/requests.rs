//! Steps of requests (allocate, return, cancel, poll) in a worker and the API, one read or write at a time.

use broker_domain::{
    EndReason, Event, LeaseEnd, LeaseVerdict, ReturnVerdict, Timestamp, judge, judge_return,
};

use crate::Variant;
use crate::domain::{lease, sandbox, time, times};
use crate::scenario::{Kind, LAB, Scenario};
use crate::world::{Action, AllocationRow, EndRow, Hand, Index, LeaseRow, Out, Record, World};

impl Scenario {
    pub(crate) fn offer_requests(&self, world: &World, actions: &mut Vec<Action>) {
        // Workers are alike: what one idle worker can do, the first does.
        let idle = world.hands.iter().position(|hand| *hand == Hand::Idle);
        for (request, row) in world.requests.iter().enumerate() {
            let Some(sent) = row.sent else {
                let asked = self.requests[request];
                if asked.kind != Kind::Return || world.told[asked.key].is_some() {
                    actions.push(Action::Send(request));
                }
                continue;
            };
            if row.record == Some(Record::Queued) {
                actions.extend([Action::Cancel(request), Action::Poll(request)]);
            }
            let Some(worker) = idle.filter(|_| world.now - sent <= self.message_lives) else { continue };
            if self.requests[request].kind == Kind::Return {
                actions.push(Action::Take(worker, request, None));
                continue;
            }
            let available = |(id, row): (Index, &Option<_>)| self.is_available(row).then_some(id);
            let candidates: Vec<_> = world.sandboxes.iter().enumerate().filter_map(available).collect();
            if candidates.is_empty() {
                actions.push(Action::Take(worker, request, None));
            }
            actions.extend(candidates.into_iter().map(|id| Action::Take(worker, request, Some(id))));
        }
    }

    fn is_available(&self, row: &Option<crate::world::SandboxRow>) -> bool {
        row.as_ref().is_some_and(|row| row.status.next(Event::Claim).is_ok())
    }

    pub(crate) fn send(&self, world: &mut World, request: Index) {
        let asked = self.requests[request];
        let row = &mut world.requests[request];
        row.sent = Some(world.now);
        row.record = asked.is_asynchronous().then_some(Record::Queued);
        row.target = (asked.kind == Kind::Return).then(|| world.told[asked.key]).flatten();
    }

    /// A worker takes a message and decides.
    pub(crate) fn take(&self, world: &mut World, worker: usize, request: Index, candidate: Option<Index>) {
        let asked = self.requests[request];
        let sent = world.requests[request].sent.unwrap_or_default();
        world.hands[worker] = if asked.kind == Kind::Return {
            self.decide_mark(world, request)
        } else if time(world.now) > times(sent).deadline {
            Hand::Tell { request, out: Out::Expired }
        } else {
            match candidate.and_then(|id| world.sandboxes[id].as_ref().map(|row| (id, row.version))) {
                Some((sandbox, version)) => Hand::Claim { request, sandbox, version },
                None => Hand::FoundNothing { request, held: live_allocation(world, asked.key) },
            }
        };
    }

    fn decide_mark(&self, world: &World, request: Index) -> Hand {
        let target = world.requests[request].target.expect("a mark names a sandbox");
        let tell = |out| Hand::Tell { request, out };
        let Some(row) = &world.sandboxes[target] else { return tell(Out::Refused) };
        let mark = self.mark_request(world, request, target);
        match judge_return(&sandbox(target, row), &mark) {
            ReturnVerdict::End(_) => {
                let allocation = row.allocation.expect("it is allocated");
                let (now, asked) = (time(world.now), mark.times.enqueued_at);
                let expires_at = expires_at(world, allocation.key);
                let end = LeaseEnd::by_request(EndReason::Returned, now, asked, expires_at);
                Hand::End {
                    sandbox: target,
                    version: row.version,
                    allocation,
                    end: end_row(&end),
                    request: Some(request),
                    until: None,
                }
            }
            ReturnVerdict::AlreadyReturned(_) => tell(Out::Returned),
            ReturnVerdict::Expired
            | ReturnVerdict::NotOwner
            | ReturnVerdict::Superseded
            | ReturnVerdict::Newer => tell(Out::Refused),
        }
    }

    /// The next thing that a worker does.
    pub(crate) fn go(&self, world: &mut World, worker: usize) {
        let hand = std::mem::replace(&mut world.hands[worker], Hand::Idle);
        world.hands[worker] = match hand {
            Hand::Idle => Hand::Idle,
            Hand::Claim { request, sandbox, version } => self.claim(world, request, sandbox, version),
            Hand::FoundNothing { request, held } => self.nothing(world, request, held),
            hand @ Hand::Replace { .. } => self.replace(world, &hand),
            hand @ Hand::End { .. } => self.end(world, &hand),
            Hand::Tell { request, out } => self.tell(world, request, out),
            other @ (Hand::Delete { .. }
            | Hand::Bury { .. }
            | Hand::Admit { .. }
            | Hand::SyncRead { .. }
            | Hand::SyncWrite { .. }) => self.go_on(world, other),
        };
    }

    /// The claim's transaction, and what its reasons say when it is cancelled.
    fn claim(&self, world: &mut World, request: Index, sandbox: Index, version: u8) -> Hand {
        let key = self.requests[request].key;
        let sent = world.requests[request].sent.unwrap_or_default();
        if world.now - sent > self.message_lives {
            return Hand::Idle;
        }
        match self.verdict(world, request) {
            LeaseVerdict::Free => self.hand_out(world, request, sandbox, version),
            LeaseVerdict::PastExpiry(_) if self.variant != Variant::EndFirst => {
                let row = world.leases[key].as_ref().expect("it was judged");
                let old = AllocationRow { id: row.allocation, key, at: row.at };
                let end = end_row(&self.own_expiry(world, request));
                let (old_sandbox, until) = (row.sandbox, world.now);
                Hand::Replace { request, sandbox, version, old, old_sandbox, end, until }
            }
            verdict => self.apply_verdict(world, request, verdict, Out::Refused),
        }
    }

    fn own_expiry(&self, world: &World, request: Index) -> LeaseEnd {
        let enqueued = times(world.requests[request].sent.unwrap_or_default()).enqueued_at;
        let expires_at = expires_at(world, self.requests[request].key);
        LeaseEnd::by_request(EndReason::Expired, time(world.now), enqueued, expires_at)
    }

    /// The claim in the place of the key's own lease, and the end of that, in one transaction.
    fn replace(&self, world: &mut World, hand: &Hand) -> Hand {
        let Hand::Replace { request, sandbox, version, old, old_sandbox, end, until } = *hand else {
            return Hand::Idle;
        };
        let unseen = self.variant == Variant::EndUnseen;
        let lease = world.leases[old.key].as_ref().filter(|lease| {
            lease.end.is_none() && lease.allocation == old.id && (unseen || lease.expires <= until)
        });
        let held = world.sandboxes[old_sandbox].as_ref();
        let held = held.filter(|row| row.allocation.is_some_and(|a| a.id == old.id));
        let Some((lease, status)) = lease.zip(held.and_then(|row| row.status.next(Event::End).ok())) else {
            return Hand::Idle;
        };
        if lease.expires > world.now {
            world.broken = Some("a lease that was given longer was ended before its time");
        }
        let claims = world.claims;
        let hand = self.hand_out(world, request, sandbox, version);
        if world.claims > claims
            && let Some(row) = world.sandboxes[old_sandbox].as_mut()
        {
            row.status = status;
            row.version += 1;
            row.marked = false;
            let fence = &mut world.fences[old.key];
            *fence = (*fence).max(Some(end.fence_ms));
        }
        hand
    }

    /// What a claim writes once its key may have a sandbox.
    fn hand_out(&self, world: &mut World, request: Index, sandbox: Index, version: u8) -> Hand {
        let key = self.requests[request].key;
        let with_record =
            self.requests[request].is_asynchronous() && self.variant != Variant::ClaimWithoutRecord;
        if with_record && world.requests[request].record != Some(Record::Queued) {
            return Hand::Idle;
        }
        let row = world.sandboxes[sandbox].as_mut().filter(|row| row.version == version);
        let Some((row, status)) =
            row.and_then(|row| row.status.next(Event::Claim).ok().map(|next| (row, next)))
        else {
            // Lost the race; the message comes back.
            return Hand::Idle;
        };
        world.claims += 1;
        row.status = status;
        row.version += 1;
        row.allocation = Some(AllocationRow { id: world.claims, key, at: world.now });
        world.used.push(row.incarnation);
        world.leases[key] = Some(LeaseRow {
            request,
            allocation: world.claims,
            sandbox,
            incarnation: row.incarnation,
            at: world.now,
            expires: world.now + LAB,
            end: None,
            ttl: (self.variant == Variant::TtlAtClaim).then_some(world.now + LAB),
        });
        world.ended_for[key] = None;
        if with_record {
            world.requests[request].record = Some(Record::Ended(Out::Sandbox(sandbox)));
        }
        self.remember_claim(world, request, key);
        Hand::Tell { request, out: Out::Sandbox(sandbox) }
    }

    /// The verdict of the domain on the lease of the request's key.
    fn verdict(&self, world: &World, request: Index) -> LeaseVerdict {
        let key = self.requests[request].key;
        let found = world.leases[key].as_ref().map(|row| lease(key, row));
        match judge(found.as_ref(), &self.ask(world, request), time(world.now)) {
            // Without the fence only the request that claimed is kept from claiming again.
            LeaseVerdict::Superseded
                if self.variant == Variant::NoFence
                    && world.leases[key].as_ref().is_some_and(|row| row.request != request) =>
            {
                LeaseVerdict::Free
            }
            verdict => verdict,
        }
    }

    fn apply_verdict(&self, world: &mut World, request: Index, verdict: LeaseVerdict, free: Out) -> Hand {
        let key = self.requests[request].key;
        let tell = |out| Hand::Tell { request, out };
        match verdict {
            LeaseVerdict::Free => tell(free),
            LeaseVerdict::Mine(_) | LeaseVerdict::Existing(_) => {
                tell(world.leases[key].as_ref().map_or(Out::Refused, |row| Out::Sandbox(row.sandbox)))
            }
            LeaseVerdict::KeyReused | LeaseVerdict::Superseded => tell(Out::Refused),
            LeaseVerdict::PastExpiry(_) => {
                let row = world.leases[key].as_ref().expect("it was judged");
                if self.variant != Variant::EndFirst {
                    return tell(free);
                }
                let end = self.own_expiry(world, request);
                let version = world.sandboxes[row.sandbox].as_ref().map_or(0, |row| row.version);
                let (sandbox, allocation) =
                    (row.sandbox, AllocationRow { id: row.allocation, key, at: row.at });
                let (end, until) = (end_row(&end), Some(world.now));
                world.ended_for[key] = Some(request);
                Hand::End { sandbox, version, allocation, end, request: None, until }
            }
        }
    }

    /// No candidate after a fresh refill: a consistent read of the lease, then none.
    fn nothing(&self, world: &mut World, request: Index, held: Option<u8>) -> Hand {
        let key = self.requests[request].key;
        let verdict = self.verdict(world, request);
        let is_over = matches!(verdict, LeaseVerdict::PastExpiry(_));
        let hand = if self.variant == Variant::NoneWithoutLook {
            Hand::Tell { request, out: Out::NoSandboxes }
        } else {
            self.apply_verdict(world, request, verdict, Out::NoSandboxes)
        };
        let says_none = matches!(hand, Hand::Tell { out: Out::NoSandboxes, .. });
        if says_none && !is_over && held.is_some() && held == live_allocation(world, key) {
            world.broken = Some("a key was told that there is none while it held one");
        }
        if says_none && world.ended_for[key] == Some(request) && live_allocation(world, key).is_none() {
            world.broken = Some("an allocate took its key's sandbox and found no other");
        }
        hand
    }

    /// The transaction that ends a lease.
    fn end(&self, world: &mut World, hand: &Hand) -> Hand {
        let Hand::End { sandbox, version, allocation, end, request, until } = *hand else {
            return Hand::Idle;
        };
        let unseen = self.variant == Variant::EndUnseen;
        let by_version = self.variant == Variant::EndByVersion;
        let row = world.sandboxes[sandbox].as_mut();
        let row = row.filter(|row| {
            if by_version {
                row.version == version
            } else {
                row.allocation.is_some_and(|a| a.id == allocation.id)
            }
        });
        let Some((row, status)) =
            row.and_then(|row| row.status.next(Event::End).ok().map(|next| (row, next)))
        else {
            // It moved on: read again, which is what the message's next delivery does.
            return Hand::Idle;
        };
        let lease = world.leases[allocation.key].as_mut().filter(|lease| lease.end.is_none());
        let lease = lease.filter(|lease| by_version || lease.allocation == allocation.id);
        let lease = lease.filter(|lease| unseen || until.is_none_or(|until| lease.expires <= until));
        if lease.is_none() && !by_version {
            return Hand::Idle;
        }
        row.status = status;
        row.version += 1;
        row.marked = !end.expired;
        if let Some(lease) = lease {
            if until.is_some() && lease.expires > world.now {
                world.broken = Some("a lease that was given longer was ended before its time");
            }
            lease.end = Some(end);
            lease.ttl = Some(world.now + self.kept);
        }
        let fence = &mut world.fences[allocation.key];
        *fence = (*fence).max(Some(end.fence_ms));
        request.map_or(Hand::Idle, |request| Hand::Tell { request, out: Out::Returned })
    }

    /// The outcome reaches the caller, or the record.
    fn tell(&self, world: &mut World, request: Index, out: Out) -> Hand {
        let row = &mut world.requests[request];
        if row.record == Some(Record::Queued) {
            row.record = Some(Record::Ended(out));
        }
        if let Out::Sandbox(sandbox) = out {
            world.told[self.requests[request].key] = Some(sandbox);
        }
        Hand::Idle
    }

    pub(crate) fn cancel(&self, world: &mut World, request: Index) {
        world.requests[request].record = Some(Record::Ended(Out::Cancelled));
    }

    /// `GET` of a queued request: the lease tells, else it has expired once its deadline is over.
    pub(crate) fn poll(&self, world: &mut World, request: Index) {
        let key = self.requests[request].key;
        let claimed = world.leases[key].as_ref().filter(|lease| lease.request == request);
        let sent = world.requests[request].sent.unwrap_or_default();
        let overdue = time(world.now) > times(sent).deadline;
        let out = claimed.map(|lease| Out::Sandbox(lease.sandbox)).or(overdue.then_some(Out::Expired));
        if let Some(out) = out {
            world.requests[request].record = Some(Record::Ended(out));
        }
    }
}

/// When the lease of a key runs out.
fn expires_at(world: &World, key: Index) -> Timestamp {
    time(world.leases[key].as_ref().map_or(world.now, |lease| lease.expires))
}

/// The allocation that a key holds now.
fn live_allocation(world: &World, key: Index) -> Option<u8> {
    world.leases[key].as_ref().filter(|lease| lease.end.is_none()).map(|lease| lease.allocation)
}

pub(crate) fn end_row(end: &LeaseEnd) -> EndRow {
    EndRow { at_ms: end.at.as_ms(), expired: end.reason == EndReason::Expired, fence_ms: end.fence.as_ms() }
}
