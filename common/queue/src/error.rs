//! Errors of SQS calls, classified by what the caller must do.
//!
//! **Unknown is not final.** Only what is known to be wrong with the message itself ends it, of a whole call as of one
//! entry; everything else (no credentials, a key of KMS that is off, a new code, whichever side SQS blames) counts as
//! unavailable.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;

use broker_runtime::aws::BatchLost;

/// A cause that several callers of one batch share.
pub(super) type Cause = Arc<dyn Error + Send + Sync>;

/// Why a message was not sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// The queue does not exist; for a reply queue: its process has ended.
    #[error("queue {queue} does not exist")]
    Gone {
        /// The label of the queue.
        queue: Arc<str>,
    },
    /// SQS will never accept this message.
    #[error("{queue} does not accept the message: {code}: {message}")]
    Refused {
        /// The label of the queue.
        queue: Arc<str>,
        /// SQS's code.
        code: String,
        /// SQS's message.
        message: String,
    },
    /// It may be sent again; it is unknown whether it was sent.
    #[error("{queue} is not available")]
    Unavailable {
        /// The label of the queue.
        queue: Arc<str>,
        /// The failed call.
        #[source]
        source: Cause,
    },
}

impl SendError {
    /// Whether the same message may be sent later.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Gone { .. } | Self::Refused { .. } => false,
        }
    }
}

/// Why a received message was not deleted, made visible or kept hidden.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AcknowledgeError {
    /// The receipt has expired: the message is deleted, or visible to others. Must not be repeated.
    #[error("the receipt is no longer valid: {code}")]
    Lapsed {
        /// SQS's code.
        code: String,
    },
    /// May be tried again; otherwise the message comes back when its visibility timeout ends.
    #[error("{queue} is not available")]
    Unavailable {
        /// The label of the queue.
        queue: Arc<str>,
        /// The failed call.
        #[source]
        source: Cause,
    },
}

/// Why a queue was not found, created or measured.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// One of the four queues does not exist.
    #[error("queue {queue} does not exist: run `broker init`")]
    Missing {
        /// Its name.
        queue: String,
    },
    /// The call failed.
    #[error("cannot {action} {queue}")]
    Failed {
        /// The operation that failed.
        action: &'static str,
        /// The name of the queue.
        queue: String,
        /// The failed call.
        #[source]
        source: Cause,
    },
}

/// The failure of a call, or of one entry of a batch.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    Gone,
    Refused { code: String, message: String },
    Unavailable(Cause),
}

/// The codes that speak of the message or the receipt, not of the service.
const REFUSALS: [&str; 12] = [
    "AWS.SimpleQueueService.BatchRequestTooLong",
    "AWS.SimpleQueueService.MessageNotInflight",
    "AWS.SimpleQueueService.UnsupportedOperation",
    "BatchRequestTooLong",
    "InvalidAttributeValue",
    "InvalidMessageContents",
    "InvalidParameterValue",
    "MessageNotInflight",
    "ReceiptHandleIsInvalid",
    "InvalidIdFormat",
    "MessageTooLong",
    "UnsupportedOperation",
];

impl Failure {
    /// From a failed call.
    pub(super) fn of_call<E, R>(error: SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        R: fmt::Debug + Send + Sync + 'static,
    {
        let code = error.code().unwrap_or_default();
        if is_missing_queue(code) {
            Self::Gone
        } else if REFUSALS.contains(&code) {
            Self::Refused { code: code.to_owned(), message: error.message().unwrap_or_default().to_owned() }
        } else {
            Self::Unavailable(Arc::new(error))
        }
    }

    /// From a failed entry of a batch.
    pub(super) fn of_entry(entry: &BatchResultErrorEntry) -> Self {
        let failed = EntryFailed {
            code: entry.code().to_owned(),
            message: entry.message().unwrap_or_default().to_owned(),
        };
        if is_missing_queue(&failed.code) {
            Self::Gone
        } else if REFUSALS.contains(&failed.code.as_str()) {
            Self::Refused { code: failed.code, message: failed.message }
        } else {
            Self::Unavailable(Arc::new(failed))
        }
    }

    /// For an entry that the response does not mention.
    pub(super) fn unanswered() -> Self {
        Self::Unavailable(Arc::new(Unanswered))
    }

    /// From the result of a submitted item.
    pub(super) fn of_batch(result: Result<Result<(), Self>, BatchLost>) -> Result<(), Self> {
        result.unwrap_or_else(|lost| Err(Self::Unavailable(Arc::new(lost))))
    }

    pub(super) fn into_send_error(self, queue: &Arc<str>) -> SendError {
        let queue = Arc::clone(queue);
        match self {
            Self::Gone => SendError::Gone { queue },
            Self::Refused { code, message } => SendError::Refused { queue, code, message },
            Self::Unavailable(source) => SendError::Unavailable { queue, source },
        }
    }

    pub(super) fn into_acknowledge_error(self, queue: &Arc<str>) -> AcknowledgeError {
        match self {
            Self::Gone => AcknowledgeError::Lapsed { code: "QueueDoesNotExist".to_owned() },
            Self::Refused { code, .. } => AcknowledgeError::Lapsed { code },
            Self::Unavailable(source) => AcknowledgeError::Unavailable { queue: Arc::clone(queue), source },
        }
    }
}

/// Whether the code means that the queue does not exist; SQS has two names for that.
pub(super) fn is_missing_queue(code: &str) -> bool {
    matches!(code, "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue")
}

/// The failure of one entry of a batch.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
struct EntryFailed {
    code: String,
    message: String,
}

#[derive(Debug, thiserror::Error)]
#[error("the response does not mention this entry")]
struct Unanswered;

/// The results of `count` entries whose ids are their positions, from a batch response.
pub(super) fn entry_results<'a>(
    count: usize,
    succeeded: impl Iterator<Item = &'a str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Result<(), Failure>> {
    let mut results: Vec<_> = (0..count).map(|_| Err(Failure::unanswered())).collect();
    let mut set = |id: &str, result| {
        if let Some(slot) = id.parse().ok().and_then(|position: usize| results.get_mut(position)) {
            *slot = result;
        }
    };
    succeeded.for_each(|id| set(id, Ok(())));
    failed.iter().for_each(|entry| set(entry.id(), Err(Failure::of_entry(entry))));
    results
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::error::ErrorMetadata;
    use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchError;

    use super::*;

    fn call_failed_with(code: &str) -> SendError {
        let error =
            SendMessageBatchError::generic(ErrorMetadata::builder().code(code).message("words").build());
        Failure::of_call(SdkError::service_error(error, ())).into_send_error(&"q".into())
    }

    fn entry(id: &str, code: &str, sender_fault: bool) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder()
            .id(id)
            .code(code)
            .sender_fault(sender_fault)
            .build()
            .expect("all fields are set")
    }

    #[test]
    fn a_missing_queue_is_gone_under_either_of_its_codes() {
        for code in ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"] {
            assert!(matches!(call_failed_with(code), SendError::Gone { .. }), "{code}");
        }
    }

    #[test]
    fn only_what_is_wrong_with_the_message_is_final() {
        let refused = call_failed_with("InvalidMessageContents");
        assert!(matches!(refused, SendError::Refused { .. }) && !refused.is_retryable());
        for code in PASSING {
            assert!(call_failed_with(code).is_retryable(), "{code}");
        }
    }

    /// Codes of errors that pass, whichever side SQS blames.
    const PASSING: [&str; 9] = [
        "AccessDenied",
        "ExpiredToken",
        "InvalidSecurity",
        "KmsAccessDenied",
        "KmsDisabled",
        "KmsInvalidState",
        "RequestThrottled",
        "SomethingNew",
        "",
    ];

    #[test]
    fn an_entry_is_final_for_what_it_is_not_for_whose_fault_it_is() {
        for code in PASSING {
            let failure = Failure::of_entry(&entry("0", code, true));
            assert!(matches!(failure, Failure::Unavailable(_)), "{code}: {failure:?}");
        }
        for sender_fault in [true, false] {
            let failure = Failure::of_entry(&entry("0", "InvalidMessageContents", sender_fault));
            assert!(matches!(failure, Failure::Refused { .. }), "{failure:?}");
        }
    }

    #[test]
    fn an_unreachable_endpoint_can_be_tried_again_and_keeps_its_cause() {
        let error = SdkError::<SendMessageBatchError, ()>::timeout_error("too slow");
        let error = Failure::of_call(error).into_send_error(&"q".into());
        assert!(error.is_retryable());
        assert!(error.source().and_then(Error::source).is_some(), "{error:?}");
    }

    #[test]
    fn every_entry_gets_its_own_result() {
        let failed = [entry("1", "InvalidMessageContents", true), entry("3", "InternalError", false)];
        let results = entry_results(5, ["0", "4", "77", "x"].into_iter(), &failed);
        assert!(matches!(
            results.as_slice(),
            [
                Ok(()),
                Err(Failure::Refused { .. }),
                Err(Failure::Unavailable(_)),
                Err(Failure::Unavailable(_)),
                Ok(())
            ]
        ));
    }

    #[test]
    fn a_receipt_that_is_no_longer_good_has_lapsed() {
        let failure = Failure::of_entry(&entry("0", "ReceiptHandleIsInvalid", true));
        assert!(matches!(failure.into_acknowledge_error(&"q".into()), AcknowledgeError::Lapsed { .. }));
        assert!(matches!(Failure::Gone.into_acknowledge_error(&"q".into()), AcknowledgeError::Lapsed { .. }));
    }
}
