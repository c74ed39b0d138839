//! Storage of request records, for requests without a waiting caller.

use std::time::Duration;

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use super::attributes as a;
use super::change::written;
use super::errors::{failed, unread};
use super::pool::passable;
use super::{RequestStore, keys, n, s};
use crate::{Page, PageKey, StoreError, Write};
use broker_domain::{Outcome, PersistedRequest, RequestId, RequestState};

/// How long a record can be asked for after its deadline, and how long its place stands. Longer than a dead letter lives, so that
/// a replay finds it.
pub(super) const RECORD_IS_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
const REQUEST_IS_NEW: &str = "attribute_not_exists(PK)";
const REQUEST_IS_OPEN: &str = "attribute_not_exists(PK) or #state = :queued";
/// The same for `expired`: it was decided by the deadline that stands there, or by a later one. A replay may have given it
/// more time since.
const REQUEST_IS_OVERDUE: &str =
    "attribute_not_exists(PK) or (#state = :queued and deadline_ms <= :deadline)";
/// The same for a dead letter of its message: what stands in a line does not wait for that.
const REQUEST_AWAITS_A_MESSAGE: &str =
    "attribute_not_exists(PK) or (#state = :queued and attribute_not_exists(parked))";
/// Only an asynchronous request's claim asks for its record, so only it can be stopped here.
const REQUEST_IS_CANCELLABLE: &str = "#state = :queued and #async = :true";
const REQUEST_AWAITS_ITS_MESSAGE: &str =
    "begins_with(PK, :requests) and #state = :queued and attribute_exists(message)";

impl RequestStore {
    /// The record of a request (a consistent read), if it has one.
    pub async fn get(&self, id: RequestId) -> Result<Option<PersistedRequest>, StoreError> {
        let turn = self.table.singles.turn("GetItem").await?;
        let answer = self.table.get(keys::request(id)).await?;
        drop(turn);
        answer.map(|item| a::read_request(&item)).transpose()
    }

    /// Writes the record of a request that has none yet.
    pub async fn record(
        &self,
        record: &PersistedRequest,
    ) -> Result<Write<Box<PersistedRequest>>, StoreError> {
        let stood_before = self.put_request(record, "record", REQUEST_IS_NEW).await?;
        Ok(stood_before.map_or(Write::Applied, |before| Write::Rejected(Box::new(before))))
    }

    /// Stores how a request ended, unless it ended before: the first outcome stays. `Expired` is stored only if the
    /// record's deadline is not later than that of `record`, `DeadLettered` only if it does not stand in a line.
    pub async fn complete(
        &self,
        record: &PersistedRequest,
    ) -> Result<Write<Box<PersistedRequest>>, StoreError> {
        let condition = match record.state {
            RequestState::Ended(Outcome::Expired) => REQUEST_IS_OVERDUE,
            RequestState::Ended(Outcome::DeadLettered { .. }) => REQUEST_AWAITS_A_MESSAGE,
            RequestState::Ended(_) | RequestState::Queued => REQUEST_IS_OPEN,
        };
        let stood_before = self.put_request(record, "complete", condition).await?;
        Ok(stood_before.map_or(Write::Applied, |before| Write::Rejected(Box::new(before))))
    }

    /// Cancels an asynchronous request that is still queued: from then on its claim fails.
    pub async fn cancel(&self, id: RequestId) -> Result<Write, StoreError> {
        let call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(keys::request(id).into_map()))
            .condition_expression(REQUEST_IS_CANCELLABLE)
            .update_expression("SET #state = :cancelled, #outcome = :outcome REMOVE message")
            .expression_attribute_names("#state", a::STATE)
            .expression_attribute_names("#outcome", a::OUTCOME)
            .expression_attribute_names("#async", a::ASYNC)
            .expression_attribute_values(":queued", s(a::QUEUED))
            .expression_attribute_values(":true", AttributeValue::Bool(true))
            .expression_attribute_values(":cancelled", s(Outcome::Cancelled.as_str()))
            .expression_attribute_values(":outcome", a::write_outcome(&Outcome::Cancelled));
        let _turn = self.table.singles.turn("cancel").await?;
        written(Box::pin(call.send()).await, "cancel", &self.table.name)
    }

    /// One page of the requests that were queued with their message (a consistent read). For `broker queues resend` after the
    /// loss of a queue: it reads the whole table. One that cannot be read is left out.
    pub async fn queued(&self, after: Option<PageKey>) -> Result<Page<Vec<PersistedRequest>>, StoreError> {
        let call = self
            .table
            .client
            .scan()
            .table_name(&self.table.name)
            .consistent_read(true)
            .set_exclusive_start_key(after.map(|key| key.0))
            .filter_expression(REQUEST_AWAITS_ITS_MESSAGE)
            .expression_attribute_names("#state", a::STATE)
            .expression_attribute_values(":queued", s(a::QUEUED))
            .expression_attribute_values(":requests", s(keys::REQUEST_PREFIX));
        let answer = Box::pin(call.send()).await.map_err(|error| unread("Scan", &self.table.name, error))?;
        let requests = answer.items().iter().filter_map(|item| passable(a::read_request(item))).collect();
        Ok(Page { items: requests, next: answer.last_evaluated_key.map(PageKey) })
    }

    /// Puts a record under a condition; returns the existing one if the condition failed.
    async fn put_request(
        &self,
        record: &PersistedRequest,
        operation: &'static str,
        condition: &'static str,
    ) -> Result<Option<PersistedRequest>, StoreError> {
        let mut call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(a::write_request(record, record.deadline.plus(RECORD_IS_KEPT))))
            .condition_expression(condition)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if condition != REQUEST_IS_NEW {
            call = call
                .expression_attribute_names("#state", a::STATE)
                .expression_attribute_values(":queued", s(a::QUEUED));
        }
        if condition == REQUEST_IS_OVERDUE {
            call = call.expression_attribute_values(":deadline", n(record.deadline.as_ms()));
        }
        let turn = self.table.singles.turn(operation).await?;
        let put = Box::pin(call.send()).await;
        drop(turn);
        match put {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(stands)) => match stands.item() {
                    Some(item) => a::read_request(item).map(Some),
                    // It may be deleted by now: then another attempt writes it.
                    None => self.get(record.request_id).await?.ok_or(StoreError::Conflict).map(Some),
                },
                _ => Err(failed(operation, &self.table.name, error)),
            },
        }
    }
}
