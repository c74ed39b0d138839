//! Conditional update of one item. Each caller names its condition after the transition that it guards.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};

use super::attributes as a;
use super::errors::failed;
use super::{Store, count_capacity};
use crate::{Changed, StoreError};

/// A change of an item, with its condition.
pub(super) struct Change<'a> {
    /// Its name in errors and metrics.
    pub(super) operation: &'static str,
    pub(super) key: HashMap<String, AttributeValue>,
    pub(super) condition: &'a str,
    pub(super) update: &'a str,
    pub(super) values: Vec<(&'static str, AttributeValue)>,
}

impl Store {
    /// Makes a change, unless the item moved on. The condition must require that the item exists: no update may create one.
    pub(super) async fn change(&self, change: Change<'_>) -> Result<Changed, StoreError> {
        let Change { operation, key, condition, update, values } = change;
        let uses = |name: &str| condition.contains(name) || update.contains(name);
        let mut call = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .condition_expression(condition)
            .update_expression(update)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        if uses("#status") {
            call = call.expression_attribute_names("#status", a::STATUS);
        }
        if uses("#name") {
            call = call.expression_attribute_names("#name", a::NAME);
        }
        if uses("#ttl") {
            call = call.expression_attribute_names("#ttl", a::TTL);
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
                _ => Err(failed(operation, &self.table, error)),
            },
        }
    }
}
