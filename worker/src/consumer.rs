//! The consumer of the requests queue: permit → receive → handle → settle.
//!
//! Invariants: no more is received than can be started; a message is deleted only after its outcome is durable and told,
//! or after its dead letter is sent; one message that cannot be processed touches no other. What it does not do: decide.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use broker_common::aws::Aws;
use broker_common::clock::Clock;
use broker_common::config::Config;
use broker_common::crash::{self, Point};
use broker_common::domain::Outcome;
use broker_common::entropy::Entropy;
use broker_common::lifecycle::Lifecycle;
use broker_common::messages::{Ask, DecodeError, RequestMessage};
use broker_common::queue::{
    Delivery, Ended, OldestAge, Outgoing, PollOptions, QueueKind, QueueNames, QueueUrls, Receiver,
    ReplyQueueName, SendError, Sender, Settler,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answers, Untold};
use crate::handlers::Handlers;
use crate::health::Health;

/// Calls of each kind under way (deletes, visibility changes).
const FLIGHTS: usize = 4;
/// The most polls under way at once; SQS gives ten messages a poll.
const MAX_POLLS: usize = 8;
/// How long a message of a newer version waits for a newer worker.
const NEWER_VERSION_WAITS: Duration = Duration::from_secs(5);
/// The first wait after a failed attempt, doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait between two attempts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Characters of a dead letter's reason; SQS counts attributes against the size of a message.
const LONGEST_REASON: usize = 1_000;

/// What becomes of a message.
#[derive(Debug)]
enum Verdict {
    /// It is done with.
    Done,
    /// This worker stops: another one is to receive it at once.
    GiveBack,
    /// A newer worker is to receive it, as a new message.
    PutBack,
    /// It can never succeed.
    DeadLetter { code: &'static str, reason: String },
}

/// Consumes the requests queue.
#[derive(Debug)]
pub(crate) struct Consumer {
    receiver: Receiver,
    settler: Settler,
    requests: Sender,
    dead_letters: Sender,
    visibility: Duration,
    names: QueueNames,
    handlers: Handlers,
    answers: Answers,
    health: Health,
    clock: Clock,
    entropy: Entropy,
}

impl Consumer {
    #[expect(clippy::too_many_arguments, reason = "called once, from the screen that tells the story")]
    pub(crate) fn new(
        aws: &Aws,
        urls: &QueueUrls,
        handlers: Handlers,
        answers: Answers,
        health: Health,
        config: &Config,
        clock: Clock,
        entropy: Entropy,
    ) -> Self {
        let queue = urls.get(QueueKind::Requests);
        let options =
            PollOptions { wait: config.poll_wait, visibility: Some(config.visibility), max_polls: MAX_POLLS };
        let receiver =
            Receiver::new(aws.sqs_receive.clone(), queue.clone(), clock.clone(), entropy.clone(), options)
                .with_permits(Arc::new(Semaphore::new(config.worker_concurrency)))
                .with_gate(health.gate());
        Self {
            receiver,
            settler: Settler::new(aws.sqs.clone(), queue.clone(), FLIGHTS),
            requests: Sender::new(aws.sqs.clone(), queue, 1),
            visibility: config.visibility,
            dead_letters: Sender::new(aws.sqs.clone(), urls.get(QueueKind::RequestsDlq), 1),
            names: urls.names().clone(),
            handlers,
            answers,
            health,
            clock,
            entropy,
        }
    }

    /// How old the oldest is of what it received of late.
    pub(crate) fn oldest_age(&self) -> OldestAge {
        self.receiver.oldest_age()
    }

    /// Consumes until the lifecycle's soft end. What was received by then is finished on the lifecycle's tracker.
    pub(crate) async fn run(self: Arc<Self>, lifecycle: Lifecycle) {
        loop {
            let (consumer, tracker, stop) =
                (Arc::clone(&self), lifecycle.tracker.clone(), lifecycle.soft.clone());
            let hand_on = move |delivery, permit| {
                let (consumer, stop) = (Arc::clone(&consumer), stop.clone());
                tracker.spawn(async move {
                    consumer.consume(delivery, &stop).await;
                    drop(permit);
                });
            };
            match self.receiver.clone().run(lifecycle.soft.clone(), hand_on).await {
                Ended::Stopped => return,
                Ended::QueueGone => {
                    tracing::error!("the requests queue is gone: run `broker init`");
                    let pause = self.entropy.jitter(LONGEST_BACKOFF);
                    if lifecycle.soft.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Works on a message for as long as it takes; beyond half of its visibility timeout it is kept hidden.
    async fn consume(&self, delivery: Delivery, stop: &CancellationToken) {
        let began = self.clock.instant();
        crash::point(Point::Received);
        let mut work = pin!(self.work(&delivery, stop));
        let soon = tokio::time::timeout(self.visibility / 2, work.as_mut()).await;
        let verdict = if let Ok(verdict) = soon {
            verdict
        } else {
            let _hidden = self.settler.keep_hidden(&delivery.receipt, self.visibility);
            work.await
        };
        if let Err(error) = self.settle(&delivery, verdict).await {
            // It comes back after its visibility timeout, and finds its own success.
            tracing::warn!(message_id = delivery.message_id, error, "not settled");
        }
        metrics::histogram!("broker_message_handling_seconds")
            .record(self.clock.instant().duration_since(began));
    }

    async fn settle(&self, delivery: &Delivery, verdict: Verdict) -> Result<(), Box<dyn Error>> {
        match verdict {
            Verdict::Done => crash::point(Point::BeforeDelete),
            Verdict::GiveBack => {
                return Ok(self.settler.give_back(&delivery.receipt, Duration::ZERO).await?);
            }
            Verdict::PutBack => self.requests.send(copy(delivery).with_delay(NEWER_VERSION_WAITS)).await?,
            Verdict::DeadLetter { code, reason } => {
                self.bury(delivery, code, &reason).await?;
                crash::point(Point::Buried);
            }
        }
        Ok(self.settler.delete(&delivery.receipt).await?)
    }

    /// Decides on a message and tells it, again and again while AWS is away: an outage costs a message no receive, so
    /// that redrive sees only what crashes workers.
    async fn work(&self, delivery: &Delivery, stop: &CancellationToken) -> Verdict {
        let message = match RequestMessage::decode(&delivery.body) {
            Ok(message) => message,
            Err(DecodeError::NewerVersion { found }) => {
                tracing::warn!(found, "message of a newer version put back");
                return Verdict::PutBack;
            }
            Err(error) => {
                return Verdict::DeadLetter { code: error.reason_code(), reason: error.to_string() };
            }
        };
        let reply_to = match self.names.parse_reply(&message.reply_to) {
            Ok(reply_to) => reply_to,
            Err(error) => {
                return Verdict::DeadLetter { code: "foreign_reply_queue", reason: error.to_string() };
            }
        };
        let ask = Ask::from(message.clone());
        let mut letter = None;
        for attempt in 0_u32.. {
            let undecided: Box<dyn Error + Send + Sync> = match self.handlers.handle(&ask).await {
                Ok(outcome) => match self.tell(delivery, &message, &reply_to, outcome).await {
                    Ok(()) => return letter.unwrap_or(Verdict::Done),
                    Err(error) => Box::new(error),
                },
                Err(error) => match error.reason_code() {
                    Some(code) => {
                        let outcome = Outcome::DeadLettered { reason: code.to_owned() };
                        letter = Some(Verdict::DeadLetter { code, reason: chain(&error) });
                        match self.tell(delivery, &message, &reply_to, outcome).await {
                            Ok(()) => return letter.unwrap_or(Verdict::Done),
                            Err(error) => Box::new(error),
                        }
                    }
                    None => Box::new(error),
                },
            };
            self.health.suspect();
            let cause = chain(&*undecided);
            tracing::warn!(request_id = %message.request_id, attempt, cause, "not done, tried again soon");
            let pause =
                self.entropy.jitter(FIRST_BACKOFF.saturating_mul(1 << attempt.min(10)).min(LONGEST_BACKOFF));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Verdict::GiveBack;
            }
        }
        Verdict::GiveBack
    }

    async fn tell(
        &self,
        delivery: &Delivery,
        message: &RequestMessage,
        reply_to: &ReplyQueueName,
        outcome: Outcome,
    ) -> Result<(), Untold> {
        let word = outcome.as_str();
        self.answers.tell(message, reply_to, outcome).await?;
        metrics::counter!("broker_requests_handled_total", "kind" => message.body.kind(), "outcome" => word)
            .increment(1);
        tracing::info!(
            request_id = %message.request_id,
            kind = message.body.kind(),
            track = %message.body.track(),
            outcome = word,
            receives = delivery.receive_count,
            age_ms = self.clock.now().since(message.times().enqueued_at).as_millis(),
            "handled"
        );
        Ok(())
    }

    /// Sends a copy of the message to the dead-letter queue, with its reason.
    async fn bury(&self, delivery: &Delivery, code: &'static str, reason: &str) -> Result<(), SendError> {
        tracing::error!(message_id = delivery.message_id, code, reason, "dead letter");
        metrics::counter!("broker_dead_letters_total", "reason" => code).increment(1);
        let letter = copy(delivery)
            .with_attribute("reason_code", code)
            .with_attribute("reason", attribute_text(reason))
            .with_attribute("source", self.names.name(QueueKind::Requests))
            .with_attribute("source_message_id", &delivery.message_id)
            .with_attribute("receives", delivery.receive_count.to_string());
        self.dead_letters.send(letter).await
    }
}

/// The same text as a new message, whose receives count anew.
fn copy(delivery: &Delivery) -> Outgoing {
    Outgoing::from(delivery.body.clone())
}

/// `text` as SQS takes it in an attribute: no control characters, at most [`LONGEST_REASON`] of them.
fn attribute_text(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || c > '\u{ffef}' { ' ' } else { c })
        .take(LONGEST_REASON)
        .collect()
}

/// An error with its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
