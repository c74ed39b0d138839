//! The state of the small world, its steps, and what must hold in it.

use broker_domain::reservation::{Closed, LEAD};
use broker_domain::{
    NamePrefix, Reservation, ReservationEnd, ReservationId, ReservationTerms, TenantName, Timestamp,
};
use uuid::Uuid;

use super::{Scenario, Variant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    Free,
    PutAside,
    Claimed,
    Gone,
}

/// A sandbox: where it is, and its version.
pub(super) type Sandbox = (Place, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) version: u8,
    pub(super) count: u8,
    pub(super) held: u8,
    /// Its time is over.
    pub(super) over: bool,
    pub(super) closed: bool,
    pub(super) cleared: bool,
}

/// What a worker decided and has not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Hand {
    Idle,
    /// A sandbox is to be put aside, at the versions of the reservation and of the sandbox.
    PutAside(u8, usize, u8),
    /// One that is too much is to go back.
    Surplus(u8, usize, u8),
    /// One of a reservation that has ended is to go back.
    GiveBack(usize, u8),
    /// The reservation is to be cleared.
    Clear(u8),
    /// The reservation is to be ended: its time was over.
    End,
    /// The second of two writes: one is counted.
    Count,
    /// The second of two writes: it is put aside.
    Fill(usize, u8),
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub(super) record: Record,
    pub(super) sandboxes: Vec<Sandbox>,
    pub(super) hands: Vec<Hand>,
    pub(super) acts: u8,
    pub(super) missing: u8,
    pub(super) fault: Option<&'static str>,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the steps are told in `step`")]
pub enum Action {
    Look(usize, Option<usize>),
    Go(usize),
    Crash(usize),
    Claim(usize),
    Miss(usize),
    Lower,
    RunOut,
    Lengthen,
    Close,
    Open,
}

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

impl Record {
    /// The reservation that it stands for.
    fn reservation(self) -> Option<Reservation> {
        let (tenant, prefix) = (TenantName::new("acme").ok()?, NamePrefix::new("lab-").ok()?);
        let terms = ReservationTerms {
            tenant,
            prefix,
            count: self.count.into(),
            from: None,
            until: self.over.then_some(NOW),
            lead: LEAD,
            no_show: None,
        };
        let closed = Closed { at: NOW, why: ReservationEnd::Deleted, cleared: self.cleared };
        Some(Reservation {
            id: ReservationId::from_uuid(Uuid::nil()),
            version: self.version.into(),
            terms,
            held: self.held.into(),
            held_at: NOW,
            made_at: NOW,
            made_by: String::new(),
            closed: self.closed.then_some(closed),
        })
    }
}

impl World {
    pub(super) fn in_place(&self, place: Place) -> u8 {
        let found = self.sandboxes.iter().filter(|(at, _)| *at == place).count();
        u8::try_from(found).unwrap_or(u8::MAX)
    }

    /// What a worker decides that sees this sandbox, or none.
    pub(super) fn decided(&self, seen: Option<usize>) -> Option<Hand> {
        let (record, reservation) = (self.record, self.record.reservation()?);
        let Some(at) = seen else {
            let ends = reservation.end_due(NOW).map(|_| Hand::End);
            return ends.or((record.closed && !record.cleared).then_some(Hand::Clear(record.version)));
        };
        let (place, version) = self.sandboxes[at];
        match place {
            Place::Free if reservation.short(NOW) > 0 => Some(Hand::PutAside(record.version, at, version)),
            Place::PutAside if reservation.surplus(NOW) > 0 => {
                Some(Hand::Surplus(record.version, at, version))
            }
            Place::PutAside if record.closed && !record.cleared => Some(Hand::GiveBack(at, version)),
            Place::Free | Place::PutAside | Place::Claimed | Place::Gone => None,
        }
    }

    /// Moves a sandbox that is as it was seen; whether it is.
    fn moves(&mut self, at: usize, from: Place, version: u8, to: Place) -> bool {
        let is_as_seen = self.sandboxes[at] == (from, version);
        if is_as_seen {
            self.sandboxes[at] = (to, version + 1);
        }
        is_as_seen
    }
}

impl Scenario {
    pub(super) fn step(&self, world: &mut World, action: Action) {
        match action {
            Action::Look(worker, seen) => world.hands[worker] = world.decided(seen).unwrap_or(Hand::Idle),
            Action::Crash(worker) => world.hands[worker] = Hand::Idle,
            Action::Go(worker) => world.hands[worker] = self.write(world, world.hands[worker]),
            Action::Claim(at) => {
                let (place, version) = world.sandboxes[at];
                // Others claim what is free.
                let to = if place == Place::PutAside { Place::Claimed } else { Place::Gone };
                world.sandboxes[at] = (to, version + 1);
            }
            Action::Miss(at) => {
                let (place, version) = world.sandboxes[at];
                world.missing += 1;
                world.sandboxes[at] = (Place::Gone, version + 1);
                if place == Place::PutAside && self.variant != Variant::MissingCounts {
                    world.record.held = world.record.held.saturating_sub(1);
                    world.record.version += 1;
                }
            }
            Action::Lower => {
                world.acts += 1;
                world.record.count -= 1;
                world.record.version += 1;
            }
            // Time alone writes nothing.
            Action::RunOut => world.record.over = true,
            // By its operator's clock it is not over yet.
            Action::Lengthen => {
                world.acts += 1;
                world.record.over = false;
                world.record.version += 1;
            }
            Action::Close | Action::Open => {
                world.acts += 1;
                world.record.closed = action == Action::Close;
                world.record.version += 1;
            }
        }
    }

    /// Writes what a worker decided, if everything is as it was seen; what is left to write.
    fn write(&self, world: &mut World, hand: Hand) -> Hand {
        let as_read = |world: &World, version: u8| world.record.version == version;
        let counted = |world: &mut World, more: bool| {
            world.record.held =
                if more { world.record.held + 1 } else { world.record.held.saturating_sub(1) };
            world.record.version += 1;
        };
        match (hand, self.variant) {
            (Hand::PutAside(_, at, version), Variant::FillFirst) => {
                if world.moves(at, Place::Free, version, Place::PutAside) {
                    return Hand::Count;
                }
            }
            (Hand::PutAside(seen, at, version), Variant::CountFirst) => {
                if as_read(world, seen) {
                    counted(world, true);
                    return Hand::Fill(at, version);
                }
            }
            (Hand::PutAside(seen, at, version), variant) => {
                if (as_read(world, seen) || variant == Variant::VersionUnseen)
                    && world.moves(at, Place::Free, version, Place::PutAside)
                {
                    counted(world, true);
                }
            }
            (Hand::Surplus(seen, at, version), _) => {
                if as_read(world, seen) && world.moves(at, Place::PutAside, version, Place::Free) {
                    counted(world, false);
                }
            }
            (Hand::GiveBack(at, version), _) => {
                world.moves(at, Place::PutAside, version, Place::Free);
            }
            (Hand::Clear(seen), _) => {
                if as_read(world, seen) {
                    world.record.cleared = true;
                    world.record.version += 1;
                }
            }
            (Hand::End, variant) => {
                // It is read once more before it is written.
                if !world.record.closed && (world.record.over || variant == Variant::EndUnseen) {
                    if !world.record.over {
                        world.fault = Some("one that its operator had given longer was ended");
                    }
                    world.record.closed = true;
                    world.record.version += 1;
                }
            }
            (Hand::Count, _) => counted(world, true),
            (Hand::Fill(at, version), _) => {
                world.moves(at, Place::Free, version, Place::PutAside);
            }
            (Hand::Idle, _) => {}
        }
        Hand::Idle
    }

    pub(super) fn broken_promise(&self, world: &World) -> Option<String> {
        if let Some(fault) = world.fault {
            return Some(fault.to_owned());
        }
        let put_aside = world.in_place(Place::PutAside) + world.in_place(Place::Claimed);
        if put_aside > self.count {
            return Some(format!("{put_aside} are put aside or claimed, more than {}", self.count));
        }
        // A worker may stop in any state, so this covers the others.
        if world.hands.iter().any(|hand| *hand != Hand::Idle) {
            return None;
        }
        let mut settled = world.clone();
        if settled.record.over && !settled.record.closed {
            self.step(&mut settled, Action::Look(0, None));
            self.step(&mut settled, Action::Go(0));
        }
        for at in (0..self.sandboxes).cycle().take(self.sandboxes * 3) {
            self.step(&mut settled, Action::Look(0, Some(at)));
            while settled.hands[0] != Hand::Idle {
                self.step(&mut settled, Action::Go(0));
            }
            let (place, version) = settled.sandboxes[at];
            if place == Place::PutAside && settled.record.cleared && self.variant != Variant::NoSweep {
                settled.sandboxes[at] = (Place::Free, version + 1);
            }
        }
        if settled.record.closed {
            return (settled.in_place(Place::PutAside) > 0)
                .then(|| "with time one stays put aside for a reservation that has ended".to_owned());
        }
        let put_aside = settled.in_place(Place::PutAside) + settled.in_place(Place::Claimed);
        (put_aside < settled.record.count && settled.in_place(Place::Free) > 0)
            .then(|| "with time it stays short beside a sandbox that is free".to_owned())
    }
}
