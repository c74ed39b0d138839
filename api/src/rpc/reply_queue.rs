//! This process's reply queue: made, polled, replaced when it is gone, deleted at the end.
//!
//! Invariant: while there is a [`Channel`], its reply queue exists as far as is known; without one nothing is asked and
//! the process is not ready. A queue that was swept is replaced under a new name, and new requests carry that. What it
//! does not do: know who waits (that is [`replies`](crate::rpc::reply_router)).

use std::sync::Arc;
use std::time::Duration;

use broker_messages::Reply;
use broker_queue::{
    Acknowledger, Delivery, Ended, PollOptions, Queue, QueueError, QueueKind, QueueNames, QueueUrls,
    Receiver, ReplyQueueName, Sender, topology,
};
use broker_runtime::process::Process;
use broker_store::heartbeat;
use broker_store::{Instance, Received, Role, Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::metrics;
use crate::rpc::reply_router::ReplyRouter;

/// The most polls under way, when replies come in full batches.
const MAX_POLLS: usize = 8;
/// Calls that delete replies, under way at once.
const DELETES_IN_FLIGHT: usize = 2;
/// About how long to wait before queues that could not be reached are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How the workers are asked, and where they answer.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Sends to the requests queue.
    pub(crate) requests: Sender,
    /// Sends to the maintenance queue.
    pub(crate) maintenance: Sender,
    /// What requests carry.
    pub(crate) reply_to: ReplyQueueName,
}

/// The channel of this moment, if there is one. Clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct Link(watch::Receiver<Option<Arc<Channel>>>);

impl Link {
    /// The channel, if the queues are there.
    pub(crate) fn channel(&self) -> Option<Arc<Channel>> {
        self.0.borrow().clone()
    }

    /// One that stays as it is.
    #[cfg(test)]
    pub(crate) fn fixed(channel: Option<Channel>) -> Self {
        Self(watch::channel(channel.map(Arc::new)).1)
    }
}

/// Why there is no reply queue (yet).
#[derive(Debug, thiserror::Error)]
enum NotMade {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// What keeps the channel open.
pub(crate) struct ReplyQueue {
    process: Process,
    store: Store,
    replies: ReplyRouter,
    link: watch::Sender<Option<Arc<Channel>>>,
}

impl ReplyQueue {
    /// Nothing is made before it runs.
    pub(crate) fn new(process: Process, store: Store, replies: ReplyRouter) -> (Self, Link) {
        let (link, seen) = watch::channel(None);
        (Self { process, store, replies, link }, Link(seen))
    }

    /// Keeps a reply queue until `stop`, then deletes it.
    pub(crate) async fn run(self, names: QueueNames, stop: CancellationToken) {
        let resolve = || QueueUrls::resolve(&self.process.aws, &names);
        let Some(urls) = self.until_it_works(&stop, resolve).await else { return };
        let to = |kind| Sender::new(self.process.aws.sqs.clone(), urls.get(kind), Sender::MAX_IN_FLIGHT);
        let (requests, maintenance) = (to(QueueKind::Requests), to(QueueKind::Maintenance));
        loop {
            // One id for all attempts: what a failed one made is found by the next, not left behind.
            let id = self.process.entropy.uuid();
            let create = || self.create(&urls, id);
            let Some((name, queue)) = self.until_it_works(&stop, create).await else { return };
            tracing::info!(queue = %name, "reply queue created");
            self.link.send_replace(Some(Arc::new(Channel {
                requests: requests.clone(),
                maintenance: maintenance.clone(),
                reply_to: name.clone(),
            })));
            // Once stopped nobody waits any more: what a poll under way may still bring is of no use to anyone, and its
            // queue is deleted. This one receive need not be waited for.
            let lives = CancellationToken::new();
            let clock = self.process.clock.clone();
            let (store, received) = (self.store.clone(), Received::default);
            let heartbeat = heartbeat::keep(store, id, Role::Api, clock, received, lives.clone());
            let heartbeat = tokio::spawn(heartbeat);
            let ended = stop.run_until_cancelled(self.receive(queue)).await;
            self.link.send_replace(None);
            match ended {
                Some(Ended::QueueGone) => {
                    tracing::warn!(queue = %name, "the reply queue is gone, making a new one")
                }
                Some(Ended::Stopped) | None => self.delete(&urls, &name).await,
            }
            // Its end is the last thing: what could not be deleted is found by what it says.
            lives.cancel();
            if let Err(error) = heartbeat.await {
                tracing::warn!(%error, "the heartbeat ended badly");
            }
        }
    }

    /// The reply queue of `id`. The process says that it lives under that id first, so that nothing is left unseen. May be
    /// repeated: a queue that is there is the queue.
    async fn create(&self, urls: &QueueUrls, id: Uuid) -> Result<(ReplyQueueName, Queue), NotMade> {
        self.store.heartbeat(&Instance::new(id, Role::Api, self.process.clock.now())).await?;
        Ok(topology::create_reply_queue(&self.process.aws, urls, id).await?)
    }

    /// Tries until it works, or until `stop`. An attempt under way is never given up: it may have made something.
    async fn until_it_works<T, E, F>(&self, stop: &CancellationToken, attempt: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, E>>,
        E: std::error::Error + 'static,
    {
        while !stop.is_cancelled() {
            match attempt().await {
                Ok(made) => return Some(made),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the queues are not there, trying again");
                }
            }
            let pause = self.process.entropy.jitter(TRY_AGAIN);
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        None
    }

    async fn receive(&self, queue: Queue) -> Ended {
        let Process { config, clock, entropy, aws, .. } = &self.process;
        let acks = Acknowledger::new(aws.sqs.clone(), queue.clone(), DELETES_IN_FLIGHT);
        let replies = self.replies.clone();
        let options = PollOptions { wait: config.poll_wait, visibility: None, max_polls: MAX_POLLS };
        let receiver = Receiver::new(aws.sqs_receive.clone(), queue, clock.clone(), entropy.clone(), options);
        // It ends when the queue is gone, or is given up by whoever called.
        let never = CancellationToken::new();
        receiver.run(never, move |delivery, _unbounded| hand_on(&replies, &acks, delivery)).await
    }

    async fn delete(&self, urls: &QueueUrls, name: &ReplyQueueName) {
        match topology::delete_reply_queue(&self.process.aws, urls, name).await {
            Ok(()) => tracing::info!(queue = %name, "reply queue deleted"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(queue = %name, error, "could not delete the reply queue; it will be swept");
            }
        }
    }
}

/// Wakes whoever waits, then deletes the message. One that cannot be read is deleted, too: nobody else ever reads it.
fn hand_on(replies: &ReplyRouter, acks: &Acknowledger, delivery: Delivery) {
    match Reply::decode(&delivery.body) {
        Ok(reply) => {
            // Only where its sender is traced: a reply begins no trace.
            let _span = reply.traceparent.as_deref().map(|sender| delivery.processing(Some(sender)));
            if !replies.deliver(reply) {
                metrics::unclaimed_reply();
            }
        }
        Err(error) => {
            let reason = error.reason_code();
            let error: &dyn std::error::Error = &error;
            tracing::warn!(message_id = delivery.message_id, reason, error, "a reply cannot be read");
        }
    }
    let acks = acks.clone();
    tokio::spawn(async move {
        // A reply that stays is received again, wakes nobody, and is deleted then, or lapses after five minutes.
        if let Err(error) = acks.delete(&delivery.receipt).await {
            tracing::debug!(%error, "could not delete a reply");
        }
    });
}
