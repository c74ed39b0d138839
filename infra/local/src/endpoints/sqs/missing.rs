//! Missing queues: the check, and the error of SQS.

use rustack_sqs_core::{provider::RustackSqs, queue::extract_queue_name};
use rustack_sqs_model::{error::SqsError, input::GetQueueUrlInput};

/// Whether `queue_url` exists.
pub(super) async fn exists(provider: &RustackSqs, queue_url: &str) -> bool {
    let Some(name) = extract_queue_name(queue_url) else { return false };
    let asked = GetQueueUrlInput { queue_name: name.to_owned(), queue_owner_aws_account_id: None };
    provider.get_queue_url(asked).await.is_ok()
}

/// The error of SQS for a missing queue.
pub(super) fn no_such_queue() -> SqsError {
    SqsError::non_existent_queue("The specified queue does not exist.")
}
