//! The broker's table in DynamoDB: reads, conditional writes, transactions.
//!
//! Invariant: every write is conditional, and an allocated sandbox and its live lease change in one transaction. Losing a
//! race is an outcome; [`StoreError`] is for a table that did not answer, or has invalid items. Only `dynamodb` knows
//! attribute names and conditions. Decisions are in [`broker_domain`]; lost races are retried by the worker.

pub mod accounts;
pub mod adoption;
pub mod arrivals;
mod audit;
mod dead_letters;
mod dynamodb;
mod found;
pub mod heartbeat;
pub mod history;
mod outcomes;
mod page;
pub mod permits;
mod policy;
pub mod pool_list;
pub mod quarantine;
mod read_budget;
pub mod reconcile;
mod refill_status;
pub mod reservations;
pub mod reshard;
mod retry;
#[cfg(test)]
#[path = "../../domain/src/samples.rs"]
#[expect(dead_code, reason = "the domain's tests use the others")]
mod samples;
pub mod scan_all;
mod upkeep;
pub mod verify;
pub mod waiting;
mod write;

pub use audit::{Act, AuditLine, NotDone};
pub use dead_letters::{Actor, DeadLetterOrder, DeadLetterRows, PendingRecord, Requeued};
pub use dynamodb::{
    ForeignRow, Minted, OpenTicket, PUT_ASIDE_TOGETHER, Pace, PutAside, Seen, SettingsError, Stage, Store,
    Survey, Unused, adopt_table, schema, shown_causes, shown_counts,
};
pub use outcomes::{Candidate, CandidateFilter, Claim, ClaimOutcome, NewSandbox, Scanned, StoreError};
pub use page::{Page, PageKey, Pages, SweepKey};
pub use policy::{FollowedPolicy, HeldPermits, PolicyPlan, PolicyUnknown, PolicyWrite, StoredPolicy};
pub use read_budget::ReadBudget;
pub use refill_status::{RefillHeld, RefillStatus, pause_refill, resume_refill};
pub use retry::retry_on_conflict;
pub(crate) use retry::retry_while_retryable;
pub use upkeep::{
    Binding, Census, ComparedLists, GateQuestion, HookAway, Instance, PoolStatus, ProviderAway, Received,
    Record, Role, Run, SeenEmpty, SelfReport, Sightings, Tick, Trouble,
};
pub use waiting::{ListedLine, PlaceItem, PlaceRows, TenantLines};
pub use write::{EntryConflict, Write};
