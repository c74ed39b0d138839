//! Records of requests whose caller does not wait (any more).

use std::time::Duration;

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;

use super::attributes as a;
use super::errors::failed;
use super::{Store, keys, s};
use crate::domain::{PersistedRequest, RequestId};
use crate::store::{Completion, Recorded, StoreError};

/// How long a record can be asked for after its deadline. Longer than a dead letter lives, so that a replay finds it.
const RECORD_IS_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
const REQUEST_IS_NEW: &str = "attribute_not_exists(PK)";
const REQUEST_IS_OPEN: &str = "attribute_not_exists(PK) or #state = :queued";

impl Store {
    /// The record of a request (a consistent read), if it has one.
    pub async fn request(&self, id: RequestId) -> Result<Option<PersistedRequest>, StoreError> {
        let answer = self.get(keys::request(id)).await?;
        answer.map(|item| a::read_request(&item)).transpose()
    }

    /// Writes the record of a request that has none yet.
    pub async fn record_request(&self, record: &PersistedRequest) -> Result<Recorded, StoreError> {
        let stood_before = self.put_request(record, "record", REQUEST_IS_NEW).await?;
        Ok(stood_before.map_or(Recorded::New, |before| Recorded::AlreadyThere(Box::new(before))))
    }

    /// Stores how a request ended, unless it ended before: the first outcome stays.
    pub async fn complete_request(&self, record: &PersistedRequest) -> Result<Completion, StoreError> {
        let stood_before = self.put_request(record, "complete", REQUEST_IS_OPEN).await?;
        Ok(stood_before.map_or(Completion::Stored, |before| Completion::EndedBefore(Box::new(before))))
    }

    /// Puts a record under a condition; what stands there if the condition failed.
    async fn put_request(
        &self,
        record: &PersistedRequest,
        operation: &'static str,
        condition: &'static str,
    ) -> Result<Option<PersistedRequest>, StoreError> {
        let mut call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(a::write_request(record, record.deadline.plus(RECORD_IS_KEPT))))
            .condition_expression(condition)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if condition == REQUEST_IS_OPEN {
            call = call
                .expression_attribute_names("#state", a::STATE)
                .expression_attribute_values(":queued", s(a::QUEUED));
        }
        match call.send().await {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(stands)) => match stands.item() {
                    Some(item) => a::read_request(item).map(Some),
                    None => self.request(record.request_id).await,
                },
                _ => Err(failed(operation, &self.table, error)),
            },
        }
    }
}
