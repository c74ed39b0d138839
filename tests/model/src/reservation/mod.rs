//! Model of a reservation (ARCHITECTURE.md, "Reservations"), searched exhaustively.
//!
//! It covers every interleaving of looks, putting aside, giving back, clearing, claims, changes, ends (also by time) and sandboxes
//! that go missing, by workers that stop for good or for long between a look and its write, with an index that shows one sandbox
//! or nothing. Decisions are the domain's ([`broker_domain::Reservation::short`], [`broker_domain::Reservation::surplus`]). Invariant: as designed, no state breaks a promise; each
//! other variant does. Not modelled: several reservations, batches (a call of several is all or none), times.

mod world;

use stateright::{Model, Property};

use crate::search::{PROMISES, Searched};
pub use world::{Action, World};
use world::{Hand, Place, Record};

/// The protocol, or one of the mistakes that it avoids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// ARCHITECTURE.md, "Reservations".
    AsDesigned,
    /// A sandbox is put aside, then counted.
    FillFirst,
    /// A sandbox is counted, then put aside.
    CountFirst,
    /// What is put aside is counted whatever the reservation's version is.
    VersionUnseen,
    /// One that is missing at the provider is counted still.
    MissingCounts,
    /// Nobody looks for what the index did not show before the reservation was cleared.
    NoSweep,
    /// A reservation that has ended may be opened again.
    Reopened,
    /// One whose time was over when it was read is ended as it stands.
    EndUnseen,
}

impl Variant {
    /// The mistakes.
    pub const BROKEN: [Self; 7] = [
        Self::FillFirst,
        Self::CountFirst,
        Self::VersionUnseen,
        Self::MissingCounts,
        Self::NoSweep,
        Self::Reopened,
        Self::EndUnseen,
    ];

    /// A part of the promise that it breaks.
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::AsDesigned => "nothing",
            Self::FillFirst | Self::VersionUnseen => "more than",
            Self::CountFirst | Self::MissingCounts | Self::Reopened => "short beside",
            Self::NoSweep => "stays put aside",
            Self::EndUnseen => "given longer",
        }
    }
}

/// A small world.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// Which protocol runs in it.
    pub variant: Variant,
    /// How many workers there are.
    pub workers: usize,
    /// How many sandboxes there are.
    pub sandboxes: usize,
    /// How many are reserved.
    pub count: u8,
    /// How often an operator changes or ends the reservation.
    pub acts: u8,
    /// How many sandboxes go missing.
    pub missing: u8,
}

impl Scenario {
    /// The same world under another protocol.
    #[must_use]
    pub fn with(&self, variant: Variant) -> Self {
        Self { variant, ..self.clone() }
    }
}

/// Worlds small enough for every run of the tests.
pub fn bounded() -> Vec<Scenario> {
    let world = Scenario {
        name: "one reserved of two",
        variant: Variant::AsDesigned,
        workers: 2,
        sandboxes: 2,
        count: 1,
        acts: 2,
        missing: 1,
    };
    vec![world.clone(), Scenario { name: "two reserved of three", sandboxes: 3, count: 2, acts: 1, ..world }]
}

/// Worlds for the long search.
pub fn full() -> Vec<Scenario> {
    let small = bounded();
    let more = small.iter().map(|world| Scenario { acts: world.acts + 1, missing: 2, ..world.clone() });
    let three = small.iter().take(1).map(|world| Scenario { workers: 3, ..world.clone() });
    more.chain(three).collect()
}

impl Searched for Scenario {
    const HAPPENS: &str = "one that is put aside is claimed";

    fn broken(&self, world: &World) -> Option<String> {
        self.broken_promise(world)
    }
}

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let record =
            Record { version: 1, count: self.count, held: 0, over: false, closed: false, cleared: false };
        vec![World {
            record,
            sandboxes: vec![(Place::Free, 0); self.sandboxes],
            hands: vec![Hand::Idle; self.workers],
            acts: 0,
            missing: 0,
            fault: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (worker, hand) in world.hands.iter().enumerate() {
            if *hand == Hand::Idle {
                let seen = (0..self.sandboxes).map(Some).chain([None]);
                let looks = seen.filter(|seen| world.decided(*seen).is_some());
                actions.extend(looks.map(|seen| Action::Look(worker, seen)));
            } else {
                actions.extend([Action::Go(worker), Action::Crash(worker)]);
            }
        }
        for (at, (place, _)) in world.sandboxes.iter().enumerate() {
            if matches!(place, Place::Free | Place::PutAside) {
                actions.push(Action::Claim(at));
                if world.missing < self.missing {
                    actions.push(Action::Miss(at));
                }
            }
        }
        if !world.record.over && !world.record.closed {
            actions.push(Action::RunOut);
        }
        if world.acts < self.acts {
            if !world.record.closed {
                actions.push(Action::Close);
                if world.record.over {
                    actions.push(Action::Lengthen);
                }
                if world.record.count > 0 {
                    actions.push(Action::Lower);
                }
            } else if self.variant == Variant::Reopened && !world.record.cleared {
                actions.push(Action::Open);
            }
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        self.step(&mut world, action);
        // Workers are alike.
        world.hands.sort_unstable();
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PROMISES, |model: &Self, world: &World| model.broken_promise(world).is_none()),
            Property::sometimes(Self::HAPPENS, |_: &Self, world: &World| world.in_place(Place::Claimed) > 0),
        ]
    }
}
