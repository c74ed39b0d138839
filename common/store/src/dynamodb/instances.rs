//! Storage of the instances: the processes that live, each with its last heartbeat.

use std::time::Duration;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use uuid::Uuid;

use super::attributes as a;
use super::change::written;
use super::errors::{failed, unread};
use super::keys::{self, INSTANCES, PK};
use super::{InstanceStore, n, s};
use crate::{Changed, Instance, Received, Role, StoreError};
use broker_domain::Timestamp;

/// How long an instance without heartbeats is kept at most.
const INSTANCE_IS_KEPT: Duration = Duration::from_secs(24 * 3_600);

impl InstanceStore {
    /// Stores a heartbeat of a process.
    pub async fn heartbeat(&self, instance: &Instance) -> Result<(), StoreError> {
        let mut item = keys::instance(instance.id);
        item.extend(
            [
                (a::ROLE, s(instance.role.as_str())),
                (a::HEARTBEAT_MS, n(instance.heartbeat.as_ms())),
                (a::TTL, n(instance.heartbeat.plus(INSTANCE_IS_KEPT).as_secs())),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let Received { requests, maintenance, count: _ } = instance.received;
        for (name, age) in [(a::OLDEST_REQUESTS_MS, requests), (a::OLDEST_MAINTENANCE_MS, maintenance)] {
            item.extend(age.map(|age| (name.to_owned(), n(age.as_millis()))));
        }
        item.extend(instance.requests_per_s.map(|rate| (a::REQUESTS_PER_S.to_owned(), n(rate))));
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(PK) or heartbeat_ms < :now")
            .expression_attribute_values(":now", n(instance.heartbeat.as_ms()));
        written(call.send().await.map(drop).map_err(Box::new), "heartbeat", &self.table.name).map(drop)
    }

    /// Deletes an instance whose last heartbeat is the one that was read.
    pub async fn remove(&self, instance: &Instance) -> Result<Changed, StoreError> {
        let call = self
            .table
            .client
            .delete_item()
            .table_name(&self.table.name)
            .set_key(Some(keys::instance(instance.id)))
            .condition_expression("heartbeat_ms = :seen")
            .expression_attribute_values(":seen", n(instance.heartbeat.as_ms()));
        match call.send().await {
            Ok(_) => Ok(Changed::Done),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(Changed::MovedOn),
                _ => Err(failed("forget_instance", &self.table.name, error)),
            },
        }
    }

    /// Every instance (a consistent read of all pages).
    pub async fn list(&self) -> Result<Vec<Instance>, StoreError> {
        let mut instances = Vec::new();
        let mut after = None;
        loop {
            let call = self
                .table
                .client
                .query()
                .table_name(&self.table.name)
                .consistent_read(true)
                .key_condition_expression("#pk = :instances")
                .expression_attribute_names("#pk", PK)
                .expression_attribute_values(":instances", s(INSTANCES))
                .set_exclusive_start_key(after);
            let answer = call.send().await.map_err(|error| unread("Query", &self.table.name, error))?;
            for item in answer.items() {
                instances.push(a::read_instance(item)?);
            }
            after = answer.last_evaluated_key;
            if after.is_none() {
                return Ok(instances);
            }
        }
    }
}

impl Instance {
    /// An instance with a heartbeat at `now` that has received nothing.
    pub fn new(id: Uuid, role: Role, now: Timestamp) -> Self {
        Self { id, role, heartbeat: now, received: Received::default(), requests_per_s: None }
    }
}
