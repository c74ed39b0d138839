//! Storage of the census, the instances and the records of runs.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use uuid::Uuid;

use super::attributes::{self as a, Item};
use super::errors::{failed, unread};
use super::keys::{self, INSTANCES, PK};
use super::{Store, n, s};
use crate::{Census, Changed, Instance, Received, Role, Run, StoreError};
use broker_domain::{JobReport, RequestId, Timestamp};

const IS_NEW: &str = "attribute_not_exists(PK)";
/// The stored census is older, or there is none.
const CENSUS_IS_NEWER: &str = "attribute_not_exists(PK) or as_of_ms < :as_of";
/// The run has no report yet, or no record at all.
const RUN_IS_OPEN: &str = "attribute_not_exists(PK) or attribute_not_exists(report)";
/// The run is recorded and has no report.
const RUN_IS_ASKED_FOR: &str = "attribute_exists(PK) and attribute_not_exists(report)";
/// How long the record of a run is kept.
const RUN_IS_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How long an instance without heartbeats is kept at most.
const INSTANCE_IS_KEPT: Duration = Duration::from_secs(24 * 3_600);

impl Store {
    /// The last census, if the pool was ever counted.
    pub async fn census(&self) -> Result<Option<Census>, StoreError> {
        let item = self.get(keys::census()).await?;
        item.map(|item| a::read_census(&item)).transpose()
    }

    /// Stores a census, unless a later one is stored.
    pub async fn keep_census(&self, census: &Census) -> Result<Changed, StoreError> {
        let mut item = keys::census().into_map();
        for (status, count) in &census.by_status {
            item.insert(format!("{status}_count"), n(*count));
        }
        item.insert(a::AS_OF_MS.to_owned(), n(census.as_of.as_ms()));
        item.insert(a::LETTERS.to_owned(), s(serde_json::to_string(&census.letters).unwrap_or_default()));
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(CENSUS_IS_NEWER)
            .expression_attribute_values(":as_of", n(census.as_of.as_ms()));
        written(call.send().await.map(drop).map_err(Box::new), "census", &self.table)
    }

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
        let Received { requests, maintenance } = instance.received;
        for (name, age) in [(a::OLDEST_REQUESTS_MS, requests), (a::OLDEST_MAINTENANCE_MS, maintenance)] {
            item.extend(age.map(|age| (name.to_owned(), n(age.as_millis()))));
        }
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(PK) or heartbeat_ms < :now")
            .expression_attribute_values(":now", n(instance.heartbeat.as_ms()));
        written(call.send().await.map(drop).map_err(Box::new), "heartbeat", &self.table).map(drop)
    }

    /// Deletes an instance whose last heartbeat is the one that was read.
    pub async fn forget_instance(&self, instance: &Instance) -> Result<Changed, StoreError> {
        let call = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(keys::instance(instance.id)))
            .condition_expression("heartbeat_ms = :seen")
            .expression_attribute_values(":seen", n(instance.heartbeat.as_ms()));
        match call.send().await {
            Ok(_) => Ok(Changed::Done),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(Changed::MovedOn),
                _ => Err(failed("forget_instance", &self.table, error)),
            },
        }
    }

    /// Every instance (a consistent read of all pages).
    pub async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        let mut instances = Vec::new();
        let mut after = None;
        loop {
            let call = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("#pk = :instances")
                .expression_attribute_names("#pk", PK)
                .expression_attribute_values(":instances", s(INSTANCES))
                .set_exclusive_start_key(after);
            let answer = call.send().await.map_err(|error| unread("Query", &self.table, error))?;
            for item in answer.items() {
                instances.push(a::read_instance(item)?);
            }
            after = answer.last_evaluated_key;
            if after.is_none() {
                return Ok(instances);
            }
        }
    }

    /// The record of a run, if there is one.
    pub async fn run(&self, id: RequestId) -> Result<Option<Run>, StoreError> {
        let item = self.get(keys::run(id)).await?;
        item.map(|item| a::read_run(&item)).transpose()
    }

    /// Records a run that outlasted its caller's wait. An existing record stays.
    pub async fn record_run(&self, id: RequestId, job: &str, now: Timestamp) -> Result<(), StoreError> {
        self.put_if_new("record_run", run_item(id, job, now)).await.map(drop)
    }

    /// Stores the report of a run; the first one stays. With `only_if_asked`, a run without a record stores nothing.
    pub async fn complete_run(
        &self,
        id: RequestId,
        report: &JobReport,
        only_if_asked: bool,
        now: Timestamp,
    ) -> Result<Changed, StoreError> {
        let mut item = run_item(id, &report.job, now);
        item.insert(a::REPORT.to_owned(), s(serde_json::to_string(report).unwrap_or_default()));
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(if only_if_asked { RUN_IS_ASKED_FOR } else { RUN_IS_OPEN });
        written(call.send().await.map(drop).map_err(Box::new), "complete_run", &self.table)
    }

    /// Puts an item whose key is free.
    pub(super) async fn put_if_new(
        &self,
        operation: &'static str,
        item: Item,
    ) -> Result<Changed, StoreError> {
        let call =
            self.client.put_item().table_name(&self.table).set_item(Some(item)).condition_expression(IS_NEW);
        written(call.send().await.map(drop).map_err(Box::new), operation, &self.table)
    }
}

type PutFailed = Box<aws_sdk_dynamodb::error::SdkError<PutItemError>>;

fn written(
    result: Result<(), PutFailed>,
    operation: &'static str,
    table: &str,
) -> Result<Changed, StoreError> {
    match result {
        Ok(()) => Ok(Changed::Done),
        Err(error) => match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(_)) => Ok(Changed::MovedOn),
            _ => Err(failed(operation, table, *error)),
        },
    }
}

fn run_item(id: RequestId, job: &str, now: Timestamp) -> Item {
    let mut item = keys::run(id).into_map();
    item.insert(a::JOB.to_owned(), s(job));
    item.insert(a::CREATED_AT.to_owned(), n(now.as_secs()));
    item.insert(a::TTL.to_owned(), n(now.plus(RUN_IS_KEPT).as_secs()));
    item
}

impl Census {
    /// The counts by the names of the states, states without any included.
    pub fn shown(&self) -> BTreeMap<&'static str, u64> {
        let counts = broker_domain::Status::ALL
            .into_iter()
            .map(|status| (status.as_str(), self.by_status.get(&status).copied().unwrap_or(0)));
        counts.chain([("total", self.by_status.values().sum())]).collect()
    }
}

impl Instance {
    /// An instance with a heartbeat at `now` that has received nothing.
    pub fn new(id: Uuid, role: Role, now: Timestamp) -> Self {
        Self { id, role, heartbeat: now, received: Received::default() }
    }
}
