//! The end of a lease: return, expiry or release. Lease and sandbox change in one transaction, and a permit is free with it.
//!
//! Invariant: both belong to the same allocation. A caller that has read it passes its id; a return by the owner's key needs
//! no read: the sandbox is held under that key, and a live lease of that key for that sandbox can only be the same
//! allocation's, since a claim writes both at once and an end ends both at once.

use std::time::Duration;

use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{TransactWriteItem, Update};

use super::attributes as a;
use super::deletion::next;
use super::errors::built_wrong;
use super::quarantine::{QUARANTINE_SET, quarantine_values};
use super::{LeaseStore, keys, n, s};
use crate::{StoreError, Write};
use broker_domain::{
    Allocation, AllocationId, Event, LeaseEnd, LeaseKey, Permit, Quarantine, SandboxId, Status, Timestamp,
};

/// The sandbox is still in the hands of that allocation.
const SANDBOX_IS_HELD: &str = "#status = :allocated and allocation_id = :seen";
/// The lease is still live and that allocation's.
const LEASE_IS_LIVE: &str = "allocation_id = :seen and attribute_not_exists(ended_at)";
/// The same, and the lease was not extended beyond that time.
pub(super) const LEASE_IS_OVERDUE: &str =
    "allocation_id = :seen and attribute_not_exists(ended_at) and expires_at <= :until";
/// The sandbox is in the hands of that key, by an allocation that is old enough and holds no permit: which one it would have to
/// give back, only a look tells.
const SANDBOX_IS_HELD_BY_KEY: &str = "#status = :allocated and allocated_to_track = :track and idempotency_key = :key and allocated_at <= :by and attribute_not_exists(permit)";
/// The key's lease is still live and for that sandbox.
/// It lasts beyond the return: of one that had run out before, only a look tells whom its end fences.
const LEASE_IS_OF_SANDBOX: &str =
    "sandbox_id = :sandbox and attribute_not_exists(ended_at) and expires_at > :asked";
/// How long an ended lease is kept: longer than any message can live (14 days in a dead-letter queue).
pub(super) const ENDED_LEASE_IS_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

impl LeaseStore {
    /// Ends `allocation` of `sandbox`: the sandbox becomes pending deletion, the lease keeps the fence.
    pub async fn end(
        &self,
        sandbox: &SandboxId,
        allocation: &Allocation,
        end: &LeaseEnd,
    ) -> Result<Write, StoreError> {
        self.end_held_by(Holder::Allocation(allocation), sandbox, end).await
    }

    /// The same because its time is over: only if its lease says so still, that it expires at `until` or before.
    pub async fn expire(
        &self,
        sandbox: &SandboxId,
        allocation: &Allocation,
        until: Timestamp,
        end: &LeaseEnd,
    ) -> Result<Write, StoreError> {
        self.end_held_by(Holder::Overdue { allocation, until }, sandbox, end).await
    }

    /// The same without a look at it: ends whatever allocation `key` holds `sandbox` by, if it was made by that second and had not
    /// run out when it was `asked`.
    pub async fn return_sandbox(
        &self,
        sandbox: &SandboxId,
        key: &LeaseKey,
        claimed_by: Timestamp,
        asked: Timestamp,
        end: &LeaseEnd,
    ) -> Result<Write, StoreError> {
        self.end_held_by(Holder::Key { key, claimed_by, asked }, sandbox, end).await
    }

    /// The same because its owner says that the sandbox is broken: it goes into quarantine, for `quarantine`.
    pub async fn report(
        &self,
        sandbox: &SandboxId,
        allocation: &Allocation,
        end: &LeaseEnd,
        quarantine: &Quarantine,
    ) -> Result<Write, StoreError> {
        let holder = Holder::Allocation(allocation);
        let of_sandbox = self.quarantine_held(sandbox, holder, end, quarantine)?;
        self.end_together("report", holder, sandbox, of_sandbox, end).await
    }

    async fn end_held_by(
        &self,
        holder: Holder<'_>,
        sandbox: &SandboxId,
        end: &LeaseEnd,
    ) -> Result<Write, StoreError> {
        let of_sandbox = self.retire_sandbox(sandbox, holder, end)?;
        self.end_together("end", holder, sandbox, of_sandbox, end).await
    }

    /// The sandbox changes, its lease ends, and the permit of the allocation is free, in one transaction.
    async fn end_together(
        &self,
        operation: &'static str,
        holder: Holder<'_>,
        sandbox: &SandboxId,
        of_sandbox: TransactWriteItem,
        end: &LeaseEnd,
    ) -> Result<Write, StoreError> {
        let mut keys = vec![keys::sandbox(sandbox), keys::lease(holder.key())];
        let mut items = vec![of_sandbox, self.end_lease(sandbox, holder, end)?];
        if let Some((permit, allocation)) = holder.permit() {
            keys.push(keys::permit(permit));
            items.push(self.table.delete_permit(permit, allocation)?);
        }
        self.table.transactions.transact(operation, keys, items).await
    }

    pub(super) fn retire_sandbox(
        &self,
        id: &SandboxId,
        holder: Holder<'_>,
        end: &LeaseEnd,
    ) -> Result<TransactWriteItem, StoreError> {
        let shard = keys::shard_of(id, self.table.shards);
        let update =
            Update::builder().table_name(&self.table.name).set_key(Some(keys::sandbox(id).into_map()));
        let update = holder
            .holds_sandbox(update)
            .update_expression(
                "SET #status = :pending, version = version + :one, deletion_requested_at = :at, deletion_reason = :reason, \
                 deletion_retry_count = :none, updated_at = :at, state_shard = :shard, state_key = :due",
            )
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":allocated", s(Status::Allocated.as_str()))
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

    fn quarantine_held(
        &self,
        id: &SandboxId,
        holder: Holder<'_>,
        end: &LeaseEnd,
        quarantine: &Quarantine,
    ) -> Result<TransactWriteItem, StoreError> {
        let to = next(Status::Allocated, Event::Quarantine)?;
        let update =
            Update::builder().table_name(&self.table.name).set_key(Some(keys::sandbox(id).into_map()));
        let mut update = holder
            .holds_sandbox(update)
            .update_expression(format!(
                "SET #status = :to, version = version + :one, deletion_requested_at = :ended, deletion_reason = :reason, \
                 updated_at = :ended, state_shard = :shard, state_key = :since, {QUARANTINE_SET}"
            ))
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":allocated", s(Status::Allocated.as_str()))
            .expression_attribute_values(":to", s(to.as_str()))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":ended", n(end.at.as_secs()))
            .expression_attribute_values(":reason", s(end.reason.as_str()))
            .expression_attribute_values(":shard", s(self.table.shard(to, id)))
            .expression_attribute_values(":since", s(keys::time_key(end.at)));
        for (name, value) in quarantine_values(quarantine) {
            update = update.expression_attribute_values(name, value);
        }
        let update = update.build().map_err(|error| built_wrong("report", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    fn end_lease(
        &self,
        sandbox: &SandboxId,
        holder: Holder<'_>,
        end: &LeaseEnd,
    ) -> Result<TransactWriteItem, StoreError> {
        let key = keys::lease(holder.key()).into_map();
        let update = Update::builder().table_name(&self.table.name).set_key(Some(key));
        let update = holder
            .holds_lease(update, sandbox)
            .update_expression("SET ended_at = :at, end_reason = :reason, fence_ms = :fence_ms, #ttl = :ttl")
            .expression_attribute_names("#ttl", a::TTL)
            .expression_attribute_values(":at", n(end.at.as_secs()))
            .expression_attribute_values(":reason", s(end.reason.as_str()))
            .expression_attribute_values(":fence_ms", n(end.fence.as_ms()))
            .expression_attribute_values(":ttl", n(end.at.plus(ENDED_LEASE_IS_KEPT).as_secs()))
            .build()
            .map_err(|error| built_wrong("end", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// The holder that lease and sandbox must still have, to be ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holder<'a> {
    /// This allocation, as it was read.
    Allocation(&'a Allocation),
    /// This allocation, if its lease expires at `until` or before.
    Overdue { allocation: &'a Allocation, until: Timestamp },
    /// Whatever allocation of the key was made by that second, and had not run out when it was asked.
    Key { key: &'a LeaseKey, claimed_by: Timestamp, asked: Timestamp },
}

impl Holder<'_> {
    const fn key(&self) -> &LeaseKey {
        match self {
            Self::Allocation(allocation) | Self::Overdue { allocation, .. } => &allocation.lease_key,
            Self::Key { key, .. } => key,
        }
    }

    /// The permit that it holds.
    fn permit(&self) -> Option<(&Permit, AllocationId)> {
        match self {
            Self::Allocation(allocation) | Self::Overdue { allocation, .. } => {
                Some((allocation.permit.as_ref()?, allocation.id))
            }
            Self::Key { .. } => None,
        }
    }

    /// The holder still holds the sandbox.
    fn holds_sandbox(&self, update: UpdateBuilder) -> UpdateBuilder {
        match self {
            Self::Allocation(allocation) | Self::Overdue { allocation, .. } => update
                .condition_expression(SANDBOX_IS_HELD)
                .expression_attribute_values(":seen", s(allocation.id.to_string())),
            Self::Key { key, claimed_by, .. } => update
                .condition_expression(SANDBOX_IS_HELD_BY_KEY)
                .expression_attribute_values(":track", s(key.track.as_str()))
                .expression_attribute_values(":key", s(key.key.as_str()))
                .expression_attribute_values(":by", n(claimed_by.as_secs())),
        }
    }

    /// The holder's lease is live.
    fn holds_lease(&self, update: UpdateBuilder, sandbox: &SandboxId) -> UpdateBuilder {
        match self {
            Self::Allocation(allocation) => update
                .condition_expression(LEASE_IS_LIVE)
                .expression_attribute_values(":seen", s(allocation.id.to_string())),
            Self::Overdue { allocation, until } => update
                .condition_expression(LEASE_IS_OVERDUE)
                .expression_attribute_values(":seen", s(allocation.id.to_string()))
                .expression_attribute_values(":until", n(until.as_secs())),
            Self::Key { asked, .. } => update
                .condition_expression(LEASE_IS_OF_SANDBOX)
                .expression_attribute_values(":sandbox", s(sandbox.as_str()))
                .expression_attribute_values(":asked", n(asked.as_secs())),
        }
    }
}
