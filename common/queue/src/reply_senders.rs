//! Senders of replies, one per reply queue.
//!
//! Invariant: bounded; the least recently used sender is evicted. A sender that is evicted or forgotten finishes its
//! messages. Reply queues are not created or checked; one that is gone is [`SendError::Gone`].

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

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
    recent: Arc<Mutex<LruCache<ReplyQueueName, Sender>>>,
}

impl ReplySenders {
    /// Each sender has at most `in_flight` calls in flight, and at most `bound` senders are kept.
    pub fn new(client: aws_sdk_sqs::Client, urls: QueueUrls, in_flight: usize, bound: usize) -> Self {
        let label = urls.names().reply_template();
        let bound = NonZeroUsize::new(bound).unwrap_or(NonZeroUsize::MIN);
        let recent = Arc::new(Mutex::new(LruCache::new(bound)));
        Self { client, urls, label, in_flight, recent }
    }

    /// The span of a reply that is about to be sent; the reply carries its `traceparent`.
    pub fn sending(&self) -> Span {
        Span::send(&self.label)
    }

    /// Sends `body` to `queue`. [`SendError::Gone`]: the process that waited has ended.
    pub async fn send(&self, queue: &ReplyQueueName, body: String) -> Result<(), SendError> {
        let sent = self.sender(queue).send(body).await;
        if matches!(sent, Err(SendError::Gone { .. })) {
            self.recent().pop(queue);
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

    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.recent().len()
    }

    #[cfg(test)]
    pub(super) fn keeps(&self, queue: &ReplyQueueName) -> bool {
        self.recent().contains(queue)
    }

    fn sender(&self, queue: &ReplyQueueName) -> Sender {
        let new = || Sender::new(self.client.clone(), self.urls.reply(queue), self.in_flight);
        self.recent().get_or_insert_ref(queue, new).clone()
    }

    fn recent(&self) -> MutexGuard<'_, LruCache<ReplyQueueName, Sender>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
