//! Sample values for the tests of this crate, of the table and of the worker, distinguished by small numbers.

use std::time::Duration;

use uuid::Uuid;

use broker_domain::{
    AllocateRequest, Allocation, AllocationId, EndReason, ExternalId, Fingerprint, Grant, IdempotencyKey,
    LabDuration, Lease, LeaseEnd, LeaseKey, ProviderAttributes, RequestId, Sandbox, SandboxId, SandboxName,
    Status, Term, Times, Timestamp, TrackId,
};

pub(crate) fn key(number: u8) -> LeaseKey {
    let track = TrackId::new(format!("track-{number}")).unwrap();
    LeaseKey { key: IdempotencyKey::from(&track), track }
}

pub(crate) fn request_id(number: u8) -> RequestId {
    RequestId::from_uuid(Uuid::from_u128(number.into()))
}

pub(crate) fn allocation_id(number: u8) -> AllocationId {
    AllocationId::from_uuid(Uuid::from_u128(number.into()))
}

pub(crate) fn sandbox_id(number: u8) -> SandboxId {
    SandboxId::new(format!("sandbox-{number}")).unwrap()
}

pub(crate) fn name(number: u8) -> SandboxName {
    SandboxName::new(format!("name-{number}")).unwrap()
}

pub(crate) fn external_id(number: u8) -> ExternalId {
    ExternalId::new(format!("external-{number}")).unwrap()
}

pub(crate) const fn times(enqueued_at: Timestamp) -> Times {
    Times { enqueued_at, reply_by: enqueued_at, deadline: enqueued_at }
}

/// Request `number` of key 1, enqueued at that time.
pub(crate) fn ask(number: u8, enqueued_at: Timestamp) -> AllocateRequest {
    AllocateRequest {
        request_id: request_id(number),
        lease_key: key(1),
        key_is_explicit: false,
        fingerprint: Fingerprint::from_stored("f"),
        track_name: None,
        prefix: None,
        lab_duration: LabDuration::new(4).unwrap(),
        heartbeat: None,
        may_wait: false,
        limited: false,
        tenant: None,
        asynchronous: false,
        times: times(enqueued_at),
    }
}

/// Sandbox `number`, held by the key of that number by the allocation of that number, from second 100 to second 200.
pub(crate) fn allocation(number: u8) -> Allocation {
    Allocation {
        id: allocation_id(number),
        lease_key: key(number),
        track_name: None,
        allocated_at: Timestamp::from_secs(100),
        expires_at: Timestamp::from_secs(200),
        permit: None,
    }
}

pub(crate) fn sandbox(number: u8, status: Status, allocation: Option<Allocation>) -> Sandbox {
    Sandbox {
        id: sandbox_id(number),
        name: name(number),
        external_id: external_id(number),
        attributes: ProviderAttributes::default(),
        status,
        version: 1,
        allocation,
        term: Term::default(),
        deletion_requested_at: None,
        end_reason: None,
    }
}

/// The lease that belongs to [`allocation`] of [`sandbox`] `number`, made by the request of that number.
pub(crate) fn lease(number: u8, end: Option<LeaseEnd>) -> Lease {
    let allocation = allocation(number);
    Lease {
        key: allocation.lease_key,
        request_id: request_id(number),
        allocation_id: allocation.id,
        fingerprint: Fingerprint::from_stored("f"),
        grant: Grant {
            sandbox_id: sandbox_id(number),
            name: name(number),
            external_id: external_id(number),
            track_name: None,
            allocated_at: allocation.allocated_at,
            expires_at: allocation.expires_at,
            attributes: ProviderAttributes::default(),
        },
        term: Term::default(),
        tenant: None,
        permit: None,
        end,
    }
}

/// An end at that second, whose fence is two seconds before it.
pub(crate) fn end(at: u64) -> LeaseEnd {
    let at = Timestamp::from_secs(at);
    LeaseEnd { at, reason: EndReason::Returned, fence: at.minus(Duration::from_secs(2)) }
}
