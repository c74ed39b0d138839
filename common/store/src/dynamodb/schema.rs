//! Schema of the table: keys, index, expiry.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType,
    Projection, ProjectionType, ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification,
    TimeToLiveStatus,
};

use super::attributes as a;
use super::errors::{built_wrong, failed, unread};
pub use super::keys::STATE_INDEX;
use super::keys::{PK, SK, STATE_KEY, STATE_SHARD};
use super::scan::long_timeout;
use crate::StoreError;

/// The attributes that the index projects besides the keys.
const PROJECTED: [&str; 5] = [a::SANDBOX_ID, a::NAME, a::EXTERNAL_ID, a::VERSION, a::LAB_DURATION_HOURS];
/// How often a table that is being created is checked, and how many times.
const POLL: Duration = Duration::from_millis(500);
const POLLS: u32 = 240;

/// Whether `ensure` created the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// It was created.
    Created,
    /// It existed.
    Existed,
}

/// The state of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// Keys, projection and status are right.
    Usable,
    /// It is being built or deleted.
    NotActive,
    /// It has other keys, or lacks attributes that claims need.
    Foreign,
    /// It does not exist.
    Missing,
}

/// How a table stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Whether it is active.
    pub active: bool,
    /// Whether its keys are right.
    pub keys: bool,
    /// The one index.
    pub index: IndexState,
    /// Whether expired items are deleted (`ttl`).
    pub expires: bool,
    /// Another attribute than `ttl` by which the table removes items.
    pub foreign_ttl: Option<String>,
    /// Other regions that have a replica of the table. A condition holds within one region.
    pub replicas: Vec<String>,
}

/// Inspects `table`; changes nothing.
pub async fn inspect(client: &Client, table: &str) -> Result<Inspection, StoreError> {
    let no_table = || StoreError::NoTable { table: table.to_owned() };
    let described = &describe(client, table).await?.ok_or_else(no_table)?;
    let ttl = ttl_attribute(client, table).await?;
    Ok(Inspection {
        active: described.table_status() == Some(&TableStatus::Active),
        keys: are_keys(described, described.key_schema(), [PK, SK]),
        index: index_state(described),
        expires: ttl.as_deref() == Some(a::TTL),
        foreign_ttl: ttl.filter(|name| name != a::TTL),
        replicas: replicas(described),
    })
}

pub(super) fn index_state(table: &TableDescription) -> IndexState {
    let Some(index) = table.global_secondary_indexes().iter().find(|i| i.index_name() == Some(STATE_INDEX))
    else {
        return IndexState::Missing;
    };
    let projects = index.projection().is_some_and(|projection| {
        let carried = projection.non_key_attributes();
        projection.projection_type() == Some(&ProjectionType::All)
            || PROJECTED.iter().all(|name| carried.iter().any(|carried| carried == name))
    });
    if !are_keys(table, index.key_schema(), [STATE_SHARD, STATE_KEY]) || !projects {
        IndexState::Foreign
    } else if index.index_status() == Some(&IndexStatus::Active) {
        IndexState::Usable
    } else {
        IndexState::NotActive
    }
}

/// Whether a key schema is that hash key and that range key, both texts.
pub(super) fn are_keys(table: &TableDescription, schema: &[KeySchemaElement], names: [&str; 2]) -> bool {
    let is_text = |name: &str| {
        let mut defined = table.attribute_definitions().iter();
        defined.any(|a| a.attribute_name() == name && a.attribute_type() == &ScalarAttributeType::S)
    };
    let kinds = [KeyType::Hash, KeyType::Range];
    let wanted = names.iter().zip(&kinds);
    schema.len() == names.len()
        && wanted.into_iter().all(|(name, kind)| {
            let is = |key: &&KeySchemaElement| key.attribute_name() == *name && key.key_type() == kind;
            schema.iter().any(|key| is(&key)) && is_text(name)
        })
}

/// The other regions that have a replica. DynamoDB does not list those of the old kind of global tables here, only that
/// it is one.
pub(super) fn replicas(table: &TableDescription) -> Vec<String> {
    let own = table.table_arn().and_then(|arn| arn.split(':').nth(3)).unwrap_or_default();
    let regions = table.replicas().iter().filter_map(|replica| replica.region_name());
    let mut others: Vec<_> = regions.filter(|region| *region != own).map(str::to_owned).collect();
    if others.is_empty() && table.global_table_version() == Some("2017.11.29") {
        others.push("other regions (a global table of 2017)".to_owned());
    }
    others
}

/// The description of `table`; `None` if there is no such table.
async fn describe(client: &Client, table: &str) -> Result<Option<TableDescription>, StoreError> {
    let call = client.describe_table().table_name(table).customize().config_override(long_timeout());
    match call.send().await {
        Ok(answer) => Ok(answer.table),
        Err(error) => match error.as_service_error() {
            Some(DescribeTableError::ResourceNotFoundException(_)) => Ok(None),
            _ => Err(unread("DescribeTable", table, error)),
        },
    }
}

/// Creates `table` with its index and expiry, unless it exists, and waits until it can be used (two minutes at most). For one that
/// exists no role needs the right to create tables.
pub async fn ensure(client: &Client, table: &str) -> Result<Ensured, StoreError> {
    let ensured = match describe(client, table).await? {
        Some(_) => Ensured::Existed,
        None => match create(client, table).await {
            Ok(()) => Ensured::Created,
            Err(CreateError::Exists) => Ensured::Existed,
            Err(CreateError::Failed(error)) => return Err(error),
        },
    };
    wait_until_active(client, table).await?;
    expire_by_ttl(client, table).await?;
    Ok(ensured)
}

enum CreateError {
    Exists,
    Failed(StoreError),
}

async fn create(client: &Client, table: &str) -> Result<(), CreateError> {
    let wrong = |error| CreateError::Failed(built_wrong("CreateTable", error));
    let key = |name: &str, kind| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().map_err(wrong)
    };
    let text = |name: &str| {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .map_err(wrong)
    };
    let index = GlobalSecondaryIndex::builder()
        .index_name(STATE_INDEX)
        .key_schema(key(STATE_SHARD, KeyType::Hash)?)
        .key_schema(key(STATE_KEY, KeyType::Range)?)
        .projection(projection())
        .build()
        .map_err(wrong)?;
    let call = client
        .create_table()
        .table_name(table)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key(PK, KeyType::Hash)?)
        .key_schema(key(SK, KeyType::Range)?)
        .set_attribute_definitions(Some(vec![text(PK)?, text(SK)?, text(STATE_SHARD)?, text(STATE_KEY)?]))
        .global_secondary_indexes(index);
    match call.customize().config_override(long_timeout()).send().await {
        Ok(_) => Ok(()),
        Err(error) => match error.as_service_error() {
            Some(CreateTableError::ResourceInUseException(_)) => Err(CreateError::Exists),
            _ => Err(CreateError::Failed(failed("CreateTable", table, error))),
        },
    }
}

/// What the index carries.
pub(super) fn projection() -> Projection {
    Projection::builder()
        .projection_type(ProjectionType::Include)
        .set_non_key_attributes(Some(PROJECTED.map(str::to_owned).to_vec()))
        .build()
}

async fn wait_until_active(client: &Client, table: &str) -> Result<(), StoreError> {
    for _ in 0..POLLS {
        match describe(client, table).await? {
            Some(seen) if seen.table_status() == Some(&TableStatus::Active) => return must_be_ours(&seen),
            // A table that was just created may not be listed yet.
            Some(_) | None => {}
        }
        tokio::time::sleep(POLL).await;
    }
    Err(StoreError::Unavailable {
        operation: "DescribeTable",
        source: "the table does not become active".into(),
    })
}

/// That the table has our keys and our index and no replica: one that was made for something else is not mended.
fn must_be_ours(table: &TableDescription) -> Result<(), StoreError> {
    let refused =
        |problem: String| Err(StoreError::Refused { operation: "DescribeTable", source: problem.into() });
    let index = match index_state(table) {
        IndexState::Usable | IndexState::NotActive => true,
        IndexState::Foreign | IndexState::Missing => false,
    };
    if !are_keys(table, table.key_schema(), [PK, SK]) || !index {
        return refused(format!(
            "the table stands there with other keys than {PK}, {SK}, or without the index {STATE_INDEX} as it should be; `broker init --adopt-table` adds it to a table that another tool made"
        ));
    }
    let replicas = replicas(table);
    if !replicas.is_empty() {
        let regions = replicas.join(", ");
        return refused(format!(
            "the table has replicas in {regions}: two regions can hand out a sandbox twice, since a condition holds within one"
        ));
    }
    Ok(())
}

/// The attribute by which the table removes items, if it does.
pub(super) async fn ttl_attribute(client: &Client, table: &str) -> Result<Option<String>, StoreError> {
    let described = client
        .describe_time_to_live()
        .table_name(table)
        .customize()
        .config_override(long_timeout())
        .send()
        .await;
    let described = described.map_err(|error| unread("DescribeTimeToLive", table, error))?;
    let ttl = described.time_to_live_description.filter(|ttl| {
        matches!(ttl.time_to_live_status(), Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
    });
    Ok(ttl.map(|ttl| ttl.attribute_name.unwrap_or_default()))
}

pub(super) async fn expire_by_ttl(client: &Client, table: &str) -> Result<(), StoreError> {
    match ttl_attribute(client, table).await?.as_deref() {
        Some(a::TTL) => return Ok(()),
        Some(other) => {
            let problem = format!(
                "the table removes what is past its {other}: turn that off (aws dynamodb update-time-to-live) first, ours is {}",
                a::TTL
            );
            return Err(StoreError::Refused { operation: "UpdateTimeToLive", source: problem.into() });
        }
        None => {}
    }
    let ttl = TimeToLiveSpecification::builder().attribute_name(a::TTL).enabled(true).build();
    let ttl = ttl.map_err(|error| built_wrong("UpdateTimeToLive", error))?;
    let call = client.update_time_to_live().table_name(table).time_to_live_specification(ttl);
    let Err(error) = call.customize().config_override(long_timeout()).send().await else { return Ok(()) };
    // Another caller turned it on in between, or a call whose answer was lost did.
    match ttl_attribute(client, table).await {
        Ok(Some(attribute)) if attribute == a::TTL => Ok(()),
        _ => Err(failed("UpdateTimeToLive", table, error)),
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
