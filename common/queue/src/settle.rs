//! What becomes of a received message: deleted, given back, or kept hidden while it is worked on.
//!
//! Deletions and visibility changes go through coalescers of their own. Losing a receipt is an outcome
//! ([`SettleError::Lapsed`]). What it does not do: decide, or repeat.

use std::time::Duration;

use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry};
use tokio::task::JoinHandle;

use super::error::{Failure, entry_results};
use super::sender::BATCH;
use super::{Queue, SettleError};
use broker_runtime::aws::{BatchLost, Batcher, Bounds};

/// SQS: the longest visibility timeout.
const LONGEST_HIDDEN: Duration = Duration::from_secs(12 * 60 * 60);
/// Between deletions that are not full batches: nobody waits for them, and it is short beside any visibility timeout.
const DELETION_SPACING: Duration = Duration::from_millis(100);
/// After a failed extension, the next is tried after this part of the visibility timeout.
const RETRY_PART: u32 = 8;

type Results = Vec<Result<(), Failure>>;

/// Settles what was received from one queue; clones share their flights.
#[derive(Clone, Debug)]
pub struct Settler {
    queue: Queue,
    deletions: Batcher<String, Result<(), Failure>>,
    visibilities: Batcher<(String, Duration), Result<(), Failure>>,
}

impl Settler {
    /// A settler for `queue` with at most `flights` calls of each kind under way.
    pub fn new(client: aws_sdk_sqs::Client, queue: Queue, flights: usize) -> Self {
        // A receipt is some hundred bytes: the number of entries is the bound.
        let bounds = Bounds {
            flights,
            items: BATCH,
            weight: usize::MAX,
            min_interval: Duration::ZERO,
            max_wait: Bounds::PATIENCE,
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

    /// Acknowledges: the message is done with.
    pub async fn delete(&self, receipt: &str) -> Result<(), SettleError> {
        self.settled(self.deletions.submit(receipt.to_owned()).await)
    }

    /// Lets the message be received again `after` a while (rounded up to whole seconds, at most 12 hours; 0 is at once).
    pub async fn give_back(&self, receipt: &str, after: Duration) -> Result<(), SettleError> {
        self.settled(self.visibilities.submit((receipt.to_owned(), after.min(LONGEST_HIDDEN))).await)
    }

    /// Extends the message's visibility timeout, which is `visibility`, each time half of it has passed, until the guard
    /// is dropped. An extension that is under way at that moment may still take effect: it only delays a message that
    /// is given back.
    pub fn keep_hidden(&self, receipt: impl Into<String>, visibility: Duration) -> KeptHidden {
        KeptHidden(tokio::spawn(keep_extending(self.clone(), receipt.into(), visibility)))
    }

    fn settled(&self, result: Result<Result<(), Failure>, BatchLost>) -> Result<(), SettleError> {
        Failure::of_flight(result).map_err(|failure| failure.into_settle_error(self.queue.label()))
    }
}

async fn keep_extending(settler: Settler, receipt: String, visibility: Duration) {
    let mut next = visibility / 2;
    loop {
        tokio::time::sleep(next).await;
        next = match settler.give_back(&receipt, visibility).await {
            Ok(()) => visibility / 2,
            Err(SettleError::Lapsed { code }) => {
                tracing::warn!(queue = %settler.queue.label(), code, "lost a message while it was worked on");
                return;
            }
            Err(error @ SettleError::Unavailable { .. }) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "could not keep a message hidden, trying again");
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
    /// Whether it gave up because the message is no longer ours.
    pub fn has_lapsed(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for KeptHidden {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Rounded up: half a second of patience is not none.
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
