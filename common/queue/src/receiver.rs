//! The receiver of one queue: long polls, bounded by permits.
//!
//! A poll asks for no more messages than there are free permits, so every received message can be started at once. One long
//! poll waits while the queue is quiet; the number of polls follows the load (see `poll_concurrency`).
//!
//! Invariant: a poll that was sent is always awaited and its messages are handed on, also after `stop` and also when the
//! future of [`Receiver::run`] is dropped: SQS may already have hidden the messages (aws-sdk-go-v2#2068). Messages are
//! neither acknowledged nor read here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Queue;
use super::age::OldestAge;
use super::delivery::Delivery;
use super::error::Failure;
use super::poll_concurrency::{NextPoll, PollConcurrency, PollEnd};
use super::room::Room;
use super::sender::BATCH;
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_runtime::trace::ReceivedPoll;

/// A poll waits until this part of the permits is free, or enough for a full batch: a poll for each single permit would cost
/// a call for each message of a busy worker.
const LEAST_PART: usize = 4;

/// From the start of a poll with several messages to the next: shorter than a call to AWS, so it costs nothing there.
const SPACING: Duration = Duration::from_millis(4);

/// The options of polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollOptions {
    /// How long a poll waits for a message; at most the `poll_wait` of [`connect`](broker_runtime::aws::connect).
    pub wait: Duration,
    /// The visibility timeout; `None`: that of the queue.
    pub visibility: Option<Duration>,
    /// The most concurrent polls.
    pub max_polls: usize,
}

/// Why receiving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// `stop` was cancelled.
    Stopped,
    /// The queue does not exist.
    QueueGone,
}

/// The receiver of one queue.
#[derive(Clone, Debug)]
pub struct Receiver {
    client: aws_sdk_sqs::Client,
    queue: Queue,
    clock: Clock,
    entropy: Entropy,
    options: PollOptions,
    permits: Option<Permits>,
    open: Option<watch::Receiver<bool>>,
    oldest: OldestAge,
}

impl Receiver {
    /// A receiver without permits. `client` is [`Aws::sqs_receive`](broker_runtime::aws::Aws::sqs_receive).
    pub fn new(
        client: aws_sdk_sqs::Client,
        queue: Queue,
        clock: Clock,
        entropy: Entropy,
        options: PollOptions,
    ) -> Self {
        let oldest = OldestAge::default();
        Self { client, queue, clock, entropy, options, permits: None, open: None, oldest }
    }

    /// The age of the oldest message received recently.
    pub fn oldest_age(&self) -> OldestAge {
        self.oldest.clone()
    }

    /// Hands each message on with a permit of `permits`, and receives no more than there are. A waiting poll holds up to ten
    /// of them: no other receiver should use the same semaphore.
    pub fn with_permits(self, permits: Arc<Semaphore>) -> Self {
        let least = (permits.available_permits() / LEAST_PART).clamp(1, BATCH);
        Self { permits: Some(Permits { semaphore: permits, least }), ..self }
    }

    /// Starts polls only while `open` is true. Messages of a poll under way are handed on all the same.
    pub fn with_gate(self, open: watch::Receiver<bool>) -> Self {
        Self { open: Some(open), ..self }
    }

    /// Receives until `stop`, or until the queue is gone. After `stop` it returns when the last poll has ended, which takes up
    /// to its wait. A queue that is gone is told at once: its owner needs another one, and the polls under way end by themselves.
    /// `hand_on` must not block: it spawns, or sends on a channel.
    pub async fn run<H>(self, stop: CancellationToken, hand_on: H) -> ReceiveEnd
    where
        H: Fn(Delivery, Option<OwnedSemaphorePermit>) + Send + Sync + 'static,
    {
        let hand_on = Arc::new(hand_on);
        let mut pace = PollConcurrency::new(self.options.max_polls);
        let mut last_began = self.clock.instant();
        let mut not_before = last_began;
        let mut polls = Polls::default();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(end) = polls.0.join_next() => {
                    let (end, took) = end.unwrap_or((PollEnd::Failed, Duration::ZERO));
                    match pace.after(end, took) {
                        NextPoll::Poll => {}
                        NextPoll::PollSpaced => not_before = not_before.max(last_began + SPACING),
                        NextPoll::PollAfter(wait) => {
                            let wait = self.entropy.jitter(wait);
                            tracing::debug!(queue = %self.queue.label(), failures = pace.failures(), ?wait, "backing off");
                            not_before = self.clock.instant() + wait;
                        }
                        NextPoll::Gone => return ReceiveEnd::QueueGone,
                    }
                }
                room = self.room(not_before), if polls.0.len() < pace.polls() => {
                    last_began = self.clock.instant();
                    let poll = self.clone().poll(room, Arc::clone(&hand_on));
                    let clock = self.clock.clone();
                    polls.0.spawn(async move {
                        let end = poll.await;
                        (end, clock.instant().saturating_duration_since(last_began))
                    });
                }
            }
        }
        while polls.0.join_next().await.is_some() {}
        ReceiveEnd::Stopped
    }

    /// Waits until a poll may start, and takes permits for its messages.
    async fn room(&self, not_before: Instant) -> Room {
        tokio::time::sleep_until(not_before.into()).await;
        loop {
            self.opened().await;
            let Some(permits) = &self.permits else { return Room::Unbounded };
            let least = u32::try_from(permits.least).unwrap_or(1);
            let Ok(first) = Arc::clone(&permits.semaphore).acquire_many_owned(least).await else {
                // A closed semaphore never gives a permit again.
                return std::future::pending().await;
            };
            // The gate may have closed meanwhile.
            if self.open.as_ref().is_none_or(|open| *open.borrow()) {
                return Room::beyond(&permits.semaphore, first);
            }
        }
    }

    async fn opened(&self) {
        let Some(open) = &self.open else { return };
        if open.clone().wait_for(|open| *open).await.is_err() {
            // A gate whose owner is gone stays closed.
            std::future::pending().await
        }
    }

    /// One ReceiveMessage call; its messages are handed on.
    async fn poll<H>(self, room: Room, hand_on: Arc<H>) -> PollEnd
    where
        H: Fn(Delivery, Option<OwnedSemaphorePermit>) + Send + Sync,
    {
        let asked = room.size();
        let began = self.clock.uncorrected();
        let messages = match self.receive(asked).await {
            Ok(messages) => messages,
            Err(end) => return end,
        };
        let received = messages.len();
        if received > 0 {
            metrics::histogram!("broker_receive_batch_size", "queue" => self.queue.metric_label())
                .record(u32::try_from(received).unwrap_or(u32::MAX));
        }
        let poll = ReceivedPoll::new(self.queue.label(), began, self.clock.uncorrected(), received);
        let mut room = room;
        for message in messages {
            let delivery = Delivery::read(message, &self.queue, poll.clone(), self.clock.now());
            self.oldest.note(self.clock.now().since(delivery.sent_at));
            hand_on(delivery, room.take_one());
        }
        drop(room);
        let more = self.permits.as_ref().is_none_or(|permits| permits.semaphore.available_permits() >= BATCH);
        if received >= asked && more {
            PollEnd::Full
        } else if received <= 1 {
            PollEnd::One
        } else if received * 2 >= asked {
            PollEnd::Some
        } else {
            PollEnd::Few
        }
    }

    async fn receive(&self, at_most: usize) -> Result<Vec<Message>, PollEnd> {
        let seconds = |duration: Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
        let received = self
            .client
            .receive_message()
            .queue_url(self.queue.url())
            .max_number_of_messages(i32::try_from(at_most).unwrap_or(1))
            .wait_time_seconds(seconds(self.options.wait))
            .set_visibility_timeout(self.options.visibility.map(seconds))
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .send()
            .await;
        received.map(|received| received.messages.unwrap_or_default()).map_err(|error| {
            let cause = DisplayErrorContext(&error).to_string();
            match Failure::of_call(error) {
                // Its owner may have deleted it: the code that runs this receiver knows.
                Failure::Gone => PollEnd::Missing,
                Failure::Refused { .. } | Failure::Unavailable(_) => {
                    tracing::warn!(queue = %self.queue.label(), cause, "a poll failed");
                    PollEnd::Failed
                }
            }
        })
    }
}

/// The polls under way, and how long each took. Dropped, they go on and hand their messages on.
#[derive(Default)]
struct Polls(JoinSet<(PollEnd, Duration)>);

impl Drop for Polls {
    fn drop(&mut self) {
        self.0.detach_all();
    }
}

/// The bound on received messages.
#[derive(Clone, Debug)]
struct Permits {
    semaphore: Arc<Semaphore>,
    /// The number that must be free for a poll.
    least: usize,
}
