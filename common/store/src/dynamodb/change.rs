//! Conditional update of one item. Each caller names its condition after the transition that it guards.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, TransactWriteItem, Update};

use super::attributes::{self as a, Item};
use super::errors::{built_wrong, failed};
use super::{TableClient, count_capacity};
use crate::{StoreError, Write};

/// Attributes that expressions can only name in this way: their names are words of DynamoDB.
const NAMES: [(&str, &str); 4] =
    [("#status", a::STATUS), ("#name", a::NAME), ("#ttl", a::TTL), ("#state", a::STATE)];

const IS_NEW: &str = "attribute_not_exists(PK)";

/// A change of an item, with its condition.
pub(super) struct ItemChange<'a> {
    /// Its name in errors and metrics.
    pub(super) operation: &'static str,
    pub(super) key: HashMap<String, AttributeValue>,
    pub(super) condition: &'a str,
    pub(super) update: &'a str,
    pub(super) values: Vec<(&'static str, AttributeValue)>,
}

impl TableClient {
    /// The same change as one item of a transaction.
    pub(super) fn change_item(&self, change: ItemChange<'_>) -> Result<TransactWriteItem, StoreError> {
        let ItemChange { operation, key, condition, update, values } = change;
        let mut item = Update::builder()
            .table_name(&self.name)
            .set_key(Some(key))
            .condition_expression(condition)
            .update_expression(update);
        for (name, attribute) in NAMES {
            if condition.contains(name) || update.contains(name) {
                item = item.expression_attribute_names(name, attribute);
            }
        }
        for (name, value) in values {
            item = item.expression_attribute_values(name, value);
        }
        let item = item.build().map_err(|error| built_wrong(operation, error))?;
        Ok(TransactWriteItem::builder().update(item).build())
    }

    /// Makes a change, unless the item moved on. The condition must require that the item exists: no update may create one.
    pub(super) async fn change(&self, change: ItemChange<'_>) -> Result<Write, StoreError> {
        let ItemChange { operation, key, condition, update, values } = change;
        let uses = |name: &str| condition.contains(name) || update.contains(name);
        let mut call = self
            .client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .condition_expression(condition)
            .update_expression(update)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        for (name, attribute) in NAMES.into_iter().filter(|(name, _)| uses(name)) {
            call = call.expression_attribute_names(name, attribute);
        }
        for (name, value) in values {
            call = call.expression_attribute_values(name, value);
        }
        let answer = Box::pin(call.send()).await;
        if let Ok(answer) = &answer {
            count_capacity(operation, answer.consumed_capacity());
        }
        written(answer, operation, &self.name)
    }

    /// Puts an item whose key is free.
    pub(super) async fn put_if_new(&self, operation: &'static str, item: Item) -> Result<Write, StoreError> {
        let call =
            self.client.put_item().table_name(&self.name).set_item(Some(item)).condition_expression(IS_NEW);
        written(Box::pin(call.send()).await, operation, &self.name)
    }
}

/// The result of a conditional write of one item.
pub(super) fn written<T, E>(
    result: Result<T, SdkError<E>>,
    operation: &'static str,
    table: &str,
) -> Result<Write, StoreError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match result {
        Ok(_) => Ok(Write::Applied),
        Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(Write::Rejected(())),
        Err(error) => Err(failed(operation, table, error)),
    }
}
