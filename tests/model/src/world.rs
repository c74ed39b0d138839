//! The state of the small world.

use broker_domain::{EndReason, Status};

/// Numbers of things, in the order of the scenario.
pub(crate) type Index = usize;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Ticks since the beginning.
    pub(crate) now: u64,
    /// The table's sandboxes, by id.
    pub(crate) sandboxes: Vec<Option<SandboxRow>>,
    /// The table's leases, by key.
    pub(crate) leases: Vec<Option<LeaseRow>>,
    /// What the provider lists under each sandbox id: the number of its incarnation.
    pub(crate) provider: Vec<Option<u8>>,
    /// What the provider deleted a moment ago and may still list.
    pub(crate) lingering: Vec<Option<u8>>,
    pub(crate) requests: Vec<RequestRow>,
    pub(crate) hands: Vec<Hand>,
    /// The last response to each key's caller.
    pub(crate) told: Vec<Option<Index>>,
    /// How many claims there were; the number of one is its allocation id.
    pub(crate) claims: u8,
    /// How many incarnations the provider has made.
    pub(crate) incarnations: u8,
    /// Memory of the judge: incarnations that were handed out.
    pub(crate) used: Vec<u8>,
    /// How often the operator gave a lease longer.
    pub(crate) extensions: u8,
    /// Memory of the judge: the request that ended its key's lease and has no other yet.
    pub(crate) ended_for: Vec<Option<Index>>,
    /// Memory of the judge: the newest fence of each key, in milliseconds.
    pub(crate) fences: Vec<Option<u64>>,
    /// What a step did that no state may show.
    pub(crate) broken: Option<&'static str>,
}

/// A sandbox in the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SandboxRow {
    pub(crate) status: Status,
    pub(crate) version: u8,
    pub(crate) incarnation: u8,
    pub(crate) allocation: Option<AllocationRow>,
    pub(crate) marked: bool,
    pub(crate) deleted_at: Option<u64>,
}

/// The owner of a sandbox, present or past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AllocationRow {
    pub(crate) id: u8,
    pub(crate) key: Index,
    pub(crate) at: u64,
}

/// A lease in the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeaseRow {
    pub(crate) request: Index,
    pub(crate) allocation: u8,
    pub(crate) sandbox: Index,
    pub(crate) incarnation: u8,
    pub(crate) at: u64,
    /// The tick at which the owner's time is over.
    pub(crate) expires: u64,
    pub(crate) end: Option<EndRow>,
    /// The tick from which on it may vanish.
    pub(crate) ttl: Option<u64>,
}

/// The end of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EndRow {
    pub(crate) at_ms: u64,
    pub(crate) expired: bool,
    pub(crate) fence_ms: u64,
}

impl EndRow {
    pub(crate) const fn reason(self) -> EndReason {
        if self.expired { EndReason::Expired } else { EndReason::Returned }
    }
}

/// A request: whether it was made, and the record of an asynchronous one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct RequestRow {
    pub(crate) sent: Option<u64>,
    pub(crate) record: Option<Record>,
    /// The allocation that a return means.
    pub(crate) target: Option<Index>,
    pub(crate) claims: u8,
}

/// The state of an asynchronous request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    Queued,
    Ended(Out),
}

/// How a request ended, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Out {
    Sandbox(Index),
    NoSandboxes,
    Returned,
    Expired,
    Cancelled,
    Refused,
}

/// A decision of a worker that is not written yet; it may wait any time, or be lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Hand {
    Idle,
    /// To claim this sandbox as the index listed it.
    Claim {
        request: Index,
        sandbox: Index,
        version: u8,
    },
    /// A fresh refill found nothing; the key's live allocation when the message was taken.
    FoundNothing {
        request: Index,
        held: Option<u8>,
    },
    /// To claim this sandbox in the place of the key's allocation, whose time is over.
    Replace {
        request: Index,
        sandbox: Index,
        version: u8,
        old: AllocationRow,
        old_sandbox: Index,
        end: EndRow,
        until: u64,
    },
    /// To end this allocation; as expired only if it expires at `until` or before.
    End {
        sandbox: Index,
        version: u8,
        allocation: AllocationRow,
        end: EndRow,
        request: Option<Index>,
        until: Option<u64>,
    },
    /// To tell the caller.
    Tell {
        request: Index,
        out: Out,
    },
    /// To delete at the provider what was read with this version.
    Delete {
        sandbox: Index,
        version: u8,
        incarnation: u8,
    },
    /// To write the tombstone.
    Bury {
        sandbox: Index,
        version: u8,
    },
    /// To offer what is arriving.
    Admit {
        sandbox: Index,
        version: u8,
    },
    /// The table was read, the provider not yet.
    SyncRead {
        sandbox: Index,
        seen: Option<SandboxRow>,
    },
    /// Both were read.
    SyncWrite {
        sandbox: Index,
        seen: Option<SandboxRow>,
        listed: Option<u8>,
    },
}

/// Anything that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Time goes on.
    Tick,
    /// A worker is lost with what it has in its hands.
    Crash(usize),
    /// A worker does the next thing.
    Go(usize),
    /// A sync sees a list from before the last deletions at the provider.
    GoBehind(usize),
    /// A client makes its request.
    Send(usize),
    /// A worker takes a request, for the first time or again, with this candidate.
    Take(usize, usize, Option<usize>),
    /// The caller takes an asynchronous request back.
    Cancel(usize),
    /// The caller polls an asynchronous request.
    Poll(usize),
    /// The operator gives a lease longer.
    Extend(usize),
    /// The expire job finds a lease.
    BeginExpire(usize, usize),
    /// The cleanup job finds a sandbox.
    BeginDelete(usize, usize),
    /// The job that brought a sandbox, or the tick, finds it arriving.
    BeginAdmit(usize, usize),
    /// The sync job reads a row.
    BeginSync(usize, usize),
    /// DynamoDB forgets a lease.
    LeaseTtl(usize),
    /// DynamoDB forgets a tombstone.
    TombstoneTtl(usize),
    /// The provider makes a new sandbox under an old id.
    Recreate(usize),
}
