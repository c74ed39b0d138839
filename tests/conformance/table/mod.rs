//! What the broker relies on in its table.

mod claims;
mod conditions;
mod ends;
mod index;
mod reading;
mod records;
mod schema;
