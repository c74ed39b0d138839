//! The consumer of the requests queue: permit → receive → handle → settle.
//!
//! Invariants: no more is received than can be started; a message is deleted only after its outcome is durable and told,
//! or after its dead letter is sent; one message that cannot be processed touches no other. What it does not do: decide.

use std::sync::Arc;
use std::time::Duration;

use broker_common::aws::Aws;
use broker_common::clock::Clock;
use broker_common::config::Config;
use broker_common::domain::Outcome;
use broker_common::entropy::Entropy;
use broker_common::lifecycle::Lifecycle;
use broker_common::messages::{Ask, DecodeError, RequestMessage};
use broker_common::queue::{
    Delivery, Ended, Outgoing, PollOptions, QueueKind, QueueNames, QueueUrls, Receiver, ReplyQueueName,
    Sender, Settler,
};
use broker_common::store::StoreError;
use tokio::sync::Semaphore;

use crate::answer::{Answers, Untold};
use crate::handlers::{Handlers, Undecided};
use crate::health::Health;

/// Calls of each kind under way (deletes, visibility changes).
const FLIGHTS: usize = 4;
/// The most polls under way at once; SQS gives ten messages a poll.
const MAX_POLLS: usize = 8;
/// How long a message of a newer version waits for a newer worker.
const NEWER_VERSION_WAITS: Duration = Duration::from_secs(60);
/// How long a claim that lost its races waits for its next turn.
const NEXT_TURN: Duration = Duration::from_secs(0);
/// The longest wait between two attempts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(20);

/// What becomes of a message.
#[derive(Debug)]
enum Verdict {
    /// It is done with.
    Done,
    /// It is to be received again, after a while.
    RetryAfter(Duration),
    /// It can never succeed.
    DeadLetter { code: &'static str, reason: String },
}

/// Consumes the requests queue.
#[derive(Debug)]
pub(crate) struct Consumer {
    receiver: Receiver,
    settler: Settler,
    dead_letters: Sender,
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
            settler: Settler::new(aws.sqs.clone(), queue, FLIGHTS),
            dead_letters: Sender::new(aws.sqs.clone(), urls.get(QueueKind::RequestsDlq), 1),
            names: urls.names().clone(),
            handlers,
            answers,
            health,
            clock,
            entropy,
        }
    }

    /// Consumes until the lifecycle's soft end. What was received by then is finished on the lifecycle's tracker.
    pub(crate) async fn run(self: Arc<Self>, lifecycle: Lifecycle) {
        loop {
            let (consumer, tracker) = (Arc::clone(&self), lifecycle.tracker.clone());
            let hand_on = move |delivery, permit| {
                let consumer = Arc::clone(&consumer);
                tracker.spawn(async move {
                    consumer.consume(delivery).await;
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

    async fn consume(&self, delivery: Delivery) {
        let began = self.clock.instant();
        let verdict = self.process(&delivery).await;
        let settled = match &verdict {
            Verdict::Done => self.settler.delete(&delivery.receipt).await,
            Verdict::RetryAfter(after) => self.settler.give_back(&delivery.receipt, *after).await,
            Verdict::DeadLetter { code, reason } => match self.bury(&delivery, code, reason).await {
                Ok(()) => self.settler.delete(&delivery.receipt).await,
                Err(error) => {
                    tracing::error!(
                        message_id = delivery.message_id,
                        "dead letter not sent, the message comes back: {error}"
                    );
                    return;
                }
            },
        };
        if let Err(error) = settled {
            // It comes back after its visibility timeout, and finds its own success.
            tracing::warn!(message_id = delivery.message_id, "not settled: {error}");
        }
        metrics::histogram!("broker_message_handling_seconds")
            .record(self.clock.instant().duration_since(began));
    }

    async fn process(&self, delivery: &Delivery) -> Verdict {
        let message = match RequestMessage::decode(&delivery.body) {
            Ok(message) => message,
            Err(DecodeError::NewerVersion { found }) => {
                tracing::warn!(found, "message of a newer version put back");
                return Verdict::RetryAfter(NEWER_VERSION_WAITS);
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
        match self.handlers.handle(&Ask::from(message.clone())).await {
            Ok(outcome) => self.tell(delivery, &message, &reply_to, outcome).await,
            Err(Undecided::TurnOver) => Verdict::RetryAfter(NEXT_TURN),
            Err(Undecided::Store(StoreError::Malformed { item, attribute })) => {
                let reason = format!("item {item} has no valid {attribute}");
                let outcome = Outcome::DeadLettered { reason: "malformed_item".to_owned() };
                match self.tell(delivery, &message, &reply_to, outcome).await {
                    Verdict::Done => Verdict::DeadLetter { code: "malformed_item", reason },
                    untold @ (Verdict::RetryAfter(_) | Verdict::DeadLetter { .. }) => untold,
                }
            }
            Err(Undecided::Store(error)) => {
                self.health.suspect();
                tracing::warn!(request_id = %message.request_id, receives = delivery.receive_count, "not handled, it comes back: {error}");
                Verdict::RetryAfter(self.backoff(delivery.receive_count))
            }
        }
    }

    async fn tell(
        &self,
        delivery: &Delivery,
        message: &RequestMessage,
        reply_to: &ReplyQueueName,
        outcome: Outcome,
    ) -> Verdict {
        let word = outcome.as_str();
        let told = self.answers.tell(message, reply_to, outcome).await;
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
        match told {
            Ok(()) => Verdict::Done,
            Err(error) => {
                if let Untold::Store(_) = error {
                    self.health.suspect();
                }
                tracing::warn!(request_id = %message.request_id, "outcome not told, the message comes back: {error}");
                Verdict::RetryAfter(self.backoff(delivery.receive_count))
            }
        }
    }

    /// Sends a copy of the message to the dead-letter queue, with its reason.
    async fn bury(
        &self,
        delivery: &Delivery,
        code: &'static str,
        reason: &str,
    ) -> Result<(), broker_common::queue::SendError> {
        tracing::error!(message_id = delivery.message_id, code, reason, "dead letter");
        metrics::counter!("broker_dead_letters_total", "reason" => code).increment(1);
        let letter = Outgoing::from(delivery.body.clone())
            .with_attribute("reason_code", code)
            .with_attribute("reason", reason)
            .with_attribute("source", self.names.name(QueueKind::Requests))
            .with_attribute("source_message_id", &delivery.message_id)
            .with_attribute("receives", delivery.receive_count.to_string());
        self.dead_letters.send(letter).await
    }

    /// 1, 2, 4, … seconds by receive count, jittered.
    fn backoff(&self, receives: u32) -> Duration {
        let doubled = Duration::from_secs(1 << receives.saturating_sub(1).min(10));
        self.entropy.jitter(doubled.min(LONGEST_BACKOFF))
    }
}
