//! Reply queue of this process: created, polled, replaced when it is gone, deleted at the end.
//!
//! Invariant: while there is a [`Channel`], its reply queue exists as far as is known; without one no request is sent and the
//! process is not ready. A queue that was swept is replaced under a new name, which new requests carry. Waiters are in
//! [`reply_router`](crate::rpc::reply_router).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_domain::Timestamp;
use broker_messages::Reply;
use broker_queue::{
    Acknowledger, Delivery, PollOptions, Queue, QueueError, QueueKind, QueueNames, QueueUrls, ReceiveEnd,
    Receiver, ReplyQueueName, Sender, topology,
};
use broker_runtime::config::ConfigError;
use broker_runtime::process::Process;
use broker_store::heartbeat;
use broker_store::{Instance, Role, SeenEmpty, SelfReport, SettingsError, Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::metrics;
use crate::rpc::reply_router::ReplyRouter;

/// The most concurrent polls, when replies come in full batches.
const MAX_POLLS: usize = 8;
/// Delete calls in flight at once.
const DELETES_IN_FLIGHT: usize = 2;
/// The approximate pause before unreachable queues are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The queues of request and reply.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Sends to the requests queue.
    pub(crate) requests: Sender,
    /// Sends to the maintenance queue.
    pub(crate) maintenance: Sender,
    /// The reply queue that requests carry.
    pub(crate) reply_to: ReplyQueueName,
    /// Whether the table took the last heartbeat: one that is full, or may not be written, answers reads all the same.
    pub(crate) table_is_written: Arc<AtomicBool>,
}

/// The current channel, if there is one. Clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    channel: watch::Receiver<Option<Arc<Channel>>>,
    /// When the requests queue was last seen without a message.
    empty: watch::Sender<Option<Timestamp>>,
    /// Whether it ever was: the first time is told at once.
    was_empty: watch::Sender<bool>,
}

impl Link {
    /// The channel, if the queues exist.
    pub(crate) fn channel(&self) -> Option<Arc<Channel>> {
        self.channel.borrow().clone()
    }

    /// The requests queue had no message at `now`.
    pub(crate) fn saw_empty(&self, now: Timestamp) {
        self.empty.send_replace(Some(now));
        self.was_empty.send_if_modified(|was_empty| !std::mem::replace(was_empty, true));
    }

    /// A channel that never changes.
    #[cfg(test)]
    pub(crate) fn fixed(channel: Option<Channel>) -> Self {
        Self {
            channel: watch::channel(channel.map(Arc::new)).1,
            empty: watch::channel(None).0,
            was_empty: watch::channel(false).0,
        }
    }
}

/// Why the reply queue was not created.
#[derive(Debug, thiserror::Error)]
enum NotMade {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The table's data was written with another setting.
    #[error(transparent)]
    Setting(ConfigError),
}

impl From<SettingsError> for NotMade {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::Store(error) => Self::Store(error),
            SettingsError::Setting(error) => Self::Setting(error),
        }
    }
}

/// Keeps the channel open.
pub(crate) struct ReplyQueue {
    process: Process,
    store: Store,
    replies: ReplyRouter,
    link: watch::Sender<Option<Arc<Channel>>>,
    requests_empty: watch::Receiver<Option<Timestamp>>,
    /// When it changes, a heartbeat is due.
    told: watch::Receiver<bool>,
}

impl ReplyQueue {
    /// Nothing is created before it runs.
    pub(crate) fn new(process: Process, store: Store, replies: ReplyRouter) -> (Self, Link) {
        let (link, channel) = watch::channel(None);
        let (empty, requests_empty) = watch::channel(None);
        let (was_empty, told) = watch::channel(false);
        (Self { process, store, replies, link, requests_empty, told }, Link { channel, empty, was_empty })
    }

    /// Keeps a reply queue until `stop`, then deletes it. Where a setting is not the table's, the process is told to end, and `Err`
    /// says which.
    pub(crate) async fn run(self, names: QueueNames, stop: CancellationToken) -> Result<(), ConfigError> {
        let resolve = || async { Ok(QueueUrls::resolve(&self.process.aws, &names).await?) };
        let Some(urls) = self.until_it_works(&stop, resolve).await? else { return Ok(()) };
        let to = |kind| Sender::new(self.process.aws.sqs.clone(), urls.get(kind), Sender::MAX_IN_FLIGHT);
        let (requests, maintenance) = (to(QueueKind::Requests), to(QueueKind::Maintenance));
        loop {
            // One id for all attempts: the next attempt finds what a failed one created.
            let id = self.process.entropy.uuid();
            let create = || self.create(&urls, id);
            let made = self.until_it_works(&stop, create).await;
            if made.is_err() {
                self.process.lifecycle.soft.cancel();
                heartbeat::forget(&self.store, id).await;
            }
            let Some((name, queue)) = made? else { return Ok(()) };
            tracing::info!(queue = %name, "reply queue created");
            let table_is_written = Arc::new(AtomicBool::new(true));
            self.link.send_replace(Some(Arc::new(Channel {
                table_is_written: Arc::clone(&table_is_written),
                requests: requests.clone(),
                maintenance: maintenance.clone(),
                reply_to: name.clone(),
            })));
            // After the stop no call waits any more: messages of a poll under way are useless, and the queue is deleted. The
            // poll need not be waited for.
            let lives = CancellationToken::new();
            let clock = self.process.clock.clone();
            let empty = self.requests_empty.clone();
            let report = move || SelfReport {
                seen_empty: SeenEmpty { requests: *empty.borrow(), maintenance: None },
                ..SelfReport::default()
            };
            let written = move |is_written| table_is_written.store(is_written, Ordering::Relaxed);
            let (store, me) = (self.store.clone(), (id, Role::Api));
            let heartbeat =
                heartbeat::keep(store, me, clock, report, written, self.told.clone(), lives.clone());
            let heartbeat = tokio::spawn(heartbeat);
            let ended = stop.run_until_cancelled(self.receive(queue)).await;
            self.link.send_replace(None);
            match ended {
                Some(ReceiveEnd::QueueGone) => {
                    tracing::warn!(queue = %name, "reply queue is gone, creating a new one")
                }
                Some(ReceiveEnd::Stopped) | None => self.delete(&urls, &name).await,
            }
            // Last: a queue that could not be deleted is found by its instance.
            lives.cancel();
            if let Err(error) = heartbeat.await {
                tracing::warn!(%error, "heartbeat task failed");
            }
        }
    }

    /// The reply queue of `id`. The instance is written under that id first, so that no queue is left unseen. May be repeated:
    /// an existing queue is used.
    async fn create(&self, urls: &QueueUrls, id: Uuid) -> Result<(ReplyQueueName, Queue), NotMade> {
        self.store.instances.heartbeat(&Instance::new(id, Role::Api, self.process.clock.now())).await?;
        // `broker pool reshard` marks the table, and then looks for instances.
        self.store.pool.check_settings(&self.process.config.prefix).await?;
        let key = self.process.config.reply_queue_kms_key.as_deref();
        Ok(topology::create_reply_queue(&self.process.aws, urls, id, key).await?)
    }

    /// Repeats `attempt` until it succeeds, or until `stop`. A running attempt is never dropped: it may have created something. A
    /// setting that is not the table's does not pass.
    async fn until_it_works<T, F>(
        &self,
        stop: &CancellationToken,
        attempt: impl Fn() -> F,
    ) -> Result<Option<T>, ConfigError>
    where
        F: Future<Output = Result<T, NotMade>>,
    {
        while !stop.is_cancelled() {
            match attempt().await {
                Ok(made) => return Ok(Some(made)),
                Err(NotMade::Setting(error)) => return Err(error),
                Err(error @ (NotMade::Store(_) | NotMade::Queue(_))) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "queues not available, trying again");
                }
            }
            let pause = self.process.entropy.jitter(TRY_AGAIN);
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        Ok(None)
    }

    async fn receive(&self, queue: Queue) -> ReceiveEnd {
        let Process { config, clock, entropy, aws, .. } = &self.process;
        let acks = Acknowledger::new(aws.sqs.clone(), queue.clone(), DELETES_IN_FLIGHT);
        let replies = self.replies.clone();
        let options = PollOptions { wait: config.poll_wait, visibility: None, max_polls: MAX_POLLS };
        let receiver = Receiver::new(aws.sqs_receive.clone(), queue, clock.clone(), entropy.clone(), options);
        // It ends when the queue is gone, or is dropped by the caller.
        let never = CancellationToken::new();
        receiver.run(never, move |delivery, _unbounded| hand_on(&replies, &acks, delivery)).await
    }

    async fn delete(&self, urls: &QueueUrls, name: &ReplyQueueName) {
        match topology::delete_reply_queue(&self.process.aws, urls, name).await {
            Ok(()) => tracing::info!(queue = %name, "reply queue deleted"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(queue = %name, error, "reply queue not deleted; the sweep job will");
            }
        }
    }
}

/// Delivers a reply, then deletes the message. An unreadable one is deleted, too: no other process reads it.
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
            tracing::warn!(message_id = delivery.message_id, reason, error, "unreadable reply");
        }
    }
    let acks = acks.clone();
    tokio::spawn(async move {
        // A reply that stays is received again, finds no waiter, and is deleted then, or expires after five minutes.
        if let Err(error) = acks.delete(&delivery.receipt).await {
            tracing::debug!(%error, "reply not deleted");
        }
    });
}
