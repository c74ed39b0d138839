//! Removal of sandboxes that were never handed out: stale ones and seeds. No tombstone is left of them.

use aws_sdk_dynamodb::types::{AttributeValue, Delete, TransactWriteItem};
use broker_domain::Status;

use super::accounts::AccountChange;
use super::attributes as a;
use super::errors::built_wrong;
use super::{SandboxStore, keys, n, s};
use crate::{Candidate, StoreError, Write};

/// Never handed out, and not listed for long.
const STALE_AND_UNUSED: &str = "#status = :stale and version = :seen and attribute_not_exists(allocation_id)";

impl SandboxStore {
    /// Removes a stale sandbox at the version that was read. It was never handed out, so no tombstone is needed, and its
    /// account may enter the pool again.
    pub async fn remove_stale(&self, stale: &Candidate) -> Result<Write, StoreError> {
        let values = [(":stale", s(Status::Stale.as_str()))];
        self.remove_unused("remove_stale", stale, STALE_AND_UNUSED, values, Vec::new()).await
    }

    /// Removes a sandbox that was never handed out, and releases its account; `others` are written with it.
    pub(super) async fn remove_unused(
        &self,
        operation: &'static str,
        sandbox: &Candidate,
        condition: &str,
        values: impl IntoIterator<Item = (&'static str, AttributeValue)>,
        others: Vec<(keys::Key, TransactWriteItem)>,
    ) -> Result<Write, StoreError> {
        let mut delete = Delete::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::sandbox(&sandbox.sandbox_id).into_map()))
            .condition_expression(condition)
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":seen", n(sandbox.version));
        for (name, value) in values {
            delete = delete.expression_attribute_values(name, value);
        }
        let delete = delete.build().map_err(|error| built_wrong(operation, error))?;
        let delete = TransactWriteItem::builder().delete(delete).build();
        let accounts = [AccountChange::Release(&sandbox.external_id)];
        let written =
            self.table.write_with_accounts(operation, &sandbox.sandbox_id, delete, &accounts, others).await?;
        Ok(match written {
            Write::Applied => Write::Applied,
            Write::Rejected(_) => Write::Rejected(()),
        })
    }
}
