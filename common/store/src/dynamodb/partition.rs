//! Reads of one partition of the table, in the order of its sort keys.

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;

use super::attributes::Item;
use super::errors::unread;
use super::{TableClient, count_capacity, s};
use crate::{Page, PageKey, Pages, StoreError};

impl TableClient {
    /// A page of the items of a partition (a consistent read): at most `limit` of them, or 1 MB. Its capacity is counted under
    /// `operation`.
    pub(super) async fn page_of(
        &self,
        operation: &'static str,
        partition: &str,
        after: Option<PageKey>,
        limit: Option<u16>,
    ) -> Result<Page<Vec<Item>>, StoreError> {
        let call = self
            .client
            .query()
            .table_name(&self.name)
            .consistent_read(true)
            .key_condition_expression("PK = :partition")
            .expression_attribute_values(":partition", s(partition))
            .set_exclusive_start_key(after.map(|key| key.0))
            .set_limit(limit.map(i32::from))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.send().await.map_err(|error| unread("Query", &self.name, error))?;
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
            let answer = call.send().await.map_err(|error| unread("Query", &self.name, error))?;
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
        let mut pages = Pages::new(|after| self.page_of(operation, partition, after, None));
        let mut items = Vec::new();
        while let Some(page) = pages.next().await? {
            items.extend(page);
        }
        Ok(items)
    }
}
