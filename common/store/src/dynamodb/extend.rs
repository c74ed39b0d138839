//! Extension of a lease by an operator. Lease and sandbox change in one transaction, fenced by the allocation id.

use aws_sdk_dynamodb::types::{TransactWriteItem, Update};

use super::attributes as a;
use super::errors::built_wrong;
use super::{LeaseStore, keys, n, s};
use crate::{StoreError, Write};
use broker_domain::{Allocation, SandboxId, Status, Timestamp};

/// The sandbox is still in the hands of that allocation, until then.
const SANDBOX_IS_ALLOCATED: &str = "#status = :allocated and allocation_id = :seen and expires_at = :from";
/// The lease is still live and that allocation's, until then.
const LEASE_IS_LIVE: &str = "allocation_id = :seen and attribute_not_exists(ended_at) and expires_at = :from";

impl LeaseStore {
    /// Moves the end of `allocation` of `sandbox` from where it was read to `expires_at`. Moved meanwhile, it stays: what
    /// was added to the one end is not what was meant for the other.
    pub async fn extend(
        &self,
        sandbox: &SandboxId,
        allocation: &Allocation,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let wrong = |error| built_wrong("extend", error);
        let of_sandbox = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::sandbox(sandbox).into_map()))
            .condition_expression(SANDBOX_IS_ALLOCATED)
            .update_expression(
                "SET expires_at = :expires_at, state_key = :due, version = version + :one, updated_at = :now",
            )
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":allocated", s(Status::Allocated.as_str()))
            .expression_attribute_values(":seen", s(allocation.id.to_string()))
            .expression_attribute_values(":from", n(allocation.expires_at.as_secs()))
            .expression_attribute_values(":expires_at", n(expires_at.as_secs()))
            .expression_attribute_values(":due", s(keys::time_key(expires_at)))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":now", n(now.as_secs()))
            .build()
            .map_err(wrong)?;
        let of_lease = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::lease(&allocation.lease_key).into_map()))
            .condition_expression(LEASE_IS_LIVE)
            .update_expression("SET expires_at = :expires_at")
            .expression_attribute_values(":seen", s(allocation.id.to_string()))
            .expression_attribute_values(":from", n(allocation.expires_at.as_secs()))
            .expression_attribute_values(":expires_at", n(expires_at.as_secs()))
            .build()
            .map_err(wrong)?;
        let items = vec![
            TransactWriteItem::builder().update(of_sandbox).build(),
            TransactWriteItem::builder().update(of_lease).build(),
        ];
        let keys = vec![keys::sandbox(sandbox), keys::lease(&allocation.lease_key)];
        self.table.transact("extend", keys, items).await
    }
}
