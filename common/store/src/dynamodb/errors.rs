//! Conversion of SDK errors to [`StoreError`].

use std::sync::Arc;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::CancellationReason;

use crate::StoreError;

/// The failure of a call that several callers shared.
pub(super) struct Shared(Arc<StoreError>);

impl Shared {
    pub(super) fn new(error: StoreError) -> Self {
        Self(Arc::new(error))
    }

    /// The failure for one of them: of the same kind, with the original as its source.
    pub(super) fn error(&self) -> StoreError {
        let source = Box::new(Arc::clone(&self.0));
        match &*self.0 {
            StoreError::Conflict => StoreError::Conflict,
            StoreError::Unavailable { operation, .. } => StoreError::Unavailable { operation, source },
            StoreError::NoTable { table } => StoreError::NoTable { table: table.clone() },
            StoreError::Refused { operation, .. } => StoreError::Refused { operation, source },
            StoreError::Malformed { item, attribute } => {
                StoreError::Malformed { item: item.clone(), attribute }
            }
        }
    }
}

/// A call that could not be built.
pub(super) fn built_wrong(
    operation: &'static str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Refused { operation, source: Box::new(error) }
}

/// From a failed `operation` on `table`.
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

/// The position of the first item of a cancelled transaction whose own condition failed.
pub(super) fn failed_condition(reasons: &[CancellationReason]) -> Option<usize> {
    reasons.iter().position(|reason| reason.code() == Some("ConditionalCheckFailed"))
}

/// From a cancelled transaction whose own conditions held.
pub(super) fn cancelled(operation: &'static str, reasons: &[CancellationReason]) -> StoreError {
    const TRANSIENT: [&str; 3] = ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];
    let codes = || reasons.iter().filter_map(CancellationReason::code).filter(|code| *code != "None");
    if codes().all(|code| TRANSIENT.contains(&code)) {
        return StoreError::Conflict;
    }
    let said = reasons.iter().filter_map(CancellationReason::message).collect::<Vec<_>>().join("; ");
    StoreError::Refused {
        operation,
        source: format!("{}: {said}", codes().collect::<Vec<_>>().join(", ")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_condition_that_failed_is_a_lost_race() {
        let reasons = |codes: &[&str]| -> Vec<_> {
            codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect()
        };
        for (codes, position) in [
            (&["None", "ConditionalCheckFailed"][..], Some(1)),
            (&["ConditionalCheckFailed", "ConditionalCheckFailed"], Some(0)),
            (&["TransactionConflict", "None", "ConditionalCheckFailed"], Some(2)),
            (&["TransactionConflict", "None"], None),
            (&[], None),
        ] {
            assert_eq!(failed_condition(&reasons(codes)), position, "{codes:?}");
        }
        assert!(matches!(cancelled("end", &reasons(&["TransactionConflict", "None"])), StoreError::Conflict));
        let refused = cancelled("end", &reasons(&["TransactionConflict", "ValidationError"]));
        assert!(matches!(refused, StoreError::Refused { .. }), "{refused:?}");
    }
}
