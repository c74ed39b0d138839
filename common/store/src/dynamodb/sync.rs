//! Writes of the sync job: inserts, refreshed names, stale and back, and deletions to repeat.
//!
//! Invariant: a sandbox that was ever handed out stays out of the pool: each way in requires that there is no allocation, or
//! that the provider created another resource after the old one was deleted.

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};

use super::attributes::{self as a, Item};
use super::change::Change;
use super::deletion::{Seen, next};
use super::errors::failed;
use super::keys::{self, STATE_KEY, STATE_SHARD};
use super::{Store, count_capacity, n, s};
use crate::{Changed, Inserted, NewSandbox, Record, StoreError};
use broker_domain::{Event, SandboxId, Status, Timestamp};

const SANDBOX_IS_NEW: &str = "attribute_not_exists(PK)";
/// The id was reused for another resource, which the provider created after ours was deleted.
const ANOTHER_RESOURCE: &str =
    "#status = :deleted and version = :seen and external_id <> :external_id and deleted_at < :created_at";
/// [`Event::Found`] of a tombstone: the provider still lists it.
const STILL_LISTED: &str = "#status = :deleted and version = :seen";
/// [`Event::Found`] of an available or stale one that was never handed out.
const FOUND_UNUSED: &str = "#status = :from and version = :seen and attribute_not_exists(allocation_id)";
/// [`Event::Missing`] of an available one.
const MISSING: &str = "#status = :available and version = :seen";

impl Store {
    /// Puts a sandbox that the provider lists into the pool, if its id is free; else returns the existing item.
    pub async fn insert(&self, sandbox: &NewSandbox, now: Timestamp) -> Result<Inserted, StoreError> {
        match self.put_new(self.fresh(sandbox, 1, now, synced(now))).await? {
            None => Ok(Inserted::New),
            Some(stands) => a::read_record(&stands).map(|record| Inserted::Stands(Box::new(record))),
        }
    }

    /// Puts an item if its key is free; else returns the existing one.
    pub(super) async fn put_new(&self, item: Item) -> Result<Option<Item>, StoreError> {
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(SANDBOX_IS_NEW)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match call.send().await {
            Ok(answer) => {
                count_capacity("insert", answer.consumed_capacity());
                Ok(None)
            }
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(stands)) => {
                    stands.item.clone().map(Some).ok_or(StoreError::Conflict)
                }
                _ => Err(failed("insert", &self.table, error)),
            },
        }
    }

    /// Puts another resource of the provider into the pool in place of a tombstone of the same id. The version continues, so
    /// everything that was read of the old one is void.
    pub async fn insert_over_tombstone(
        &self,
        sandbox: &NewSandbox,
        tombstone: &Record,
        created_at: Timestamp,
        now: Timestamp,
    ) -> Result<Changed, StoreError> {
        let seen = tombstone.sandbox.version;
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(self.fresh(sandbox, seen + 1, now, synced(now))))
            .condition_expression(ANOTHER_RESOURCE)
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":deleted", s(Status::Deleted.as_str()))
            .expression_attribute_values(":seen", n(seen))
            .expression_attribute_values(":external_id", s(sandbox.external_id.as_str()))
            .expression_attribute_values(":created_at", n(created_at.as_secs()));
        match call.send().await {
            Ok(_) => Ok(Changed::Done),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(_)) => Ok(Changed::MovedOn),
                _ => Err(failed("insert", &self.table, error)),
            },
        }
    }

    /// Makes a tombstone that the provider still lists pending again, under the external id that it lists now.
    pub async fn revive_deletion(
        &self,
        seen: Seen<'_>,
        listed: &NewSandbox,
        now: Timestamp,
    ) -> Result<Changed, StoreError> {
        let to = next(Status::Deleted, Event::Found)?;
        self.change(Change {
            operation: "revive_deletion",
            key: keys::sandbox(seen.id).into_map(),
            condition: STILL_LISTED,
            update: "SET #status = :to, version = :next, external_id = :external_id, deletion_retry_count = :none, \
                     state_shard = :shard, state_key = :due, updated_at = :now REMOVE #ttl, deleted_at",
            values: vec![
                (":deleted", s(Status::Deleted.as_str())),
                (":to", s(to.as_str())),
                (":seen", n(seen.version)),
                (":next", n(seen.version + 1)),
                (":external_id", s(listed.external_id.as_str())),
                (":none", n(0)),
                (":shard", s(self.shard(to, seen.id))),
                (":due", s(keys::time_key(now))),
                (":now", n(now.as_secs())),
            ],
        })
        .await
    }

    /// Sets name and external id of an unused sandbox as the provider lists them; a stale one becomes available.
    pub async fn found(
        &self,
        from: Status,
        version: u64,
        listed: &NewSandbox,
        now: Timestamp,
    ) -> Result<Changed, StoreError> {
        let to = next(from, Event::Found)?;
        self.change(Change {
            operation: "found",
            key: keys::sandbox(&listed.id).into_map(),
            condition: FOUND_UNUSED,
            update: "SET #status = :to, version = :next, #name = :name, external_id = :external_id, state_shard = :shard, \
                     state_key = :name, last_synced = :now, updated_at = :now",
            values: vec![
                (":from", s(from.as_str())),
                (":to", s(to.as_str())),
                (":seen", n(version)),
                (":next", n(version + 1)),
                (":name", s(listed.name.as_str())),
                (":external_id", s(listed.external_id.as_str())),
                (":shard", s(self.shard(to, &listed.id))),
                (":now", n(now.as_secs())),
            ],
        })
        .await
    }

    /// Makes a sandbox that the provider does not list stale.
    pub async fn missing(&self, seen: Seen<'_>, now: Timestamp) -> Result<Changed, StoreError> {
        let to = next(Status::Available, Event::Missing)?;
        self.change(Change {
            operation: "missing",
            key: keys::sandbox(seen.id).into_map(),
            condition: MISSING,
            update: "SET #status = :to, version = :next, state_shard = :shard, state_key = :since, updated_at = :now",
            values: vec![
                (":available", s(Status::Available.as_str())),
                (":to", s(to.as_str())),
                (":seen", n(seen.version)),
                (":next", n(seen.version + 1)),
                (":shard", s(self.shard(to, seen.id))),
                (":since", s(keys::time_key(now))),
                (":now", n(now.as_secs())),
            ],
        })
        .await
    }

    /// The item of a new sandbox, with its origin.
    pub(super) fn fresh(
        &self,
        sandbox: &NewSandbox,
        version: u64,
        now: Timestamp,
        whence: (&'static str, AttributeValue),
    ) -> Item {
        let mut item = keys::sandbox(&sandbox.id).into_map();
        item.extend(
            [
                (a::SANDBOX_ID, s(sandbox.id.as_str())),
                (a::NAME, s(sandbox.name.as_str())),
                (a::EXTERNAL_ID, s(sandbox.external_id.as_str())),
                (a::STATUS, s(Status::Available.as_str())),
                (a::VERSION, n(version)),
                (a::CREATED_AT, n(now.as_secs())),
                (a::UPDATED_AT, n(now.as_secs())),
                (STATE_SHARD, s(self.shard(Status::Available, &sandbox.id))),
                (STATE_KEY, s(sandbox.name.as_str())),
                whence,
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        item
    }

    /// Removes a stale sandbox at the version that was read. It was never handed out, so no tombstone is needed.
    pub async fn remove_stale(&self, id: &SandboxId, version: u64) -> Result<Changed, StoreError> {
        let call = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(keys::sandbox(id).into_map()))
            .condition_expression(
                "#status = :stale and version = :seen and attribute_not_exists(allocation_id)",
            )
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":stale", s(Status::Stale.as_str()))
            .expression_attribute_values(":seen", n(version));
        match call.send().await {
            Ok(_) => Ok(Changed::Done),
            Err(error) => match error.as_service_error() {
                Some(aws_sdk_dynamodb::operation::delete_item::DeleteItemError::ConditionalCheckFailedException(_)) => {
                    Ok(Changed::MovedOn)
                }
                _ => Err(failed("remove_stale", &self.table, error)),
            },
        }
    }
}

/// The origin of a sandbox that the provider listed.
fn synced(now: Timestamp) -> (&'static str, AttributeValue) {
    (a::LAST_SYNCED, n(now.as_secs()))
}
