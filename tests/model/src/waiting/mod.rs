//! Model of requests that wait (ARCHITECTURE.md, "Waiting"), searched exhaustively.
//!
//! It covers every interleaving of deliveries (any number of each message), parking, dealing, admission, cancellation, deadlines,
//! returns and arrivals, by workers that stop for good or for long between any two steps, with an index that may show nothing.
//! Decisions are the domain's: who is dealt what ([`broker_domain::waiting::deal`]) and what a key's lease means
//! ([`broker_domain::judge`]). Invariant: as designed, no state breaks a promise; each other variant does. Not modelled: limits
//! of more than one, reservations, batches (a call of several is all or none), versions beyond those of sandboxes.

mod promises;
mod serve;
mod steps;
mod world;

use stateright::{Model, Property};

use crate::search::{PROMISES, Searched};
pub use world::{Action, World};
use world::{End, Hand, Sandbox};

/// The protocol, or one of the mistakes that it avoids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// ARCHITECTURE.md, "Waiting".
    AsDesigned,
    /// A second delivery of a parked message claims what is offered.
    ParkedClaims,
    /// Who parks looks once more and takes what is there.
    OwnGrant,
    /// A head whose key's lease is past its time is passed over.
    PassOver,
    /// Lines are read before the sandboxes are listed.
    LineFirst,
    /// What arrives is offered at once.
    OfferDirectly,
    /// The message is deleted before its request is parked.
    DeleteMessageFirst,
    /// The mark on the record and the place are two writes.
    ParkApart,
    /// A place that cannot be served is deleted beside the end of its request, and a replay parks it again.
    DeleteDeadPlace,
    /// A grant does not look at the record.
    GrantWithoutRecord,
    /// A claim reads that a permit is free, and takes it without a condition.
    PermitByRead,
    /// Who finds no permit is marked, and is served once an end has cleared the marks.
    QuotaMark,
    /// A newcomer of a limited tenant does not look at its own line.
    PastOwnLine,
    /// The job that ends a lease past its time fences all who asked before it ran.
    FenceByJob,
    /// The return of a sandbox whose lease had run out fences all who asked before it.
    FenceByReturn,
}

impl Variant {
    /// The mistakes.
    pub const BROKEN: [Self; 14] = [
        Self::ParkedClaims,
        Self::OwnGrant,
        Self::PassOver,
        Self::LineFirst,
        Self::OfferDirectly,
        Self::DeleteMessageFirst,
        Self::ParkApart,
        Self::DeleteDeadPlace,
        Self::GrantWithoutRecord,
        Self::PermitByRead,
        Self::QuotaMark,
        Self::PastOwnLine,
        Self::FenceByJob,
        Self::FenceByReturn,
    ];

    /// A part of the promise that it breaks.
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::AsDesigned => "nothing",
            Self::ParkedClaims | Self::OwnGrant => "asked before",
            Self::PassOver | Self::QuotaMark => "waits in vain",
            Self::LineFirst | Self::OfferDirectly => "newcomer",
            Self::DeleteMessageFirst => "lost",
            Self::ParkApart | Self::DeleteDeadPlace => "without a place",
            Self::GrantWithoutRecord => "was cancelled",
            Self::PermitByRead => "more leases than",
            Self::PastOwnLine => "own line",
            Self::FenceByJob | Self::FenceByReturn => "outdated by the end",
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
    /// The key and the tenant of each request, in the order in which they are made; only the first so many may wait.
    pub requests: &'static [(u8, u8)],
    /// The first request that does not wait.
    pub newcomers_from: usize,
    /// How many sandboxes arrive.
    pub sandboxes: usize,
    /// Whether the first tenant may hold one sandbox only.
    pub limited: bool,
    /// Whether a lease of the first key that is past its time stands at the beginning.
    pub past_lease: bool,
    /// How many cancellations and deadlines there are.
    pub ends: u8,
    /// How many places die, and are replayed.
    pub deaths: u8,
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
        name: "two that wait, one sandbox",
        variant: Variant::AsDesigned,
        workers: 2,
        requests: &[(0, 0), (1, 0)],
        newcomers_from: 2,
        sandboxes: 1,
        limited: false,
        past_lease: false,
        ends: 1,
        deaths: 0,
    };
    vec![
        world.clone(),
        Scenario { name: "one that waits, one newcomer", newcomers_from: 1, ends: 0, ..world.clone() },
        Scenario {
            name: "two of one key, two sandboxes",
            requests: &[(0, 0), (0, 0)],
            sandboxes: 2,
            ends: 0,
            ..world.clone()
        },
        Scenario { name: "two tenants", requests: &[(0, 0), (1, 1)], ends: 0, ..world.clone() },
        Scenario {
            name: "a lease past its time",
            requests: &[(0, 0)],
            newcomers_from: 1,
            past_lease: true,
            ends: 0,
            ..world.clone()
        },
        Scenario {
            name: "a limit of one, two that wait",
            limited: true,
            sandboxes: 2,
            ends: 0,
            ..world.clone()
        },
        Scenario {
            name: "a limit of one, one that waits, one newcomer",
            limited: true,
            requests: &[(0, 0), (1, 0), (2, 0)],
            newcomers_from: 2,
            sandboxes: 2,
            ends: 0,
            workers: 1,
            ..world.clone()
        },
        Scenario {
            name: "a limit of one beside another tenant",
            limited: true,
            requests: &[(0, 0), (1, 0), (2, 1)],
            newcomers_from: 3,
            sandboxes: 2,
            workers: 1,
            ends: 0,
            ..world.clone()
        },
        Scenario {
            name: "a place that dies",
            requests: &[(0, 0)],
            newcomers_from: 1,
            deaths: 1,
            ends: 0,
            ..world
        },
    ]
}

/// Worlds for the long search.
pub fn full() -> Vec<Scenario> {
    let small = bounded();
    let more = small.iter().map(|world| Scenario { sandboxes: 2, ..world.clone() });
    let three = Scenario {
        name: "three that wait, two tenants",
        requests: &[(0, 0), (1, 1), (2, 0)],
        newcomers_from: 3,
        ends: 0,
        ..small[0].clone()
    };
    more.chain([three]).collect()
}

impl Searched for Scenario {
    const HAPPENS: &str = "a place is granted";

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
            if *hand == Hand::Idle {
                self.offer_work(world, worker, actions);
            } else {
                actions.extend([Action::Go(worker, false), Action::Crash(worker)]);
                if matches!(hand, Hand::Listed { .. } | Hand::LinesFirst { .. }) && self.has_two_tenants() {
                    actions.push(Action::Go(worker, true));
                }
            }
        }
        // Requests are made in their order: their ids say so.
        if let Some(next) = world.requests.iter().position(|request| !request.sent) {
            actions.push(Action::Ask(next));
        }
        for (number, sandbox) in world.sandboxes.iter().enumerate() {
            match sandbox {
                Sandbox::Absent => actions.push(Action::Arrive(number)),
                Sandbox::Allocated { .. } => actions.push(Action::Return(number)),
                Sandbox::Arriving | Sandbox::Available | Sandbox::Ended => {}
            }
        }
        let overdue = world.leases.iter().flatten().find(|lease| lease.past && !lease.ended);
        actions.extend(overdue.map(|lease| Action::Expire(lease.sandbox.into())));
        for (number, request) in world.requests.iter().enumerate() {
            if request.is_queued() && world.ends < self.ends {
                actions.extend([Action::Cancel(number), Action::Deadline(number)]);
            }
            if request.end == Some(End::Dead) {
                actions.push(Action::Replay(number));
            }
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        self.step(&mut world, action);
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PROMISES, |model: &Self, world: &World| model.broken_promise(world).is_none()),
            Property::sometimes(Self::HAPPENS, |_: &Self, world: &World| {
                world.requests.iter().any(|request| request.parked && request.end == Some(End::Granted))
            }),
        ]
    }
}
