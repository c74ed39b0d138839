//! Invariants of refill, checked in every state.

use super::world::{Census, Hand, Heard, World};
use super::{Action, Scenario};

impl Scenario {
    /// The promise that `world` breaks.
    pub(super) fn broken_promise(&self, world: &World) -> Option<String> {
        let here = world.records.iter().filter(|record| record.took).count();
        let open = world.open().count();
        let max = usize::try_from(self.max).unwrap_or(usize::MAX);
        if here + open > max {
            return Some(format!("{here} that were asked for and {open} tickets are more than max, {max}"));
        }
        // Not of the table alone: what the provider has, and what is still to come.
        let unlisted = u32::from(world.accounts) - world.known.count_ones();
        let there = world.records.len()
            + usize::try_from(unlisted).unwrap_or(usize::MAX)
            + usize::from(world.promised);
        if world.lies == 0 && !world.beside && there > max {
            return Some(format!("{there} that an honest hook had made in time are more than max, {max}"));
        }
        // A worker may stop in any state, so this covers the others.
        if world.hands.iter().any(|hand| *hand != Hand::Idle) {
            return None;
        }
        let settled = Self { tickets: u8::MAX, ..self.clone() }.settled(world);
        let min = usize::try_from(self.min).unwrap_or(usize::MAX);
        (settled.records.len() < min)
            .then(|| "with time, a census and an honest hook it stays below min".to_owned())
    }

    /// The world after some time in which every worker ends what it begins and the hook is honest.
    fn settled(&self, world: &World) -> World {
        let mut world = world.clone();
        world.hands.fill(Hand::Idle);
        for _ in 0..3 {
            self.step(&mut world, Action::Tick);
            world.listed = world.now;
            let live = u8::try_from(world.records.len()).unwrap_or(u8::MAX);
            world.census = Some(Census { as_of: world.now, number: 0, live });
            self.step(&mut world, Action::BeginRound(0));
            let mut called = 0;
            while world.hands[0] != Hand::Idle {
                let is_call = matches!(world.hands[0], Hand::Calling { .. });
                called += u8::from(is_call);
                self.step(&mut world, if is_call { Action::Call(0, Heard::Yes) } else { Action::Go(0) });
            }
            // What was promised before may never come; what is asked for now does.
            for account in world.accounts..world.accounts + called {
                self.step(&mut world, Action::BeginSync(0, account));
                while world.hands[0] != Hand::Idle {
                    self.step(&mut world, Action::Go(0));
                }
            }
            world.accounts += called;
        }
        world
    }
}
