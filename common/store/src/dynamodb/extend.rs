//! A later end of a lease, by an operator or its owner. Lease and sandbox change in one transaction, fenced by the allocation
//! id.

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

/// The sandbox is still in the hands of that allocation.
const SANDBOX_IS_HELD: &str = "#status = :allocated and allocation_id = :seen";
/// The lease is still live and that allocation's, and does not end later.
const LEASE_ENDS_BEFORE: &str =
    "allocation_id = :seen and attribute_not_exists(ended_at) and expires_at <= :expires_at";

impl LeaseStore {
    /// Moves the end of `allocation` of `sandbox` to `expires_at`, wherever it is before that: what its owner wants is a time,
    /// not so much more. A repeat finds its own success.
    pub async fn renew(
        &self,
        sandbox: &SandboxId,
        allocation: &Allocation,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let moved = Moved { sandbox, allocation, expires_at, from: None };
        self.move_end("renew", &moved, now).await
    }

    /// Moves the end of `allocation` of `sandbox` from where it was read to `expires_at`. Moved meanwhile, it stays: what
    /// was added to the one end is not what was meant for the other.
    pub async fn extend(
        &self,
        sandbox: &SandboxId,
        allocation: &Allocation,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let moved = Moved { sandbox, allocation, expires_at, from: Some(allocation.expires_at) };
        self.move_end("extend", &moved, now).await
    }

    async fn move_end(
        &self,
        transition: &'static str,
        moved: &Moved<'_>,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let Moved { sandbox, allocation, expires_at, from } = *moved;
        let wrong = |error| built_wrong(transition, error);
        let (sandbox_is, lease_is) = match from {
            Some(_) => (SANDBOX_IS_ALLOCATED, LEASE_IS_LIVE),
            None => (SANDBOX_IS_HELD, LEASE_ENDS_BEFORE),
        };
        let from = from.map(|from| n(from.as_secs()));
        let mut of_sandbox = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::sandbox(sandbox).into_map()))
            .condition_expression(sandbox_is)
            .update_expression(
                "SET expires_at = :expires_at, state_key = :due, version = version + :one, updated_at = :now",
            )
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":allocated", s(Status::Allocated.as_str()))
            .expression_attribute_values(":seen", s(allocation.id.to_string()))
            .expression_attribute_values(":expires_at", n(expires_at.as_secs()))
            .expression_attribute_values(":due", s(keys::time_key(expires_at)))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":now", n(now.as_secs()));
        let mut of_lease = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::lease(&allocation.lease_key).into_map()))
            .condition_expression(lease_is)
            .update_expression("SET expires_at = :expires_at")
            .expression_attribute_values(":seen", s(allocation.id.to_string()))
            .expression_attribute_values(":expires_at", n(expires_at.as_secs()));
        if let Some(from) = from {
            of_sandbox = of_sandbox.expression_attribute_values(":from", from.clone());
            of_lease = of_lease.expression_attribute_values(":from", from);
        }
        let items = vec![
            TransactWriteItem::builder().update(of_sandbox.build().map_err(wrong)?).build(),
            TransactWriteItem::builder().update(of_lease.build().map_err(wrong)?).build(),
        ];
        let keys = vec![keys::sandbox(sandbox), keys::lease(&allocation.lease_key)];
        self.table.transactions.transact(transition, keys, items).await
    }
}

/// A later end of a lease.
struct Moved<'a> {
    sandbox: &'a SandboxId,
    allocation: &'a Allocation,
    expires_at: Timestamp,
    /// Where it must still be, if it must.
    from: Option<Timestamp>,
}
