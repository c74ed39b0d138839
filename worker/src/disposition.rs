//! Disposition of a received message: delete, make visible, resend, or send to the dead-letter queue.
//!
//! Invariant: a message is deleted only when it is done, or after its copy was sent: a new one for a newer worker, or its
//! dead letter.

use std::error::Error;
use std::time::Duration;

use broker_messages::DecodeError;
use broker_queue::{
    Acknowledger, Delivery, KeptHidden, NotAReplyQueue, Outgoing, QueueKind, QueueUrls, SendError, Sender,
};
use broker_runtime::aws::Aws;
use broker_runtime::crash_points::{self, Point};

/// Calls of each kind in flight (deletes, visibility changes).
const MAX_IN_FLIGHT: usize = 4;

/// The disposition of a message.
#[derive(Debug)]
pub(crate) enum Disposition {
    /// It is done: delete it.
    Done,
    /// Make it visible again after a while; that costs it a receive.
    MakeVisible(Duration),
    /// Send it again as a new message, with a delay: it costs no receive.
    Resend(Duration),
    /// It can never succeed: send it to the dead-letter queue.
    DeadLetter { code: &'static str, reason: String },
}

impl Disposition {
    /// Of an undecodable message: one of a newer version waits `newer_waits` for a newer worker.
    pub(crate) fn of_unreadable(error: &DecodeError, newer_waits: Duration) -> Self {
        if let DecodeError::NewerVersion { found } = error {
            tracing::warn!(found, "message of a newer version put back");
            return Self::Resend(newer_waits);
        }
        Self::DeadLetter { code: error.reason_code(), reason: error.to_string() }
    }

    /// Of a message whose `reply_to` is not a reply queue of this broker.
    pub(crate) fn of_foreign(error: &NotAReplyQueue) -> Self {
        Self::DeadLetter { code: "foreign_reply_queue", reason: error.to_string() }
    }
}

/// The acknowledgements of one queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueAcks {
    acks: Acknowledger,
    again: Sender,
    dead_letters: Sender,
    source: String,
}

impl QueueAcks {
    /// For `queue` with the dead-letter queue `dlq`.
    pub(crate) fn new(aws: &Aws, urls: &QueueUrls, queue: QueueKind, dlq: QueueKind) -> Self {
        Self {
            acks: Acknowledger::new(aws.sqs.clone(), urls.get(queue), MAX_IN_FLIGHT),
            again: Sender::new(aws.sqs.clone(), urls.get(queue), 1),
            dead_letters: Sender::new(aws.sqs.clone(), urls.get(dlq), 1),
            source: urls.names().name(queue),
        }
    }

    /// Keeps a message hidden while it is processed.
    pub(crate) fn keep_hidden(&self, delivery: &Delivery, visibility: Duration) -> KeptHidden {
        self.acks.keep_hidden(delivery.receipt.clone(), visibility)
    }

    /// Applies the disposition. If that fails, the message comes back after its visibility timeout, and finds its own success.
    pub(crate) async fn apply(&self, delivery: &Delivery, disposition: &Disposition) {
        if let Err(error) = self.try_apply(delivery, disposition).await {
            tracing::warn!(message_id = delivery.message_id, error, "not settled");
        }
    }

    async fn try_apply(&self, delivery: &Delivery, disposition: &Disposition) -> Result<(), Box<dyn Error>> {
        match disposition {
            Disposition::Done => crash_points::point(Point::BeforeDelete),
            Disposition::MakeVisible(after) => {
                return Ok(self.acks.make_visible_after(&delivery.receipt, *after).await?);
            }
            Disposition::Resend(after) => self.again.send(copy(delivery).with_delay(*after)).await?,
            Disposition::DeadLetter { code, reason } => {
                self.send_to_dlq(delivery, code, reason).await?;
                crash_points::point(Point::Buried);
            }
        }
        Ok(self.acks.delete(&delivery.receipt).await?)
    }

    /// Sends a copy of the message to the dead-letter queue, with its reason.
    async fn send_to_dlq(
        &self,
        delivery: &Delivery,
        code: &'static str,
        reason: &str,
    ) -> Result<(), SendError> {
        tracing::warn!(message_id = delivery.message_id, code, reason, "sent to the dead-letter queue");
        self.dead_letters
            .send(broker_dead_letters::dead_letter_message(delivery, &self.source, code, reason))
            .await
    }
}

/// The same message as a new one, with a new receive count.
fn copy(delivery: &Delivery) -> Outgoing {
    let copy = Outgoing::from(delivery.body.clone());
    delivery.attributes.iter().fold(copy, |copy, (name, value)| copy.with_attribute(name, value))
}
