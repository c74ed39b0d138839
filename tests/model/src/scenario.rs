//! The worlds that are searched.

use broker_domain::Status;

use crate::Variant;
use crate::world::{Hand, Index, RequestRow, SandboxRow, World};

/// Ticks for which a sandbox is lent.
pub(crate) const LAB: u64 = 1;
/// Ticks after which no caller waits for a request any more.
pub(crate) const PATIENCE: u64 = 1;
/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Allocate, with a waiting caller.
    Allocate,
    /// A sandbox; the outcome is stored, and the request can be cancelled.
    AllocateAsynchronously,
    /// Return the sandbox that the key got last.
    Return,
}

/// A request that may be made, once.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What.
    pub kind: Kind,
    /// By which key.
    pub key: Index,
}

impl Asked {
    pub(crate) const fn is_asynchronous(self) -> bool {
        matches!(self.kind, Kind::AllocateAsynchronously)
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
    /// How many sandboxes the pool has.
    pub sandboxes: usize,
    /// How many keys there are.
    pub keys: usize,
    /// The requests that may be made, in any order.
    pub requests: Vec<Asked>,
    /// How many times the provider makes a new sandbox under an old id.
    pub recreations: u8,
    /// How many times the operator gives a lease longer, by a tick each.
    pub extensions: u8,
    /// Whether the expire, cleanup and sync jobs run.
    pub jobs: bool,
    /// Ticks for which a message can come back, redrive and replay included; a worker that pauses longer with a claim in
    /// its hands finds its signature expired.
    pub message_lives: u64,
    /// Ticks for which an ended lease, or a tombstone, is kept: longer than any message lives.
    pub kept: u64,
    /// The last tick.
    pub longest: u64,
}

impl Scenario {
    pub(crate) fn first(&self) -> World {
        let row = |sandbox: usize| SandboxRow {
            status: Status::Available,
            version: 1,
            incarnation: u8::try_from(sandbox).expect("a small world"),
            allocation: None,
            marked: false,
            deleted_at: None,
        };
        let incarnations = u8::try_from(self.sandboxes).expect("a small world");
        World {
            now: 0,
            sandboxes: (0..self.sandboxes).map(|sandbox| Some(row(sandbox))).collect(),
            leases: vec![None; self.keys],
            provider: (0..incarnations).map(Some).collect(),
            requests: vec![RequestRow::default(); self.requests.len()],
            hands: vec![Hand::Idle; self.workers],
            told: vec![None; self.keys],
            claims: 0,
            lingering: vec![None; self.sandboxes],
            incarnations,
            used: Vec::new(),
            extensions: 0,
            ended_for: vec![None; self.keys],
            fences: vec![None; self.keys],
            broken: None,
        }
    }

    /// The same world under another protocol.
    pub fn with(&self, variant: Variant) -> Self {
        Self { variant, ..self.clone() }
    }
}

fn requests(asked: &[(Kind, Index)]) -> Vec<Asked> {
    asked.iter().map(|(kind, key)| Asked { kind: *kind, key: *key }).collect()
}

/// One worker pair, one sandbox, one key, no jobs, no time to speak of.
fn smallest() -> Scenario {
    Scenario {
        name: "",
        variant: Variant::AsDesigned,
        workers: 2,
        sandboxes: 1,
        keys: 1,
        requests: Vec::new(),
        recreations: 0,
        extensions: 0,
        jobs: false,
        message_lives: 2,
        kept: 3,
        longest: 1,
    }
}

/// Small worlds in which each mistake shows.
pub fn bounded() -> Vec<Scenario> {
    use Kind::{Allocate, AllocateAsynchronously, Return};
    vec![
        Scenario {
            name: "a key, a repeat, a return, two sandboxes",
            sandboxes: 2,
            requests: requests(&[(Allocate, 0), (Allocate, 0), (Return, 0)]),
            ..smallest()
        },
        Scenario {
            name: "an asynchronous request that may be cancelled",
            requests: requests(&[(AllocateAsynchronously, 0), (Allocate, 0)]),
            longest: 2,
            ..smallest()
        },
        Scenario {
            name: "from claim to deletion, and a provider that lists what it deleted",
            workers: 1,
            requests: requests(&[(Allocate, 0), (Return, 0)]),
            jobs: true,
            ..smallest()
        },
        Scenario {
            name: "a lease that is over, or is given longer, and one sandbox more or none",
            sandboxes: 2,
            requests: requests(&[(Allocate, 0), (AllocateAsynchronously, 0)]),
            extensions: 1,
            jobs: true,
            longest: 2,
            ..smallest()
        },
        Scenario {
            name: "two keys, and a new sandbox under an old id",
            keys: 2,
            requests: requests(&[(Allocate, 0), (Return, 0), (Allocate, 1)]),
            recreations: 1,
            jobs: true,
            message_lives: 0,
            kept: 1,
            ..smallest()
        },
    ]
}

/// Larger worlds, for the long search.
pub fn full() -> Vec<Scenario> {
    use Kind::{Allocate, AllocateAsynchronously, Return};
    vec![
        Scenario {
            name: "two keys, a repeat, a return, two sandboxes",
            sandboxes: 2,
            keys: 2,
            requests: requests(&[(Allocate, 0), (Allocate, 0), (Allocate, 1), (Return, 0)]),
            longest: 2,
            ..smallest()
        },
        Scenario {
            name: "cancellation, expiry and a return",
            sandboxes: 2,
            requests: requests(&[(AllocateAsynchronously, 0), (Allocate, 0), (Return, 0)]),
            extensions: 1,
            jobs: true,
            ..smallest()
        },
        Scenario {
            name: "a life from claim to re-creation",
            requests: requests(&[(Allocate, 0), (Allocate, 0), (Return, 0)]),
            recreations: 1,
            jobs: true,
            longest: 3,
            ..smallest()
        },
        Scenario {
            name: "two keys, one sandbox, everything that ends a lease",
            keys: 2,
            requests: requests(&[(Allocate, 0), (Return, 0), (Allocate, 1)]),
            recreations: 1,
            jobs: true,
            longest: 4,
            ..smallest()
        },
    ]
}
