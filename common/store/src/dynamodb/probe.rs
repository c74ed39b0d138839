//! Probe of the table: a check that it takes the reads and writes of requests, made with items that do not exist.
//!
//! It distinguishes a table that refuses one write from a table that refuses all writes, and it lets an unhealthy worker
//! receive again. Invariant: it changes nothing.

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{TransactWriteItem, Update};

use super::errors::{built_wrong, cancelled, failed, failed_condition};
use super::{Store, keys, n};
use crate::StoreError;

/// Never so: no item has this key.
const PROBE_EXISTS: &str = "attribute_exists(PK)";

impl Store {
    /// That the table answers: one consistent read of an item that does not exist.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.table.get(keys::ping()).await.map(drop)
    }

    /// That the table answers reads, lists its index and takes transactions just now: three calls.
    pub async fn takes_writes(&self) -> Result<(), StoreError> {
        self.ping().await?;
        self.sandboxes.available(0, None, None, 1).await?;
        let update = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::ping().into_map()))
            .condition_expression(PROBE_EXISTS)
            .update_expression("SET updated_at = :at")
            .expression_attribute_values(":at", n(0))
            .build()
            .map_err(|error| built_wrong("probe", error))?;
        let item = TransactWriteItem::builder().update(update).build();
        let Err(error) = self.table.client.transact_write_items().transact_items(item).send().await else {
            return Ok(());
        };
        match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(why)) => {
                let reasons = why.cancellation_reasons();
                match failed_condition(reasons).map_or_else(|| Err(cancelled("probe", reasons)), |_| Ok(())) {
                    // Another process's probe: the table took it.
                    Ok(()) | Err(StoreError::Conflict) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            _ => Err(failed("probe", &self.table.name, error)),
        }
    }
}
