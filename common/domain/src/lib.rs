//! Domain of the broker: sandboxes, leases, requests, outcomes, jobs and dead letters as pure types and decisions.
//!
//! Invariant: no I/O, no clock, no randomness, so that the model in `tests/model` runs the very functions that the workers
//! run. Attribute names, queues and HTTP are unknown here.

mod account;
mod adoption;
mod allocation;
mod attributes;
mod dead_letter;
mod fingerprint;
mod heartbeat;
mod ids;
mod invariants;
mod job;
mod lab_duration;
mod lease;
mod outcome;
mod pause;
mod permit;
pub mod policy;
pub mod quarantine;
pub mod reconcile;
pub mod refill;
mod renewal;
mod request;
pub mod reservation;
#[cfg(test)]
extern crate self as broker_domain;
#[cfg(test)]
pub(crate) mod samples;
mod sandbox;
mod scaling;
mod status;
mod time;
pub mod waiting;

pub use account::{AccountKey, AccountRecord};
pub use adoption::{Adoption, ForeignSandbox, Surplus, Tenancy, adoptions, split_doubled};
pub use allocation::{Allocation, EndReason, Grant, LeaseKey};
pub use attributes::{AttributeNames, FIXED_MEMBERS, ProviderAttributes};
pub use dead_letter::{
    DEAD_LETTER_SHARDS, DeadLetter, DeadLetterCount, DeadLetterEvent, DeadLetterFilter, DeadLetterId,
    DeadLetterState, InvalidDeadLetterId, LETTER_HELD_FOR, MessageSummary, Reason, Source, Touched,
};
pub use fingerprint::Fingerprint;
pub use heartbeat::{Heartbeat, InvalidHeartbeat, Term};
pub use ids::{
    AllocationId, ExternalId, FlavourName, IdempotencyKey, InvalidId, NamePrefix, RequestId, ReservationId,
    SandboxId, SandboxName, TenantName, TicketId, TrackId, TrackName,
};
pub use invariants::{Inventory, Suspect, Violation, suspects};
pub use job::{
    FEW_MISSING, Job, JobReport, LONGEST_STALE_GRACE_HOURS, MISSING_NOT_BELIEVED, Removable,
    STALE_GRACE_HOURS, Task, most_missing,
};
pub use lab_duration::{InvalidLabDuration, LabDuration};
pub use lease::{Lease, LeaseEnd, LeaseVerdict, judge, overdue_for_owner};
pub use outcome::{Outcome, Quota};
pub use pause::Pause;
pub use permit::{Limit, Permit, PermitRecord, open_below};
pub use quarantine::{Quarantine, QuarantineCause};
pub use renewal::{
    LeaseBounds, NotRenewable, RenewRequest, RenewUntil, RenewVerdict, Renewal, judge_renewal, renew,
};
pub use request::{AllocateRequest, PersistedRequest, RequestState, ReturnRequest, Subject, Times};
pub use reservation::{Reservation, ReservationEnd, ReservationTerms};
pub use sandbox::{ReturnVerdict, Sandbox, judge_return};
pub use scaling::{Backlog, Scaling};
pub use status::{Event, InvalidTransition, Status};
pub use time::{CLOCKS_DIFFER, MAX_SKEW_MS, Timestamp};
