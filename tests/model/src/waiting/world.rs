//! The state of the small world.

use broker_domain::waiting::Line;
use broker_domain::{
    AllocateRequest, AllocationId, ExternalId, Fingerprint, Grant, IdempotencyKey, LabDuration, Lease,
    LeaseEnd, LeaseKey, Limit, NamePrefix, RequestId, SandboxId, SandboxName, TenantName, Term, Times,
    Timestamp, TrackId,
};
use uuid::Uuid;

use super::Scenario;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub(super) requests: Vec<Request>,
    pub(super) sandboxes: Vec<Sandbox>,
    /// The requests whose places were durable when each sandbox arrived, a bit for each.
    pub(super) before: Vec<u8>,
    /// The lease of each key.
    pub(super) leases: Vec<Option<LeaseRow>>,
    /// The key whose lease holds the one permit of the first tenant, in a world with a limit.
    pub(super) permit: Option<u8>,
    pub(super) hands: Vec<Hand>,
    /// Cancellations and deadlines so far.
    pub(super) ends: u8,
    pub(super) deaths: u8,
    /// What went wrong in a step, if anything did.
    pub(super) fault: Option<&'static str>,
}

/// A request: its message, its record and its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Request {
    /// It is recorded and its message is in the queue.
    pub(super) sent: bool,
    /// The message is there still; it may be delivered any number of times.
    pub(super) message: bool,
    pub(super) parked: bool,
    pub(super) place: bool,
    /// It is marked as waiting for a permit: only a mistake does so.
    pub(super) marked: bool,
    pub(super) end: Option<End>,
    /// A caller was told that it is cancelled or expired.
    pub(super) told_none: bool,
}

impl Request {
    pub(super) const fn is_queued(&self) -> bool {
        self.sent && self.end.is_none()
    }

    /// Its place is durable and of use.
    pub(super) const fn waits(&self) -> bool {
        self.is_queued() && self.place
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum End {
    Granted,
    Existing,
    None,
    Cancelled,
    Expired,
    /// Of a dead letter: a replay takes it back.
    Dead,
}

/// A sandbox in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Sandbox {
    Absent,
    Arriving,
    Available,
    Allocated { key: u8 },
    Ended,
}

impl Sandbox {
    pub(super) const fn is_free(self) -> bool {
        matches!(self, Self::Arriving | Self::Available)
    }
}

/// A lease in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LeaseRow {
    pub(super) request: u8,
    pub(super) sandbox: u8,
    pub(super) past: bool,
    pub(super) ended: bool,
    /// So many requests are fenced by its end.
    pub(super) fence: u8,
    /// It had run out when it ended.
    pub(super) ran_out: bool,
}

/// What a worker read or decided and has not written yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Hand {
    Idle,
    /// Of a message: this candidate was seen; and the places of its tenant that were durable when it was received, a bit for
    /// each, if that is limited.
    Claim {
        request: u8,
        sandbox: u8,
        waited: u8,
    },
    /// Of a message: nothing was seen, and the key's lease lets it.
    Park {
        request: u8,
    },
    /// Of a message: no permit was seen; it is marked.
    ParkMarked {
        request: u8,
    },
    /// The mark is written, the place is not.
    ParkPlace {
        request: u8,
    },
    /// The place is written, and what is there is looked at once more.
    OwnLook {
        request: u8,
    },
    /// The message is deleted, nothing is written.
    Deleted {
        request: u8,
    },
    /// Free sandboxes were listed, each as it was.
    Listed {
        free: Vec<(u8, Sandbox)>,
    },
    /// The lines were read before anything was listed.
    LinesFirst {
        places: Vec<u8>,
    },
    /// Dealt: these grants are written next, then the rest is admitted.
    Dealt {
        grants: Vec<(u8, u8, Sandbox)>,
        rest: Vec<(u8, Sandbox)>,
        seen: Vec<u8>,
    },
    /// These are admitted next.
    Admit {
        rest: Vec<(u8, Sandbox)>,
    },
    /// Its request has ended: the place is deleted next.
    Leave {
        request: u8,
    },
}

/// A step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The next request is recorded and sent.
    Ask(usize),
    /// A sandbox arrives.
    Arrive(usize),
    /// A worker receives a message; it sees that sandbox, or none.
    Receive(usize, usize, Option<usize>),
    /// A worker lists what is free, or what an index that lags shows of it.
    List(usize, bool),
    /// A worker goes on; where tenants are dealt, the second is first.
    Go(usize, bool),
    /// A worker forgets what it was about.
    Crash(usize),
    /// A request is cancelled.
    Cancel(usize),
    /// A request's deadline passes, and its owner asks.
    Deadline(usize),
    /// An owner gives a sandbox back.
    Return(usize),
    /// The job ends the lease of a sandbox, which is past its time.
    Expire(usize),
    /// A place is met that cannot be served.
    Die(usize, usize),
    /// An operator replays a dead letter.
    Replay(usize),
}

impl World {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let keys = scenario.requests.iter().map(|(key, _)| usize::from(*key) + 1).max().unwrap_or(0);
        let mut world = Self {
            requests: vec![Request::default(); scenario.requests.len()],
            sandboxes: vec![Sandbox::Absent; scenario.sandboxes],
            leases: vec![None; keys],
            permit: None,
            hands: vec![Hand::Idle; scenario.workers],
            before: vec![0; scenario.sandboxes + 1],
            ends: 0,
            deaths: 0,
            fault: None,
        };
        if scenario.past_lease {
            let old = u8::try_from(world.sandboxes.len()).unwrap_or(u8::MAX);
            world.sandboxes.push(Sandbox::Allocated { key: 0 });
            world.leases[0] = Some(LeaseRow {
                request: u8::MAX,
                sandbox: old,
                past: true,
                ended: false,
                fence: 0,
                ran_out: false,
            });
        }
        world
    }
}

pub(super) fn request_id(number: u8) -> RequestId {
    RequestId::from_uuid(Uuid::from_u128(u128::from(number) + 1))
}

fn time(second: u64) -> Timestamp {
    Timestamp::from_secs(second)
}

pub(super) fn lease_key(key: u8) -> LeaseKey {
    let track = TrackId::new(format!("k{key}")).expect("a track");
    LeaseKey { key: IdempotencyKey::from(&track), track }
}

pub(super) fn tenant(number: u8) -> TenantName {
    TenantName::new(format!("t{number}")).expect("a tenant")
}

/// What the limit of the first tenant is about: every sandbox.
pub(super) fn limit() -> Limit {
    Limit { tenant: tenant(0), prefix: NamePrefix::new("s").expect("a prefix") }
}

pub(super) fn line(number: u8) -> Line {
    Line { tenant: tenant(number), prefix: None }
}

pub(super) fn name(sandbox: u8) -> SandboxName {
    SandboxName::new(format!("s{sandbox}")).expect("a name")
}

/// Now, in every step: all leases that are not past their time end later.
pub(super) const NOW: u64 = 1_000;

/// The request as a worker sees it. It was made in the second of its number after 100.
pub(super) fn ask(number: u8, key: u8, of: u8) -> AllocateRequest {
    let at = time(100 + 10 * u64::from(number));
    AllocateRequest {
        request_id: request_id(number),
        lease_key: lease_key(key),
        key_is_explicit: false,
        fingerprint: Fingerprint::from_stored("f"),
        track_name: None,
        prefix: None,
        lab_duration: LabDuration::SHORTEST,
        heartbeat: None,
        may_wait: true,
        limited: false,
        tenant: Some(tenant(of)),
        asynchronous: false,
        times: Times { enqueued_at: at, reply_by: at, deadline: time(2 * NOW) },
    }
}

/// A time that is clearly after that of so many requests, and not after that of the next.
pub(super) fn asked_after(requests: u8) -> Timestamp {
    time(97 + 10 * u64::from(requests))
}

pub(super) fn expires_at(row: &LeaseRow) -> Timestamp {
    time(if row.past { 1 } else { 3 * NOW })
}

/// The lease as the domain sees it.
pub(super) fn lease(key: u8, row: &LeaseRow) -> Lease {
    Lease {
        key: lease_key(key),
        request_id: request_id(row.request),
        allocation_id: AllocationId::from_uuid(Uuid::from_u128(u128::from(row.request) + 1)),
        fingerprint: Fingerprint::from_stored("f"),
        grant: Grant {
            sandbox_id: SandboxId::new(format!("s{}", row.sandbox)).expect("an id"),
            name: name(row.sandbox),
            external_id: ExternalId::new("e").expect("an id"),
            track_name: None,
            allocated_at: time(1),
            expires_at: expires_at(row),
            attributes: broker_domain::ProviderAttributes::default(),
        },
        term: Term::default(),
        tenant: None,
        permit: None,
        end: row.ended.then(|| LeaseEnd {
            at: time(NOW),
            reason: broker_domain::EndReason::Returned,
            fence: time(95 + 10 * u64::from(row.fence)),
        }),
    }
}
