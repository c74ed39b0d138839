//! Errors of the SDK, as the store tells them. **Unknown is not final**: final is only what DynamoDB says of the write
//! itself.
//!
//! | DynamoDB says | means |
//! |---|---|
//! | `ValidationException` to a write, `ValidationError` of a group's own item | refused, if the table takes other writes |
//! | `ValidationException` to a read | passes: an index that is being built says so, and our reads have bounded keys |
//! | `TransactionConflict`, throttling of a transaction's items | passes: a conflict |
//! | `TransactionInProgressException` | passes: unavailable; an earlier attempt of the same write may succeed |
//! | `ResourceNotFoundException` | passes: no table (yet), or one that is being restored |
//! | credentials, rights, signatures, KMS | passes: denied |
//! | anything else, nothing, an unknown code | passes: unavailable |

use std::sync::Arc;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::CancellationReason;

use broker_runtime::aws::is_denial;

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
            StoreError::Denied { operation, code, .. } => {
                StoreError::Denied { operation, code: code.clone(), source }
            }
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

/// What the failure of the write `operation` on `table` means.
pub(super) fn failed<E>(operation: &'static str, table: &str, error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let code = error.code().unwrap_or_default().to_owned();
    match code.as_str() {
        "ResourceNotFoundException" => StoreError::NoTable { table: table.to_owned() },
        "TransactionConflictException" => StoreError::Conflict,
        "ValidationException" | "ItemCollectionSizeLimitExceededException" => {
            StoreError::Refused { operation, source: Box::new(error) }
        }
        denied if is_denial(denied) => StoreError::Denied { operation, code, source: Box::new(error) },
        _ => StoreError::Unavailable { operation, source: Box::new(error) },
    }
}

/// What the failure of the read `operation` on `table` means: a read is never refused for good.
pub(super) fn unread<E>(operation: &'static str, table: &str, error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match failed(operation, table, error) {
        StoreError::Refused { operation, source } => StoreError::Unavailable { operation, source },
        passing @ (StoreError::Conflict
        | StoreError::Unavailable { .. }
        | StoreError::NoTable { .. }
        | StoreError::Denied { .. }
        | StoreError::Malformed { .. }) => passing,
    }
}

/// The position of the first item of a cancelled transaction whose own condition failed.
pub(super) fn failed_condition(reasons: &[CancellationReason]) -> Option<usize> {
    reasons.iter().position(|reason| reason.code() == Some("ConditionalCheckFailed"))
}

/// From a cancelled transaction whose own conditions held.
pub(super) fn cancelled(operation: &'static str, reasons: &[CancellationReason]) -> StoreError {
    const CONFLICTS: [&str; 3] = ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];
    const FINAL: [&str; 2] = ["ValidationError", "ItemCollectionSizeLimitExceeded"];
    let codes = || reasons.iter().filter_map(CancellationReason::code).filter(|code| *code != "None");
    let said = reasons.iter().filter_map(CancellationReason::message).collect::<Vec<_>>().join("; ");
    let source = format!("{}: {said}", codes().collect::<Vec<_>>().join(", ")).into();
    if codes().any(|code| FINAL.contains(&code)) {
        StoreError::Refused { operation, source }
    } else if codes().all(|code| CONFLICTS.contains(&code)) {
        StoreError::Conflict
    } else if let Some(denied) = codes().find(|code| is_denial(code)) {
        StoreError::Denied { operation, code: denied.to_owned(), source }
    } else {
        StoreError::Unavailable { operation, source }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use aws_sdk_dynamodb::operation::put_item::PutItemError;

    use super::*;

    fn reasons(codes: &[&str]) -> Vec<CancellationReason> {
        codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect()
    }

    fn said(
        code: &str,
    ) -> SdkError<PutItemError, aws_smithy_runtime_api::client::orchestrator::HttpResponse> {
        let error = PutItemError::generic(ErrorMetadata::builder().code(code).message("words").build());
        let body = aws_smithy_types::body::SdkBody::empty();
        let status = aws_smithy_runtime_api::http::StatusCode::try_from(400).unwrap();
        SdkError::service_error(error, aws_smithy_runtime_api::http::Response::new(status, body))
    }

    #[test]
    fn only_what_dynamodb_says_of_the_write_itself_is_final() {
        for (code, word) in [
            ("ValidationException", "refused"),
            ("ResourceNotFoundException", "no_table"),
            ("TransactionConflictException", "conflict"),
            ("TransactionInProgressException", "unavailable"),
            ("ExpiredToken", "denied"),
            ("ExpiredTokenException", "denied"),
            ("AccessDeniedException", "denied"),
            ("UnrecognizedClientException", "denied"),
            ("InvalidSignatureException", "denied"),
            ("IncompleteSignatureException", "denied"),
            ("KMSInvalidStateException", "denied"),
            ("KMSAccessDeniedException", "denied"),
            ("InaccessibleEncryptionCredentials", "denied"),
            ("ThrottlingException", "unavailable"),
            ("ResourceInUseException", "unavailable"),
            ("SomethingNew", "unavailable"),
        ] {
            let (written, read) = (failed("PutItem", "t", said(code)), unread("Query", "t", said(code)));
            assert_eq!(written.as_str(), word, "{code}");
            assert_eq!(written.is_retryable(), word != "refused", "{code}");
            assert!(read.is_retryable(), "{code} to a read");
        }
    }

    #[test]
    fn only_a_condition_that_failed_is_a_lost_race() {
        for (codes, position) in [
            (&["None", "ConditionalCheckFailed"][..], Some(1)),
            (&["ConditionalCheckFailed", "ConditionalCheckFailed"], Some(0)),
            (&["TransactionConflict", "None", "ConditionalCheckFailed"], Some(2)),
            (&["TransactionConflict", "None"], None),
            (&[], None),
        ] {
            assert_eq!(failed_condition(&reasons(codes)), position, "{codes:?}");
        }
    }

    #[test]
    fn a_cancelled_group_is_refused_only_for_an_item_of_its_own() {
        for (codes, word) in [
            (&["TransactionConflict", "None"][..], "conflict"),
            (&["ThrottlingError", "ProvisionedThroughputExceeded"], "conflict"),
            (&["None", "ValidationError"], "refused"),
            (&["TransactionConflict", "ValidationError"], "refused"),
            (&["AccessDenied", "None"], "denied"),
            (&["SomethingNew", "None"], "unavailable"),
        ] {
            assert_eq!(cancelled("end", &reasons(codes)).as_str(), word, "{codes:?}");
        }
    }
}
