//! Consumer of the requests queue: permit → receive → handle → reply → delete.
//!
//! Invariants: no more is received than can be started; a message is deleted only after its outcome is stored or sent, or
//! after its dead letter is sent; a message that cannot be processed affects no other; one key holds a share of the permits
//! at most.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use broker_domain::{Outcome, Reason, SandboxId, TrackName};
use broker_messages::{Request, RequestMessage};
use broker_queue::{
    Delivery, OldestAge, PollOptions, QueueKind, QueueNames, QueueUrls, Receiver, ReplyQueueName,
};
use broker_runtime::aws::Aws;
use broker_runtime::clock::Clock;
use broker_runtime::config::Config;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::trace;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::consuming::{self, chain};
use crate::disposition::{Disposition, QueueAcks};
use crate::finality::{Finality, Next, Refusals};
use crate::handlers::{HandlerError, Handlers};
use crate::health::Health;
use crate::reply::{ReplyError, ReplySender};
use crate::shares::{self, Shares};

/// The most concurrent polls; SQS returns ten messages a poll.
const MAX_POLLS: usize = 8;
/// How long a message of a newer version waits for a newer worker at first.
const NEWER_VERSION_WAITS: Duration = Duration::from_secs(5);

/// How long a request waits in the queue whose key has too many before it.
const CROWDED_KEY_WAITS: Duration = Duration::from_secs(1);

/// Consumes the requests queue.
#[derive(Debug)]
pub(crate) struct Consumer {
    receiver: Receiver,
    acks: QueueAcks,
    visibility: Duration,
    names: QueueNames,
    handlers: Handlers,
    replies: ReplySender,
    health: Health,
    shares: Shares,
    clock: Clock,
    entropy: Entropy,
}

impl Consumer {
    #[expect(clippy::too_many_arguments, reason = "called once, by worker::run")]
    pub(crate) fn new(
        aws: &Aws,
        urls: &QueueUrls,
        handlers: Handlers,
        replies: ReplySender,
        health: Health,
        config: &Config,
        clock: Clock,
        entropy: Entropy,
    ) -> Self {
        let queue = urls.get(QueueKind::Requests);
        let options =
            PollOptions { wait: config.poll_wait, visibility: Some(config.visibility), max_polls: MAX_POLLS };
        let receiver = Receiver::new(aws.sqs_receive.clone(), queue, clock.clone(), entropy.clone(), options)
            .with_permits(Arc::new(Semaphore::new(config.worker_concurrency)))
            .with_gate(health.gate());
        Self {
            receiver,
            acks: QueueAcks::new(aws, urls, QueueKind::Requests, QueueKind::RequestsDlq),
            visibility: config.visibility,
            names: urls.names().clone(),
            handlers,
            replies,
            health,
            shares: Shares::of(config.worker_concurrency),
            clock,
            entropy,
        }
    }

    /// The age of the oldest message received recently.
    pub(crate) fn oldest_age(&self) -> OldestAge {
        self.receiver.oldest_age()
    }

    /// Consumes until the lifecycle's soft end. Messages received by then are finished on the lifecycle's tracker.
    pub(crate) async fn run(self: Arc<Self>, lifecycle: Lifecycle) {
        let (receiver, entropy) = (self.receiver.clone(), self.entropy.clone());
        let stop = lifecycle.soft.clone();
        let work = move |delivery, permit| {
            let (consumer, stop) = (Arc::clone(&self), stop.clone());
            async move { consumer.consume(delivery, permit, &stop).await }
        };
        consuming::consume(receiver, "requests", entropy, lifecycle, work).await;
    }

    /// Processes a message; after half of its visibility timeout it is kept hidden.
    async fn consume(
        &self,
        delivery: Delivery,
        permit: Option<OwnedSemaphorePermit>,
        stop: &CancellationToken,
    ) {
        let began = self.clock.instant();
        crash_points::point(Point::Received);
        let mut work = pin!(self.work(&delivery, permit, stop));
        let soon = tokio::time::timeout(self.visibility / 2, work.as_mut()).await;
        let disposition = if let Ok(disposition) = soon {
            disposition
        } else {
            let _hidden = self.acks.keep_hidden(&delivery, self.visibility);
            work.await
        };
        self.acks.apply(&delivery, &disposition).await;
        metrics::histogram!("broker_message_handling_seconds")
            .record(self.clock.instant().duration_since(began));
    }

    /// Decodes a message and processes it in its trace, once its key's share has room. The permit is free when it returns.
    async fn work(
        &self,
        delivery: &Delivery,
        permit: Option<OwnedSemaphorePermit>,
        stop: &CancellationToken,
    ) -> Disposition {
        let now = self.clock.now();
        let message = match RequestMessage::decode_taken(&delivery.body, delivery.sent_at.max(now)) {
            Ok(message) => message,
            Err(error) => return Disposition::of_unreadable(&error, delivery, NEWER_VERSION_WAITS, now),
        };
        let reply_to = match self.names.parse_reply(&message.reply_to) {
            Ok(reply_to) => reply_to,
            Err(error) => return Disposition::of_foreign(&error),
        };
        let request = Request::from(&message);
        let entering = self.shares.enter(shares::key_of(&request), permit);
        let _share = match stop.run_until_cancelled(entering).await {
            Some(Some(share)) => share,
            Some(None) => return Disposition::Resend(CROWDED_KEY_WAITS),
            None => return Disposition::MakeVisible(Duration::ZERO),
        };
        let mut span = delivery.processing(message.traceparent.as_deref());
        span.set("broker.kind", message.body.kind());
        span.set("broker.request_id", message.request_id.to_string());
        trace::within(span.context(), self.process_and_reply(delivery, &message, &request, &reply_to, stop))
            .await
    }

    /// Handles a message and replies, again and again while AWS is down: an outage costs a message no receive, so that redrive
    /// moves only messages that crash workers. It ends with a reply, or when the message can never succeed.
    async fn process_and_reply(
        &self,
        delivery: &Delivery,
        message: &RequestMessage,
        request: &Request,
        reply_to: &ReplyQueueName,
        stop: &CancellationToken,
    ) -> Disposition {
        let (mut refusals, mut dead) = (Refusals::default(), None);
        for attempt in 0_u32.. {
            let error = match self.attempt(delivery, message, request, reply_to, dead.as_ref()).await {
                Ok(disposition) => return disposition,
                Err(error) => error,
            };
            match refusals.judge(error.finality(), self.handlers.store()).await {
                Next::End(code) => {
                    let letter = DeadLetter { code, reason: chain(&error) };
                    match error {
                        Undone::Handler(_) => dead = Some(letter),
                        // Not even that can be replied.
                        Undone::Reply(_) => return letter.disposition(),
                    }
                    continue;
                }
                Next::AtOnce => continue,
                Next::Later => {}
            }
            self.health.suspect();
            let cause = chain(&error);
            tracing::warn!(request_id = %message.request_id, attempt, cause, "not done, tried again soon");
            let pause = consuming::backoff(attempt, &self.entropy);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Disposition::MakeVisible(Duration::ZERO);
            }
        }
        Disposition::MakeVisible(Duration::ZERO)
    }

    /// One attempt: handles the message and replies; one that is `dead` gets only its reply.
    async fn attempt(
        &self,
        delivery: &Delivery,
        message: &RequestMessage,
        request: &Request,
        reply_to: &ReplyQueueName,
        dead: Option<&DeadLetter>,
    ) -> Result<Disposition, Undone> {
        let (disposition, outcome) = match dead {
            Some(letter) => (letter.disposition(), Outcome::DeadLettered { reason: letter.code.to_owned() }),
            None => {
                let outcome = self.handlers.handle(request).await?;
                (disposition_of(&outcome), outcome)
            }
        };
        self.reply(delivery, message, reply_to, outcome).await?;
        Ok(disposition)
    }

    async fn reply(
        &self,
        delivery: &Delivery,
        message: &RequestMessage,
        reply_to: &ReplyQueueName,
        outcome: Outcome,
    ) -> Result<(), ReplyError> {
        let (word, grant) = (outcome.as_str(), outcome.grant().cloned());
        let returned = outcome.returned().cloned();
        self.replies.reply(message, reply_to, outcome).await?;
        metrics::counter!("broker_requests_handled_total", "kind" => message.body.kind(), "outcome" => word)
            .increment(1);
        let age = self.clock.now().since(message.times().enqueued_at);
        // What a table that was restored does not know is read from this line (`broker_domain::reconcile::HandedOut`).
        let sandbox_id = grant.as_ref().map(|grant| &grant.sandbox_id).or(returned.as_ref());
        let track_name = grant.as_ref().and_then(|grant| grant.track_name.as_ref());
        tracing::info!(
            request_id = %message.request_id,
            sandbox_id = sandbox_id.map(SandboxId::as_str),
            external_id = grant.as_ref().map(|grant| grant.external_id.as_str()),
            name = grant.as_ref().map(|grant| grant.name.as_str()),
            idempotency_key = message.body.idempotency_key(),
            track_name = track_name.map(TrackName::as_str),
            allocated_at = grant.as_ref().map(|grant| grant.allocated_at.as_secs()),
            expires_at = grant.as_ref().map(|grant| grant.expires_at.as_secs()),
            returned = returned.is_some(),
            trace_id = trace::current().map(|context| context.trace_id()),
            kind = message.body.kind(),
            track = %message.body.track(),
            outcome = word,
            receives = delivery.receive_count,
            age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            "handled"
        );
        Ok(())
    }
}

/// Why a message is not done.
#[derive(Debug, thiserror::Error)]
enum Undone {
    #[error(transparent)]
    Handler(#[from] HandlerError),
    #[error(transparent)]
    Reply(#[from] ReplyError),
}

impl Undone {
    const fn finality(&self) -> Finality {
        match self {
            Self::Handler(error) => error.finality(),
            Self::Reply(error) => error.finality(),
        }
    }
}

/// The reason why a message can never succeed.
#[derive(Debug)]
struct DeadLetter {
    code: &'static str,
    reason: String,
}

impl DeadLetter {
    fn disposition(&self) -> Disposition {
        Disposition::DeadLetter { code: self.code, reason: self.reason.clone() }
    }
}

/// The disposition of a message whose request ended so. If the stored outcome is a dead letter, the copy is sent again: the
/// worker that stored it may have died before it sent the copy.
fn disposition_of(outcome: &Outcome) -> Disposition {
    match outcome {
        Outcome::DeadLettered { reason } => Disposition::DeadLetter {
            code: Reason::parse(reason).unwrap_or(Reason::Unknown).as_str(),
            reason: "its record says that it is a dead letter".to_owned(),
        },
        Outcome::Created(_)
        | Outcome::Existing(_)
        | Outcome::NoSandboxes
        | Outcome::KeyReused
        | Outcome::Superseded
        | Outcome::Marked { .. }
        | Outcome::NotOwner
        | Outcome::AllocationExpired
        | Outcome::SandboxNotFound
        | Outcome::Expired
        | Outcome::Cancelled
        | Outcome::Ran(_) => Disposition::Done,
    }
}
