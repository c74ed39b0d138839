//! The table in DynamoDB: one table, one global index (ARCHITECTURE.md, "Table").
//!
//! Attribute names are in `attributes`, keys in `keys`, conditions beside the write that they guard, named after the
//! transition. Reads for decisions are strongly consistent; the index only proposes candidates.

mod accounts;
mod adopt;
mod adopt_table;
mod attributes;
mod audit;
mod census;
mod change;
mod claim;
mod dead_letter_items;
mod dead_letters;
mod deletion;
mod end;
mod errors;
mod extend;
mod foreign;
#[cfg(test)]
mod fuzz;
mod keys;
mod pool;
mod pool_status;
mod probe;
mod rate_slots;
mod reads;
mod reconcile;
mod records;
mod replace;
mod requests;
mod scan;
pub mod schema;
mod settings;
mod sightings;
mod sync;
mod ticks;
mod transact;
mod turns;
mod upkeep;

pub use adopt_table::{Stage, adopt_table};
pub use broker_domain::reconcile::Minted;
pub use deletion::Seen;
pub use foreign::ForeignRow;
pub(super) use keys::{PK, SK};
pub use settings::SettingsError;
pub use sync::Unused;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity};

use super::StoreError;
use broker_domain::{Lease, LeaseKey, Sandbox, SandboxId};
use errors::unread;
use reads::Reads;
use transact::GroupCommit;

/// The broker's table. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    table: String,
    shards: u8,
    reads: Reads,
    transactions: GroupCommit,
}

impl Store {
    /// The table called `table`, whose index spreads each state over `shards` partitions (1 or more).
    pub fn new(client: Client, table: &str, shards: u8) -> Self {
        let reads = Reads::new(client.clone(), table.to_owned());
        let transactions = GroupCommit::new(client.clone(), table.to_owned());
        Self { client, table: table.to_owned(), shards: shards.max(1), reads, transactions }
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The number of index partitions of each state.
    pub const fn shards(&self) -> u8 {
        self.shards
    }

    /// The shard of a sandbox.
    pub fn shard_of(&self, id: &SandboxId) -> u8 {
        keys::shard_of(id, self.shards)
    }

    /// The sandbox or its tombstone (a consistent read), if there is one.
    pub async fn sandbox(&self, id: &SandboxId) -> Result<Option<Sandbox>, StoreError> {
        let item = self.reads.get(keys::sandbox(id)).await?;
        item.map(|item| attributes::read_sandbox(&item)).transpose()
    }

    /// The lease of a key (a consistent read), live or ended, if there is one.
    pub async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        let item = self.reads.get(keys::lease(key)).await?;
        item.map(|item| attributes::read_lease(&item)).transpose()
    }

    /// How the table itself stands there.
    pub async fn inspect(&self) -> Result<schema::Inspection, StoreError> {
        schema::inspect(&self.client, &self.table).await
    }

    async fn get(&self, key: keys::Key) -> Result<Option<attributes::Item>, StoreError> {
        let call = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key.into_map()))
            .consistent_read(true);
        let answer = call.send().await.map_err(|error| unread("GetItem", &self.table, error))?;
        Ok(answer.item)
    }
}

/// A string attribute value.
fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// A number attribute value.
fn n(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Counts the capacity of a call.
fn count_capacity<'a>(operation: &'static str, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
    let units: f64 = consumed.into_iter().filter_map(ConsumedCapacity::capacity_units).sum();
    metrics::histogram!("broker_dynamodb_capacity_units", "operation" => operation).record(units);
}
