//! Table of the broker, through the AWS SDK, for planting what must never happen.
//!
//! Keys and attributes: ARCHITECTURE.md, "Table".

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TimeToLiveSpecification,
};

use crate::endpoint::{REGION, Urls};

/// A raw item.
pub type Item = HashMap<String, AttributeValue>;

/// The partition key of a sandbox.
pub fn sandbox_key(sandbox: &str) -> String {
    format!("SBX#{sandbox}")
}

/// The partition key of the lease of a track and an idempotency key.
pub fn lease_key(track: &str, key: &str) -> String {
    format!("LEASE#{track}#{key}")
}

/// A string attribute.
pub fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

/// A number attribute.
pub fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Seconds since the epoch.
pub fn now_s() -> u64 {
    now_ms() / 1_000
}

/// Milliseconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "a test plants times that the broker compares with its clock")]
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.expect("after the epoch").as_millis()).expect("a time of this era")
}

/// One table.
#[derive(Clone, Debug)]
pub struct Table {
    client: Client,
    name: String,
}

impl Table {
    /// The table `name`.
    pub fn new(urls: &Urls, name: &str) -> Self {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .endpoint_url(&urls.dynamodb_url)
            .build();
        Self { client: Client::from_conf(config), name: name.to_owned() }
    }

    /// Makes a table `name` that has these keys and nothing else.
    pub async fn create_bare(&self, name: &str, [hash, range]: [&str; 2]) {
        let text = |name: &str| {
            let text = AttributeDefinition::builder().attribute_name(name);
            text.attribute_type(ScalarAttributeType::S).build().expect("an attribute")
        };
        let key = |name: &str, kind| {
            KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("a key")
        };
        let create = self.client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
        let create = create.attribute_definitions(text(hash)).attribute_definitions(text(range));
        let create = create.key_schema(key(hash, KeyType::Hash)).key_schema(key(range, KeyType::Range));
        create.send().await.expect("CreateTable");
    }

    /// Removes this table, with all that is in it, and makes one of its name that has its keys and nothing else.
    pub async fn replace_by_bare(&self) {
        self.client.delete_table().table_name(&self.name).send().await.expect("DeleteTable");
        crate::wait_for_condition("the table to be gone", async || {
            match self.client.describe_table().table_name(&self.name).send().await {
                Ok(still) => Err(still),
                Err(_) => Ok(()),
            }
        })
        .await;
        self.create_bare(&self.name, ["PK", "SK"]).await;
    }

    /// Lets the table remove items by this attribute.
    pub async fn expire_by(&self, attribute: &str) {
        let ttl = TimeToLiveSpecification::builder().attribute_name(attribute).enabled(true).build();
        let call = self.client.update_time_to_live().table_name(&self.name);
        let call = call.time_to_live_specification(ttl.expect("all is set"));
        call.send().await.expect("UpdateTimeToLive");
    }

    /// The item of this partition key (its sort key is `META`), read consistently.
    pub async fn get(&self, pk: &str) -> Option<Item> {
        self.get_at(pk, "META").await
    }

    /// The item of these keys, read consistently.
    pub async fn get_at(&self, pk: &str, sk: &str) -> Option<Item> {
        let get = self.client.get_item().table_name(&self.name).consistent_read(true);
        let get = get.key("PK", text(pk)).key("SK", text(sk));
        get.send().await.expect("GetItem").item
    }

    /// All items of this partition key, read consistently.
    pub async fn list(&self, pk: &str) -> Vec<Item> {
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let query = self.client.query().table_name(&self.name).consistent_read(true);
            let query =
                query.key_condition_expression("PK = :pk").expression_attribute_values(":pk", text(pk));
            let page = query.set_exclusive_start_key(after).send().await.expect("Query");
            items.extend(page.items.unwrap_or_default());
            after = page.last_evaluated_key;
            if after.is_none() {
                return items;
            }
        }
    }

    /// Lets the API of a reply queue have said for the last time that it lives more than 90 s ago.
    pub async fn age_heartbeat(&self, reply_queue: &str) {
        self.age_heartbeat_by(reply_queue, 95).await;
    }

    /// Lets the API of a reply queue have said for the last time so many seconds ago that it lives.
    pub async fn age_heartbeat_by(&self, reply_queue: &str, seconds: u64) {
        let id = reply_queue.rsplit("replies-").next().expect("an id");
        let mut instance = self.get_at("INSTANCE", id).await.expect("an instance");
        assert_eq!(instance["process_role"], text("api"));
        instance.insert("heartbeat_ms".to_owned(), number((now_s() - seconds) * 1_000));
        self.put(instance).await;
    }

    /// The role of each instance: `api` or `worker`.
    pub async fn instances(&self) -> Vec<String> {
        let role = |item: &Item| item["process_role"].as_s().expect("text").clone();
        self.list("INSTANCE").await.iter().map(role).collect()
    }

    /// The item of this partition key.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub async fn must_get(&self, pk: &str) -> Item {
        self.get(pk).await.unwrap_or_else(|| panic!("no item {pk} in {}", self.name))
    }

    /// Lets a sandbox's time have come `ago` seconds ago: what the jobs ask the index for. Of a lease, its end.
    pub async fn age(&self, sandbox: &str, ago: u64) {
        let at = now_s() - ago;
        let mut item = self.must_get(&sandbox_key(sandbox)).await;
        item.insert("state_key".to_owned(), text(&format!("{at:012}")));
        if item["status"] == text("allocated") {
            let owner = |name: &str| item[name].as_s().expect("text").clone();
            let mut lease =
                self.must_get(&lease_key(&owner("allocated_to_track"), &owner("idempotency_key"))).await;
            lease.insert("expires_at".to_owned(), number(at));
            item.insert("expires_at".to_owned(), number(at));
            self.put(lease).await;
        }
        self.put(item).await;
    }

    /// Lets the deadline of a recorded request have passed long ago.
    pub async fn outlive_deadline(&self, request: &str) {
        let mut item = self.must_get(&format!("REQ#{request}")).await;
        item.insert("deadline_ms".to_owned(), number((now_s() - 60) * 1_000));
        self.put(item).await;
    }

    /// The partition keys that begin so, of the whole table.
    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let scan = self.client.scan().table_name(&self.name).consistent_read(true);
        let scan = scan
            .filter_expression("begins_with(PK, :prefix)")
            .expression_attribute_values(":prefix", text(prefix));
        let items = scan.into_paginator().items().send().collect::<Result<Vec<Item>, _>>().await;
        let keys = items.expect("Scan").into_iter().map(|item| item["PK"].as_s().expect("text").clone());
        keys.collect()
    }

    /// Writes an item, over whatever is there.
    pub async fn put(&self, item: Item) {
        let put = self.client.put_item().table_name(&self.name).set_item(Some(item));
        put.send().await.expect("PutItem");
    }

    /// Removes the item of this partition key.
    pub async fn delete(&self, pk: &str) {
        self.delete_at(pk, "META").await;
    }

    /// Deletes an item of a list.
    pub async fn delete_at(&self, pk: &str, sk: &str) {
        let delete = self.client.delete_item().table_name(&self.name);
        let delete = delete.key("PK", text(pk)).key("SK", text(sk));
        delete.send().await.expect("DeleteItem");
    }
}
