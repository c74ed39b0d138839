//! Model of the life of a ticket (ARCHITECTURE.md, "Refill"), searched exhaustively.
//!
//! It covers every interleaving of rounds, calls of the hook, arrivals, censuses, claims and deletions by several workers
//! that stop for good or for long between any two steps, with an index that shows a new sandbox late. The hook may answer
//! no, fail, make a sandbox although it fails, make two, or none although it says yes; what it makes comes at any time. A sync
//! applies a list when all that it has is in the table.
//! Decisions are the domain's ([`broker_domain::refill`]). Invariant: as designed, no state breaks a promise; each other
//! variant does. Not modelled: rate, breaker and the lock of a round, which only make rounds rarer.

mod promises;
mod steps;
mod world;

use std::time::Duration;

use stateright::{Model, Property};

use crate::search::{PROMISES, Searched};
use world::Hand;
pub use world::{Action, Heard, World};

/// The protocol, or one of the mistakes that it avoids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// ARCHITECTURE.md, "Refill".
    AsDesigned,
    /// A round is written whatever the version of the flow is.
    WithoutVersion,
    /// A ticket is removed by the arrival that takes it.
    TakenIsGone,
    /// Two arrivals may take one ticket.
    TakenTwice,
    /// A round reads the census before the flow.
    CensusFirst,
    /// A round reads the tickets after the count, but before the flow.
    FlowLast,
    /// A census is stored over a later one.
    OldCensusOverwrites,
    /// A census is believed to show what was written a moment ago.
    CensusIsCurrent,
    /// A ticket that waited too long is removed, even if an arrival took it meanwhile.
    OverdueUnseen,
    /// A ticket that waited too long is kept.
    OverdueForever,
    /// A ticket ends by its age, though no list was applied since.
    OverdueByAge,
}

impl Variant {
    /// The mistakes.
    pub const BROKEN: [Self; 10] = [
        Self::WithoutVersion,
        Self::TakenIsGone,
        Self::TakenTwice,
        Self::CensusFirst,
        Self::FlowLast,
        Self::OldCensusOverwrites,
        Self::CensusIsCurrent,
        Self::OverdueUnseen,
        Self::OverdueForever,
        Self::OverdueByAge,
    ];

    /// A part of the promise that it breaks.
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::OverdueForever => "stays below min",
            _ => "more than max",
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
    /// How many are kept available.
    pub min: u32,
    /// How many there may be.
    pub max: u32,
    /// How many sandboxes the provider makes at most.
    pub accounts: u8,
    /// How often a hook fails or lies.
    pub lies: u8,
    /// How many tickets are made at most.
    pub tickets: u8,
    /// How many ticks of half an hour pass.
    pub longest: u8,
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
        name: "one sandbox, two workers",
        variant: Variant::AsDesigned,
        workers: 2,
        min: 1,
        max: 1,
        accounts: 2,
        lies: 1,
        tickets: 2,
        longest: 1,
    };
    vec![world.clone(), Scenario { name: "min of one, max of two", max: 2, ..world }]
}

/// Worlds for the long search.
pub fn full() -> Vec<Scenario> {
    let small = bounded();
    let larger =
        small.iter().map(|world| Scenario { accounts: 3, lies: 2, tickets: 3, longest: 2, ..world.clone() });
    let longer = small.iter().map(|world| Scenario { longest: 2, ..world.clone() });
    let three = small.iter().take(1).map(|world| Scenario {
        name: "one sandbox, three workers",
        workers: 3,
        ..world.clone()
    });
    longer.chain(larger).chain(three).collect()
}

/// A tick: longer than a ticket lives.
const TICK: Duration = Duration::from_secs(31 * 60);

impl Searched for Scenario {
    const HAPPENS: &str = "a sandbox arrives for a ticket";

    fn broken(&self, world: &World) -> Option<String> {
        self.broken_promise(world)
    }
}

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.workers)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (worker, hand) in world.hands.iter().enumerate() {
            match hand {
                Hand::Idle => self.offer_work(world, worker, actions),
                Hand::Calling { .. } => {
                    let honest = [Heard::Yes, Heard::No];
                    let lies = [Heard::YesTwice, Heard::YesAndNone, Heard::Failed, Heard::FailedButMade];
                    let all = honest.iter().chain(lies.iter().filter(|_| world.lies < self.lies));
                    actions.extend(all.map(|heard| Action::Call(worker, *heard)));
                    actions.push(Action::Crash(worker));
                }
                Hand::FlowRead { .. }
                | Hand::CensusRead { .. }
                | Hand::Planned { .. }
                | Hand::Answered { .. }
                | Hand::SyncRead { .. }
                | Hand::Counted { .. }
                | Hand::Listed { .. } => actions.extend([Action::Go(worker), Action::Crash(worker)]),
            }
        }
        if world.promised > 0 && world.accounts < self.accounts {
            actions.push(Action::Make);
        }
        for (place, record) in world.records.iter().enumerate() {
            let next = match (record.is_shown, record.is_available) {
                (false, _) => Action::Show(place),
                (true, true) => Action::Claim(place),
                (true, false) => Action::Leave(place),
            };
            actions.push(next);
        }
        if world.now < self.longest {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        self.step(&mut world, action);
        Self::renumber(&mut world);
        // Workers are alike, and so are sandboxes.
        world.hands.sort_unstable();
        world.records.sort_unstable();
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PROMISES, |model: &Self, world: &World| model.broken_promise(world).is_none()),
            Property::sometimes(Self::HAPPENS, |_: &Self, world: &World| {
                world.records.iter().any(|record| record.took)
            }),
        ]
    }
}
