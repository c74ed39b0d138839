//! Disposition of a received message: delete, make visible, resend, or send to the dead-letter queue.
//!
//! Invariant: a message is deleted only when it is done, or after its copy was sent: a new one for a newer worker, or its
//! dead letter.

use std::error::Error;
use std::time::Duration;

use broker_dead_letters::PUT_BACK_SINCE;
use broker_domain::Timestamp;
use broker_messages::{DecodeError, tenant_of};
use broker_queue::{
    Acknowledger, Delivery, KeptHidden, NotAReplyQueue, Outgoing, QueueKind, QueueUrls, Sender,
};
use broker_runtime::aws::Aws;
use broker_runtime::crash_points::{self, Point};

/// Calls of each kind in flight (deletes, visibility changes).
const MAX_IN_FLIGHT: usize = 4;

/// For how long a message of a newer version waits for a newer worker: longer than a roll-out takes. Then it is a dead
/// letter, to be replayed once there are newer workers.
const WAITS_FOR_NEWER: Duration = Duration::from_secs(3_600);
/// SQS: the longest delay of a message.
const LONGEST_DELAY: Duration = Duration::from_secs(15 * 60);
/// SQS: attributes of a message.
const MOST_ATTRIBUTES: usize = 10;

/// The disposition of a message.
#[derive(Debug)]
pub(crate) enum Disposition {
    /// It is done: delete it.
    Done,
    /// It stays in the queue until its visibility timeout ends.
    Leave,
    /// The process ends: make it visible to another one, soon if it was received for the first time. That costs it a receive.
    GiveBack,
    /// Send it again as a new message, with a delay: it costs no receive.
    Resend(Duration),
    /// It can never succeed: send it to the dead-letter queue.
    DeadLetter { code: &'static str, reason: String },
}

impl Disposition {
    /// Of an undecodable message at `now`. One of a newer version waits for a newer worker, `first_wait` at first and longer
    /// the older it gets, until it is [`WAITS_FOR_NEWER`] old.
    pub(crate) fn of_unreadable(
        error: &DecodeError,
        delivery: &Delivery,
        first_wait: Duration,
        now: Timestamp,
    ) -> Self {
        match error {
            DecodeError::NewerVersion { .. } => {
                Self::for_newer(&error.to_string(), delivery, first_wait, now)
            }
            DecodeError::OlderVersion { .. } | DecodeError::Untimely { .. } | DecodeError::Malformed(_) => {
                Self::DeadLetter { code: error.reason_code(), reason: error.to_string() }
            }
        }
    }

    /// Of a message that only a newer worker can handle, and `why`.
    pub(crate) fn for_newer(why: &str, delivery: &Delivery, first_wait: Duration, now: Timestamp) -> Self {
        let age = now.since(first_sent(delivery));
        if age < WAITS_FOR_NEWER {
            tracing::warn!(why, age_s = age.as_secs(), "message of a newer version put back");
            return Self::Resend((age / 4).clamp(first_wait, LONGEST_DELAY));
        }
        Self::DeadLetter { code: "newer_version", reason: why.to_owned() }
    }

    /// Whether a copy of the message is sent before it is deleted.
    pub(crate) const fn is_sent_on(&self) -> bool {
        match self {
            Self::Resend(_) | Self::DeadLetter { .. } => true,
            Self::Done | Self::Leave | Self::GiveBack => false,
        }
    }

    /// Of a message whose `reply_to` is not a reply queue of this broker.
    pub(crate) fn of_foreign(error: &NotAReplyQueue) -> Self {
        Self::DeadLetter { code: "foreign_reply_queue", reason: error.to_string() }
    }
}

/// The acknowledgements of one queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueAcks {
    acks: Acknowledger,
    again: Sender,
    /// Of the queue's dead letters; a dead-letter queue has none of its own.
    dead_letters: Option<Sender>,
    source: String,
    /// How long a poll waits.
    poll_wait: Duration,
}

impl QueueAcks {
    /// For the messages of `queue`, whose polls wait for `poll_wait`.
    pub(crate) fn new(aws: &Aws, urls: &QueueUrls, queue: QueueKind, poll_wait: Duration) -> Self {
        Self {
            acks: Acknowledger::new(aws.sqs.clone(), urls.get(queue), MAX_IN_FLIGHT),
            again: Sender::new(aws.sqs.clone(), urls.get(queue), 1),
            dead_letters: queue.dlq().map(|dlq| Sender::new(aws.sqs.clone(), urls.get(dlq), 1)),
            source: urls.names().name(queue),
            poll_wait,
        }
    }

    /// Keeps a message hidden while it is processed.
    pub(crate) fn keep_hidden(&self, delivery: &Delivery, visibility: Duration) -> KeptHidden {
        self.acks.keep_hidden(delivery.receipt.clone(), visibility)
    }

    /// Applies the disposition. If that fails, the message comes back after its visibility timeout, and finds its own success.
    pub(crate) async fn apply(&self, delivery: &Delivery, disposition: &Disposition) {
        if let Err(error) = self.try_apply(delivery, disposition).await {
            tracing::warn!(message_id = delivery.message_id, error, "message not acknowledged");
        }
    }

    async fn try_apply(&self, delivery: &Delivery, disposition: &Disposition) -> Result<(), Box<dyn Error>> {
        match disposition {
            Disposition::Leave => return Ok(()),
            Disposition::Done => crash_points::point(Point::BeforeDelete),
            Disposition::GiveBack => {
                let after = given_back_for(delivery.receive_count, self.poll_wait);
                return Ok(self.acks.make_visible_after(&delivery.receipt, after).await?);
            }
            Disposition::Resend(after) => self.again.send(copy(delivery).with_delay(*after)).await?,
            Disposition::DeadLetter { code, reason } => {
                let Some(dead_letters) = &self.dead_letters else { return Ok(()) };
                tracing::warn!(
                    message_id = delivery.message_id,
                    code,
                    reason,
                    "sent to the dead-letter queue"
                );
                let copy = broker_dead_letters::dead_letter_message(delivery, &self.source, code, reason);
                dead_letters.send(copy).await?;
                crash_points::point(Point::Buried);
            }
        }
        Ok(self.acks.delete(&delivery.receipt).await?)
    }
}

/// How long a message that was received `receives` times stays hidden when it is given back. The first time another worker is to have
/// it at once. If that one was ending, too, so may be many: then the last poll of each ends first, or each would cost a receive.
fn given_back_for(receives: u32, poll_wait: Duration) -> Duration {
    if receives > 1 { poll_wait + Duration::from_secs(1) } else { Duration::ZERO }
}

/// The same message as a new one, whose receives count anew; it carries since when it waits.
fn copy(delivery: &Delivery) -> Outgoing {
    let since = first_sent(delivery).as_ms().to_string();
    let copy = Outgoing::from(delivery.body.clone()).with_attribute(PUT_BACK_SINCE, since);
    let copy = copy.of_tenant(tenant_of(&delivery.body));
    let others = delivery.attributes.iter().filter(|(name, _)| *name != PUT_BACK_SINCE);
    others.take(MOST_ATTRIBUTES - 1).fold(copy, |copy, (name, value)| copy.with_attribute(name, value))
}

/// When SQS took a message for the first time, also if it was put back since.
fn first_sent(delivery: &Delivery) -> Timestamp {
    let said = delivery.attributes.get(PUT_BACK_SINCE).and_then(|ms| ms.parse().ok());
    said.map_or(delivery.sent_at, |ms| Timestamp::from_ms(ms).min(delivery.sent_at))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn delivery(attributes: &[(&str, &str)], sent_at: Timestamp) -> Delivery {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Delivery {
            queue: "requests".into(),
            poll: broker_runtime::trace::ReceivedPoll::default(),
            body: r#"{"v":2}"#.to_owned(),
            receipt: "r".to_owned(),
            message_id: "m".to_owned(),
            receive_count: 1,
            sent_at,
            first_received_at: sent_at,
            dead_letter_source: None,
            attributes: attributes.collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn what_cannot_be_read_yet_is_put_back_ever_more_rarely_and_in_the_end_a_dead_letter() {
        let (began, newer) = (Timestamp::from_secs(1_000_000), DecodeError::NewerVersion { found: 2 });
        let (mut now, mut message, mut put_back) = (began, delivery(&[], began), 0);
        loop {
            match Disposition::of_unreadable(&newer, &message, Duration::from_secs(5), now) {
                Disposition::Resend(wait) => {
                    assert!((Duration::from_secs(5)..=LONGEST_DELAY).contains(&wait), "{wait:?}");
                    let copy = copy(&message);
                    now = now.plus(wait);
                    let attributes: Vec<_> = copy
                        .attributes()
                        .iter()
                        .map(|(name, value)| (name.as_str(), value.as_str()))
                        .collect();
                    message = delivery(&attributes, now);
                    put_back += 1;
                }
                Disposition::DeadLetter { code, .. } => {
                    assert_eq!(code, "newer_version");
                    break;
                }
                other @ (Disposition::Done | Disposition::Leave | Disposition::GiveBack) => {
                    panic!("{other:?}")
                }
            }
        }
        let waited = now.since(began);
        assert!((WAITS_FOR_NEWER..WAITS_FOR_NEWER + LONGEST_DELAY).contains(&waited), "{waited:?}");
        assert!((10..40).contains(&put_back), "{put_back} times");
    }

    #[test]
    fn a_message_that_is_given_back_again_outlasts_the_polls_of_all_who_end() {
        let wait = Duration::from_secs(20);
        assert_eq!(given_back_for(1, wait), Duration::ZERO, "another worker is to have it at once");
        assert!([2, 3, 9].iter().all(|receives| given_back_for(*receives, wait) > wait));
    }

    #[test]
    fn a_message_cannot_claim_to_be_younger_than_it_is_and_its_copy_is_never_too_large_for_sqs() {
        let sent_at = Timestamp::from_secs(1_000_000);
        let later = sent_at.plus(MINUTE).as_ms().to_string();
        assert_eq!(first_sent(&delivery(&[(PUT_BACK_SINCE, &later)], sent_at)), sent_at);
        assert_eq!(first_sent(&delivery(&[(PUT_BACK_SINCE, "soon")], sent_at)), sent_at);
        let names: Vec<_> = (0..10).map(|n| format!("a{n}")).collect();
        let full: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        assert_eq!(copy(&delivery(&full, sent_at)).attributes().len(), MOST_ATTRIBUTES);
    }
}
