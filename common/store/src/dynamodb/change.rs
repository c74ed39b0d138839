//! Conditional update of one item. Each caller names its condition after the transition that it guards.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, TransactWriteItem, Update};

use super::attributes::{self as a, Item};
use super::errors::{built_wrong, failed};
use super::{TableClient, count_capacity};
use crate::{Changed, StoreError};

/// Attributes that expressions can only name in this way: their names are words of DynamoDB.
const NAMES: [(&str, &str); 3] = [("#status", a::STATUS), ("#name", a::NAME), ("#ttl", a::TTL)];

const IS_NEW: &str = "attribute_not_exists(PK)";

/// A change of an item, with its condition.
pub(super) struct Change<'a> {
    /// Its name in errors and metrics.
    pub(super) operation: &'static str,
    pub(super) key: HashMap<String, AttributeValue>,
    pub(super) condition: &'a str,
    pub(super) update: &'a str,
    pub(super) values: Vec<(&'static str, AttributeValue)>,
}

impl TableClient {
    /// The same change as one item of a transaction.
    pub(super) fn change_item(&self, change: Change<'_>) -> Result<TransactWriteItem, StoreError> {
        let Change { operation, key, condition, update, values } = change;
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
    pub(super) async fn change(&self, change: Change<'_>) -> Result<Changed, StoreError> {
        let Change { operation, key, condition, update, values } = change;
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
        match call.send().await {
            Ok(answer) => {
                count_capacity(operation, answer.consumed_capacity());
                Ok(Changed::Done)
            }
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(Changed::MovedOn),
                _ => Err(failed(operation, &self.name, error)),
            },
        }
    }

    /// Puts an item whose key is free.
    pub(super) async fn put_if_new(
        &self,
        operation: &'static str,
        item: Item,
    ) -> Result<Changed, StoreError> {
        let call =
            self.client.put_item().table_name(&self.name).set_item(Some(item)).condition_expression(IS_NEW);
        written(call.send().await.map(drop).map_err(Box::new), operation, &self.name)
    }
}

type PutFailed = Box<aws_sdk_dynamodb::error::SdkError<PutItemError>>;

/// The result of a conditional put.
pub(super) fn written(
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
