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
    /// to the process that waits. Whether it has ended: of a request that waits on nothing is stored, and nothing is told.
    pub(crate) async fn reply(
        &self,
        message: &RequestMessage,
        request: &Request,
        reply_to: &ReplyQueueName,
        outcome: Outcome,
    ) -> Result<bool, ReplyError> {
        let outcome = if self.nobody_waits(message) || is_only_told(&message.body, &outcome) {
            let Some(stored) = self.store_outcome(request, outcome, None).await? else { return Ok(false) };
            crash_points::point(Point::OutcomeStored);
            stored
        } else {
            outcome
        };
        if !message.asynchronous {
            self.tell(message, request, reply_to, outcome).await?;
        }
        Ok(true)
    }

    /// Sends `outcome`, which is stored if it has to be, to the process that waits.
    ///
    /// # Errors
    ///
    /// [`ReplyError::Send`] if SQS refuses it and its process still waits, [`ReplyError::Store`] if that process is gone and the
    /// outcome could not be stored.
    pub(crate) async fn tell(
        &self,
        message: &RequestMessage,
        request: &Request,
        reply_to: &ReplyQueueName,
        outcome: Outcome,
    ) -> Result<(), ReplyError> {
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
                if self.store_outcome(request, outcome, None).await?.is_some() {
                    self.replies.retry_later(reply_to, reply);
                }
                Ok(())
            }
            Err(error @ SendError::Refused { .. }) => {
                // The process that waits finds it at the end of the wait.
                self.store_outcome(request, outcome, None).await?;
                Err(error.into())
            }
            Err(error @ SendError::Unavailable { .. }) if self.nobody_waits(message) => {
                tracing::info!(request_id = %message.request_id, "reply not sent, the outcome is stored: {error}");
                Ok(())
            }
            Err(error @ SendError::Unavailable { .. }) => Err(error.into()),
        }
    }

    /// Whether no call waits for the reply to `message`, or none any more.
    fn nobody_waits(&self, message: &RequestMessage) -> bool {
        message.asynchronous || self.clock.now() > message.times().reply_by
    }

    /// Stores `outcome`, and in which line the request stood; if it has an outcome already, that one stays and counts. `None` if it
    /// has none and this is not one of it: a replay gave it more time, or it stands in a line and a copy of its message died.
    pub(crate) async fn store_outcome(
        &self,
        request: &Request,
        outcome: Outcome,
        stood_in: Option<&Line>,
    ) -> Result<Option<Outcome>, StoreError> {
        let record = PersistedRequest {
            parked: stood_in.cloned(),
            ..request.record(None, RequestState::Ended(outcome.clone()))
        };
        Ok(match self.store.requests.complete(&record).await? {
            Write::Applied => Some(outcome),
            Write::Rejected(before) => match before.state {
                RequestState::Ended(first) => Some(first),
                RequestState::Queued => None,
            },
        })
    }
}

/// Whether `outcome` would be nowhere but in the reply: without that, the record would be queued for as long as it is kept, since a
/// return never expires, or until a deadline that is hours away. What was returned stands on the sandbox, what was granted in the
/// record itself; and an allocation that may not wait is recorded only when its call ends, and ends soon after it.
const fn is_only_told(body: &Body, outcome: &Outcome) -> bool {
    match body {
        Body::Allocate { .. } => body.may_wait() && !matches!(outcome, Outcome::Created(_)),
        Body::MarkForDeletion { .. } => !matches!(outcome, Outcome::Marked { .. }),
    }
}
