//! Conformance of an SQS or DynamoDB implementation to what the broker relies on: the broker's own table and queue code, run
//! over one implementation at a time.
//!
//! | file | holds |
//! |---|---|
//! | `place` | a table, or queues, of a case's own, at the implementation under test |
//! | `table/accounts` | an account of the provider is one sandbox's |
//! | `table/claims` | the claim: transactions, their reasons, what stands in their way |
//! | `table/adoption` | a row of another tool |
//! | `table/ends` | the end of a lease, a longer one; what a transaction may not do |
//! | `table/index` | the state index: queries, PartiQL, prefixes, pages |
//! | `table/conditions` | single conditional writes, each at the version that was read |
//! | `table/terms` | each term of a condition alone |
//! | `table/waiting` | lines and places |
//! | `table/permits` | permits of a limit |
//! | `table/reservations` | what is put aside and goes back |
//! | `table/refill` | tickets of refill |
//! | `table/records` | requests, ticks, slots, census, instances |
//! | `table/letters` | dead letters, and the records that wait for their messages |
//! | `table/expiry` | how long finished items are kept; the audit |
//! | `table/reading` | scans, batches, several items at one instant |
//! | `table/schema` | the table itself, its expiry, a missing one |
//! | `queue/messages` | batches, attributes, delays, visibility, long polls |
//! | `queue/topology` | the queues themselves, redrive, a missing one |
//!
//! `cargo test` runs them on the embedded endpoints. `tests/conformance/run` (a step of CI) runs them on Amazon's DynamoDB
//! Local and ministack. Where they differ, [`place::Place::differs`] says so at the case: both sides are asserted, so that a
//! difference that goes away is noticed.

mod place;
mod queue;
mod table;
