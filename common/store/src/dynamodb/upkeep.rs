//! Queries by state (StateIndex) and full-record reads for the maintenance jobs.

use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, Select};

use super::attributes::{self as a, Item, Reader};
use super::errors::unread;
use super::keys::{self, SANDBOX_PREFIX};
use super::partition::IndexKeys;
use super::pool::{passable, readable};
use super::reservation_items::read_reserved_for;
use super::{SandboxStore, TableClient, count_capacity, records, s};
use crate::{Candidate, Page, PageKey, Pages, Record, StoreError};
use broker_domain::policy::{Policy, PoolCount};
use broker_domain::{SandboxId, Status, Timestamp};

/// Items that one call of a count reads: few enough for the timeout of an attempt.
const COUNTED_PER_CALL: i32 = 1_000;

impl SandboxStore {
    /// A page of the sandboxes of one state and shard that are due by `until`, the longest due first. The due time depends on
    /// the state: the lease's expiry, the next attempt to delete, since when it is stale.
    pub async fn due(
        &self,
        status: Status,
        shard: u8,
        until: Timestamp,
        after: Option<PageKey>,
    ) -> Result<Page<Vec<Candidate>>, StoreError> {
        Ok(self.table.items_by_state(status, shard, Some(until), after).await?.map(|items| readable(&items)))
    }

    /// A page of all sandboxes of one state and shard, up to 1 MB of them. The index is eventually consistent: a sandbox is
    /// changed at the version that it lists, or not at all.
    pub async fn listed(
        &self,
        status: Status,
        shard: u8,
        after: Option<PageKey>,
    ) -> Result<Page<Vec<Candidate>>, StoreError> {
        Ok(self.table.items_by_state(status, shard, None, after).await?.map(|items| readable(&items)))
    }

    /// The full record of a sandbox (a consistent read).
    pub async fn record(&self, id: &SandboxId) -> Result<Option<Record>, StoreError> {
        let answer = self.table.get(keys::sandbox(id)).await?;
        answer.map(|item| records::read_record(&item)).transpose()
    }

    /// Counts all sandboxes by state, every state included, and by flavour of `policy`, tombstones too. A scan of the table,
    /// not the index: an item keeps its place whatever its state, so none is counted twice or missed.
    pub async fn count(&self, policy: &Policy) -> Result<PoolCount, StoreError> {
        let mut counted = PoolCount::new(policy);
        let mut pages = Pages::new(|after: Option<PageKey>| async move {
            let call = self
                .table
                .client
                .scan()
                .table_name(&self.table.name)
                .limit(COUNTED_PER_CALL)
                .set_exclusive_start_key(after.map(|key| key.0))
                .select(Select::SpecificAttributes)
                .projection_expression("PK, #status, #name, quarantine_cause, reserved_for")
                .filter_expression("begins_with(PK, :sandbox)")
                .expression_attribute_names("#status", a::STATUS)
                .expression_attribute_names("#name", a::NAME)
                .expression_attribute_values(":sandbox", s(SANDBOX_PREFIX))
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = call.send().await.map_err(|error| unread("Scan", &self.table.name, error))?;
            count_capacity("count", answer.consumed_capacity());
            Ok(Page { items: answer.items.unwrap_or_default(), next: answer.last_evaluated_key.map(PageKey) })
        });
        while let Some(items) = pages.next().await? {
            for item in &items {
                if let Some(status) = passable(records::read_status(item)) {
                    counted.add(policy, records::read_name(item).as_ref(), status);
                    records::read_cause(item, status).into_iter().for_each(|cause| counted.add_cause(cause));
                    if let Some(reservation) = passable(read_reserved_for(&Reader(item))).flatten() {
                        counted.add_reserved(reservation, status);
                    }
                }
            }
        }
        Ok(counted)
    }
}

impl TableClient {
    /// A page of the index's items of one state and shard, of those that are due by `until` if that is given.
    pub(super) async fn items_by_state(
        &self,
        status: Status,
        shard: u8,
        until: Option<Timestamp>,
        after: Option<PageKey>,
    ) -> Result<Page<Vec<Item>>, StoreError> {
        let which = until.map_or(IndexKeys::All, |until| IndexKeys::UpTo(keys::time_key(until)));
        self.page_of_index("by_state", (keys::state_shard(status, shard), which), after, None).await
    }
}
