//! Fair queues: messages of groups wait in lines, one for each group, before the library's queue.
//!
//! SQS delivers the messages of quiet groups first when one group of a standard queue is noisy. Here a message of a group goes
//! into the library's queue when a receive has room for it, one of each group in turn. The backlog of one group delays the
//! messages of another by one turn. A message without a group does not wait. Invariants: a message
//! is in a line or in the library's queue, and its move is not cancelled before its end; while a receive waits, no message
//! stays in a line.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use broker_runtime::entropy::Entropy;
use rustack_sqs_core::{
    message::{md5_of_body, md5_of_message_attributes, now_epoch_millis},
    provider::RustackSqs,
    queue::extract_queue_name,
};
use rustack_sqs_model::{
    error::SqsError,
    input::{GetQueueAttributesInput, ReceiveMessageInput, SendMessageInput},
    output::{ReceiveMessageOutput, SendMessageOutput},
};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{
    as_sent::{ATTRIBUTE, AsSent},
    missing::{exists, no_such_queue},
};

/// Attributes that a message may have; one more goes with a message that waits in a line.
const ATTRIBUTE_LIMIT: usize = 10;

/// The fair queues of an endpoint, by name.
pub(super) struct FairQueues {
    provider: Arc<RustackSqs>,
    entropy: Entropy,
    queues: Mutex<HashMap<String, Arc<FairQueue>>>,
}

/// One queue's lines, and how many messages the receives that wait would take.
#[derive(Default)]
struct FairQueue {
    lines: Arc<AsyncMutex<Groups>>,
    wanted: AtomicUsize,
}

/// Messages by group, and whose turn it is.
#[derive(Default)]
struct Groups {
    of_groups: HashMap<String, VecDeque<SendMessageInput>>,
    turns: VecDeque<String>,
}

impl Groups {
    fn push(&mut self, group: String, message: SendMessageInput) {
        let line = self.of_groups.entry(group.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(group);
        }
        line.push_back(message);
    }

    /// The next message, of the group whose turn it is.
    fn next(&mut self) -> Option<SendMessageInput> {
        let group = self.turns.pop_front()?;
        let line = self.of_groups.get_mut(&group)?;
        let message = line.pop_front();
        if line.is_empty() {
            self.of_groups.remove(&group);
        } else {
            self.turns.push_back(group);
        }
        message
    }

    fn len(&self) -> usize {
        self.of_groups.values().map(VecDeque::len).sum()
    }
}

/// The part of a receive in [`FairQueue::wanted`], until it is dropped.
struct ReceiveTurn<'a> {
    of: &'a FairQueue,
    messages: usize,
}

impl<'a> ReceiveTurn<'a> {
    fn by(of: &'a FairQueue, messages: usize) -> Self {
        of.wanted.fetch_add(messages, SeqCst);
        Self { of, messages }
    }
}

impl Drop for ReceiveTurn<'_> {
    fn drop(&mut self) {
        self.of.wanted.fetch_sub(self.messages, SeqCst);
    }
}

impl FairQueues {
    pub(super) fn new(provider: Arc<RustackSqs>, entropy: Entropy) -> Self {
        Self { provider, entropy, queues: Mutex::default() }
    }

    /// Sends a message, which waits in its group's line if it has one. What the library refuses or delays goes to it at once.
    pub(super) async fn send(&self, mut message: SendMessageInput) -> Result<SendMessageOutput, SqsError> {
        let group = message.message_group_id.take();
        let Some(group) = group.filter(|_| may_wait(&message)) else {
            return self.provider.send_message(message).await;
        };
        let [most_bytes, delay_s] =
            self.numbers(&message.queue_url, ["MaximumMessageSize", "DelaySeconds"]).await?;
        if delay_s > 0 || message.message_body.len() > most_bytes {
            return self.provider.send_message(message).await;
        }
        let output = SendMessageOutput {
            message_id: Some(self.entropy.uuid().to_string()),
            md5_of_message_body: Some(md5_of_body(&message.message_body)),
            md5_of_message_attributes: md5_of_message_attributes(&message.message_attributes),
            ..SendMessageOutput::default()
        };
        let as_sent = AsSent {
            message_id: output.message_id.clone().unwrap_or_default(),
            sent_ms: now_epoch_millis(),
            group: group.clone(),
        };
        message.message_attributes.insert(ATTRIBUTE.to_owned(), as_sent.to_attribute()?);

        let queue = self.queue(&message.queue_url);
        let mut lines = Arc::clone(&queue.lines).lock_owned().await;
        lines.push(group, message);
        let wanted = queue.wanted.load(SeqCst);
        self.pass_on(lines, wanted).await;
        Ok(output)
    }

    /// Receives as the library does, once the lines have given what is asked for.
    pub(super) async fn receive(
        &self,
        request: ReceiveMessageInput,
    ) -> Result<ReceiveMessageOutput, SqsError> {
        let most = usize::try_from(request.max_number_of_messages.unwrap_or(1)).unwrap_or(1);
        if !exists(&self.provider, &request.queue_url).await {
            return Err(no_such_queue());
        }
        let queue = self.queue(&request.queue_url);
        loop {
            let lines = Arc::clone(&queue.lines).lock_owned().await;
            if lines.turns.is_empty() {
                let _wanted = ReceiveTurn::by(&queue, most);
                drop(lines);
                return self.provider.receive_message(request).await;
            }
            // What is there already may be dead and give nothing: then the lines are asked again.
            let [there] = self.numbers(&request.queue_url, [VISIBLE]).await?;
            self.pass_on(lines, most.saturating_sub(there)).await;
            let at_once = ReceiveMessageInput { wait_time_seconds: Some(0), ..request.clone() };
            let output = self.provider.receive_message(at_once).await?;
            if !output.messages.is_empty() {
                return Ok(output);
            }
        }
    }

    /// How many messages wait in the lines of a queue.
    pub(super) async fn waiting(&self, queue_url: &str) -> usize {
        let known = self.known().get(name(queue_url)).cloned();
        match known {
            Some(queue) => queue.lines.lock().await.len(),
            None => 0,
        }
    }

    /// Forgets what waits in the lines of a queue, which was purged or deleted.
    pub(super) fn forget(&self, queue_url: &str) {
        self.known().remove(name(queue_url));
    }

    fn queue(&self, queue_url: &str) -> Arc<FairQueue> {
        Arc::clone(self.known().entry(name(queue_url).to_owned()).or_default())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<FairQueue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves up to `most` messages into the library's queue, also when the caller is dropped meanwhile.
    async fn pass_on(&self, mut lines: OwnedMutexGuard<Groups>, most: usize) {
        if most == 0 {
            return;
        }
        let provider = Arc::clone(&self.provider);
        let moved = tokio::spawn(async move {
            for message in std::iter::from_fn(|| lines.next()).take(most) {
                if let Err(error) = provider.send_message(message).await {
                    tracing::warn!(error = %error.message, "a message of a queue that is gone was dropped");
                }
            }
        });
        if let Err(error) = moved.await {
            tracing::error!(%error, "messages were not moved into their queue");
        }
    }

    /// Attributes of an existing queue.
    async fn numbers<const N: usize>(
        &self,
        queue_url: &str,
        names: [&str; N],
    ) -> Result<[usize; N], SqsError> {
        let attribute_names = names.map(str::to_owned).to_vec();
        let asked = GetQueueAttributesInput { queue_url: queue_url.to_owned(), attribute_names };
        let found = self.provider.get_queue_attributes(asked).await?.attributes;
        Ok(names.map(|name| found.get(name).and_then(|text| text.parse().ok()).unwrap_or_default()))
    }
}

/// The messages of a queue that a receive may take.
pub(super) const VISIBLE: &str = "ApproximateNumberOfMessages";

fn name(queue_url: &str) -> &str {
    extract_queue_name(queue_url).unwrap_or(queue_url)
}

/// Whether a message is of a standard queue, and as far as is seen here the library would take it at once.
fn may_wait(message: &SendMessageInput) -> bool {
    !message.queue_url.ends_with(".fifo")
        && message.delay_seconds.unwrap_or_default() == 0
        && !message.message_body.is_empty()
        && message.message_deduplication_id.is_none()
        && message.message_attributes.len() < ATTRIBUTE_LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_take_turns_and_each_keeps_its_order() {
        let mut lines = Groups::default();
        for (group, body) in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")] {
            let message = SendMessageInput { message_body: body.to_owned(), ..SendMessageInput::default() };
            lines.push(group.to_owned(), message);
        }
        assert_eq!(lines.len(), 6);
        let order: Vec<_> = std::iter::from_fn(|| lines.next()).map(|message| message.message_body).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(lines.of_groups.is_empty() && lines.turns.is_empty());
    }
}
