//! The index and the expiry of a table that another tool made, added while it is in use.
//!
//! Invariants: what the table has is left as it is; expiry is turned on only if no sandbox has a `ttl` of another tool's
//! meaning; repeating it goes on waiting for what was begun. What it does not do: change keys.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndexUpdate,
    KeySchemaElement, KeyType, ProvisionedThroughput, ScalarAttributeType, Select, TableDescription,
    TableStatus,
};

use super::attributes as a;
use super::errors::{built_wrong, failed};
use super::keys::{PK, SANDBOX_PREFIX, SK, STATE_INDEX, STATE_KEY, STATE_SHARD};
use super::s;
use super::scan::long_timeout;
use super::schema::{IndexState, are_keys, expire_by_ttl, index_state, projection, replicas, ttl_attribute};
use crate::{Page, PageKey, Pages, StoreError};

/// How often a table whose index is being built is looked at: at first, and later.
const FIRST_POLL: Duration = Duration::from_millis(200);
const LAST_POLL: Duration = Duration::from_secs(10);

/// What there is to tell of a table that is being made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The table is being changed by another program; the index comes after.
    TableBusy,
    /// The index is being built.
    Building {
        /// Items of the table, as AWS counts them every six hours.
        items: i64,
    },
    /// It is there.
    Ready,
    /// Expiry stays off: a sandbox has a `ttl` that another tool gave it.
    ExpiryIsLeft,
}

/// Adds what the broker needs to `table`: its index, and expiry. Waits until the index is built, however long that takes;
/// `tell` hears of each look.
pub async fn adopt_table(client: &Client, table: &str, tell: &dyn Fn(Stage)) -> Result<(), StoreError> {
    let mut pause = FIRST_POLL;
    loop {
        let described = describe(client, table).await?;
        must_be_fit(&described)?;
        let is_active = described.table_status() == Some(&TableStatus::Active);
        match index_state(&described) {
            IndexState::Usable => break,
            IndexState::Foreign => {
                return Err(refused(format!(
                    "the table has an index {STATE_INDEX} with other keys than {STATE_SHARD}, {STATE_KEY}, or without attributes that claims need"
                )));
            }
            IndexState::NotActive => tell(Stage::Building { items: described.item_count().unwrap_or(0) }),
            IndexState::Missing if is_active => match add_index(client, table, &described).await? {
                Added::Begun => continue,
                Added::Busy => tell(Stage::TableBusy),
            },
            IndexState::Missing => tell(Stage::TableBusy),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_POLL);
    }
    tell(Stage::Ready);
    // One on another attribute is refused, whatever the rows hold.
    if ttl_attribute(client, table).await?.is_none() && has_ttl_of_another_tool(client, table).await? {
        tell(Stage::ExpiryIsLeft);
        return Ok(());
    }
    expire_by_ttl(client, table).await
}

async fn describe(client: &Client, table: &str) -> Result<TableDescription, StoreError> {
    let answer =
        client.describe_table().table_name(table).customize().config_override(long_timeout()).send().await;
    let answer = answer.map_err(|error| failed("DescribeTable", table, error))?;
    answer.table.ok_or_else(|| StoreError::NoTable { table: table.to_owned() })
}

fn must_be_fit(table: &TableDescription) -> Result<(), StoreError> {
    let is_text = |name: &str| {
        let mut of_name = table.attribute_definitions().iter().filter(|known| known.attribute_name() == name);
        of_name.all(|known| *known.attribute_type() == ScalarAttributeType::S)
    };
    if !are_keys(table, table.key_schema(), [PK, SK]) || ![STATE_SHARD, STATE_KEY].into_iter().all(is_text) {
        return Err(refused(format!(
            "the table has other keys than {PK} and {SK}, both text: it cannot be taken over as it is"
        )));
    }
    match replicas(table).as_slice() {
        [] => Ok(()),
        regions => Err(refused(format!(
            "the table has replicas in {}: two regions can hand out a sandbox twice",
            regions.join(", ")
        ))),
    }
}

fn refused(problem: String) -> StoreError {
    StoreError::Refused { operation: "DescribeTable", source: problem.into() }
}

/// Whether the index is begun.
enum Added {
    Begun,
    /// Another change of the table, or another index, is under way.
    Busy,
}

async fn add_index(client: &Client, table: &str, described: &TableDescription) -> Result<Added, StoreError> {
    let wrong = |error| built_wrong("UpdateTable", error);
    let text = |name: &str| {
        let text = AttributeDefinition::builder().attribute_name(name);
        text.attribute_type(ScalarAttributeType::S).build().map_err(wrong)
    };
    let key = |name: &str, kind| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().map_err(wrong)
    };
    let create = CreateGlobalSecondaryIndexAction::builder()
        .index_name(STATE_INDEX)
        .key_schema(key(STATE_SHARD, KeyType::Hash)?)
        .key_schema(key(STATE_KEY, KeyType::Range)?)
        .projection(projection())
        .set_provisioned_throughput(throughput(described)?)
        .build()
        .map_err(wrong)?;
    let call = client
        .update_table()
        .table_name(table)
        .set_attribute_definitions(Some(vec![text(PK)?, text(SK)?, text(STATE_SHARD)?, text(STATE_KEY)?]))
        .global_secondary_index_updates(GlobalSecondaryIndexUpdate::builder().create(create).build());
    match call.customize().config_override(long_timeout()).send().await {
        Ok(_) => Ok(Added::Begun),
        // One online index at a time, and none while the table is being changed.
        Err(error) if matches!(error.code(), Some("ResourceInUseException" | "LimitExceededException")) => {
            Ok(Added::Busy)
        }
        // A repeat of a call whose answer was lost: the first one began it.
        Err(error) if error.message().is_some_and(|message| message.contains("already exists")) => {
            Ok(Added::Begun)
        }
        Err(error) => Err(failed("UpdateTable", table, error)),
    }
}

/// A table with provisioned throughput wants some for its index: as much as it has itself.
fn throughput(table: &TableDescription) -> Result<Option<ProvisionedThroughput>, StoreError> {
    let mode = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
    let own = table.provisioned_throughput().filter(|_| mode != Some(&BillingMode::PayPerRequest));
    let units =
        own.map(|own| (own.read_capacity_units().unwrap_or(0), own.write_capacity_units().unwrap_or(0)));
    let Some((read, write)) = units.filter(|(read, write)| *read > 0 && *write > 0) else { return Ok(None) };
    let built =
        ProvisionedThroughput::builder().read_capacity_units(read).write_capacity_units(write).build();
    built.map(Some).map_err(|error| built_wrong("UpdateTable", error))
}

/// Whether any sandbox has a `ttl`. What was taken over has none, but for tombstones.
async fn has_ttl_of_another_tool(client: &Client, table: &str) -> Result<bool, StoreError> {
    let mut pages = Pages::new(|after: Option<PageKey>| async move {
        let call = client
            .scan()
            .table_name(table)
            .set_exclusive_start_key(after.map(|key| key.0))
            .select(Select::Count)
            .filter_expression(
                "begins_with(PK, :sandbox) and attribute_exists(#ttl) and attribute_not_exists(deleted_at)",
            )
            .expression_attribute_names("#ttl", a::TTL)
            .expression_attribute_values(":sandbox", s(SANDBOX_PREFIX));
        let answer = call.customize().config_override(long_timeout()).send().await;
        let answer = answer.map_err(|error| failed("Scan", table, error))?;
        Ok(Page { items: answer.count(), next: answer.last_evaluated_key.map(PageKey) })
    });
    while let Some(count) = pages.next().await? {
        if count > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
