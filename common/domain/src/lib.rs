//! What is true of sandboxes, leases and requests, whoever stores or sends them.
//!
//! Invariant: pure. Nothing here does I/O, reads a clock or draws randomness, so that the model in `tests/model` can
//! run the very functions that the workers run. What it does not do: know attribute names, queues or HTTP.

mod adoption;
mod dead_letter;
mod fingerprint;
mod ids;
mod invariants;
mod job;
mod lease;
mod outcome;
mod request;
#[cfg(test)]
extern crate self as broker_domain;
#[cfg(test)]
pub(crate) mod samples;
mod sandbox;
mod scaling;
mod time;

pub use adoption::{Adoption, ForeignSandbox, Surplus, Tenancy, adoptions};
pub use dead_letter::{
    DEAD_LETTER_SHARDS, DeadLetter, DeadLetterCount, DeadLetterEvent, DeadLetterFilter, DeadLetterId,
    DeadLetterState, InvalidDeadLetterId, MessageSummary, Reason, Source, Touched,
};
pub use fingerprint::Fingerprint;
pub use ids::{
    AllocationId, ExternalId, IdempotencyKey, InvalidId, NamePrefix, RequestId, SandboxId, SandboxName,
    TrackId, TrackName,
};
pub use invariants::{Inventory, Suspect, Violation, suspects};
pub use job::{Job, JobReport, Removable, STALE_GRACE_HOURS, Task};
pub use lease::{EndReason, Grant, Lease, LeaseEnd, LeaseKey, LeaseVerdict, judge};
pub use outcome::Outcome;
pub use request::{AllocateRequest, MarkRequest, PersistedRequest, RequestState, Times};
pub use sandbox::{Allocation, Event, InvalidTransition, MarkVerdict, Sandbox, Status, judge_mark};
pub use scaling::{Backlog, Scaling};
pub use time::{MAX_SKEW_MS, Timestamp};
