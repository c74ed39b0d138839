//! Consumers of the worker's queues: permit → receive → decode → handle → acknowledge. Each queue has its [`Handler`].
//!
//! Invariants: no more is received than can be started; a message is deleted only after its handler said what becomes of it;
//! a message that cannot be processed affects no other; one key and one tenant hold a share of the permits at
//! most; messages received
//! before the soft end are processed, on the lifecycle's tracker. A message's permit is dropped when its work is done: the
//! acknowledgement may wait for others and holds up nothing.

mod dead_letters;
mod disposition;
mod maintenance;
mod requests;

pub(crate) use dead_letters::DeadLetterHandler;
pub(crate) use maintenance::MaintenanceHandler;
pub(crate) use requests::RequestHandler;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use broker_domain::{RequestId, Timestamp};
use broker_queue::{Delivery, OldestAge, PollOptions, QueueKind, QueueUrls, ReceiveEnd, Receiver};
use broker_runtime::aws::Aws;
use broker_runtime::backoff::Backoff;
use broker_runtime::clock::Clock;
use broker_runtime::config::Config;
use broker_runtime::entropy::Entropy;
use broker_runtime::errors::chain;
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::trace;
use broker_store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::finality::{Finality, HandlerError, Next, Refusals};
use crate::health::Health;
use crate::shares::{Party, Shares};

use disposition::{Disposition, QueueAcks};

/// How long a request waits in the queue whose key has too many before it.
const CROWDED_KEY_WAITS: Duration = Duration::from_secs(1);
/// How long a message that only a newer worker can handle waits for one at first.
const NEWER_WAITS: Duration = Duration::from_secs(5);
/// The pause before a queue that is gone is polled again.
const QUEUE_GONE_PAUSE: Duration = Duration::from_secs(5);

/// The processing of one queue's messages.
pub(crate) trait Handler: fmt::Debug + Send + Sync + 'static {
    /// A decoded message.
    type Message: Send + Sync;

    /// The message in `delivery`; an undecodable one's disposition.
    fn decode(&self, delivery: &Delivery, now: Timestamp) -> Result<Self::Message, Disposition>;

    /// What its log lines and its span say of a message; `None`: it has no span.
    fn describe<'m>(&self, message: &'m Self::Message) -> Option<Description<'m>>;

    /// Whose message it is: a key and a tenant hold a share of the permits at most.
    fn party(&self, delivery: &Delivery, _message: &Self::Message) -> Party {
        Party::alone(&delivery.message_id)
    }

    /// Processes a message. Safe to call any number of times with the same one.
    fn handle(
        &self,
        delivery: &Delivery,
        message: &Self::Message,
    ) -> impl Future<Output = Result<Disposition, HandlerError>> + Send;

    /// Replies that a message becomes a dead letter of this code.
    fn reply_dead(
        &self,
        _delivery: &Delivery,
        _message: &Self::Message,
        _code: &'static str,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        async { Ok(()) }
    }

    /// Whether a message that ended so can ever be done.
    fn finality(&self, error: &HandlerError) -> Finality {
        error.finality()
    }

    /// A message was acknowledged after this time.
    fn acknowledged(&self, _after: Duration) {}
}

/// What a message's log lines and span say of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description<'m> {
    kind: &'static str,
    request_id: Option<RequestId>,
    traceparent: Option<&'m str>,
}

/// The queue of a consumer, and its bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intake {
    queue: QueueKind,
    /// Messages that are processed at a time.
    at_once: usize,
    max_polls: usize,
}

/// The consumer of one queue.
#[derive(Debug)]
pub(crate) struct Consumer<H> {
    handler: H,
    queue: QueueKind,
    receiver: Receiver,
    acks: QueueAcks,
    visibility: Duration,
    shares: Shares,
    services: Services,
}

/// What every consumer works with.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) aws: Aws,
    pub(crate) urls: QueueUrls,
    pub(crate) store: Store,
    pub(crate) health: Health,
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
}

impl<H: Handler> Consumer<H> {
    /// Passes the messages of the queue to `handler`.
    pub(crate) fn new(services: &Services, bounds: Intake, handler: H) -> Self {
        let Services { aws, urls, health, config, clock, entropy, .. } = services;
        let Intake { queue, at_once, max_polls } = bounds;
        let visibility = config.visibility;
        let options = PollOptions { wait: config.poll_wait, visibility: Some(visibility), max_polls };
        let client = aws.sqs_receive.clone();
        let receiver = Receiver::new(client, urls.get(queue), clock.clone(), entropy.clone(), options)
            .with_permits(Arc::new(Semaphore::new(at_once)))
            .with_gate(health.gate());
        Self {
            handler,
            queue,
            receiver,
            acks: QueueAcks::new(aws, urls, queue, config.poll_wait),
            visibility,
            shares: Shares::of(at_once),
            services: services.clone(),
        }
    }

    /// The age of the oldest message received recently.
    pub(crate) fn oldest_age(&self) -> OldestAge {
        self.receiver.oldest_age()
    }

    /// Consumes until the lifecycle's soft end. Messages received by then are finished, or made visible again.
    pub(crate) async fn run(self, lifecycle: Lifecycle) {
        let consumer = Arc::new(self);
        loop {
            let (consumer, lifecycle) = (Arc::clone(&consumer), lifecycle.clone());
            let receiver = consumer.receiver.clone();
            let (queue, entropy) = (consumer.queue, consumer.services.entropy.clone());
            let stop = lifecycle.soft.clone();
            let spawn = move |delivery, permit| {
                let (consumer, stop) = (Arc::clone(&consumer), lifecycle.soft.clone());
                lifecycle.tracker.spawn(async move { consumer.consume(delivery, permit, &stop).await });
            };
            match receiver.run(stop.clone(), spawn).await {
                ReceiveEnd::Stopped => return,
                ReceiveEnd::QueueGone => {
                    tracing::error!(queue = queue.suffix(), "the queue is gone: run `broker init`");
                    let pause = tokio::time::sleep(entropy.jitter(QUEUE_GONE_PAUSE));
                    if stop.run_until_cancelled(pause).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Processes a message, which is kept hidden meanwhile.
    async fn consume(
        &self,
        delivery: Delivery,
        permit: Option<OwnedSemaphorePermit>,
        stop: &CancellationToken,
    ) {
        let began = self.services.clock.instant();
        // A dead letter is kept with one write: it needs no more time.
        let hidden = self.queue.dlq().map(|_| self.acks.keep_hidden(&delivery, self.visibility));
        let disposition =
            self.process(&delivery, permit, stop).await.unwrap_or_else(|disposition| disposition);
        // Hidden until its copy is there: one that became visible before would be two.
        let hidden = hidden.filter(|_| disposition.is_sent_on());
        self.acks.apply(&delivery, &disposition).await;
        drop(hidden);
        self.handler.acknowledged(self.services.clock.instant().duration_since(began));
    }

    /// Decodes a message and processes it in its trace, once its key's share has room. The permit is free when it returns.
    /// `Err` is the disposition of a message that no handler had.
    async fn process(
        &self,
        delivery: &Delivery,
        permit: Option<OwnedSemaphorePermit>,
        stop: &CancellationToken,
    ) -> Result<Disposition, Disposition> {
        let message = self.handler.decode(delivery, self.services.clock.now())?;
        let entering = self.shares.enter(self.handler.party(delivery, &message), permit);
        let entered = stop.run_until_cancelled(entering).await;
        let entered = entered.ok_or(Disposition::GiveBack)?;
        let _share = entered.ok_or(Disposition::Resend(CROWDED_KEY_WAITS))?;
        let description = self.handler.describe(&message);
        let span = description.map(|Description { kind, request_id, traceparent }| {
            let mut span = delivery.processing(traceparent);
            span.set("broker.kind", kind);
            if let Some(request_id) = request_id {
                span.set("broker.request_id", request_id.to_string());
            }
            span
        });
        let context = span.as_ref().and_then(trace::Span::context);
        Ok(trace::within(context, self.retry_until_done(delivery, &message, description, stop)).await)
    }

    /// Handles a message, again and again while AWS is down: an outage costs a message no receive, so that redrive moves only
    /// messages that crash workers. It ends when the message is done, or can never be done.
    async fn retry_until_done(
        &self,
        delivery: &Delivery,
        message: &H::Message,
        description: Option<Description<'_>>,
        stop: &CancellationToken,
    ) -> Disposition {
        let Services { store, health, entropy, .. } = &self.services;
        let (mut refusals, mut dead) = (Refusals::default(), None::<(&'static str, String)>);
        for attempt in 0_u32.. {
            let done = match &dead {
                None => self.handler.handle(delivery, message).await,
                Some((code, reason)) => self
                    .handler
                    .reply_dead(delivery, message, code)
                    .await
                    .map(|()| Disposition::DeadLetter { code, reason: reason.clone() }),
            };
            let error = match done {
                Ok(disposition) => return disposition,
                Err(error) => error,
            };
            match refusals.judge(self.handler.finality(&error), store).await {
                // Not even that can be replied.
                Next::End(code) if matches!(error, HandlerError::Reply(_)) => {
                    return Disposition::DeadLetter { code, reason: chain(&error) };
                }
                Next::End(code) => {
                    dead = Some((code, chain(&error)));
                    continue;
                }
                Next::Newer => {
                    let now = self.services.clock.now();
                    return Disposition::for_newer(&chain(&error), delivery, NEWER_WAITS, now);
                }
                Next::AtOnce => continue,
                Next::Later => {}
            }
            health.suspect();
            let (message_id, cause) = (&delivery.message_id, chain(&error));
            let request_id = description.and_then(|of| of.request_id).map(tracing::field::display);
            let kind = description.map(|of| of.kind);
            tracing::warn!(request_id, message_id, kind, attempt, cause, "not done, tried again soon");
            let pause = tokio::time::sleep(Backoff::OUTAGE.jittered(attempt, entropy));
            if stop.run_until_cancelled(pause).await.is_none() {
                break;
            }
        }
        Disposition::GiveBack
    }
}
