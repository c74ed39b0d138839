//! Intake of dead letters: copies to a dead-letter queue, and parsing of what is received there.
//!
//! A message gets there in three ways: sent by a worker, with its reason as attributes; moved by redrive, which SQS marks,
//! and the reason follows from that; or sent by something else, with an unknown reason.

use std::collections::BTreeMap;

use broker_domain::{DeadLetter, DeadLetterId, DeadLetterState, JobReport, Reason, Source, Timestamp};
use broker_messages::{
    Body, DecodeError, MaintenanceMessage, MaintenanceTask, Request, RequestMessage, summarize,
};
use broker_queue::{Delivery, Outgoing};
use broker_store::{PendingRecord, Store, StoreError, Write};

const REASON_CODE: &str = "reason_code";
const REASON: &str = "reason";
const SOURCE: &str = "source";
const SOURCE_MESSAGE_ID: &str = "source_message_id";
const SOURCE_SENT_AT_MS: &str = "source_sent_at_ms";
const RECEIVES: &str = "receives";
/// The id of the letter that a message was replayed from.
pub(super) const REPLAY_OF: &str = "replay_of";
/// Since when a message waits for a worker that can read it, in milliseconds since the epoch.
pub const PUT_BACK_SINCE: &str = "put_back_since_ms";
/// What a dead letter's message carries of ours, and one that is sent again does not.
const OURS: [&str; 7] =
    [REASON_CODE, REASON, SOURCE, SOURCE_MESSAGE_ID, SOURCE_SENT_AT_MS, RECEIVES, PUT_BACK_SINCE];
/// Of these, what is given to it on its way there.
const GIVEN: usize = 6;
/// SQS: attributes of a message.
pub(super) const MOST_ATTRIBUTES: usize = 10;
/// The longest reason, in characters; SQS counts attributes against the size of a message.
const LONGEST_REASON: usize = 1_000;

/// The copy of a message of `source` (the queue's full name) for its dead-letter queue. Keeps the message's own text
/// attributes as far as SQS has room for them.
pub fn dead_letter_message(delivery: &Delivery, source: &str, code: &str, reason: &str) -> Outgoing {
    let room = MOST_ATTRIBUTES - GIVEN;
    let copy = own_attributes(&delivery.attributes)
        .take(room)
        .fold(Outgoing::from(delivery.body.clone()), |copy, (name, value)| copy.with_attribute(name, value));
    copy.with_attribute(REASON_CODE, code)
        .with_attribute(REASON, attribute_text(reason))
        .with_attribute(SOURCE, source)
        .with_attribute(SOURCE_MESSAGE_ID, &delivery.message_id)
        .with_attribute(SOURCE_SENT_AT_MS, delivery.sent_at.as_ms().to_string())
        .with_attribute(RECEIVES, delivery.receive_count.to_string())
}

/// The attributes that a message had before it died, `replay_of` first: it must not be crowded out.
pub(super) fn own_attributes(attributes: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    let own = |name: &str| !OURS.contains(&name);
    let replay = attributes.get_key_value(REPLAY_OF);
    let others = attributes.iter().filter(move |(name, _)| own(name) && name.as_str() != REPLAY_OF);
    replay.into_iter().chain(others).map(|(name, value)| (name.as_str(), value.as_str()))
}

/// `text` as SQS accepts it in an attribute: no control characters, at most [`LONGEST_REASON`].
fn attribute_text(text: &str) -> String {
    let visible = |c: char| if c.is_control() || c > '\u{ffef}' { ' ' } else { c };
    text.chars().map(visible).take(LONGEST_REASON).collect()
}

/// The letter for a message delivered from the dead-letter queue of `source`, at `now`.
pub fn read(source: Source, delivery: &Delivery, now: Timestamp) -> DeadLetter {
    let death = Death::of(delivery, now);
    let replay_of = delivery.attributes.get(REPLAY_OF).and_then(|id| DeadLetterId::parse(id).ok());
    let own = own_attributes(&delivery.attributes).filter(|(name, _)| *name != REPLAY_OF);
    DeadLetter {
        id: DeadLetterId::of(source, &death.message_id, &delivery.body, death.first_at),
        source,
        message_id: death.message_id,
        reason: death.reason,
        reason_text: death.text,
        receives: death.receives,
        first_at: death.first_at,
        last_at: death.last_at,
        summary: summarize(&delivery.body),
        replay_of,
        attributes: own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: delivery.body.clone(),
        state: DeadLetterState::Dead,
        held_until: None,
        touched: None,
    }
}

/// The letter of a message that waited in the table, not in the queue; it has this id only here. `waited_since` is when it
/// was first sent.
pub fn of_place(
    id: impl Into<String>,
    body: String,
    (reason, reason_text): (Reason, String),
    waited_since: Timestamp,
    now: Timestamp,
) -> DeadLetter {
    let message_id = id.into();
    DeadLetter {
        id: DeadLetterId::of(Source::Requests, &message_id, &body, waited_since),
        source: Source::Requests,
        message_id,
        reason,
        reason_text: attribute_text(&reason_text),
        receives: 0,
        first_at: waited_since,
        last_at: now,
        summary: summarize(&body),
        replay_of: None,
        attributes: BTreeMap::new(),
        body,
        state: DeadLetterState::Dead,
        held_until: None,
        touched: None,
    }
}

/// How a message got into the dead-letter queue.
struct Death {
    message_id: String,
    reason: Reason,
    text: String,
    receives: u32,
    first_at: Timestamp,
    last_at: Timestamp,
}

impl Death {
    fn of(delivery: &Delivery, now: Timestamp) -> Self {
        let attribute = |name: &str| delivery.attributes.get(name).map(String::as_str);
        // Redrive keeps attributes, also those of an earlier death: SQS's word on the last one counts.
        if delivery.dead_letter_source.is_some() {
            // SQS counts receives across both queues; one was ours.
            let receives = delivery.receive_count.saturating_sub(1);
            let text = format!("received {receives} times, no worker finished it");
            return Self {
                message_id: delivery.message_id.clone(),
                reason: Reason::MaxReceivesExceeded,
                text,
                receives,
                first_at: delivery.sent_at,
                last_at: now,
            };
        }
        let (Some(code), Some(message_id)) = (attribute(REASON_CODE), attribute(SOURCE_MESSAGE_ID)) else {
            return Self {
                message_id: delivery.message_id.clone(),
                reason: Reason::Unknown,
                text: "sent to the dead-letter queue by another program".to_owned(),
                receives: 0,
                first_at: delivery.sent_at,
                last_at: delivery.sent_at,
            };
        };
        let number = |name: &str| attribute(name).and_then(|text| text.parse::<u64>().ok());
        let text = attribute(REASON).unwrap_or_default();
        let reason = Reason::parse(code);
        Self {
            message_id: message_id.to_owned(),
            reason: reason.unwrap_or(Reason::Unknown),
            text: if reason.is_some() { text.to_owned() } else { format!("{code}: {text}") },
            receives: number(RECEIVES).and_then(|receives| u32::try_from(receives).ok()).unwrap_or(0),
            first_at: number(SOURCE_SENT_AT_MS)
                .filter(|ms| *ms <= delivery.sent_at.as_ms())
                .map_or(delivery.sent_at, Timestamp::from_ms),
            last_at: delivery.sent_at,
        }
    }
}

/// Keeps a letter, and fails the record that waits for its message in the same write.
pub async fn keep(store: &Store, letter: &DeadLetter) -> Result<Write, StoreError> {
    store.dead_letters.record(letter, pending_record(letter).as_ref()).await
}

/// The record that waits for the message: of an asynchronous request, or of a run.
pub(super) fn pending_record(letter: &DeadLetter) -> Option<PendingRecord> {
    match letter.source {
        Source::Requests => match RequestMessage::decode(&letter.body) {
            Ok(message) => match Request::from(&message) {
                Request::Allocate(ask) => ask.is_recorded().then_some(PendingRecord::Request(ask.request_id)),
                Request::Return(mark) => Some(PendingRecord::Return(mark)),
            },
            // It is one of ours, only not of a version that is read here.
            Err(DecodeError::NewerVersion { .. } | DecodeError::OlderVersion { .. }) => {
                letter.summary.request_id.map(PendingRecord::Request)
            }
            Err(DecodeError::Malformed(_) | DecodeError::Untimely { .. }) => None,
        },
        Source::Maintenance => {
            let message = MaintenanceMessage::decode(&letter.body).ok()?;
            match message.body {
                MaintenanceTask::RunJob { task } => {
                    let aborted = format!("kept as a dead letter: {}", letter.reason.as_str());
                    let report = JobReport { aborted: Some(aborted), ..JobReport::new(&task) };
                    Some(PendingRecord::Run(message.request_id, report))
                }
                MaintenanceTask::Delete { .. } => None,
            }
        }
        Source::Unknown => None,
    }
}

/// Whether a record of the request waits for its message: of an asynchronous one always, of a return once its caller
/// waits no longer.
pub(super) fn is_recorded(message: &RequestMessage) -> bool {
    message.asynchronous || message.body.may_wait() || matches!(message.body, Body::MarkForDeletion { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery() -> Delivery {
        Delivery {
            queue: "b-requests-dlq".into(),
            poll: broker_runtime::trace::ReceivedPoll::default(),
            body: "not JSON".to_owned(),
            receipt: "r".to_owned(),
            message_id: "m-1".to_owned(),
            receive_count: 3,
            sent_at: Timestamp::from_ms(1_000),
            first_received_at: Timestamp::from_ms(1_500),
            dead_letter_source: None,
            attributes: BTreeMap::new(),
        }
    }

    /// The delivery by the dead-letter queue of a copy that was sent at `sent_at`.
    fn delivered(copy: &Outgoing, sent_at: u64) -> Delivery {
        Delivery {
            body: copy.body().to_owned(),
            message_id: format!("copy-{sent_at}"),
            receive_count: 1,
            sent_at: Timestamp::from_ms(sent_at),
            attributes: copy.attributes().iter().cloned().collect(),
            ..delivery()
        }
    }

    const NOW: Timestamp = Timestamp::from_ms(9_000);

    #[test]
    fn two_copies_of_one_message_and_its_redrive_are_one_letter() {
        let dead_letter_message =
            |at| delivered(&dead_letter_message(&delivery(), "p-requests", "malformed", "why\u{7}not"), at);
        let first = read(Source::Requests, &dead_letter_message(2_000), NOW);
        let second = read(Source::Requests, &dead_letter_message(3_000), NOW);
        let arn = Some("arn:aws:sqs:r:1:p-requests".to_owned());
        let moved = Delivery { dead_letter_source: arn, receive_count: 6, ..delivery() };
        let moved = read(Source::Requests, &moved, NOW);
        assert_eq!((&first.id, &first.id), (&second.id, &moved.id));
        assert_eq!(
            (first.reason, first.reason_text.as_str(), first.receives),
            (Reason::Malformed, "why not", 3)
        );
        assert_eq!(
            (first.first_at.as_ms(), first.last_at.as_ms(), first.body.as_str()),
            (1_000, 2_000, "not JSON")
        );
        assert_eq!((moved.reason, moved.receives), (Reason::MaxReceivesExceeded, 5));
        assert_ne!(read(Source::Maintenance, &dead_letter_message(2_000), NOW).id, first.id);
        let liar = Delivery { body: "something else".to_owned(), ..dead_letter_message(2_000) };
        assert_ne!(
            read(Source::Requests, &liar, NOW).id,
            first.id,
            "no letter disappears behind another one"
        );
    }

    #[test]
    fn redrive_after_an_earlier_death_tells_of_the_last_one() {
        let back = delivered(&dead_letter_message(&delivery(), "p-requests", "malformed", "old"), 2_000);
        let moved = Delivery { dead_letter_source: Some("arn".to_owned()), receive_count: 6, ..back };
        let letter = read(Source::Requests, &moved, NOW);
        assert_eq!((letter.reason, letter.message_id.as_str()), (Reason::MaxReceivesExceeded, "copy-2000"));
        assert!(letter.attributes.is_empty(), "{:?}", letter.attributes);
    }

    #[test]
    fn what_somebody_else_put_there_is_unknown_and_kept_whole() {
        let mut foreign = delivery();
        foreign.attributes.insert("theirs".to_owned(), "x".to_owned());
        let letter = read(Source::Requests, &foreign, NOW);
        assert_eq!(
            (letter.reason, letter.kind(), letter.body.as_str()),
            (Reason::Unknown, "unknown", "not JSON")
        );
        assert_eq!(letter.attributes["theirs"], "x");
    }

    #[test]
    fn the_mark_of_a_replay_is_never_crowded_out_of_a_copy() {
        let mut many = delivery();
        for n in 0..10 {
            many.attributes.insert(format!("a{n}"), "x".to_owned());
        }
        let id = DeadLetterId::of(Source::Requests, "m-0", "", Timestamp::from_ms(1));
        many.attributes.insert(REPLAY_OF.to_owned(), id.as_str().to_owned());
        let copy = dead_letter_message(&many, "p-requests", "malformed", "why");
        assert_eq!(copy.attributes().len(), MOST_ATTRIBUTES);
        let letter = read(Source::Requests, &delivered(&copy, 2_000), NOW);
        assert_eq!((letter.replay_of, letter.attributes.len()), (Some(id), 3));
    }

    #[test]
    fn a_code_that_this_program_does_not_know_stays_readable() {
        let copy = dead_letter_message(&delivery(), "p-requests", "eaten_by_a_dog", "yes");
        let letter = read(Source::Requests, &delivered(&copy, 2_000), NOW);
        assert_eq!((letter.reason, letter.reason_text.as_str()), (Reason::Unknown, "eaten_by_a_dog: yes"));
    }
}
