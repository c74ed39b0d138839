//! Reply sender: stores the outcome of a request and sends the reply.
//!
//! Invariant: **write state → send reply → delete message**, in this order; the consumer deletes. A reply is a wake-up: its
//! outcome is stored already, or the caller may safely repeat.

use broker_domain::waiting::Line;
use broker_domain::{Outcome, PersistedRequest, RequestState};
use broker_messages::{Body, Reply, Request, RequestMessage};
use broker_queue::{QueueUrls, ReplyQueueName, ReplySenders, SendError, Sender};
use broker_runtime::aws::Aws;
use broker_runtime::clock::Clock;
use broker_runtime::crash_points::{self, Point};
use broker_store::{Store, StoreError, Write};

use crate::finality::ReplyError;

/// Reply queues whose senders are kept; there is one per API process.
const REPLY_QUEUES: usize = 256;

/// Stores outcomes and sends replies.
#[derive(Debug)]
pub(crate) struct ReplySender {
    store: Store,
    replies: ReplySenders,
    clock: Clock,
}

impl ReplySender {
    pub(crate) fn new(aws: &Aws, urls: &QueueUrls, store: Store, clock: Clock) -> Self {
        Self {
            store,
            replies: ReplySenders::new(aws.sqs.clone(), urls.clone(), Sender::MAX_IN_FLIGHT, REPLY_QUEUES),
            clock,
        }
    }

    /// Ends `message` with `outcome`: stored if the caller waits no more or if only the reply would hold it, then sent
    /// to the process that waits.
    pub(crate) async fn reply(
        &self,
        message: &RequestMessage,
        request: &Request,
        reply_to: &ReplyQueueName,
        outcome: Outcome,
    ) -> Result<(), ReplyError> {
        let nobody_waits = message.asynchronous || self.clock.now() > message.times().reply_by;
        let outcome = if nobody_waits || is_only_told(message, &outcome) {
            let stored = self.store_outcome(request, outcome, None).await?;
            crash_points::point(Point::OutcomeStored);
            stored
        } else {
            outcome
        };
        if message.asynchronous {
            return Ok(());
        }
        let mut sending = self.replies.sending();
        let reply = Reply::to(message, outcome.clone()).traced(sending.traceparent()).encode();
        let sent = self.replies.send(reply_to, reply.clone()).await;
        if sent.is_err() {
            sending.failed("not_sent");
        }
        drop(sending);
        match sent {
            Ok(()) => {
                crash_points::point(Point::Replied);
                Ok(())
            }
            Err(SendError::Gone { .. }) => {
                // The process that waited is gone, or has a new reply queue and will record the request as queued; or its queue is so
                // new that SQS does not know it everywhere yet, and the caller need not wait to the end.
                tracing::info!(request_id = %message.request_id, "the reply queue is gone: the outcome is stored");
                self.store_outcome(request, outcome, None).await?;
                self.replies.retry_later(reply_to, reply);
                Ok(())
            }
            Err(error @ SendError::Refused { .. }) => {
                // The process that waits finds it at the end of the wait.
                self.store_outcome(request, outcome, None).await?;
                Err(error.into())
            }
            Err(error @ SendError::Unavailable { .. }) if nobody_waits => {
                tracing::info!(request_id = %message.request_id, "reply not sent, the outcome is stored: {error}");
                Ok(())
            }
            Err(error @ SendError::Unavailable { .. }) => Err(error.into()),
        }
    }

    /// Stores `outcome`, and in which line the request stood; if it has an outcome already, that one stays and counts.
    pub(crate) async fn store_outcome(
        &self,
        request: &Request,
        outcome: Outcome,
        stood_in: Option<&Line>,
    ) -> Result<Outcome, StoreError> {
        let record = PersistedRequest {
            parked: stood_in.cloned(),
            ..request.record(None, RequestState::Ended(outcome.clone()))
        };
        match self.store.requests.complete(&record).await? {
            Write::Applied => Ok(outcome),
            Write::Rejected(before) => match before.state {
                RequestState::Ended(first) => Ok(first),
                RequestState::Queued => Ok(outcome),
            },
        }
    }
}

/// Whether `outcome` would be nowhere but in the reply. A return never expires, so without its reply its record would be
/// queued for as long as it is kept. What was returned stands on the sandbox, and an allocation ends at its deadline.
const fn is_only_told(message: &RequestMessage, outcome: &Outcome) -> bool {
    match message.body {
        Body::Allocate { .. } => false,
        Body::MarkForDeletion { .. } => !matches!(outcome, Outcome::Marked { .. }),
    }
}
