//! Reads of one partition of the table or of its index, in the order of the sort keys.

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;

use super::attributes::Item;
use super::errors::unread;
use super::keys::{SK, STATE_INDEX, STATE_KEY, STATE_SHARD};
use super::{TableClient, count_capacity, s};
use crate::{Page, PageKey, Pages, StoreError};

/// What of each item is read.
#[derive(Clone, Copy)]
pub(super) enum Parts {
    /// All attributes.
    All,
    /// The sort key. It costs the same units, but less of everybody's time.
    SortKey,
}

/// Which items of a partition of the index.
pub(super) enum IndexKeys {
    /// All.
    All,
    /// Those whose sort key begins so.
    Beginning(String),
    /// Those up to this sort key.
    UpTo(String),
}

impl TableClient {
    /// A page of a partition of the index (eventually consistent): at most `limit` items, or 1 MB. Its capacity is counted under
    /// `operation`.
    pub(super) async fn page_of_index(
        &self,
        operation: &'static str,
        (partition, which): (String, IndexKeys),
        after: Option<PageKey>,
        limit: Option<i32>,
    ) -> Result<Page<Vec<Item>>, StoreError> {
        let call = self
            .client
            .query()
            .table_name(&self.name)
            .index_name(STATE_INDEX)
            .expression_attribute_names("#shard", STATE_SHARD)
            .expression_attribute_values(":shard", s(partition))
            .set_exclusive_start_key(after.map(|key| key.0))
            .set_limit(limit)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let (condition, key) = match which {
            IndexKeys::All => ("#shard = :shard", None),
            IndexKeys::Beginning(key) => ("#shard = :shard and begins_with(#key, :key)", Some(key)),
            IndexKeys::UpTo(key) => ("#shard = :shard and #key <= :key", Some(key)),
        };
        let call = call.key_condition_expression(condition);
        let call = match key {
            Some(key) => {
                let named = call.expression_attribute_names("#key", STATE_KEY);
                named.expression_attribute_values(":key", s(key))
            }
            None => call,
        };
        let answer = Box::pin(call.send()).await.map_err(|error| unread("Query", &self.name, error))?;
        count_capacity(operation, answer.consumed_capacity());
        Ok(Page { items: answer.items.unwrap_or_default(), next: answer.last_evaluated_key.map(PageKey) })
    }

    /// A page of the items of a partition (a consistent read): at most `limit` of them, or 1 MB. Its capacity is counted under
    /// `operation`.
    pub(super) async fn page_of(
        &self,
        operation: &'static str,
        (partition, parts): (&str, Parts),
        after: Option<PageKey>,
        limit: Option<u16>,
    ) -> Result<Page<Vec<Item>>, StoreError> {
        let projection = match parts {
            Parts::All => None,
            Parts::SortKey => Some(SK.to_owned()),
        };
        let call = self
            .client
            .query()
            .table_name(&self.name)
            .consistent_read(true)
            .key_condition_expression("PK = :partition")
            .expression_attribute_values(":partition", s(partition))
            .set_exclusive_start_key(after.map(|key| key.0))
            .set_limit(limit.map(i32::from))
            .set_projection_expression(projection)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = Box::pin(call.send()).await.map_err(|error| unread("Query", &self.name, error))?;
        count_capacity(operation, answer.consumed_capacity());
        Ok(Page { items: answer.items.unwrap_or_default(), next: answer.last_evaluated_key.map(PageKey) })
    }

    /// All items of a partition whose sort key begins so (consistent reads of its pages).
    pub(super) async fn all_that_begin(
        &self,
        operation: &'static str,
        partition: &str,
        beginning: &str,
    ) -> Result<Vec<Item>, StoreError> {
        let read = async |after: Option<PageKey>| {
            let call = self
                .client
                .query()
                .table_name(&self.name)
                .consistent_read(true)
                .key_condition_expression("PK = :partition and begins_with(SK, :beginning)")
                .expression_attribute_values(":partition", s(partition))
                .expression_attribute_values(":beginning", s(beginning))
                .set_exclusive_start_key(after.map(|key| key.0))
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = Box::pin(call.send()).await.map_err(|error| unread("Query", &self.name, error))?;
            count_capacity(operation, answer.consumed_capacity());
            let next = answer.last_evaluated_key.map(PageKey);
            Ok::<_, StoreError>(Page { items: answer.items.unwrap_or_default(), next })
        };
        let mut pages = Pages::new(read);
        let mut items = Vec::new();
        while let Some(page) = pages.next().await? {
            items.extend(page);
        }
        Ok(items)
    }

    /// All items of a partition (consistent reads of its pages).
    pub(super) async fn all_of(
        &self,
        operation: &'static str,
        partition: &str,
    ) -> Result<Vec<Item>, StoreError> {
        self.all_parts_of(operation, (partition, Parts::All)).await
    }

    /// These parts of all items of a partition (consistent reads of its pages).
    pub(super) async fn all_parts_of(
        &self,
        operation: &'static str,
        of: (&str, Parts),
    ) -> Result<Vec<Item>, StoreError> {
        let mut pages = Pages::new(|after| self.page_of(operation, of, after, None));
        let mut items = Vec::new();
        while let Some(page) = pages.next().await? {
            items.extend(page);
        }
        Ok(items)
    }
}
