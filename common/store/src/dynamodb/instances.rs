//! Storage of the instances: the processes that live, each with its last heartbeat.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use uuid::Uuid;

use super::attributes::{self as a, Item, Reader};
use super::change::written;
use super::keys::{self, INSTANCES, SK};
use super::pool::passable;
use super::{InstanceStore, n, records, s};
use crate::{Instance, ProviderAway, Received, Role, SeenEmpty, SelfReport, StoreError, Write};
use broker_domain::{CLOCKS_DIFFER, Timestamp};

/// It says something later than what is stored, or that was of a clock that was wrong.
const HEARTBEAT_IS_NEWER: &str = "attribute_not_exists(PK) or heartbeat_ms < :now or heartbeat_ms > :beyond";
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
        item.extend(
            instance.receives.map(|receives| (a::RECEIVES.to_owned(), AttributeValue::Bool(receives))),
        );
        let SeenEmpty { requests, maintenance } = instance.seen_empty;
        for (name, at) in [(a::REQUESTS_EMPTY_MS, requests), (a::MAINTENANCE_EMPTY_MS, maintenance)] {
            item.extend(at.map(|at| (name.to_owned(), n(at.as_ms()))));
        }
        if !instance.granted.is_empty() {
            let granted = serde_json::to_string(&instance.granted).unwrap_or_default();
            item.insert(a::GRANTED.to_owned(), s(granted));
        }
        if let Some(ProviderAway { since, why }) = &instance.provider_away {
            item.insert(a::PROVIDER_AWAY_MS.to_owned(), n(since.as_ms()));
            item.insert(a::PROVIDER_AWAY.to_owned(), s(why));
        }
        if !instance.hooks_away.is_empty() {
            let away = serde_json::to_string(&instance.hooks_away).unwrap_or_default();
            item.insert(a::HOOKS_AWAY.to_owned(), s(away));
        }
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item))
            .condition_expression(HEARTBEAT_IS_NEWER)
            .expression_attribute_values(":now", n(instance.heartbeat.as_ms()))
            .expression_attribute_values(":beyond", n(instance.heartbeat.plus(CLOCKS_DIFFER).as_ms()));
        written(call.send().await, "heartbeat", &self.table.name).map(drop)
    }

    /// Deletes an instance whose last heartbeat is the one that was read.
    pub async fn remove(&self, instance: &Instance) -> Result<Write, StoreError> {
        let call = self
            .table
            .client
            .delete_item()
            .table_name(&self.table.name)
            .set_key(Some(keys::instance(instance.id)))
            .condition_expression("heartbeat_ms = :seen")
            .expression_attribute_values(":seen", n(instance.heartbeat.as_ms()));
        written(call.send().await, "forget_instance", &self.table.name)
    }

    /// Every instance (a consistent read of all pages). One that cannot be read is that of a process of which nothing is known but
    /// that it lives: of no known role, and never swept.
    pub async fn list(&self) -> Result<Vec<Instance>, StoreError> {
        let items = self.table.all_of("instances", INSTANCES).await?;
        let read = |item| passable(records::read_instance(item)).or_else(|| unknown(item));
        Ok(items.iter().filter_map(read).collect())
    }
}

/// What stands for an instance that cannot be read, if its id can.
fn unknown(item: &Item) -> Option<Instance> {
    let id = Reader(item).text(SK, Uuid::try_parse).ok()?;
    Some(Instance::new(id, Role::Unknown, Timestamp::from_ms(u64::MAX)))
}

impl Instance {
    /// An instance with a heartbeat at `now` that has received nothing.
    pub fn new(id: Uuid, role: Role, now: Timestamp) -> Self {
        Self::reporting(id, role, now, SelfReport::default())
    }

    /// An instance with a heartbeat at `now` that says this of itself.
    pub fn reporting(id: Uuid, role: Role, now: Timestamp, report: SelfReport) -> Self {
        let SelfReport { received, receives, seen_empty, granted, provider_away, hooks_away } = report;
        Self {
            id,
            role,
            heartbeat: now,
            received,
            requests_per_s: None,
            receives,
            seen_empty,
            granted,
            provider_away,
            hooks_away,
        }
    }
}
