//! The table in DynamoDB: one table, one global index (ARCHITECTURE.md, "Table").
//!
//! Attribute names are in `attributes`, keys in `keys`, conditions beside the write that they guard, named after the
//! transition. Reads for decisions are strongly consistent; the index only proposes candidates.

mod accounts;
mod adopt;
mod adopt_table;
mod arriving;
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
#[cfg(test)]
mod expression_tests;
mod extend;
mod foreign;
#[cfg(test)]
mod fuzz;
mod history;
mod instances;
mod keys;
mod partition;
mod permits;
mod policy;
mod pool;
mod pool_list;
mod pool_status;
mod probe;
mod provider_attributes;
mod quarantine;
mod rate_slots;
mod reads;
mod reconcile;
mod records;
mod refill;
mod removal;
mod replace;
mod requests;
mod reservation_items;
mod reservations;
mod reshard;
mod runs;
mod scan;
pub mod schema;
mod settings;
mod sightings;
mod singles;
mod sync;
mod ticks;
mod transact;
mod turns;
mod upkeep;
pub(crate) mod waiting;

pub(crate) use accounts::{AccountHolder, AccountRows, OldSpelling};
pub use adopt_table::{Stage, adopt_table};
pub use broker_domain::reconcile::Minted;
pub use census::{shown_causes, shown_counts};
pub use deletion::Seen;
pub use foreign::{ForeignRow, Survey};
pub(crate) use pool_status::ADOPTION;
pub use rate_slots::Pace;
pub use refill::OpenTicket;
pub use reservations::{PUT_ASIDE_TOGETHER, PutAside};
pub(crate) use reshard::{Misplaced, ShardedPage, Shards};
pub use settings::SettingsError;
pub use sync::Unused;

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity};

use super::StoreError;
use broker_domain::{Lease, LeaseKey, Sandbox, SandboxId};
use errors::unread;
use reads::Reads;
use singles::SingleCalls;
use transact::GroupCommit;

/// What all sub-stores share: the client, the table's name and number of shards, batched reads and writes.
#[derive(Debug)]
struct TableClient {
    client: Client,
    name: String,
    shards: u8,
    reads: Reads,
    transactions: GroupCommit,
    /// Calls of their own: a line that takes no more writes for a moment holds up no claim.
    parks: GroupCommit,
    singles: SingleCalls,
}

impl TableClient {
    /// One item, in a call of its own (a consistent read).
    async fn get(&self, key: keys::Key) -> Result<Option<attributes::Item>, StoreError> {
        let call =
            self.client.get_item().table_name(&self.name).set_key(Some(key.into_map())).consistent_read(true);
        let answer = Box::pin(call.send()).await.map_err(|error| unread("GetItem", &self.name, error))?;
        Ok(answer.item)
    }

    fn shard_of(&self, id: &SandboxId) -> u8 {
        keys::shard_of(id, self.shards)
    }
}

/// Declares [`Store`] and the type of each of its fields.
macro_rules! stores {
    ($($(#[$doc:meta])* $field:ident: $store:ident,)*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $store {
            table: Arc<TableClient>,
        })*

        /// The broker's table, each field the items of a kind and what is done with them. Clones share their connections.
        #[derive(Clone, Debug)]
        pub struct Store {
            table: Arc<TableClient>,
            $($(#[$doc])*
            pub $field: $store,)*
        }

        impl From<TableClient> for Store {
            fn from(table: TableClient) -> Self {
                let table = Arc::new(table);
                Self { $($field: $store { table: Arc::clone(&table) },)* table }
            }
        }
    };
}

stores! {
    /// Leases, and the transitions that change lease and sandbox in one transaction.
    leases: LeaseStore,
    /// Sandboxes: lookups, queries by state, and the ways into the pool and out of it.
    sandboxes: SandboxStore,
    /// The deletion of sandboxes.
    deletions: DeletionStore,
    /// The records of the provider's accounts.
    accounts: AccountStore,
    /// The records of requests.
    requests: RequestStore,
    /// The records of runs of jobs.
    runs: RunStore,
    /// The tick of each job.
    schedule: ScheduleStore,
    /// The slots of the rate of calls to the provider.
    rate_slots: RateSlotStore,
    /// The pool's status and the settings that its data was written with.
    pool: PoolStore,
    /// The flows and tickets of refill.
    refill: RefillStore,
    /// The policy: flavours, refill, tenants.
    policy: PolicyStore,
    /// The permits that limited tenants hold.
    permits: PermitStore,
    /// Reservations, and what is put aside for them.
    reservations: ReservationStore,
    /// Lines of requests that wait, and their places.
    waiting: WaitingStore,
    /// Dead letters.
    dead_letters: DeadLetterStore,
    /// The audit of operators' actions.
    audit: AuditStore,
    /// The processes that live.
    instances: InstanceStore,
    /// The count of sandboxes by state.
    census: CensusStore,
    /// The minutes of the last hour.
    history: HistoryStore,
    /// Reads of the whole table, and of several items at one instant.
    scans: ScanStore,
    /// Rows that another tool wrote.
    adopt: AdoptionStore,
    /// The steps of a reconciliation.
    reconcile: ReconcileStore,
}

impl Store {
    /// The table called `table`, whose index spreads each state over `shards` partitions (1 or more).
    pub fn new(client: Client, table: &str, shards: u8) -> Self {
        let reads = Reads::new(client.clone(), table.to_owned());
        let transactions = GroupCommit::new(client.clone(), table.to_owned());
        let parks = transactions.beside(client.clone(), table.to_owned());
        let (name, singles) = (table.to_owned(), SingleCalls::new());
        TableClient { client, name, shards: shards.max(1), reads, transactions, parks, singles }.into()
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table.name
    }

    /// The number of index partitions of each state.
    pub fn shards(&self) -> u8 {
        self.table.shards
    }

    /// How the table itself stands there.
    pub async fn inspect(&self) -> Result<schema::Inspection, StoreError> {
        schema::inspect(&self.table.client, &self.table.name).await
    }
}

impl LeaseStore {
    /// The lease of a key (a consistent read), live or ended, if there is one.
    pub async fn get(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        let item = self.table.reads.get(keys::lease(key)).await?;
        item.map(|item| attributes::read_lease(&item)).transpose()
    }
}

impl SandboxStore {
    /// The sandbox or its tombstone (a consistent read), if there is one.
    pub async fn get(&self, id: &SandboxId) -> Result<Option<Sandbox>, StoreError> {
        let item = self.table.reads.get(keys::sandbox(id)).await?;
        item.map(|item| attributes::read_sandbox(&item)).transpose()
    }

    /// The shard of a sandbox.
    pub fn shard_of(&self, id: &SandboxId) -> u8 {
        self.table.shard_of(id)
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
