//! Model of gate and quarantine (ARCHITECTURE.md, "Arriving" and "Quarantine"), searched exhaustively.
//!
//! It covers every interleaving of questions, answers, counts and writes by several workers that stop for good or for long
//! between any two steps, of operators who put sandboxes into quarantine and let them go, and of claims, with an index that
//! lists a quarantined one late. The ceiling is the domain's ([`broker_domain::quarantine`]). Invariant: as designed, no state
//! breaks a promise; each other variant does. Not modelled: versions beyond whether one is current, and the pauses between
//! questions, which only make them rarer.

mod steps;

use std::time::Duration;

use stateright::{Model, Property};

use crate::search::{PROMISES, Searched};
pub use steps::{Action, Heard, World};
use steps::{Hand, State};

/// The protocol, or one of the mistakes that it avoids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// ARCHITECTURE.md, "Quarantine".
    AsDesigned,
    /// What goes into quarantine does not touch the guard.
    WithoutGuard,
    /// Only what the index lists is counted.
    IndexOnly,
    /// The index is read before the guard.
    IndexFirst,
    /// What its gate let through is offered whatever became of it meanwhile.
    AdmitUnseen,
    /// A gate that does not answer is taken for a yes.
    SilenceIsYes,
    /// Where the quarantine is full nobody asks again.
    FullIsForever,
}

impl Variant {
    /// The mistakes.
    pub const BROKEN: [Self; 6] = [
        Self::WithoutGuard,
        Self::IndexOnly,
        Self::IndexFirst,
        Self::AdmitUnseen,
        Self::SilenceIsYes,
        Self::FullIsForever,
    ];

    /// A part of the promise that it breaks.
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::AdmitUnseen => "out of quarantine",
            Self::SilenceIsYes => "its gate refuses",
            Self::FullIsForever => "waits in vain",
            _ => "more than a fifth",
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
    /// The arriving sandboxes: whether the gate lets each through.
    pub sandboxes: &'static [bool],
    /// How many the flavour has by the census, these included.
    pub live: u64,
    /// How often a gate does not answer, at most.
    pub silences: u8,
    /// How often an operator acts, at most.
    pub acts: u8,
    /// How many ticks pass.
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
        name: "two that the gate refuses, room for one",
        variant: Variant::AsDesigned,
        workers: 2,
        sandboxes: &[false, false],
        live: 5,
        silences: 1,
        acts: 1,
        longest: 1,
    };
    vec![
        world.clone(),
        Scenario { name: "one of each, and an operator", sandboxes: &[true, false], acts: 2, ..world },
    ]
}

/// Worlds for the long search.
pub fn full() -> Vec<Scenario> {
    let small = bounded();
    let longer = small.iter().map(|world| Scenario { longest: 2, acts: 2, silences: 2, ..world.clone() });
    let three = small.iter().map(|world| Scenario { workers: 3, ..world.clone() });
    longer.chain(three).collect()
}

/// A tick: longer than the index lags.
const TICK: Duration = Duration::from_secs(20);

impl Searched for Scenario {
    const HAPPENS: &str = "a gate puts a sandbox into quarantine";

    fn broken(&self, world: &World) -> Option<String> {
        self.broken_promise(world)
    }
}

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (worker, hand) in world.hands.iter().enumerate() {
            match hand {
                Hand::Idle => {
                    let asked = |place: &usize| self.asks(&world.sandboxes[*place]);
                    actions.extend(
                        (0..world.sandboxes.len()).filter(asked).map(|place| Action::Ask(worker, place)),
                    );
                }
                Hand::Asking { .. } => {
                    actions.push(Action::Hear(worker, Heard::Verdict));
                    if world.silences < self.silences {
                        actions.push(Action::Hear(worker, Heard::Nothing));
                    }
                    actions.push(Action::Crash(worker));
                }
                Hand::Passed { .. } | Hand::Refused { .. } | Hand::Read { .. } | Hand::Counted { .. } => {
                    actions.extend([Action::Go(worker), Action::Crash(worker)]);
                }
            }
        }
        for (place, sandbox) in world.sandboxes.iter().enumerate() {
            if sandbox.state == State::Quarantined && !sandbox.is_listed {
                actions.push(Action::List(place));
            }
            if sandbox.state == State::Available {
                actions.push(Action::Claim(place));
            }
            if world.acts < self.acts {
                match sandbox.state {
                    State::Arriving | State::Available => actions.push(Action::Quarantine(place)),
                    State::Quarantined => actions.push(Action::Release(place)),
                    State::Claimed => {}
                }
            }
        }
        if world.now < self.longest {
            actions.push(Action::Tick);
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
            Property::sometimes(Self::HAPPENS, |_: &Self, world: &World| {
                world.sandboxes.iter().any(|sandbox| sandbox.by_gate)
            }),
        ]
    }
}
