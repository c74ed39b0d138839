//! Senders of replies, one per reply queue.
//!
//! Invariant: bounded; the least recently used sender is evicted. A sender that is evicted or forgotten finishes its
//! messages. Reply queues are not created or checked; one that is gone is [`SendError::Gone`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{QueueUrls, ReplyQueueName, SendError, Sender};
use broker_runtime::trace::Span;

/// SQS: "you must wait at least one second after the queue is created to be able to use the queue" (CreateQueue).
const A_NEW_QUEUE_IS_KNOWN: Duration = Duration::from_millis(1_500);

/// Senders by reply queue; clones share them.
#[derive(Clone, Debug)]
pub struct ReplySenders {
    client: aws_sdk_sqs::Client,
    urls: QueueUrls,
    /// Their common label.
    label: Arc<str>,
    in_flight: usize,
    bound: usize,
    recent: Arc<Mutex<Recent>>,
}

#[derive(Debug, Default)]
struct Recent {
    uses: u64,
    senders: HashMap<ReplyQueueName, (u64, Sender)>,
}

impl ReplySenders {
    /// The default number of senders: more than there are API processes.
    pub const BOUND: usize = 256;

    /// Each sender has at most `in_flight` calls in flight, and at most `bound` senders are kept.
    pub fn new(client: aws_sdk_sqs::Client, urls: QueueUrls, in_flight: usize, bound: usize) -> Self {
        let label = urls.names().reply_template();
        Self { client, urls, label, in_flight, bound: bound.max(1), recent: Arc::default() }
    }

    /// The span of a reply that is about to be sent; the reply carries its `traceparent`.
    pub fn sending(&self) -> Span {
        Span::send(&self.label)
    }

    /// Sends `body` to `queue`. [`SendError::Gone`]: the process that waited has ended.
    pub async fn send(&self, queue: &ReplyQueueName, body: String) -> Result<(), SendError> {
        let sent = self.sender(queue).send(body).await;
        if matches!(sent, Err(SendError::Gone { .. })) {
            self.recent().senders.remove(queue);
        }
        sent
    }

    /// Sends `body` to `queue` once more, later, in the background. For a reply queue that was not found: SQS may not know a
    /// new queue everywhere for a second after its creation. A queue that is gone stays gone.
    pub fn retry_later(&self, queue: &ReplyQueueName, body: String) {
        let (senders, queue) = (self.clone(), queue.clone());
        tokio::spawn(async move {
            tokio::time::sleep(A_NEW_QUEUE_IS_KNOWN).await;
            if let Err(error) = senders.send(&queue, body).await {
                tracing::debug!(%queue, %error, "reply not sent");
            }
        });
    }

    /// The number of senders kept.
    pub fn kept(&self) -> usize {
        self.recent().senders.len()
    }

    #[cfg(test)]
    pub(super) fn keeps(&self, queue: &ReplyQueueName) -> bool {
        self.recent().senders.contains_key(queue)
    }

    fn sender(&self, queue: &ReplyQueueName) -> Sender {
        let mut recent = self.recent();
        recent.uses += 1;
        let now = recent.uses;
        if let Some((last_used, sender)) = recent.senders.get_mut(queue) {
            *last_used = now;
            return sender.clone();
        }
        if recent.senders.len() >= self.bound {
            recent.evict_oldest();
        }
        let sender = Sender::new(self.client.clone(), self.urls.reply(queue), self.in_flight);
        recent.senders.insert(queue.clone(), (now, sender.clone()));
        sender
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn evict_oldest(&mut self) {
        let oldest = self.senders.iter().min_by_key(|(_, (last_used, _))| *last_used);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.senders.remove(&name);
        }
    }
}
