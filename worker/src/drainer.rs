//! Drainer: moves messages from a dead-letter queue into the table, where an operator finds them.
//!
//! Order: **keep the dead letter (and fail its asynchronous request, in one write) → delete the message**. Every worker drains
//! both queues; a message that two of them receive, or that comes back, is one dead letter. Invariant: a message leaves the
//! queue only after its dead letter is kept; what the table refuses stays visible to the console and the AWS CLI.

use std::error::Error;
use std::sync::Arc;

use broker_domain::Source;
use broker_queue::{Acknowledger, Delivery, PollOptions, QueueKind, QueueUrls, Receiver};
use broker_runtime::aws::Aws;
use broker_runtime::clock::Clock;
use broker_runtime::config::Config;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use broker_runtime::lifecycle::Lifecycle;
use broker_store::{Kept, Store, StoreError, retry_on_conflict};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::consuming::{self, chain};
use crate::health::Health;

/// Dead letters that are kept at a time: enough for full batches of every call.
const AT_ONCE: usize = 50;
/// Concurrent polls; there is mostly nothing to receive.
const MAX_POLLS: usize = 4;
/// Delete calls in flight at once.
const MAX_IN_FLIGHT: usize = 2;

/// Drains the dead-letter queue of one source.
#[derive(Debug)]
pub(crate) struct Drainer {
    source: Source,
    receiver: Receiver,
    acks: Acknowledger,
    store: Store,
    health: Health,
    clock: Clock,
    entropy: Entropy,
}

impl Drainer {
    pub(crate) fn new(
        source: Source,
        aws: &Aws,
        urls: &QueueUrls,
        store: Store,
        health: &Health,
        config: &Config,
        (clock, entropy): (Clock, Entropy),
    ) -> Self {
        let queue = urls.get(match source {
            Source::Requests => QueueKind::RequestsDlq,
            Source::Maintenance => QueueKind::MaintenanceDlq,
        });
        let options =
            PollOptions { wait: config.poll_wait, visibility: Some(config.visibility), max_polls: MAX_POLLS };
        let (client, acks) =
            (aws.sqs_receive.clone(), Acknowledger::new(aws.sqs.clone(), queue.clone(), MAX_IN_FLIGHT));
        let receiver = Receiver::new(client, queue, clock.clone(), entropy.clone(), options)
            .with_permits(Arc::new(Semaphore::new(AT_ONCE)))
            .with_gate(health.gate());
        Self { source, receiver, acks, store, health: health.clone(), clock, entropy }
    }

    /// Drains until the lifecycle's soft end.
    pub(crate) async fn run(self: Arc<Self>, lifecycle: Lifecycle) {
        let (receiver, entropy) = (self.receiver.clone(), self.entropy.clone());
        let queue = match self.source {
            Source::Requests => "requests-dlq",
            Source::Maintenance => "maintenance-dlq",
        };
        let work = move |delivery, permit| {
            let drainer = Arc::clone(&self);
            async move { drainer.drain(&delivery, permit).await }
        };
        consuming::consume(receiver, queue, entropy, lifecycle, work).await;
    }

    /// Keeps one dead letter. If that fails, the message comes back after its visibility timeout, and finds its own success.
    async fn drain(&self, delivery: &Delivery, permit: Option<OwnedSemaphorePermit>) {
        if let Err(error) = self.keep(delivery).await {
            if error.is_retryable() {
                self.health.suspect();
            }
            let cause = chain(&error);
            tracing::error!(message_id = delivery.message_id, cause, "a dead letter stays in its queue");
            return;
        }
        crash_points::point(Point::LetterKept);
        drop(permit);
        if let Err(error) = self.acks.delete(&delivery.receipt).await {
            let error: &dyn Error = &error;
            tracing::warn!(message_id = delivery.message_id, error, "not deleted");
        }
    }

    async fn keep(&self, delivery: &Delivery) -> Result<(), StoreError> {
        let letter = broker_dead_letters::read(self.source, delivery, self.clock.now());
        let kept =
            retry_on_conflict(&self.entropy, || broker_dead_letters::keep(&self.store, &letter)).await?;
        if kept == Kept::New {
            let code = letter.reason.as_str();
            metrics::counter!("broker_dead_letters_total", "reason" => code).increment(1);
            tracing::error!(
                letter = %letter.id,
                queue = letter.source.as_str(),
                kind = letter.kind(),
                code,
                reason = letter.reason_text,
                receives = letter.receives,
                request_id = letter.summary.request_id.map(tracing::field::display),
                "dead letter"
            );
        }
        Ok(())
    }
}
