//! Conformance of the table.

mod accounts;
mod adoption;
mod claims;
mod conditions;
mod discards;
mod ends;
mod expiry;
mod index;
mod letters;
mod listed_otherwise;
mod permits;
mod quarantine;
mod reading;
mod reconciliation;
mod records;
mod refill;
mod reservations;
mod schema;
mod terms;
mod waiting;
