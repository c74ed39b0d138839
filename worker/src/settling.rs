//! What becomes of a received message: deleted, given back, or kept as a dead letter with its reason.
//!
//! Invariant: a message is deleted only when it is done with, or after its dead letter was sent.

use std::time::Duration;

use broker_common::aws::Aws;
use broker_common::queue::{
    Delivery, KeptHidden, Outgoing, QueueKind, QueueUrls, SendError, Sender, Settler,
};

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

/// Characters of a dead letter's reason; SQS counts attributes against the size of a message.
const LONGEST_REASON: usize = 1_000;

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
        let sent = match verdict {
            Verdict::Done => Ok(()),
            Verdict::GiveBack(after) => {
                if let Err(error) = self.settler.give_back(&delivery.receipt, *after).await {
                    tracing::warn!(message_id = delivery.message_id, "not given back: {error}");
                }
                return;
            }
            Verdict::PutBack(after) => {
                self.again.send(Outgoing::from(delivery.body.clone()).with_delay(*after)).await
            }
            Verdict::DeadLetter { code, reason } => self.bury(delivery, code, reason).await,
        };
        if let Err(error) = sent {
            tracing::error!(
                message_id = delivery.message_id,
                "copy not sent, the message comes back: {error}"
            );
            return;
        }
        if let Err(error) = self.settler.delete(&delivery.receipt).await {
            tracing::warn!(message_id = delivery.message_id, "not deleted: {error}");
        }
    }

    /// Sends a copy of the message to the dead-letter queue, with its reason.
    async fn bury(&self, delivery: &Delivery, code: &'static str, reason: &str) -> Result<(), SendError> {
        tracing::error!(message_id = delivery.message_id, code, reason, "dead letter");
        metrics::counter!("broker_dead_letters_total", "reason" => code).increment(1);
        let letter = Outgoing::from(delivery.body.clone())
            .with_attribute("reason_code", code)
            .with_attribute("reason", attribute_text(reason))
            .with_attribute("source", &self.source)
            .with_attribute("source_message_id", &delivery.message_id)
            .with_attribute("receives", delivery.receive_count.to_string());
        self.dead_letters.send(letter).await
    }
}

/// `text` as SQS takes it in an attribute: no control characters, at most [`LONGEST_REASON`] of them.
fn attribute_text(text: &str) -> String {
    let visible = |c: char| if c.is_control() || c > '\u{ffef}' { ' ' } else { c };
    text.chars().map(visible).take(LONGEST_REASON).collect()
}
