//! What the broker asks of its table.
//!
//! Invariant: every write is conditional, and an allocated sandbox and its live lease change in one transaction. Losing
//! a race is an outcome; [`StoreError`] is for a table that did not answer, or holds what it must not. `dynamodb` is
//! the only place that knows attribute names and conditions. What it does not do: decide (that is [`crate::domain`]), or
//! retry a lost race (that is the worker).

mod dynamodb;
mod outcomes;
mod upkeep;

pub use dynamodb::{ForeignRow, Minted, Seen, Store, schema};
pub use outcomes::{
    Cancellation, Candidate, CandidatePage, Claim, ClaimOutcome, Completion, EndOutcome, NewSandbox, PageKey,
    Recorded, RequestPage, ScanPage, Seeded, StoreError, Survey, SweepKey, SweepPage,
};
pub use upkeep::{Census, Changed, Inserted, Instance, Record, Role, Run, Standing, Tick};
