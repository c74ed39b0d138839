//! A received message with its receipt and attributes.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};

use super::Queue;
use broker_domain::Timestamp;
use broker_runtime::trace::{ReceivedPoll, Span, TraceContext};

/// One received message.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The label of its queue.
    pub queue: Arc<str>,
    /// The text that was sent.
    pub body: String,
    /// The receipt, for an [`Acknowledger`](super::Acknowledger).
    pub receipt: String,
    /// SQS's id of the message.
    pub message_id: String,
    /// The number of receives, this one included.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// When it was first received.
    pub first_received_at: Timestamp,
    /// For a message that redrive moved to a dead-letter queue: the ARN of the queue it came from.
    pub dead_letter_source: Option<String>,
    /// Its string attributes.
    pub attributes: BTreeMap<String, String>,
    /// The poll that returned it.
    pub poll: ReceivedPoll,
}

impl Delivery {
    /// The span of processing this message; `traceparent` is that of its body.
    pub fn processing(&self, traceparent: Option<&str>) -> Span {
        let sent_by = traceparent.and_then(TraceContext::parse);
        if let Some(sent_by) = sent_by {
            self.poll.link(sent_by);
        }
        let mut span = Span::process(&self.queue, sent_by);
        if span.is_recorded() {
            span.set("messaging.message.id", self.message_id.clone());
            span.set("broker.receives", i64::from(self.receive_count));
        }
        span
    }

    /// From a message of `poll` of `queue`.
    pub(super) fn read(message: Message, queue: &Queue, poll: ReceivedPoll, now: Timestamp) -> Self {
        let system = message.attributes.unwrap_or_default();
        let text = |name| system.get(&name).map(String::as_str);
        let time = |name| text(name).and_then(|ms| ms.parse().ok()).map(Timestamp::from_ms);
        let sent_at = time(MessageSystemAttributeName::SentTimestamp).unwrap_or(now);
        metrics::histogram!("broker_message_age_seconds", "queue" => queue.metric_label())
            .record(now.since(sent_at).as_secs_f64());
        Self {
            queue: Arc::clone(queue.label()),
            poll,
            receive_count: text(MessageSystemAttributeName::ApproximateReceiveCount)
                .and_then(|count| count.parse().ok())
                .unwrap_or(1),
            sent_at,
            first_received_at: time(MessageSystemAttributeName::ApproximateFirstReceiveTimestamp)
                .unwrap_or(now),
            dead_letter_source: text(MessageSystemAttributeName::DeadLetterQueueSourceArn).map(str::to_owned),
            body: message.body.unwrap_or_default(),
            receipt: message.receipt_handle.unwrap_or_default(),
            message_id: message.message_id.unwrap_or_default(),
            attributes: message
                .message_attributes
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(name, value)| value.string_value.map(|value| (name, value)))
                .collect(),
        }
    }
}
