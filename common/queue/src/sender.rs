//! The sender of one queue: SendMessageBatch through the batcher.
//!
//! Invariant: each caller gets the result of its own message; a message that SQS refuses does not fail the others of its
//! batch. No retries beyond the SDK's attempts.

use std::time::Duration;

use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry};

use super::error::{Failure, entry_results};
use super::{Queue, SendError};
use broker_domain::TenantName;
use broker_runtime::aws::{Batcher, Bounds};
use broker_runtime::trace::Span;

/// SQS: entries of a batch.
pub(super) const BATCH: usize = 10;
/// Bytes of a batch. SQS takes 1 MiB, the embedded endpoint 256 KiB.
const BATCH_BYTES: usize = 256 * 1024;
/// About the duration of a call to AWS, so it costs nothing there; where calls are shorter, it fills the batches under load.
const SPACING: Duration = Duration::from_millis(8);
/// SQS: the longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(900);

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    body: String,
    attributes: Vec<(String, String)>,
    delay: Duration,
    group: Option<TenantName>,
}

impl From<String> for Outgoing {
    fn from(body: String) -> Self {
        Self { body, attributes: Vec::new(), delay: Duration::ZERO, group: None }
    }
}

impl Outgoing {
    /// With a message attribute of type String. An empty value, which SQS does not take, is left out.
    pub fn with_attribute(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.attributes.push((name.to_owned(), value));
        }
        self
    }

    /// Not visible before `delay`, in whole seconds and at most 15 minutes.
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay.min(LONGEST_DELAY);
        self
    }

    /// Of this tenant, if it is anybody's: SQS delivers the messages of a standard queue fairly between its groups.
    pub fn of_tenant(self, tenant: Option<TenantName>) -> Self {
        Self { group: tenant, ..self }
    }

    /// Its text.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Its attributes.
    pub fn attributes(&self) -> &[(String, String)] {
        &self.attributes
    }

    /// Whether it is no larger than the queues of requests and maintenance take.
    pub fn fits(&self) -> bool {
        self.bytes() <= BATCH_BYTES
    }

    /// The size that SQS counts against its limits.
    fn bytes(&self) -> usize {
        let attribute = |(name, value): &(String, String)| name.len() + "String".len() + value.len();
        self.body.len() + self.attributes.iter().map(attribute).sum::<usize>()
    }

    fn entry(&self, position: usize) -> Option<SendMessageBatchRequestEntry> {
        let mut entry =
            SendMessageBatchRequestEntry::builder().id(position.to_string()).message_body(&self.body);
        for (name, value) in &self.attributes {
            let value =
                MessageAttributeValue::builder().data_type("String").string_value(value).build().ok()?;
            entry = entry.message_attributes(name, value);
        }
        if let Some(group) = &self.group {
            entry = entry.message_group_id(group.as_str());
        }
        if !self.delay.is_zero() {
            entry = entry.delay_seconds(i32::try_from(self.delay.as_secs()).unwrap_or(i32::MAX));
        }
        entry.build().ok()
    }
}

/// Sends to one queue; clones share the calls in flight.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: Queue,
    messages: Batcher<Outgoing, Result<(), Failure>>,
}

impl Sender {
    /// The default number of calls in flight.
    pub const MAX_IN_FLIGHT: usize = 4;

    /// A sender to `queue` with at most `in_flight` calls in flight.
    pub fn new(client: aws_sdk_sqs::Client, queue: Queue, in_flight: usize) -> Self {
        let flight = Flight { client, queue: queue.clone() };
        let messages = Batcher::new(
            Bounds {
                in_flight,
                items: BATCH,
                weight: BATCH_BYTES,
                min_interval: SPACING,
                max_wait: Bounds::MAX_WAIT,
            },
            Outgoing::bytes,
            move |batch| flight.clone().send(batch),
        );
        Self { queue, messages }
    }

    /// The queue.
    pub const fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The span of a message that is about to be sent here; the message carries its `traceparent`.
    pub fn sending(&self) -> Span {
        Span::send(self.queue.label())
    }

    /// Sends `message`, and returns when SQS has it. If the future is dropped, the message may be sent all the same.
    pub async fn send(&self, message: impl Into<Outgoing>) -> Result<(), SendError> {
        let result = Failure::of_batch(self.messages.submit(message.into()).await);
        result.map_err(|failure| failure.into_send_error(self.queue.label()))
    }
}

/// One SendMessageBatch.
#[derive(Clone)]
struct Flight {
    client: aws_sdk_sqs::Client,
    queue: Queue,
}

impl Flight {
    async fn send(self, batch: Vec<Outgoing>) -> Vec<Result<(), Failure>> {
        metrics::histogram!("broker_send_batch_size", "queue" => self.queue.metric_label())
            .record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        match self.attempt(&batch).await {
            Ok(results) => results,
            // SQS may refuse a whole batch for one of its messages: the others are sent one by one.
            Err(Failure::Refused { .. }) if batch.len() > 1 => {
                let mut results = Vec::with_capacity(batch.len());
                for message in &batch {
                    let alone = self.attempt(std::slice::from_ref(message)).await;
                    results.push(
                        alone.and_then(|mut results| {
                            results.pop().unwrap_or_else(|| Err(Failure::unanswered()))
                        }),
                    );
                }
                results
            }
            Err(failure) => vec![Err(failure); batch.len()],
        }
    }

    async fn attempt(&self, batch: &[Outgoing]) -> Result<Vec<Result<(), Failure>>, Failure> {
        let entries = batch.iter().enumerate().filter_map(|(position, message)| message.entry(position));
        let sent = self
            .client
            .send_message_batch()
            .queue_url(self.queue.url())
            .set_entries(Some(entries.collect()))
            .send()
            .await
            .map_err(Failure::of_call)?;
        let succeeded = sent.successful().iter().map(|entry| entry.id());
        Ok(entry_results(batch.len(), succeeded, sent.failed()))
    }
}
