//! From the SDK's errors to the store's.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::store::StoreError;

/// What the failure of `operation` on `table` means.
pub(super) fn failed<E>(operation: &'static str, table: &str, error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let code = error.code().map(str::to_owned);
    let status = error.raw_response().map(|response| response.status().as_u16());
    match (code.as_deref(), status) {
        (Some("ResourceNotFoundException"), _) => StoreError::NoTable { table: table.to_owned() },
        (Some("TransactionConflictException" | "TransactionInProgressException"), _) => StoreError::Conflict,
        (
            Some(
                "ProvisionedThroughputExceededException"
                | "RequestLimitExceeded"
                | "ThrottlingException"
                | "InternalServerError"
                | "LimitExceededException",
            ),
            _,
        )
        | (_, None | Some(500..))
        | (None, _) => StoreError::Unavailable { operation, source: Box::new(error) },
        (Some(_), Some(_)) => StoreError::Refused { operation, source: Box::new(error) },
    }
}
