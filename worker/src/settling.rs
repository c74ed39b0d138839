//! What becomes of a received message: deleted, given back, or kept as a dead letter with its reason.
//!
//! Invariant: a message is deleted only when it is done with, or after its copy was sent: a new one for a newer worker, or
//! its dead letter. What it does not do: decide.

use std::error::Error;
use std::time::Duration;

use broker_messages::DecodeError;
use broker_queue::{
    Delivery, KeptHidden, NotAReplyQueue, Outgoing, QueueKind, QueueUrls, SendError, Sender, Settler,
};
use broker_runtime::aws::Aws;
use broker_runtime::crash_points::{self, Point};

/// Calls of each kind under way (deletes, visibility changes).
const FLIGHTS: usize = 4;

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is done with.
    Done,
    /// It is to be received again, after a while; that costs it a receive.
    GiveBack(Duration),
    /// It is to be received again, after a while, as a new message: nothing is wrong with it.
    PutBack(Duration),
    /// It can never succeed.
    DeadLetter { code: &'static str, reason: String },
}

impl Verdict {
    /// Of a message that cannot be read: one of a newer version waits `newer_waits` for a newer worker.
    pub(crate) fn of_unreadable(error: &DecodeError, newer_waits: Duration) -> Self {
        if let DecodeError::NewerVersion { found } = error {
            tracing::warn!(found, "message of a newer version put back");
            return Self::PutBack(newer_waits);
        }
        Self::DeadLetter { code: error.reason_code(), reason: error.to_string() }
    }

    /// Of a message that asks for its reply to be sent where none of our processes waits.
    pub(crate) fn of_foreign(error: &NotAReplyQueue) -> Self {
        Self::DeadLetter { code: "foreign_reply_queue", reason: error.to_string() }
    }
}

/// Settles what one queue delivered.
#[derive(Clone, Debug)]
pub(crate) struct Settling {
    settler: Settler,
    again: Sender,
    dead_letters: Sender,
    source: String,
}

impl Settling {
    /// For `queue`, whose dead letters go to `dlq`.
    pub(crate) fn new(aws: &Aws, urls: &QueueUrls, queue: QueueKind, dlq: QueueKind) -> Self {
        Self {
            settler: Settler::new(aws.sqs.clone(), urls.get(queue), FLIGHTS),
            again: Sender::new(aws.sqs.clone(), urls.get(queue), 1),
            dead_letters: Sender::new(aws.sqs.clone(), urls.get(dlq), 1),
            source: urls.names().name(queue),
        }
    }

    /// Keeps a message from others while it is worked on.
    pub(crate) fn keep_hidden(&self, delivery: &Delivery, visibility: Duration) -> KeptHidden {
        self.settler.keep_hidden(delivery.receipt.clone(), visibility)
    }

    /// Does what the verdict says. What fails here comes back after its visibility timeout, and finds its own success.
    pub(crate) async fn settle(&self, delivery: &Delivery, verdict: &Verdict) {
        if let Err(error) = self.carry_out(delivery, verdict).await {
            tracing::warn!(message_id = delivery.message_id, error, "not settled");
        }
    }

    async fn carry_out(&self, delivery: &Delivery, verdict: &Verdict) -> Result<(), Box<dyn Error>> {
        match verdict {
            Verdict::Done => crash_points::point(Point::BeforeDelete),
            Verdict::GiveBack(after) => return Ok(self.settler.give_back(&delivery.receipt, *after).await?),
            Verdict::PutBack(after) => self.again.send(copy(delivery).with_delay(*after)).await?,
            Verdict::DeadLetter { code, reason } => {
                self.send_to_dlq(delivery, code, reason).await?;
                crash_points::point(Point::Buried);
            }
        }
        Ok(self.settler.delete(&delivery.receipt).await?)
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

/// The same message as a new one, whose receives count anew.
fn copy(delivery: &Delivery) -> Outgoing {
    let copy = Outgoing::from(delivery.body.clone());
    delivery.attributes.iter().fold(copy, |copy, (name, value)| copy.with_attribute(name, value))
}
