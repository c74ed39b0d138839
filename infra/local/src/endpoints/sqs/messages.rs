//! Message operations, with the behaviour of SQS.

use std::{collections::HashSet, ops::RangeInclusive, sync::Arc};

use rustack_sqs_core::{message::md5_of_message_attributes, provider::RustackSqs};
use rustack_sqs_model::{
    error::{SqsError, SqsErrorCode},
    input::{
        ChangeMessageVisibilityBatchInput, ChangeMessageVisibilityInput, DeleteMessageBatchInput,
        DeleteMessageInput, GetQueueAttributesInput, PurgeQueueInput, ReceiveMessageInput,
        SendMessageBatchInput, SendMessageInput,
    },
    output::{
        ChangeMessageVisibilityBatchOutput, ChangeMessageVisibilityOutput, DeleteMessageBatchOutput,
        DeleteMessageOutput, PurgeQueueOutput, ReceiveMessageOutput, SendMessageBatchOutput,
        SendMessageOutput,
    },
    types::{BatchResultErrorEntry, Message, RedrivePolicy, SendMessageBatchResultEntry},
};
use tokio_util::sync::CancellationToken;

use super::{
    as_sent::{ATTRIBUTE as AS_SENT, AsSent},
    fair::FairQueues,
    missing::{exists, no_such_queue},
    queues::within,
};

const DELAYS_S: RangeInclusive<i32> = 0..=900;
const VISIBILITIES_S: RangeInclusive<i32> = 0..=43_200;
const WAITS_S: RangeInclusive<i32> = 0..=20;

const BATCH_LIMIT: usize = 10;
const BATCH_LIMIT_BYTES: usize = 1024 * 1024;
const GROUP_LIMIT: usize = 128;
const BATCH_ID_LIMIT: usize = 80;

const RECEIVE_COUNT: &str = "ApproximateReceiveCount";
const SOURCE_ARN: &str = "DeadLetterQueueSourceArn";
const GROUP_ID: &str = "MessageGroupId";

/// Sends, receives, deletes messages and changes their visibility.
pub(super) struct Messages {
    provider: Arc<RustackSqs>,
    fair: Arc<FairQueues>,
    shutdown: CancellationToken,
}

impl Messages {
    /// Receives that wait are ended when `shutdown` is cancelled.
    pub(super) fn new(provider: Arc<RustackSqs>, fair: Arc<FairQueues>, shutdown: CancellationToken) -> Self {
        Self { provider, fair, shutdown }
    }

    pub(super) async fn send(&self, request: SendMessageInput) -> Result<SendMessageOutput, SqsError> {
        within("DelaySeconds", request.delay_seconds, DELAYS_S)?;
        check_group(request.message_group_id.as_deref())?;
        if is_standard(&request.queue_url) {
            return self.fair.send(request).await;
        }
        self.provider.send_message(request).await
    }

    pub(super) async fn send_batch(
        &self,
        mut request: SendMessageBatchInput,
    ) -> Result<SendMessageBatchOutput, SqsError> {
        check_ids(request.entries.iter().map(|entry| entry.id.as_str()))?;
        if request.entries.iter().map(|entry| entry.message_body.len()).sum::<usize>() > BATCH_LIMIT_BYTES {
            return Err(SqsError::new(
                SqsErrorCode::BatchRequestTooLong,
                format!("Batch requests cannot be longer than {BATCH_LIMIT_BYTES} bytes."),
            ));
        }
        let refused = take_refused(&mut request.entries, |entry| {
            within("DelaySeconds", entry.delay_seconds, DELAYS_S)
                .and_then(|()| check_group(entry.message_group_id.as_deref()))
                .map_err(|error| (entry.id.clone(), error))
        });
        let mut output = SendMessageBatchOutput::default();
        if is_standard(&request.queue_url) {
            output = self.send_each(request).await?;
        } else if !request.entries.is_empty() {
            output = self.provider.send_message_batch(request).await?;
        }
        output.failed.extend(refused);
        Ok(output)
    }

    /// Sends the entries of a batch one by one, each into the line of its group.
    async fn send_each(&self, request: SendMessageBatchInput) -> Result<SendMessageBatchOutput, SqsError> {
        if !exists(&self.provider, &request.queue_url).await {
            return Err(no_such_queue());
        }
        let mut output = SendMessageBatchOutput::default();
        for entry in request.entries {
            let message = SendMessageInput {
                queue_url: request.queue_url.clone(),
                message_body: entry.message_body,
                delay_seconds: entry.delay_seconds,
                message_deduplication_id: entry.message_deduplication_id,
                message_group_id: entry.message_group_id,
                message_attributes: entry.message_attributes,
                message_system_attributes: entry.message_system_attributes,
            };
            match self.fair.send(message).await {
                Ok(sent) => output.successful.push(SendMessageBatchResultEntry {
                    id: entry.id,
                    message_id: sent.message_id.unwrap_or_default(),
                    md5_of_message_body: sent.md5_of_message_body.unwrap_or_default(),
                    md5_of_message_attributes: sent.md5_of_message_attributes,
                    sequence_number: sent.sequence_number,
                }),
                Err(error) => output.failed.push(refused_entry(entry.id, error)),
            }
        }
        Ok(output)
    }

    /// Takes every message out of a queue and its lines.
    pub(super) async fn purge(&self, request: PurgeQueueInput) -> Result<PurgeQueueOutput, SqsError> {
        let queue_url = request.queue_url.clone();
        let output = self.provider.purge_queue(request).await?;
        self.fair.forget(&queue_url);
        Ok(output)
    }

    /// Waits for messages as long as requested. On shutdown it returns none, because the queues end too.
    pub(super) async fn receive(
        &self,
        mut request: ReceiveMessageInput,
    ) -> Result<ReceiveMessageOutput, SqsError> {
        within("MaxNumberOfMessages", request.max_number_of_messages, 1..=10)?;
        within("WaitTimeSeconds", request.wait_time_seconds, WAITS_S)?;
        within("VisibilityTimeout", request.visibility_timeout, VISIBILITIES_S)?;
        let asked_for = |name: &str| {
            let names = request.attribute_names.iter().chain(&request.message_system_attribute_names);
            names.into_iter().any(|asked| asked == name || asked == "All")
        };
        let counted = asked_for(RECEIVE_COUNT);
        let source_asked_for = asked_for(SOURCE_ARN);
        let group_asked_for = asked_for(GROUP_ID);
        if counted && !source_asked_for {
            request.message_system_attribute_names.push(SOURCE_ARN.to_owned());
        }
        request.message_attribute_names.push(AS_SENT.to_owned());

        let mut output = tokio::select! {
            biased;
            received = self.fair.receive(request) => received?,
            () = self.shutdown.cancelled() => ReceiveMessageOutput::default(),
        };

        for message in &mut output.messages {
            AsSent::restore(message, group_asked_for);
            // The library's digest covers all attributes, also those that were not requested.
            message.md5_of_message_attributes = md5_of_message_attributes(&message.message_attributes);
            if counted {
                self.count_receives_before_redrive(message).await;
            }
            if !source_asked_for {
                message.attributes.remove(SOURCE_ARN);
            }
        }
        Ok(output)
    }

    /// SQS counts receives "across all queues"; the library starts again in the dead-letter queue. A message moves when it
    /// reaches the limit of its source, so that limit is its count.
    async fn count_receives_before_redrive(&self, message: &mut Message) {
        let Some(source_arn) = message.attributes.get(SOURCE_ARN) else { return };
        let Some(before) = self.receive_limit(source_arn).await else { return };
        let Some(count) = message.attributes.get_mut(RECEIVE_COUNT) else { return };
        if let Ok(here) = count.parse::<u32>() {
            *count = here.saturating_add(before).to_string();
        }
    }

    async fn receive_limit(&self, queue_arn: &str) -> Option<u32> {
        let queue_url = self.provider.queue_url_for_arn(queue_arn).ok()?;
        let asked = GetQueueAttributesInput { queue_url, attribute_names: vec!["RedrivePolicy".to_owned()] };
        let found = self.provider.get_queue_attributes(asked).await.ok()?;
        let policy: RedrivePolicy = serde_json::from_str(found.attributes.get("RedrivePolicy")?).ok()?;
        u32::try_from(policy.max_receive_count).ok()
    }

    pub(super) async fn delete(&self, request: DeleteMessageInput) -> Result<DeleteMessageOutput, SqsError> {
        check_receipt(&request.receipt_handle)?;
        self.provider.delete_message(request).await
    }

    pub(super) async fn delete_batch(
        &self,
        mut request: DeleteMessageBatchInput,
    ) -> Result<DeleteMessageBatchOutput, SqsError> {
        check_ids(request.entries.iter().map(|entry| entry.id.as_str()))?;
        let refused = take_refused(&mut request.entries, |entry| {
            check_receipt(&entry.receipt_handle).map_err(|error| (entry.id.clone(), error))
        });
        let mut output = DeleteMessageBatchOutput::default();
        if !request.entries.is_empty() {
            output = self.provider.delete_message_batch(request).await?;
        }
        output.failed.extend(refused);
        Ok(output)
    }

    pub(super) async fn set_visibility(
        &self,
        request: ChangeMessageVisibilityInput,
    ) -> Result<ChangeMessageVisibilityOutput, SqsError> {
        within("VisibilityTimeout", Some(request.visibility_timeout), VISIBILITIES_S)?;
        check_receipt(&request.receipt_handle)?;
        self.provider.change_message_visibility(request).await
    }

    pub(super) async fn set_visibility_batch(
        &self,
        mut request: ChangeMessageVisibilityBatchInput,
    ) -> Result<ChangeMessageVisibilityBatchOutput, SqsError> {
        check_ids(request.entries.iter().map(|entry| entry.id.as_str()))?;
        let refused = take_refused(&mut request.entries, |entry| {
            within("VisibilityTimeout", Some(entry.visibility_timeout), VISIBILITIES_S)
                .and_then(|()| check_receipt(&entry.receipt_handle))
                .map_err(|error| (entry.id.clone(), error))
        });
        let mut output = ChangeMessageVisibilityBatchOutput::default();
        if !request.entries.is_empty() {
            output = self.provider.change_message_visibility_batch(request).await?;
        }
        output.failed.extend(refused);
        Ok(output)
    }
}

/// Whether a queue is a standard one. There a group makes delivery fair.
fn is_standard(queue_url: &str) -> bool {
    !queue_url.ends_with(".fifo")
}

/// Refuses what is no message group.
fn check_group(group: Option<&str>) -> Result<(), SqsError> {
    let Some(group) = group else { return Ok(()) };
    if (1..=GROUP_LIMIT).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(SqsError::invalid_parameter_value(format!(
        "Value {group} for parameter MessageGroupId is invalid. Reason: MessageGroupId can only include alphanumeric and \
         punctuation characters. 1 to {GROUP_LIMIT} in length."
    )))
}

/// Refuses a whole batch for its ids.
fn check_ids<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> Result<(), SqsError> {
    if ids.len() == 0 {
        return Err(SqsError::empty_batch_request());
    }
    if ids.len() > BATCH_LIMIT {
        return Err(SqsError::too_many_entries_in_batch());
    }
    let mut seen = HashSet::new();
    for id in ids {
        let well_formed = (1..=BATCH_ID_LIMIT).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !well_formed {
            return Err(SqsError::new(
                SqsErrorCode::InvalidBatchEntryId,
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. \
                 It can be at most 80 letters long.",
            ));
        }
        if !seen.insert(id) {
            return Err(SqsError::new(SqsErrorCode::BatchEntryIdsNotDistinct, format!("Id {id} repeated.")));
        }
    }
    Ok(())
}

/// Removes the entries that `check` refuses from a batch, and returns the reason for each.
fn take_refused<E>(
    entries: &mut Vec<E>,
    check: impl Fn(&E) -> Result<(), (String, SqsError)>,
) -> Vec<BatchResultErrorEntry> {
    let mut refused = Vec::new();
    entries.retain(|entry| match check(entry) {
        Ok(()) => true,
        Err((id, error)) => {
            refused.push(refused_entry(id, error));
            false
        }
    });
    refused
}

/// The entry of a batch's answer for one that failed.
fn refused_entry(id: String, error: SqsError) -> BatchResultErrorEntry {
    BatchResultErrorEntry {
        id,
        sender_fault: error.code.is_sender_fault(),
        code: error.code.error_type().to_owned(),
        message: Some(error.message),
    }
}

/// Refuses a text that cannot be a receipt handle, which is 124 characters of base64. The library treats any text as an
/// expired one.
fn check_receipt(receipt_handle: &str) -> Result<(), SqsError> {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    if receipt_handle.len() < 100 || !receipt_handle.bytes().all(base64) {
        return Err(SqsError::receipt_handle_is_invalid());
    }
    Ok(())
}
