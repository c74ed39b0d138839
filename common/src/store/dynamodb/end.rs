//! The end of a lease: mark, expiry or release. Lease and sandbox change in one transaction, fenced by the allocation id.

use std::time::Duration;

use aws_sdk_dynamodb::types::{CancellationReason, TransactWriteItem, Update};

use super::attributes as a;
use super::errors::{built_wrong, cancelled};
use super::transact::{Committed, Group};
use super::{Store, keys, n, s};
use crate::domain::{Allocation, LeaseEnd, SandboxId, Status};
use crate::store::{EndOutcome, StoreError};

/// The sandbox is still in the hands of that allocation.
const SANDBOX_IS_ALLOCATED: &str = "#status = :allocated and allocation_id = :seen";
/// The lease is still live and that allocation's.
const LEASE_IS_LIVE: &str = "allocation_id = :seen and attribute_not_exists(ended_at)";
/// How long an ended lease is kept: longer than any message can live (14 days in a dead-letter queue).
const ENDED_LEASE_IS_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

impl Store {
    /// Ends `allocation` of `sandbox`: the sandbox waits for its deletion from now on, the lease keeps the fence.
    pub async fn end(
        &self,
        sandbox: &SandboxId,
        allocation: &Allocation,
        end: &LeaseEnd,
    ) -> Result<EndOutcome, StoreError> {
        let keys = vec![keys::sandbox(sandbox), keys::lease(&allocation.lease_key)];
        let items = vec![self.retire_sandbox(sandbox, allocation, end)?, self.end_lease(allocation, end)?];
        match self.transactions.submit("end", Group { keys, items }).await? {
            Committed::Written => Ok(EndOutcome::Ended),
            Committed::Cancelled(reasons) if moved_on(&reasons) => Ok(EndOutcome::MovedOn),
            Committed::Cancelled(reasons) => Err(cancelled("end", &reasons)),
        }
    }

    fn retire_sandbox(
        &self,
        id: &SandboxId,
        allocation: &Allocation,
        end: &LeaseEnd,
    ) -> Result<TransactWriteItem, StoreError> {
        let shard = keys::shard_of(id, self.shards);
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::sandbox(id).into_map()))
            .condition_expression(SANDBOX_IS_ALLOCATED)
            .update_expression(
                "SET #status = :pending, version = version + :one, deletion_requested_at = :at, deletion_reason = :reason, \
                 deletion_retry_count = :none, updated_at = :at, state_shard = :shard, state_key = :due",
            )
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":allocated", s(Status::Allocated.as_str()))
            .expression_attribute_values(":seen", s(allocation.id.to_string()))
            .expression_attribute_values(":pending", s(Status::PendingDeletion.as_str()))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":none", n(0))
            .expression_attribute_values(":at", n(end.at.as_secs()))
            .expression_attribute_values(":reason", s(end.reason.as_str()))
            .expression_attribute_values(":shard", s(keys::state_shard(Status::PendingDeletion, shard)))
            .expression_attribute_values(":due", s(keys::time_key(end.at)))
            .build()
            .map_err(|error| built_wrong("end", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    fn end_lease(&self, allocation: &Allocation, end: &LeaseEnd) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::lease(&allocation.lease_key).into_map()))
            .condition_expression(LEASE_IS_LIVE)
            .update_expression("SET ended_at = :at, end_reason = :reason, fence_ms = :fence_ms, #ttl = :ttl")
            .expression_attribute_names("#ttl", a::TTL)
            .expression_attribute_values(":seen", s(allocation.id.to_string()))
            .expression_attribute_values(":at", n(end.at.as_secs()))
            .expression_attribute_values(":reason", s(end.reason.as_str()))
            .expression_attribute_values(":fence_ms", n(end.fence.as_ms()))
            .expression_attribute_values(":ttl", n(end.at.plus(ENDED_LEASE_IS_KEPT).as_secs()))
            .build()
            .map_err(|error| built_wrong("end", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// Whether a condition failed: something else ended the allocation.
fn moved_on(reasons: &[CancellationReason]) -> bool {
    reasons.iter().any(|reason| reason.code() == Some("ConditionalCheckFailed"))
}
