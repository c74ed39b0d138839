//! Model of the claim protocol (ARCHITECTURE.md, "The protocol"), searched exhaustively.
//!
//! It covers every interleaving of claims, redeliveries, duplicates, crashes, pauses between decision and write, returns,
//! expiry, ttl, cancellation, polls, cleanup, sync and re-creation under one id, over a small world. Decisions are the
//! domain's own code ([`broker_domain`]: `judge`, `judge_return`, `LeaseEnd::by_*`, `Status::next`, `suspects`), so
//! that model and program cannot drift; that the store's conditions say the same is checked by `tests/conformance`.
//! Invariant: with [`Variant::AsDesigned`] no state breaks a promise, with each other variant the search finds one that
//! does. Not modelled: time (ticks stand for hours), queues (a sent message can be taken at any time, any number of
//! times, by any worker, until it is too old) and the network (a worker may stop at any step, for good or for long).
//!
//! | module | holds |
//! |---|---|
//! | `world` | the state: table, provider, requests, and what each worker has in its hands |
//! | `domain` | from there to the domain's values and back |
//! | `requests` | allocate, return, cancel, poll |
//! | `jobs` | expire, cleanup, sync, admit, ttl |
//! | `promises` | what must hold in every state |
//! | [`scenario`] | the worlds that are searched |
//! | `search` | the search of one world |
//! | [`gate`] | gate and quarantine, in a world of their own |
//! | [`reservation`] | a reservation, in a world of its own |
//! | [`refill`] | tickets for new sandboxes, in a world of their own |
//! | [`waiting`] | requests that wait, and limits, in a world of their own |

mod domain;
pub mod gate;
mod jobs;
mod promises;
pub mod refill;
mod requests;
pub mod reservation;
pub mod scenario;
mod search;
pub mod waiting;
mod world;

use stateright::{Model, Property};

pub use scenario::Scenario;
use search::PROMISES;
pub use search::{Found, Searched, search};
use world::Hand;
pub use world::{Action, World};

/// The protocol, or one of the mistakes that it avoids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// ARCHITECTURE.md, "The protocol".
    AsDesigned,
    /// A live lease has a ttl from its claim on.
    TtlAtClaim,
    /// A sandbox that was deleted at the provider is removed, without a tombstone.
    NoTombstone,
    /// A lease is ended on the sandbox's version alone.
    EndByVersion,
    /// "None" is answered without a read of the caller's lease.
    NoneWithoutLook,
    /// An ended lease lets every request claim that did not claim it.
    NoFence,
    /// An asynchronous claim does not touch its record.
    ClaimWithoutRecord,
    /// A lease is ended as expired without a look at when it expires by now.
    EndUnseen,
    /// What was arriving is offered without a look at what became of it.
    AdmitUnseen,
    /// An allocate first ends its key's lease that is past its time, then looks for another sandbox.
    EndFirst,
}

impl Variant {
    /// The mistakes.
    pub const BROKEN: [Self; 8] = [
        Self::TtlAtClaim,
        Self::NoTombstone,
        Self::EndByVersion,
        Self::NoneWithoutLook,
        Self::NoFence,
        Self::ClaimWithoutRecord,
        Self::EndUnseen,
        Self::EndFirst,
    ];
}

impl Searched for Scenario {
    const HAPPENS: &str = "a sandbox is handed out";

    fn broken(&self, world: &World) -> Option<String> {
        promises::broken(world)
    }
}

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.first()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        self.offer_requests(world, actions);
        self.offer_jobs(world, actions);
        for (worker, hand) in world.hands.iter().enumerate() {
            if *hand != Hand::Idle {
                actions.extend([Action::Go(worker), Action::Crash(worker)]);
            }
            if let Hand::SyncRead { sandbox, .. } = hand
                && world.lingering[*sandbox].is_some()
            {
                actions.push(Action::GoBehind(worker));
            }
        }
        if world.now < self.longest {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Tick => {
                world.now += 1;
                // The provider's list is up to date by now.
                world.lingering.fill(None);
            }
            Action::Crash(worker) => world.hands[worker] = Hand::Idle,
            Action::Go(worker) => self.go(&mut world, worker),
            Action::GoBehind(worker) => self.go_behind(&mut world, worker),
            Action::Send(request) => self.send(&mut world, request),
            Action::Take(worker, request, candidate) => self.take(&mut world, worker, request, candidate),
            Action::Cancel(request) => self.cancel(&mut world, request),
            Action::Poll(request) => self.poll(&mut world, request),
            Action::Extend(key) => self.extend(&mut world, key),
            Action::BeginExpire(worker, key) => self.begin_expire(&mut world, worker, key),
            Action::BeginDelete(worker, sandbox) => self.begin_delete(&mut world, worker, sandbox),
            Action::BeginAdmit(worker, sandbox) => self.begin_admit(&mut world, worker, sandbox),
            Action::BeginSync(worker, sandbox) => self.begin_sync(&mut world, worker, sandbox),
            Action::LeaseTtl(key) => world.leases[key] = None,
            Action::TombstoneTtl(sandbox) => world.sandboxes[sandbox] = None,
            Action::Recreate(sandbox) => self.recreate(&mut world, sandbox),
        }
        // Workers are alike.
        world.hands.sort_unstable();
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PROMISES, |_: &Self, world: &World| promises::broken(world).is_none()),
            Property::sometimes(Self::HAPPENS, |_: &Self, world: &World| world.claims > 0),
        ]
    }
}
