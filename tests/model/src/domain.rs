//! Conversion of the world's rows to the domain's values.

use broker_domain::{
    AllocateRequest, Allocation, AllocationId, ExternalId, Fingerprint, Grant, IdempotencyKey, LabDuration,
    Lease, LeaseEnd, LeaseKey, RequestId, ReturnRequest, Sandbox, SandboxId, SandboxName, Term, Times,
    Timestamp, TrackId,
};
use uuid::Uuid;

use crate::scenario::{LAB, PATIENCE, Scenario};
use crate::world::{AllocationRow, Index, LeaseRow, SandboxRow, World};

/// A tick is long: no margin of the protocol reaches from one to the next.
const TICK_MS: u64 = 3_600_000;

pub(crate) const fn time(tick: u64) -> Timestamp {
    Timestamp::from_ms((tick + 1) * TICK_MS)
}

fn allocation_id(number: u8) -> AllocationId {
    AllocationId::from_uuid(Uuid::from_u128(u128::from(number)))
}

pub(crate) fn request_id(request: Index) -> RequestId {
    RequestId::from_uuid(Uuid::from_u128(request as u128))
}

pub(crate) fn lease_key(key: Index) -> LeaseKey {
    let track = TrackId::new(format!("t{key}")).expect("a track");
    LeaseKey { key: IdempotencyKey::from(&track), track }
}

pub(crate) fn sandbox_id(sandbox: Index) -> SandboxId {
    SandboxId::new(format!("s{sandbox}")).expect("an id")
}

fn external_id(incarnation: u8) -> ExternalId {
    ExternalId::new(format!("e{incarnation}")).expect("an id")
}

pub(crate) fn times(sent: u64) -> Times {
    let deadline = time(sent + PATIENCE);
    Times { enqueued_at: time(sent), reply_by: deadline, deadline }
}

impl Scenario {
    /// The request as a worker sees it.
    pub(crate) fn ask(&self, world: &World, request: Index) -> AllocateRequest {
        AllocateRequest {
            request_id: request_id(request),
            lease_key: lease_key(self.requests[request].key),
            key_is_explicit: false,
            fingerprint: Fingerprint::from_stored("f"),
            track_name: None,
            prefix: None,
            lab_duration: LabDuration::SHORTEST,
            heartbeat: None,
            may_wait: false,
            limited: false,
            tenant: None,
            asynchronous: self.requests[request].is_asynchronous(),
            times: times(world.requests[request].sent.unwrap_or_default()),
        }
    }

    pub(crate) fn mark_request(&self, world: &World, request: Index, target: Index) -> ReturnRequest {
        ReturnRequest {
            request_id: request_id(request),
            track: lease_key(self.requests[request].key).track,
            sandbox_id: sandbox_id(target),
            times: times(world.requests[request].sent.unwrap_or_default()),
        }
    }
}

pub(crate) fn lease(key: Index, row: &LeaseRow) -> Lease {
    Lease {
        key: lease_key(key),
        request_id: request_id(row.request),
        allocation_id: allocation_id(row.allocation),
        fingerprint: Fingerprint::from_stored("f"),
        grant: Grant {
            sandbox_id: sandbox_id(row.sandbox),
            name: SandboxName::new("n").expect("a name"),
            external_id: external_id(row.incarnation),
            track_name: None,
            allocated_at: time(row.at),
            expires_at: time(row.expires),
            attributes: broker_domain::ProviderAttributes::default(),
        },
        term: Term::default(),
        tenant: None,
        permit: None,
        end: row.end.map(|end| LeaseEnd {
            at: Timestamp::from_ms(end.at_ms),
            reason: end.reason(),
            fence: Timestamp::from_ms(end.fence_ms),
        }),
    }
}

fn allocation(row: AllocationRow) -> Allocation {
    Allocation {
        id: allocation_id(row.id),
        lease_key: lease_key(row.key),
        track_name: None,
        allocated_at: time(row.at),
        expires_at: time(row.at + LAB),
        permit: None,
    }
}

pub(crate) fn sandbox(id: Index, row: &SandboxRow) -> Sandbox {
    use broker_domain::EndReason::{Expired, Returned};
    Sandbox {
        id: sandbox_id(id),
        name: SandboxName::new("n").expect("a name"),
        external_id: external_id(row.incarnation),
        attributes: broker_domain::ProviderAttributes::default(),
        status: row.status,
        version: u64::from(row.version),
        allocation: row.allocation.map(allocation),
        term: Term::default(),
        deletion_requested_at: row.deleted_at.map(time),
        end_reason: row.allocation.map(|_| if row.marked { Returned } else { Expired }),
    }
}
