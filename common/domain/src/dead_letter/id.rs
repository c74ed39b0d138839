//! The id of a dead letter.

use std::fmt;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Source;
use crate::Timestamp;

/// The number of partitions for dead letters. Stored: it must never change.
pub const DEAD_LETTER_SHARDS: u8 = 4;
/// Digits of the time and of the digest in an id.
const TIME_DIGITS: usize = 13;
const DIGEST_DIGITS: usize = 32;

/// The id of a dead letter: when its message was first sent, and a digest of queue, message id and text. Ids sort by
/// time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DeadLetterId(String);

/// A text that is not the id of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a dead letter: {TIME_DIGITS} digits, a hyphen, {DIGEST_DIGITS} of 0-9 a-f")]
pub struct InvalidDeadLetterId;

impl DeadLetterId {
    /// The id for the message `message_id` of `source` with the text `body`, first sent at `sent_at`. The digest covers
    /// the text, so a message that claims another message's id cannot replace that message's dead letter, or its own.
    pub fn of(source: Source, message_id: &str, body: &str, sent_at: Timestamp) -> Self {
        let digest =
            Sha256::digest(format!("{}\n{}\n{message_id}\n{body}", source.as_str(), message_id.len()));
        Self(format!("{}-{}", Self::time(sent_at), hex::encode(&digest[..DIGEST_DIGITS / 2])))
    }

    /// The prefix of the ids of messages that were first sent at `at`.
    pub fn time(at: Timestamp) -> String {
        format!("{:0TIME_DIGITS$}", at.as_ms())
    }

    /// Parses an id.
    pub fn parse(text: &str) -> Result<Self, InvalidDeadLetterId> {
        let (time, digest) = text.split_once('-').ok_or(InvalidDeadLetterId)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let fits = time.len() == TIME_DIGITS
            && time.bytes().all(|byte| byte.is_ascii_digit())
            && digest.len() == DIGEST_DIGITS
            && digest.bytes().all(hex);
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidDeadLetterId) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition that holds it.
    pub fn shard(&self) -> u8 {
        let last = self.0.bytes().next_back().and_then(|digit| char::from(digit).to_digit(16)).unwrap_or(0);
        u8::try_from(last % u32::from(DEAD_LETTER_SHARDS)).unwrap_or(0)
    }
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn the_id_of_a_letter_is_what_it_always_was() {
        let id = DeadLetterId::of(Source::Requests, "m-1", "{}", at(1_795_368_969_123));
        assert_eq!(id.as_str(), "1795368969123-9717c11081b24aa83121238e8be1c786");
        assert_eq!((id.shard(), DeadLetterId::parse(id.as_str())), (2, Ok(id)));
    }

    #[test]
    fn an_id_is_refused_for_any_one_thing_that_is_wrong_with_it() {
        let digest = "9717c11081b24aa83121238e8be1c786";
        for bad in [
            format!("179536896912-{digest}"),
            format!("1795368969l23-{digest}"),
            format!("1795368969123-{}", &digest[1..]),
            format!("1795368969123-0{digest}"),
            format!("1795368969123-{}", digest.to_uppercase()),
            format!("1795368969123{digest}"),
        ] {
            assert_eq!(DeadLetterId::parse(&bad), Err(InvalidDeadLetterId), "{bad}");
        }
    }

    #[test]
    fn letters_spread_evenly_over_the_shards() {
        let mut counts = [0_u32; DEAD_LETTER_SHARDS as usize];
        for n in 0..4_000 {
            counts[usize::from(DeadLetterId::of(Source::Requests, &format!("m-{n}"), "", at(n)).shard())] +=
                1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn nothing_but_an_id_is_one(text in "\\PC{0,60}") {
            if let Ok(id) = DeadLetterId::parse(&text) {
                prop_assert_eq!(id.as_str().len(), TIME_DIGITS + 1 + DIGEST_DIGITS);
                prop_assert!(id.shard() < DEAD_LETTER_SHARDS);
            }
        }

        #[test]
        fn ids_differ_as_their_messages_and_sort_by_time(
            a in "[ -~\n]{0,20}",
            b in "[ -~\n]{0,20}",
            x in "[ -~\n]{0,20}",
            y in "[ -~\n]{0,20}",
            t in 1_u64..9_999_999_999_999,
        ) {
            let of_ax = DeadLetterId::of(Source::Requests, &a, &x, at(t));
            prop_assert_eq!(of_ax == DeadLetterId::of(Source::Requests, &b, &y, at(t)), (&a, &x) == (&b, &y));
            prop_assert!(DeadLetterId::of(Source::Maintenance, &a, &x, at(t)) != of_ax);
            prop_assert!(DeadLetterId::of(Source::Requests, &b, &y, at(t - 1)) < of_ax);
        }
    }
}
