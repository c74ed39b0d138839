//! Steps of the jobs (expire, cleanup, sync), and of DynamoDB and the provider by themselves.

use broker_domain::{EndReason, Event, LeaseEnd, Status};

use crate::Variant;
use crate::domain::time;
use crate::requests::end_row;
use crate::scenario::Scenario;
use crate::world::{Action, AllocationRow, Hand, Index, SandboxRow, World};

impl Scenario {
    pub(crate) fn offer_jobs(&self, world: &World, actions: &mut Vec<Action>) {
        for (key, lease) in world.leases.iter().enumerate() {
            if lease.as_ref().and_then(|lease| lease.ttl).is_some_and(|ttl| ttl <= world.now) {
                actions.push(Action::LeaseTtl(key));
            }
        }
        if !self.jobs {
            return;
        }
        for (key, lease) in world.leases.iter().enumerate() {
            let live = lease.as_ref().is_some_and(|lease| lease.end.is_none());
            if live && world.extensions < self.extensions {
                actions.push(Action::Extend(key));
            }
        }
        let idle = world.hands.iter().position(|hand| *hand == Hand::Idle);
        for (id, row) in world.sandboxes.iter().enumerate() {
            if row.as_ref().and_then(|row| row.deleted_at).is_some_and(|at| at + self.kept <= world.now) {
                actions.push(Action::TombstoneTtl(id));
            }
            if world.provider[id].is_none() && world.incarnations < self.recreations + self.pool() {
                actions.push(Action::Recreate(id));
            }
            let Some(worker) = idle else { continue };
            actions.push(Action::BeginSync(worker, id));
            if row.as_ref().is_some_and(|row| row.status == Status::PendingDeletion) {
                actions.push(Action::BeginDelete(worker, id));
            }
            if row.as_ref().is_some_and(|row| row.status == Status::Arriving) {
                actions.push(Action::BeginAdmit(worker, id));
            }
        }
        let Some(worker) = idle else { return };
        for (key, lease) in world.leases.iter().enumerate() {
            if lease.as_ref().is_some_and(|lease| lease.end.is_none() && lease.expires < world.now) {
                actions.push(Action::BeginExpire(worker, key));
            }
        }
    }

    fn pool(&self) -> u8 {
        u8::try_from(self.sandboxes).expect("a small world")
    }

    /// One write on the condition that all is as it was read, so reading it is no step of its own.
    pub(crate) fn extend(&self, world: &mut World, key: Index) {
        if let Some(lease) = world.leases[key].as_mut().filter(|lease| lease.end.is_none()) {
            lease.expires = lease.expires.max(world.now) + 1;
            world.extensions += 1;
        }
    }

    pub(crate) fn begin_expire(&self, world: &mut World, worker: usize, key: Index) {
        let Some(lease) = &world.leases[key] else { return };
        let end = end_row(&LeaseEnd::by_broker(EndReason::Expired, time(world.now), time(lease.expires)));
        let version = world.sandboxes[lease.sandbox].as_ref().map_or(0, |row| row.version);
        let allocation = AllocationRow { id: lease.allocation, key, at: lease.at };
        // The grace is a tick.
        let until = Some(world.now - 1);
        world.hands[worker] =
            Hand::End { sandbox: lease.sandbox, version, allocation, end, request: None, until };
    }

    pub(crate) fn begin_delete(&self, world: &mut World, worker: usize, sandbox: Index) {
        let Some(row) = &world.sandboxes[sandbox] else { return };
        world.hands[worker] = Hand::Delete { sandbox, version: row.version, incarnation: row.incarnation };
    }

    pub(crate) fn begin_admit(&self, world: &mut World, worker: usize, sandbox: Index) {
        let Some(row) = &world.sandboxes[sandbox] else { return };
        world.hands[worker] = Hand::Admit { sandbox, version: row.version };
    }

    fn admit(&self, world: &mut World, sandbox: Index, version: u8) -> Hand {
        let Some(row) = world.sandboxes[sandbox].as_mut() else { return Hand::Idle };
        let unseen = self.variant == Variant::AdmitUnseen;
        let to = if unseen { Ok(Status::Available) } else { row.status.next(Event::Admit) };
        if let Ok(status) = to
            && (unseen || row.version == version)
        {
            row.status = status;
            row.version += 1;
        }
        Hand::Idle
    }

    pub(crate) fn begin_sync(&self, world: &mut World, worker: usize, sandbox: Index) {
        world.hands[worker] = Hand::SyncRead { sandbox, seen: world.sandboxes[sandbox].clone() };
    }

    pub(crate) fn recreate(&self, world: &mut World, sandbox: Index) {
        world.provider[sandbox] = Some(world.incarnations);
        world.incarnations += 1;
    }

    /// The next thing that a job does.
    pub(crate) fn go_on(&self, world: &mut World, hand: Hand) -> Hand {
        match hand {
            // The provider deletes by its own id: a later sandbox under our id is another one.
            Hand::Delete { sandbox, version, incarnation } => {
                if world.provider[sandbox] == Some(incarnation) {
                    world.lingering[sandbox] = world.provider[sandbox].take();
                }
                Hand::Bury { sandbox, version }
            }
            Hand::Bury { sandbox, version } => self.bury(world, sandbox, version),
            Hand::Admit { sandbox, version } => self.admit(world, sandbox, version),
            Hand::SyncRead { sandbox, seen } => {
                Hand::SyncWrite { sandbox, seen, listed: world.provider[sandbox] }
            }
            Hand::SyncWrite { sandbox, seen, listed } => self.sync(world, sandbox, seen, listed),
            Hand::Idle
            | Hand::Claim { .. }
            | Hand::FoundNothing { .. }
            | Hand::Replace { .. }
            | Hand::End { .. }
            | Hand::Tell { .. } => Hand::Idle,
        }
    }

    /// The provider's list is behind: a sync sees in it what is gone, once (else the world would have no end).
    pub(crate) fn go_behind(&self, world: &mut World, worker: usize) {
        if let Hand::SyncRead { sandbox, seen } = world.hands[worker].clone() {
            let listed = world.lingering[sandbox].take();
            world.hands[worker] = Hand::SyncWrite { sandbox, seen, listed };
        }
    }

    fn bury(&self, world: &mut World, sandbox: Index, version: u8) -> Hand {
        let now = world.now;
        let slot = &mut world.sandboxes[sandbox];
        let Some(row) = slot.as_mut().filter(|row| row.version == version) else { return Hand::Idle };
        let Ok(status) = row.status.next(Event::ProviderDeleted) else { return Hand::Idle };
        row.status = status;
        row.version += 1;
        row.deleted_at = Some(now);
        if self.variant == Variant::NoTombstone {
            *slot = None;
        }
        Hand::Idle
    }

    /// Changes only what was read, at the version that was read.
    fn sync(&self, world: &mut World, sandbox: Index, seen: Option<SandboxRow>, listed: Option<u8>) -> Hand {
        let slot = &mut world.sandboxes[sandbox];
        if slot.as_ref().map(|row| row.version) != seen.as_ref().map(|row| row.version) {
            return Hand::Idle;
        }
        let event = if listed.is_some() { Event::Found } else { Event::Missing };
        match (slot.as_mut(), listed) {
            (None, None) => {}
            (None, Some(incarnation)) => *slot = Some(inserted(1, incarnation)),
            // What the provider made after we deleted its predecessor is a new sandbox, and its version goes on.
            (Some(row), Some(incarnation))
                if row.status == Status::Deleted && row.incarnation < incarnation =>
            {
                let version = row.version + 1;
                *slot = Some(inserted(version, incarnation));
            }
            (Some(row), _) => {
                if let Ok(next) = row.status.next(event)
                    && next != row.status
                {
                    row.status = next;
                    row.version += 1;
                    row.deleted_at = row.deleted_at.filter(|_| next == Status::Deleted);
                }
            }
        }
        Hand::Idle
    }
}

const fn inserted(version: u8, incarnation: u8) -> SandboxRow {
    SandboxRow {
        status: Status::Arriving,
        version,
        incarnation,
        allocation: None,
        marked: false,
        deleted_at: None,
    }
}
