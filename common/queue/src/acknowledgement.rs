//! Acknowledgement of received messages: delete, make visible again, or keep hidden during the work.
//!
//! Deletions and visibility changes go through batchers of their own. An expired receipt is an outcome
//! ([`AcknowledgeError::Lapsed`]). Nothing is repeated.

use std::time::Duration;

use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry};
use tokio::task::JoinHandle;

use super::error::{Failure, entry_results};
use super::sender::BATCH;
use super::{AcknowledgeError, Queue};
use broker_runtime::aws::{BatchLost, Batcher, Bounds};

/// SQS: the longest visibility timeout.
const LONGEST_HIDDEN: Duration = Duration::from_secs(12 * 60 * 60);
/// Between deletions that are not full batches: no caller waits for them, and it is short beside any visibility timeout.
const DELETION_SPACING: Duration = Duration::from_millis(100);
/// After a failed extension, the next is tried after this part of the visibility timeout.
const RETRY_PART: u32 = 8;

type Results = Vec<Result<(), Failure>>;

/// Acknowledges the messages of one queue; clones share the calls in flight.
#[derive(Clone, Debug)]
pub struct Acknowledger {
    queue: Queue,
    deletions: Batcher<String, Result<(), Failure>>,
    visibilities: Batcher<(String, Duration), Result<(), Failure>>,
}

impl Acknowledger {
    /// Acknowledges messages of `queue`, with at most `in_flight` calls of each kind in flight.
    pub fn new(client: aws_sdk_sqs::Client, queue: Queue, in_flight: usize) -> Self {
        // A receipt is some hundred bytes: the number of entries is the bound.
        let bounds = Bounds {
            in_flight,
            items: BATCH,
            weight: usize::MAX,
            min_interval: Duration::ZERO,
            max_wait: Bounds::MAX_WAIT,
        };
        let calls = Calls { client, queue: queue.clone() };
        let deletions = {
            let calls = calls.clone();
            let bounds = Bounds { min_interval: DELETION_SPACING, ..bounds };
            Batcher::new(bounds, |_| 1, move |batch| calls.clone().delete(batch))
        };
        let visibilities = Batcher::new(bounds, |_| 1, move |batch| calls.clone().change_visibility(batch));
        Self { queue, deletions, visibilities }
    }

    /// Deletes a message that is done.
    pub async fn delete(&self, receipt: &str) -> Result<(), AcknowledgeError> {
        self.result(self.deletions.submit(receipt.to_owned()).await)
    }

    /// Makes the message visible again `after` a while (rounded up to whole seconds, at most 12 hours; 0 is at once).
    pub async fn make_visible_after(&self, receipt: &str, after: Duration) -> Result<(), AcknowledgeError> {
        self.result(self.visibilities.submit((receipt.to_owned(), after.min(LONGEST_HIDDEN))).await)
    }

    /// Extends the message's visibility timeout, which is `visibility`, each time half of it has passed, until the guard is
    /// dropped. An extension that is in flight at that moment may still take effect: it only delays a message that is made
    /// visible.
    pub fn keep_hidden(&self, receipt: impl Into<String>, visibility: Duration) -> KeptHidden {
        KeptHidden(tokio::spawn(keep_extending(self.clone(), receipt.into(), visibility)))
    }

    fn result(&self, result: Result<Result<(), Failure>, BatchLost>) -> Result<(), AcknowledgeError> {
        Failure::of_batch(result).map_err(|failure| failure.into_acknowledge_error(self.queue.label()))
    }
}

async fn keep_extending(acks: Acknowledger, receipt: String, visibility: Duration) {
    let mut next = visibility / 2;
    loop {
        tokio::time::sleep(next).await;
        next = match acks.make_visible_after(&receipt, visibility).await {
            Ok(()) => visibility / 2,
            Err(AcknowledgeError::Lapsed { code }) => {
                tracing::warn!(queue = %acks.queue.label(), code, "visibility lost during the work");
                return;
            }
            Err(error @ AcknowledgeError::Unavailable { .. }) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "visibility not extended, trying again");
                visibility / RETRY_PART
            }
        };
    }
}

/// Keeps a message hidden until dropped.
#[derive(Debug)]
#[must_use = "dropped, it stops"]
pub struct KeptHidden(JoinHandle<()>);

impl KeptHidden {
    #[cfg(test)]
    pub(crate) fn has_lapsed(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for KeptHidden {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Rounded up: half a second must not become none.
fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1_000)).unwrap_or(i32::MAX)
}

/// The two batch calls.
#[derive(Clone)]
struct Calls {
    client: aws_sdk_sqs::Client,
    queue: Queue,
}

impl Calls {
    async fn delete(self, receipts: Vec<String>) -> Results {
        let count = receipts.len();
        let entries = receipts.into_iter().enumerate().filter_map(|(position, receipt)| {
            let entry =
                DeleteMessageBatchRequestEntry::builder().id(position.to_string()).receipt_handle(receipt);
            entry.build().ok()
        });
        let call = self.client.delete_message_batch().queue_url(self.queue.url());
        match call.set_entries(Some(entries.collect())).send().await {
            Ok(done) => entry_results(count, done.successful().iter().map(|entry| entry.id()), done.failed()),
            Err(error) => vec![Err(Failure::of_call(error)); count],
        }
    }

    async fn change_visibility(self, changes: Vec<(String, Duration)>) -> Results {
        let count = changes.len();
        let entries = changes.into_iter().enumerate().filter_map(|(position, (receipt, hidden))| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(position.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(whole_seconds(hidden));
            entry.build().ok()
        });
        let call = self.client.change_message_visibility_batch().queue_url(self.queue.url());
        match call.set_entries(Some(entries.collect())).send().await {
            Ok(done) => entry_results(count, done.successful().iter().map(|entry| entry.id()), done.failed()),
            Err(error) => vec![Err(Failure::of_call(error)); count],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_never_shortened_to_none() {
        let hidden = |ms| whole_seconds(Duration::from_millis(ms));
        assert_eq!([hidden(0), hidden(1), hidden(999), hidden(1_000), hidden(1_001)], [0, 1, 1, 1, 2]);
    }
}
