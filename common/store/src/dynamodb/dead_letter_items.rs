//! Conversion between items and dead letters.

use std::collections::BTreeMap;
use std::convert::Infallible;

use aws_sdk_dynamodb::types::AttributeValue;

use super::attributes::{self as a, Item, Reader};
use super::keys::{self, SK};
use super::{n, s};
use crate::StoreError;
use broker_domain::{
    DeadLetter, DeadLetterId, DeadLetterState, InvalidDeadLetterId, MessageSummary, Reason, RequestId,
    Source, Timestamp, Touched, TrackId,
};

/// The beginning of the stored outcome of a request whose message died.
pub(super) const DEAD_LETTERED: &str = "{\"outcome\":\"dead_lettered\"";

const SOURCE: &str = "letter_source";
const KIND: &str = "letter_kind";
const MESSAGE_ID: &str = "message_id";
const REASON_CODE: &str = "reason_code";
const REASON_TEXT: &str = "reason_text";
const RECEIVES: &str = "receives";
const FIRST_AT_MS: &str = "first_at_ms";
const LAST_AT_MS: &str = "last_at_ms";
const TRACE: &str = "traceparent";
const REPLAY_OF: &str = "replay_of";
const ATTRIBUTES: &str = "message_attributes";
const BODY: &str = "body";
const HELD_UNTIL_MS: &str = "held_until_ms";
const TOUCHED_AT_MS: &str = "touched_at_ms";
const TOUCHED_BY: &str = "touched_by";
const TOUCHED_WHY: &str = "touched_why";

/// The item of a new dead letter. It has no ttl: only finished ones expire.
pub(super) fn write(letter: &DeadLetter) -> Item {
    let mut item = keys::letter(&letter.id).into_map();
    let summary = &letter.summary;
    let set = [
        (SOURCE, s(letter.source.as_str())),
        (MESSAGE_ID, s(&letter.message_id)),
        (REASON_CODE, s(letter.reason.as_str())),
        (REASON_TEXT, s(&letter.reason_text)),
        (RECEIVES, n(letter.receives)),
        (FIRST_AT_MS, n(letter.first_at.as_ms())),
        (LAST_AT_MS, n(letter.last_at.as_ms())),
        (a::ASYNC, AttributeValue::Bool(summary.asynchronous)),
        (ATTRIBUTES, s(serde_json::to_string(&letter.attributes).unwrap_or_default())),
        (BODY, s(&letter.body)),
        (a::STATE, s(letter.state.as_str())),
    ];
    let optional = [
        (KIND, summary.kind.as_ref().map(s)),
        (a::TRACK, summary.track.as_ref().map(|track| s(track.as_str()))),
        (a::REQUEST_ID, summary.request_id.map(|id| s(id.to_string()))),
        (a::DEADLINE_MS, summary.deadline.map(|at| n(at.as_ms()))),
        (TRACE, summary.trace.as_ref().map(s)),
        (REPLAY_OF, letter.replay_of.as_ref().map(|id| s(id.as_str()))),
    ];
    let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
    item.extend(set.into_iter().chain(optional).map(|(name, value)| (name.to_owned(), value)));
    item
}

pub(super) fn read(item: &Item) -> Result<DeadLetter, StoreError> {
    let read = Reader(item);
    let text = |name| read.text(name, |text| Ok::<_, ()>(text.to_owned()));
    let optional = |name| read.optional(name, |text| Ok::<_, ()>(text.to_owned()));
    let ms = |name| read.number(name).map(Timestamp::from_ms);
    let touched = match read.optional_number(TOUCHED_AT_MS)? {
        Some(at) => {
            Some(Touched { at: Timestamp::from_ms(at), by: text(TOUCHED_BY)?, why: optional(TOUCHED_WHY)? })
        }
        None => None,
    };
    let (code, words) = (text(REASON_CODE)?, text(REASON_TEXT)?);
    let reason = Reason::parse(&code);
    Ok(DeadLetter {
        id: read_id(item)?,
        source: read.text(SOURCE, |text| Ok::<_, Infallible>(Source::from_stored(text)))?,
        message_id: text(MESSAGE_ID)?,
        reason: reason.unwrap_or(Reason::Unknown),
        // A code of a newer program is told in words.
        reason_text: if reason.is_some() { words } else { format!("{code}: {words}") },
        receives: u32::try_from(read.number(RECEIVES)?).unwrap_or(u32::MAX),
        first_at: ms(FIRST_AT_MS)?,
        last_at: ms(LAST_AT_MS)?,
        summary: MessageSummary {
            kind: optional(KIND)?,
            track: read.optional(a::TRACK, TrackId::new)?,
            request_id: read.optional(a::REQUEST_ID, RequestId::parse)?,
            deadline: read.optional_number(a::DEADLINE_MS)?.map(Timestamp::from_ms),
            trace: optional(TRACE)?,
            asynchronous: item.get(a::ASYNC).is_some_and(|flag| flag.as_bool() == Ok(&true)),
        },
        replay_of: read.optional(REPLAY_OF, DeadLetterId::parse)?,
        attributes: read.text(ATTRIBUTES, serde_json::from_str::<BTreeMap<String, String>>)?,
        body: text(BODY)?,
        state: read.text(a::STATE, |text| Ok::<_, Infallible>(DeadLetterState::from_stored(text)))?,
        held_until: read.optional_number(HELD_UNTIL_MS)?.map(Timestamp::from_ms),
        touched,
    })
}

/// The id from an item's key, or from the key of a page's end.
pub(super) fn read_id(item: &Item) -> Result<DeadLetterId, StoreError> {
    Reader(item).text(SK, |text| DeadLetterId::parse(text).map_err(|error: InvalidDeadLetterId| error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_domain::Outcome;

    #[test]
    fn a_letter_reads_back_as_it_was_written_whatever_is_in_it() {
        let at = Timestamp::from_ms(1_795_368_969_123);
        let known = MessageSummary {
            kind: Some("allocate".to_owned()),
            track: Some(TrackId::new("student-1").unwrap()),
            request_id: Some(RequestId::parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap()),
            deadline: Some(at),
            trace: Some("00-x".to_owned()),
            asynchronous: true,
        };
        for (summary, body) in
            [(known, "{}"), (MessageSummary::default(), "\u{0}\u{1}\n\"\u{fffd} not JSON \u{1f4a5}")]
        {
            let id = DeadLetterId::of(Source::Requests, "m-1", body, at);
            let letter = DeadLetter {
                id: id.clone(),
                source: Source::Requests,
                message_id: "m-1".to_owned(),
                reason: Reason::MaxReceivesExceeded,
                reason_text: "words".to_owned(),
                receives: 5,
                first_at: at,
                last_at: at,
                summary,
                replay_of: Some(id),
                attributes: BTreeMap::from([("a\"b".to_owned(), "c\\".to_owned())]),
                body: body.to_owned(),
                state: DeadLetterState::Dead,
                held_until: None,
                touched: None,
            };
            assert_eq!(read(&write(&letter)).unwrap(), letter);
        }
    }

    #[test]
    fn the_outcome_of_a_dead_request_begins_as_the_condition_asks() {
        let outcome = Outcome::DeadLettered { reason: "malformed".to_owned() };
        let stored = a::write_outcome(&outcome);
        assert!(stored.as_s().unwrap().starts_with(DEAD_LETTERED), "{stored:?}");
        let other = a::write_outcome(&Outcome::Expired);
        assert!(!other.as_s().unwrap().starts_with(DEAD_LETTERED));
    }
}
