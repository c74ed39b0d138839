//! The writes of a reconciliation: each a step of `broker_domain::reconcile`, on the condition that what the step was
//! decided on is still so.
//!
//! Invariant: lease and sandbox that are to point to each other are written in one transaction. Two facts are not
//! conditions, because they cannot become untrue: that a lease which ended has ended, and that a sandbox which left the
//! hands of an allocation is out of them.

use std::sync::Arc;

use aws_sdk_dynamodb::types::{Put, TransactWriteItem, Update};

use super::attributes as a;
use super::change::ItemChange;
use super::deletion::{Seen, next};
use super::end::ENDED_LEASE_IS_KEPT;
use super::errors::built_wrong;
use super::{LeaseStore, ReconcileStore, SandboxStore, keys, n, s};
use crate::{NewSandbox, StoreError, Write};
use broker_domain::reconcile::Step;
use broker_domain::{Allocation, Event, LabDuration, Lease, LeaseEnd, Sandbox, Status, Timestamp};

/// The sandbox is as it was read.
const SANDBOX_IS_AS_READ: &str = "#status = :from and version = :seen";
/// No lease of the key was read, and there is none.
const KEY_HAS_NO_LEASE: &str = "attribute_not_exists(PK)";
/// The key's lease had ended, and is still that one.
const ENDED_LEASE_STANDS: &str = "allocation_id = :stood and attribute_exists(ended_at)";
/// The key's lease was live, and is.
const LIVE_LEASE_STANDS: &str = "allocation_id = :stood and attribute_not_exists(ended_at)";

impl ReconcileStore {
    /// Takes one step. Where a sandbox does not say how long its owner has it, it is `hours`. What cannot be read is not as it was
    /// read: the step is rejected.
    pub async fn step(&self, step: &Step, hours: LabDuration, now: Timestamp) -> Result<Write, StoreError> {
        match self.take(step, hours, now).await {
            Err(StoreError::Malformed { .. }) => Ok(Write::Rejected(())),
            taken => taken,
        }
    }

    async fn take(&self, step: &Step, hours: LabDuration, now: Timestamp) -> Result<Write, StoreError> {
        let sandboxes = SandboxStore { table: Arc::clone(&self.table) };
        let leases = LeaseStore { table: Arc::clone(&self.table) };
        match step {
            Step::Insert { sandbox_id, name, external_id } => {
                let (name, external_id) = (name.clone(), external_id.clone());
                let new = NewSandbox { id: sandbox_id.clone(), name, external_id, attributes: None };
                Ok(match sandboxes.insert(&new, now).await? {
                    Write::Applied => Write::Applied,
                    Write::Rejected(_) => Write::Rejected(()),
                })
            }
            Step::Bind { sandbox, stands, lease } => {
                self.bind_lease(sandbox, stands.as_deref(), lease, hours, now).await
            }
            Step::EndLease { lease, end } => self.end_lone_lease(lease, end).await,
            Step::Retire { sandbox, allocation, end } => self.retire(sandbox, allocation, end).await,
            Step::End { sandbox, allocation, end } => leases.end(&sandbox.id, allocation, end).await,
            Step::Missing { sandbox } => {
                let seen = Seen { id: &sandbox.id, version: sandbox.version };
                sandboxes.missing(sandbox.status, seen, now).await
            }
        }
    }

    async fn bind_lease(
        &self,
        sandbox: &Sandbox,
        stands: Option<&Lease>,
        lease: &Lease,
        hours: LabDuration,
        now: Timestamp,
    ) -> Result<Write, StoreError> {
        let put = Put::builder().table_name(&self.table.name).set_item(Some(a::write_live_lease(lease)));
        let put = match stands {
            None => put.condition_expression(KEY_HAS_NO_LEASE),
            Some(stands) => put
                .condition_expression(match stands.end {
                    Some(_) => ENDED_LEASE_STANDS,
                    None => LIVE_LEASE_STANDS,
                })
                .expression_attribute_values(":stood", s(stands.allocation_id.to_string())),
        };
        let put = put.build().map_err(|error| built_wrong("bind", error))?;
        let items = vec![
            TransactWriteItem::builder().put(put).build(),
            self.hold_sandbox(sandbox, lease, hours, now)?,
        ];
        let keys = vec![keys::lease(&lease.key), keys::sandbox(&sandbox.id)];
        self.table.transactions.transact("bind", keys, items).await
    }

    fn hold_sandbox(
        &self,
        sandbox: &Sandbox,
        lease: &Lease,
        hours: LabDuration,
        now: Timestamp,
    ) -> Result<TransactWriteItem, StoreError> {
        let grant = &lease.grant;
        let mut set = "SET #status = :allocated, version = :next, allocation_id = :allocation, allocated_to_track = :track, \
                       idempotency_key = :key, lab_duration_hours = if_not_exists(lab_duration_hours, :hours), \
                       allocated_at = :allocated_at, expires_at = :expires_at, updated_at = :now, state_shard = :shard, \
                       state_key = :due"
            .to_owned();
        let mut update = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::sandbox(&sandbox.id).into_map()))
            .condition_expression(SANDBOX_IS_AS_READ)
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":from", s(sandbox.status.as_str()))
            .expression_attribute_values(":seen", n(sandbox.version))
            .expression_attribute_values(":next", n(sandbox.version + 1))
            .expression_attribute_values(":allocated", s(Status::Allocated.as_str()))
            .expression_attribute_values(":allocation", s(lease.allocation_id.to_string()))
            .expression_attribute_values(":track", s(lease.key.track.as_str()))
            .expression_attribute_values(":key", s(lease.key.key.as_str()))
            .expression_attribute_values(":hours", n(hours.hours()))
            .expression_attribute_values(":allocated_at", n(grant.allocated_at.as_secs()))
            .expression_attribute_values(":expires_at", n(grant.expires_at.as_secs()))
            .expression_attribute_values(":now", n(now.as_secs()))
            .expression_attribute_values(":shard", s(self.table.shard(Status::Allocated, &sandbox.id)))
            .expression_attribute_values(":due", s(keys::time_key(grant.expires_at)));
        if let Some(track_name) = &grant.track_name {
            set.push_str(", track_name = :track_name");
            update = update.expression_attribute_values(":track_name", s(track_name.as_str()));
        }
        if let Some(permit) = &lease.permit {
            set.push_str(", permit = :permit");
            update = update.expression_attribute_values(":permit", s(permit.to_string()));
        }
        let update = update.update_expression(set).build().map_err(|error| built_wrong("bind", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    async fn end_lone_lease(&self, lease: &Lease, end: &LeaseEnd) -> Result<Write, StoreError> {
        let ended = self.table.change_item(ItemChange {
            operation: "end_lease",
            key: keys::lease(&lease.key).into_map(),
            condition: LIVE_LEASE_STANDS,
            update: "SET ended_at = :at, end_reason = :reason, fence_ms = :fence_ms, #ttl = :ttl",
            values: vec![
                (":stood", s(lease.allocation_id.to_string())),
                (":at", n(end.at.as_secs())),
                (":reason", s(end.reason.as_str())),
                (":fence_ms", n(end.fence.as_ms())),
                (":ttl", n(end.at.plus(ENDED_LEASE_IS_KEPT).as_secs())),
            ],
        })?;
        let (mut keys, mut items) = (vec![keys::lease(&lease.key)], vec![ended]);
        if let Some(permit) = &lease.permit {
            keys.push(keys::permit(permit));
            items.push(self.table.delete_permit(permit, lease.allocation_id)?);
        }
        self.table.transactions.transact("end_lease", keys, items).await
    }

    async fn retire(
        &self,
        sandbox: &Sandbox,
        allocation: &Allocation,
        end: &LeaseEnd,
    ) -> Result<Write, StoreError> {
        let to = next(Status::Allocated, Event::End)?;
        let mut values = vec![
            (":from", s(sandbox.status.as_str())),
            (":seen", n(sandbox.version)),
            (":to", s(to.as_str())),
            (":next", n(sandbox.version + 1)),
            (":allocation", s(allocation.id.to_string())),
            (":track", s(allocation.lease_key.track.as_str())),
            (":key", s(allocation.lease_key.key.as_str())),
            (":allocated_at", n(allocation.allocated_at.as_secs())),
            (":expires_at", n(allocation.expires_at.as_secs())),
            (":at", n(end.at.as_secs())),
            (":reason", s(end.reason.as_str())),
            (":none", n(0)),
            (":shard", s(self.table.shard(to, &sandbox.id))),
            (":due", s(keys::time_key(end.at))),
        ];
        let mut update = "SET #status = :to, version = :next, allocation_id = :allocation, allocated_to_track = :track, \
                          idempotency_key = :key, allocated_at = :allocated_at, expires_at = :expires_at, \
                          deletion_requested_at = :at, deletion_reason = :reason, deletion_retry_count = :none, \
                          updated_at = :at, state_shard = :shard, state_key = :due"
            .to_owned();
        if let Some(track_name) = &allocation.track_name {
            update.push_str(", track_name = :track_name");
            values.push((":track_name", s(track_name.as_str())));
        }
        self.table
            .change(ItemChange {
                operation: "retire",
                key: keys::sandbox(&sandbox.id).into_map(),
                condition: SANDBOX_IS_AS_READ,
                update: &update,
                values,
            })
            .await
    }
}
