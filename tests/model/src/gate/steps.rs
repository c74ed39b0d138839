//! The state of the small world, its steps, and what must hold in every state.

use std::collections::BTreeSet;

use broker_domain::quarantine::{QuarantineGuard, is_full};
use broker_domain::{SandboxId, Timestamp};

use super::{Scenario, TICK, Variant};

/// Attempts of a question, of the policy.
const ATTEMPTS: u8 = 2;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Ticks since the beginning.
    pub(super) now: u8,
    pub(super) sandboxes: Vec<Sandbox>,
    pub(super) guard: QuarantineGuard,
    /// How often a gate did not answer.
    pub(super) silences: u8,
    /// How often an operator acted.
    pub(super) acts: u8,
    pub(super) hands: Vec<Hand>,
}

/// The state of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum State {
    Arriving,
    Available,
    Quarantined,
    Claimed,
}

/// A sandbox in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sandbox {
    pub(super) state: State,
    /// Whether its gate lets it through.
    pub(super) is_good: bool,
    /// How often its gate was asked.
    pub(super) attempts: u8,
    /// The index lists it where it is.
    pub(super) is_listed: bool,
    /// It went into quarantine by its gate, and is there.
    pub(super) by_gate: bool,
    /// An operator put it into quarantine, and nobody let it go.
    is_held: bool,
    /// Nobody asks any more: a mistake.
    is_given_up: bool,
}

/// What a worker read or decided and has not written yet. `is_current`: the sandbox is as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Hand {
    Idle,
    /// It is noted that the gate is asked.
    Asking {
        place: usize,
        is_current: bool,
    },
    /// The gate lets it through.
    Passed {
        place: usize,
        is_current: bool,
    },
    /// The gate refuses it.
    Refused {
        place: usize,
        is_current: bool,
    },
    /// The first of guard and index was read.
    Read {
        place: usize,
        is_current: bool,
        first: First,
    },
    /// There is room, by this guard.
    Counted {
        place: usize,
        is_current: bool,
        guard: KeptGuard,
    },
}

/// What was read first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum First {
    Guard(KeptGuard),
    Listed(BTreeSet<SandboxId>),
}

/// A guard as it was read, and whether it still stands so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct KeptGuard {
    recent: Vec<(SandboxId, Timestamp)>,
    stands: bool,
}

/// What a gate says, as far as it is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Its yes or no.
    Verdict,
    /// Nothing.
    Nothing,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the steps are told in `step`")]
pub enum Action {
    Tick,
    Ask(usize, usize),
    Hear(usize, Heard),
    Go(usize),
    Crash(usize),
    List(usize),
    Claim(usize),
    Quarantine(usize),
    Release(usize),
}

impl World {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let arriving = |is_good: &bool| Sandbox {
            state: State::Arriving,
            is_good: *is_good,
            attempts: 0,
            is_listed: true,
            by_gate: false,
            is_held: false,
            is_given_up: false,
        };
        Self {
            now: 0,
            sandboxes: scenario.sandboxes.iter().map(arriving).collect(),
            guard: QuarantineGuard::default(),
            silences: 0,
            acts: 0,
            hands: vec![Hand::Idle; scenario.workers],
        }
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_secs(1_795_000_000).plus(TICK * u32::from(self.now))
    }

    /// What the index lists in quarantine.
    fn listed(&self) -> BTreeSet<SandboxId> {
        let there = |(_, one): &(usize, &Sandbox)| one.state == State::Quarantined && one.is_listed;
        self.sandboxes.iter().enumerate().filter(there).map(|(place, _)| id(place)).collect()
    }

    /// A write to a sandbox: what was seen of it is not current any more.
    fn write(&mut self, place: usize) -> &mut Sandbox {
        for hand in &mut self.hands {
            match hand {
                Hand::Asking { place: of, is_current }
                | Hand::Passed { place: of, is_current }
                | Hand::Refused { place: of, is_current }
                | Hand::Read { place: of, is_current, .. }
                | Hand::Counted { place: of, is_current, .. } => *is_current &= *of != place,
                Hand::Idle => {}
            }
        }
        &mut self.sandboxes[place]
    }

    fn write_guard(&mut self, guard: QuarantineGuard) {
        for hand in &mut self.hands {
            match hand {
                Hand::Read { first: First::Guard(guard), .. } | Hand::Counted { guard, .. } => {
                    guard.stands = false
                }
                Hand::Read { first: First::Listed(_), .. }
                | Hand::Idle
                | Hand::Asking { .. }
                | Hand::Passed { .. }
                | Hand::Refused { .. } => {}
            }
        }
        // Only whether it is the one that was read matters.
        self.guard = QuarantineGuard { version: 0, ..guard };
    }
}

impl KeptGuard {
    fn of(guard: &QuarantineGuard) -> Self {
        Self { recent: guard.recent.clone().into_iter().collect(), stands: true }
    }

    fn guard(&self) -> QuarantineGuard {
        QuarantineGuard { version: 0, recent: self.recent.iter().cloned().collect() }
    }
}

fn id(place: usize) -> SandboxId {
    SandboxId::new(format!("s{place}")).expect("an id")
}

impl Scenario {
    /// Whether a worker asks the gate of a sandbox.
    pub(super) fn asks(&self, sandbox: &Sandbox) -> bool {
        sandbox.state == State::Arriving && !(self.variant == Variant::FullIsForever && sandbox.is_given_up)
    }

    pub(super) fn step(&self, world: &mut World, action: Action) {
        match action {
            Action::Tick => {
                world.now += 1;
                // The index is up to date by now.
                world.sandboxes.iter_mut().for_each(|sandbox| sandbox.is_listed = true);
            }
            Action::Crash(worker) => world.hands[worker] = Hand::Idle,
            Action::List(place) => world.sandboxes[place].is_listed = true,
            Action::Claim(place) => world.write(place).state = State::Claimed,
            Action::Quarantine(place) => {
                world.acts += 1;
                let sandbox = world.write(place);
                (sandbox.state, sandbox.is_listed, sandbox.is_held) = (State::Quarantined, false, true);
            }
            Action::Release(place) => {
                world.acts += 1;
                let sandbox = world.write(place);
                (sandbox.state, sandbox.attempts) = (State::Arriving, 0);
                (sandbox.by_gate, sandbox.is_held) = (false, false);
            }
            Action::Ask(worker, place) => {
                let sandbox = world.write(place);
                sandbox.attempts = (sandbox.attempts + 1).min(ATTEMPTS);
                world.hands[worker] = Hand::Asking { place, is_current: true };
            }
            Action::Hear(worker, heard) => self.hear(world, worker, heard),
            Action::Go(worker) => {
                let hand = std::mem::replace(&mut world.hands[worker], Hand::Idle);
                world.hands[worker] = self.go(world, hand);
            }
        }
    }

    fn hear(&self, world: &mut World, worker: usize, heard: Heard) {
        let Hand::Asking { place, is_current } = world.hands[worker] else { return };
        let sandbox = world.sandboxes[place];
        let silent = heard == Heard::Nothing;
        world.silences += u8::from(silent);
        let passes = if silent { self.variant == Variant::SilenceIsYes } else { sandbox.is_good };
        world.hands[worker] = if passes {
            Hand::Passed { place, is_current }
        } else if silent && sandbox.attempts < ATTEMPTS {
            Hand::Idle
        } else {
            Hand::Refused { place, is_current }
        };
    }

    fn go(&self, world: &mut World, hand: Hand) -> Hand {
        match hand {
            Hand::Idle | Hand::Asking { .. } => hand,
            Hand::Passed { place, is_current } => {
                let unseen =
                    self.variant == Variant::AdmitUnseen && world.sandboxes[place].state != State::Claimed;
                if is_current && world.sandboxes[place].state == State::Arriving || unseen {
                    world.write(place).state = State::Available;
                }
                Hand::Idle
            }
            Hand::Refused { place, is_current } => {
                let first = match self.variant {
                    Variant::IndexFirst => First::Listed(world.listed()),
                    _ => First::Guard(KeptGuard::of(&world.guard)),
                };
                Hand::Read { place, is_current, first }
            }
            Hand::Read { place, is_current, first } => {
                let (guard, listed) = match first {
                    First::Guard(guard) => (guard, world.listed()),
                    First::Listed(listed) => (KeptGuard::of(&world.guard), listed),
                };
                let there = match self.variant {
                    Variant::IndexOnly => listed.len() as u64,
                    _ => guard.guard().count(&listed, world.time()),
                };
                if !is_full(there, self.live) {
                    return Hand::Counted { place, is_current, guard };
                }
                if is_current {
                    let sandbox = world.write(place);
                    (sandbox.attempts, sandbox.is_given_up) = (0, true);
                }
                Hand::Idle
            }
            Hand::Counted { place, is_current, guard } => self.put(world, place, is_current, &guard),
        }
    }

    /// One transaction: the sandbox, and the guard.
    fn put(&self, world: &mut World, place: usize, is_current: bool, guard: &KeptGuard) -> Hand {
        if !is_current || world.sandboxes[place].state != State::Arriving {
            return Hand::Idle;
        }
        if !guard.stands && self.variant != Variant::WithoutGuard {
            // It is counted again.
            return Hand::Refused { place, is_current };
        }
        let sandbox = world.write(place);
        (sandbox.state, sandbox.is_listed, sandbox.by_gate) = (State::Quarantined, false, true);
        world.write_guard(guard.guard().with(&id(place), world.time()));
        Hand::Idle
    }

    /// The promise that `world` breaks.
    pub(super) fn broken_promise(&self, world: &World) -> Option<String> {
        let by_gate =
            world.sandboxes.iter().filter(|one| one.state == State::Quarantined && one.by_gate).count();
        let most = (0..).find(|count| is_full(*count, self.live)).unwrap_or(u64::MAX);
        if by_gate as u64 > most {
            return Some(format!("{by_gate} are in quarantine by their gate: more than a fifth, {most}"));
        }
        let is_offered = |one: &&Sandbox| matches!(one.state, State::Available | State::Claimed);
        if world.sandboxes.iter().filter(is_offered).any(|one| one.is_held) {
            return Some("one is offered out of quarantine that nobody let go".to_owned());
        }
        if world.sandboxes.iter().filter(is_offered).any(|one| !one.is_good) {
            return Some("one is offered that its gate refuses".to_owned());
        }
        // A worker may stop in any state, so this covers the others.
        if world.hands.iter().any(|hand| *hand != Hand::Idle) {
            return None;
        }
        let settled = self.settled(world);
        let waits =
            |one: &Sandbox| one.state == State::Arriving && (one.is_good || !settled.is_full(self.live));
        settled
            .sandboxes
            .iter()
            .any(waits)
            .then(|| "with time and a gate that answers one waits in vain".to_owned())
    }

    /// The world after the quarantine was emptied, when each gate was asked anew and answered.
    fn settled(&self, world: &World) -> World {
        let mut world = world.clone();
        self.step(&mut world, Action::Tick);
        for place in 0..world.sandboxes.len() {
            if world.sandboxes[place].by_gate && world.sandboxes[place].state == State::Quarantined {
                world.write(place).state = State::Claimed;
            }
        }
        for place in 0..world.sandboxes.len() {
            if !self.asks(&world.sandboxes[place]) {
                continue;
            }
            self.step(&mut world, Action::Ask(0, place));
            self.step(&mut world, Action::Hear(0, Heard::Verdict));
            while world.hands[0] != Hand::Idle {
                self.step(&mut world, Action::Go(0));
            }
        }
        world
    }
}

impl World {
    fn is_full(&self, live: u64) -> bool {
        let there = self.sandboxes.iter().filter(|one| one.state == State::Quarantined).count();
        is_full(there as u64, live)
    }
}
