//! Handler of a dead-letter queue: moves its messages into the table, where an operator finds them.
//!
//! Order: **keep the dead letter (and fail its asynchronous request, in one write) → delete the message**. Every worker drains
//! both queues; a message that two of them receive, or that comes back, is one dead letter. Invariant: a message leaves the
//! queue only after its dead letter is kept; what the table refuses stays visible to the console and the AWS CLI.

use broker_domain::{DeadLetter, Source, Timestamp};
use broker_queue::{Delivery, QueueKind};
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use broker_runtime::errors::chain;
use broker_store::{Store, StoreError, retry_on_conflict};

use super::disposition::Disposition;
use super::{Consumer, Description, Handler, Intake, Services};
use crate::finality::HandlerError;
use crate::health::Health;
use crate::letters::was_kept;

/// Dead letters that are kept at a time: enough for full batches of every call.
const AT_ONCE: usize = 50;
/// Concurrent polls; there is mostly nothing to receive.
const MAX_POLLS: usize = 4;

/// Keeps the dead letters of one source.
#[derive(Debug)]
pub(crate) struct DeadLetterHandler {
    source: Source,
    store: Store,
    health: Health,
    entropy: Entropy,
}

impl Handler for DeadLetterHandler {
    type Message = DeadLetter;

    fn decode(&self, delivery: &Delivery, now: Timestamp) -> Result<DeadLetter, Disposition> {
        Ok(broker_dead_letters::read(self.source, delivery, now))
    }

    fn describe<'m>(&self, _letter: &'m DeadLetter) -> Option<Description<'m>> {
        None
    }

    /// Keeps one dead letter. If that fails, the message comes back after its visibility timeout, and finds its own success.
    async fn handle(&self, delivery: &Delivery, letter: &DeadLetter) -> Result<Disposition, HandlerError> {
        if let Err(error) = self.keep(letter).await {
            if error.is_retryable() {
                self.health.suspect();
            }
            let cause = chain(&error);
            tracing::error!(message_id = delivery.message_id, cause, "a dead letter stays in its queue");
            return Ok(Disposition::Leave);
        }
        crash_points::point(Point::LetterKept);
        Ok(Disposition::Done)
    }
}

impl DeadLetterHandler {
    /// The consumer of `queue`, the dead-letter queue of `source`.
    pub(crate) fn consumer(services: &Services, source: Source, queue: QueueKind) -> Consumer<Self> {
        let Services { store, health, entropy, .. } = services.clone();
        let bounds = Intake { queue, at_once: AT_ONCE, max_polls: MAX_POLLS };
        Consumer::new(services, bounds, Self { source, store, health, entropy })
    }

    async fn keep(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let kept =
            retry_on_conflict(&self.entropy, || broker_dead_letters::keep(&self.store, letter)).await?;
        if kept.is_applied() {
            was_kept(letter);
        }
        Ok(())
    }
}
